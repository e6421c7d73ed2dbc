"""The database of a ledger: connections, its tables, and the steps from older formats.

The format is checked before anything else is read. A ledger that is opened for writing is
migrated in its place; one that is only read is copied into memory and migrated there. Each step
to the next format is one function, tested on a ledger that the release before it wrote.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, Final, TypeAlias

import msgspec

from .._core.errors import CorruptLedgerError, LedgerError

__all__ = [
    "FORMAT",
    "SCHEMA",
    "check_format",
    "check_whole",
    "migrate",
    "migrated_copy",
]

FORMAT: Final = 5
_OLDEST: Final = 2  # 1 was never released.

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, owner TEXT NOT NULL, container TEXT NOT NULL,
    component TEXT NOT NULL, digest BLOB, size INTEGER NOT NULL, mode INTEGER,
    inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    recorded_ns INTEGER NOT NULL, made INTEGER NOT NULL, declared INTEGER NOT NULL,
    unsynced INTEGER NOT NULL, target TEXT NOT NULL, asked_ns INTEGER,
    seen INTEGER NOT NULL DEFAULT 0, source_inode INTEGER NOT NULL DEFAULT 0,
    source_ctime_ns INTEGER NOT NULL DEFAULT 0, copied INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS copied ON rows (digest) WHERE copied;
CREATE TABLE IF NOT EXISTS displaced (
    name TEXT NOT NULL, owner TEXT NOT NULL, container TEXT NOT NULL,
    component TEXT NOT NULL, "by" TEXT NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (name, owner, container)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (
    batch TEXT NOT NULL, owner TEXT NOT NULL, part INTEGER NOT NULL, notes BLOB NOT NULL,
    PRIMARY KEY (batch, owner, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    identity TEXT PRIMARY KEY, since_ns INTEGER NOT NULL, "by" TEXT NOT NULL,
    database TEXT NOT NULL, place TEXT NOT NULL, epoch TEXT NOT NULL,
    batches INTEGER NOT NULL, in_doubt INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS policies (
    owner TEXT NOT NULL, container TEXT NOT NULL, copies TEXT, on_conflict TEXT,
    PRIMARY KEY (owner, container)
) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('format', {FORMAT});
"""


_STORED: Final = {*re.findall(r"(CREATE (?:TABLE|INDEX)) IF NOT EXISTS (\w+)", SCHEMA)}
"""What a release stores: how each begins, and its name."""


def check_format(connection: sqlite3.Connection, file: str) -> int:
    """Returns the format of a ledger; 0 if it has no tables yet.

    Args:
        connection: Its database.
        file: Its path, for messages.

    Raises:
        CorruptLedgerError: There is none, or one that no release wrote.
        LedgerError: A newer release wrote it.
    """
    schema = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    if not schema:
        return 0
    # A newer format may have other tables, so it is known before they are judged.
    stored = {(str(sql)[:12], name) for _, name, sql in schema}
    sql = "SELECT value FROM meta WHERE key = 'format'"
    row = connection.execute(sql).fetchone() if ("CREATE TABLE", "meta") in stored else None
    found = row[0] if row is not None else None
    if not isinstance(found, int):
        raise CorruptLedgerError(f"{file}: has no format")
    if found > FORMAT:
        problem = f"has format {found}; this version knows up to {FORMAT}"
        hint = "update cocoindex-fsmirror to the version that wrote it, or a later one"
        raise LedgerError(f"{file}: {problem} ({hint})")
    if found < _OLDEST:
        raise CorruptLedgerError(f"{file}: has format {found}, of before the first release")
    for kind, name, sql in schema:
        is_ours = (str(sql)[:12], name) in _STORED  # A trigger may have the name of a table.
        if not is_ours and not str(name).startswith("sqlite_"):  # As SQLite names its own.
            raise CorruptLedgerError(f"{file}: holds a {kind} that no release stores, {name!r}")
    # To SQLite every blob follows every text, so that queries for spans of names skip it.
    if connection.execute("SELECT 1 FROM rows WHERE name >= x'' LIMIT 1").fetchone():
        raise CorruptLedgerError(f"{file}: holds a name that is no text")
    return found


# To SQLite numbers come before text, and text before blobs; ``|`` makes any value an integer.
_SOUND: Final = """
    kind IN ('file', 'link', 'dir') AND declared IN (kind <> 'dir', 1)
    AND owner >= '' AND owner < x'' AND container >= '' AND container < x''
    AND component >= '' AND component < x'' AND target >= '' AND target < x''
    AND (digest IS NULL OR digest >= x'' AND length(digest) = 16)
    AND size >= 0 AND size = size | 0
    AND coalesce(mode, 0) BETWEEN 0 AND 4095 AND coalesce(mode, 0) = coalesce(mode, 0) | 0
    AND coalesce(asked_ns, 0) = coalesce(asked_ns, 0) | 0
    AND inode = inode | 0 AND mtime_ns = mtime_ns | 0 AND ctime_ns = ctime_ns | 0
    AND recorded_ns = recorded_ns | 0
    AND source_inode = source_inode | 0 AND source_ctime_ns = source_ctime_ns | 0
    AND made IN (0, 1) AND unsynced IN (0, 1) AND seen IN (0, 1)
    AND copied IN (0, 1)
"""


def check_whole(connection: sqlite3.Connection, file: str) -> None:
    """Reads a whole ledger of this version, and refuses one that is damaged anywhere.

    A damaged page may hide rows that nobody would miss. Of 100,000 rows ``integrity_check``
    takes 35 ms (``quick_check`` 32), and the values of the rows take 60.

    Args:
        connection: Its database.
        file: Its path, for messages.

    Raises:
        CorruptLedgerError: Something in it is none of what a release stores.
    """
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise CorruptLedgerError(f"{file}: is damaged: {found}")
    row = connection.execute(f"SELECT name FROM rows WHERE NOT ({_SOUND}) LIMIT 1").fetchone()
    if row is not None:
        raise CorruptLedgerError(f"{file}: holds a row that no release stores, of {row[0]!r}")


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Brings a ledger to the format of this version.

    Args:
        connection: Its database; in a transaction, if it is kept.
        found: The format that it has.

    Raises:
        msgspec.DecodeError, TypeError: It holds what that format does not.
    """
    for step in _STEPS[found - _OLDEST :]:
        step(connection)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (FORMAT,))


def migrated_copy(connection: sqlite3.Connection, found: int) -> sqlite3.Connection:
    """Copies a ledger of an older format into memory, and migrates the copy.

    Args:
        connection: Its database, which is not changed.
        found: The format that it has.

    Raises:
        msgspec.DecodeError, TypeError: It holds what that format does not.
    """
    with ExitStack() as opened:
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        copy.text_factory = connection.text_factory
        opened.enter_context(closing(copy))
        connection.backup(copy)
        migrate(copy, found)
        opened.pop_all()
    return copy


def _from_2_to_3(connection: sqlite3.Connection) -> None:
    """Splits ``doubt`` (0 none, 1 seen, 2 unsynced) into two booleans; makes room for sources."""
    execute = connection.execute
    execute("ALTER TABLE rows RENAME COLUMN doubt TO unsynced")
    for column in ("seen", "source_inode", "source_ctime_ns"):
        execute(f"ALTER TABLE rows ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    execute("UPDATE rows SET unsynced = unsynced = 2, seen = unsynced = 1 WHERE unsynced")
    # Notes of ``fsmirror sync`` about a listing that it mirrored whole; now it compares paths.
    execute("DELETE FROM meta WHERE key LIKE 'note:sync: what was mirrored%'")
    execute("DELETE FROM meta WHERE key LIKE 'note:sync: listings with%'")
    packed = execute("SELECT batch, owner, part, notes FROM intents").fetchall()
    repacked = [(_notes_of_3(notes), *key) for *key, notes in packed]
    sql = "UPDATE intents SET notes = ? WHERE batch = ? AND owner = ? AND part = ?"
    connection.executemany(sql, repacked)


_Notes: TypeAlias = list[tuple[str, str, bool, list[Any]]]
"""Packed notes, each of which ends with a row of format 2."""


def _notes_of_3(packed: bytes) -> bytes:
    """Repacks the notes of a batch: each ends with a row."""
    notes = msgspec.msgpack.decode(packed, type=_Notes, strict=False)
    for *_, row in notes:
        if len(row) != _FIELDS_OF_2:
            raise TypeError("an intent with a row of another format")
        doubt = row[_DOUBT]
        row[_DOUBT : _DOUBT + 1] = [doubt == 2, doubt == 1]
    return msgspec.msgpack.encode(notes)


def _from_3_to_4(connection: sqlite3.Connection) -> None:
    """Moves the owners from texts in ``meta`` to a table of their own."""
    execute = connection.execute
    execute(
        "CREATE TABLE owners (identity TEXT PRIMARY KEY, since_ns INTEGER NOT NULL,"
        ' "by" TEXT NOT NULL, database TEXT NOT NULL, place TEXT NOT NULL, epoch TEXT NOT NULL,'
        " batches INTEGER NOT NULL, in_doubt INTEGER NOT NULL) WITHOUT ROWID"
    )
    found = execute("SELECT substr(key, 7), value FROM meta WHERE key LIKE 'owner:%'").fetchall()
    for identity, value in found:
        since, _, by = str(value).partition(" ")
        if not since.isdecimal():
            raise TypeError(f"an owner, {value!r}")
        # The path of a database, and the key in that; only an absolute one is told from a name.
        database, _, place = by.partition(" /")
        values = (identity, int(since), database, place and f"/{place}")
        execute("INSERT INTO owners VALUES (?, ?, ?, '', ?, '', 0, 0)", values)
    execute("DELETE FROM meta WHERE key LIKE 'owner:%'")


def _from_4_to_5(connection: sqlite3.Connection) -> None:
    """Makes room for copies: which contents have one, and the policies by which they are kept."""
    execute = connection.execute
    execute("ALTER TABLE rows ADD COLUMN copied INTEGER NOT NULL DEFAULT 0")
    execute("CREATE INDEX copied ON rows (digest) WHERE copied")
    execute(
        "CREATE TABLE policies (owner TEXT NOT NULL, container TEXT NOT NULL, copies TEXT,"
        " on_conflict TEXT, PRIMARY KEY (owner, container)) WITHOUT ROWID"
    )


_FIELDS_OF_2: Final = 17
_DOUBT: Final = 14
_STEPS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (
    _from_2_to_3,
    _from_3_to_4,
    _from_4_to_5,
)
