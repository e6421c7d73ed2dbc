"""The ledger: our memory of what we wrote, in ``<root>/.fsmirror/ledger.sqlite3``.

The engine forgets the children of a directory that is no longer declared, so
without this nobody could tell our files from the user's. SQLite in WAL mode
with ``synchronous=NORMAL`` loses its last commits in a power cut, but never its
consistency; what must not be lost is written before the first barrier of a batch.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import stat
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec.structs import astuple

from .._core.errors import InvalidNameError, LedgerError
from .._core.layout import LEDGER
from .._core.names import ROOT, Name, check_names, leaf
from .._core.rows import Displaced, Kind, Row
from .formats import (
    FORMAT,
    SCHEMA,
    CorruptLedgerError,
    check_format,
    migrate,
    migrated_copy,
)

__all__ = ["ALL", "CorruptLedgerError", "Ledger", "Pending", "Recorded", "Span"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")

_PAGE: Final = 4096  # rows that are read at a time where there may be very many
_IN: Final = 500  # values in one IN (...); SQLite's limit was 999 for long
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_HINTS: Final = {
    sqlite3.SQLITE_FULL: "free some space, then update again",
    sqlite3.SQLITE_READONLY: "grant this user write access",
    sqlite3.SQLITE_CANTOPEN: "grant this user write access",
    sqlite3.SQLITE_IOERR: "is there space left? else check the disk",
}

_NOTES: Final = 2048  # intents that are packed into one value; they are only read all together
_FIELDS: Final = ", ".join(Row.__struct_fields__)
_ROW: Final = ", ".join("?" * len(Row.__struct_fields__))


class Pending(msgspec.Struct, frozen=True, gc=False):
    """An intent that was written down before its step: what a crash may have left.

    ``home`` and ``entry`` tell the slot in the staging area of ``batch``;
    ``row`` is what the path should hold afterwards, unless it is a ``removal``.
    """

    batch: str
    home: Name
    entry: str
    removal: bool
    row: Row


Recorded: TypeAlias = tuple[Name, str, bool, int | None, int | None, int, int, int, int, int]
"""Name, kind, if an ``lstat`` can prove it, and mode, asked_ns, recorded_ns, inode, size, mtime_ns
and ctime_ns as in a row."""


class Span(NamedTuple):
    """Some of the names of a ledger: those after one and up to another, or only one."""

    after: Name = ROOT
    until: Name = ROOT
    only: Name = ROOT

    @property
    def condition(self) -> tuple[str, tuple[Name, ...]]:
        """A condition in SQL for which no other row is read, and its values."""
        if self.only:
            return "name > ? AND name = ?", (self.after, self.only)
        if self.until:
            return "name > ? AND name <= ?", (self.after, self.until)
        return "name > ?", (self.after,)


ALL: Final = Span()


class Ledger:
    """An open ledger. Every method raises :class:`LedgerError` if SQLite fails."""

    def __init__(self, connection: sqlite3.Connection, inode: int, file: str) -> None:
        self._connection = connection
        self.file = file
        self.inode = inode

    @classmethod
    def open(cls, path: str, folder: int, *, network: bool) -> Ledger:
        """Opens the ledger for writing; an empty file becomes one.

        Args:
            path: The path of the root.
            folder: The descriptor of our folder in it, which no link has led to.
            network: The root is on a network file system, where WAL does not work.

        Raises:
            CorruptLedgerError: What is there is no ledger.
            FileNotFoundError: Nothing is there.
            LedgerError: A newer release wrote it, or SQLite fails.
        """
        file = os.path.join(path, LEDGER)
        there = os.stat(leaf(LEDGER), dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(there.st_mode):
            raise CorruptLedgerError(f"{file}: not a regular file")
        with _translated(file):
            connection = sqlite3.connect(
                f"file:{_quoted(file)}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                # SQLite knows paths only, and a folder above may have become a link.
                if not _leads_to(file, there):
                    raise LedgerError(f"{file}: was replaced while we opened it")
                ledger = cls(connection, there.st_ino, file)
                found = None if ledger._is_new() else check_format(connection, file)
                mode, synchronous = ("DELETE", "FULL") if network else ("WAL", "NORMAL")
                connection.execute(f"PRAGMA journal_mode={mode}")
                connection.execute(f"PRAGMA synchronous={synchronous}")
                if found is None:
                    connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
                elif found < FORMAT:
                    with ledger.transaction():
                        migrate(connection, found)
                ledger._check(file)
            except BaseException:
                connection.close()
                raise
        return ledger

    @classmethod
    def peek(cls, path: str) -> Ledger | None:
        """Opens the ledger for reading, and changes nothing; ``None`` if there is none.

        A file that has no tables yet is none: they are made in one step, by the first writer.
        Raises :class:`LedgerError` if this user may not look. Without a write-ahead log
        nobody has it open, so that not even the lock files of a WAL reader are needed
        (SQLite's ``immutable``).
        """
        file = os.path.join(path, LEDGER)
        try:
            found = os.lstat(file)
            has_log = _is_there(f"{file}-wal")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            hint = "grant this user read access"
            raise LedgerError(f"{file}: can't be read: {error.strerror} ({hint})") from error
        if not stat.S_ISREG(found.st_mode):
            raise CorruptLedgerError(f"{file}: not a regular file")
        inode = found.st_ino
        options = "mode=ro" if has_log else "mode=ro&immutable=1"
        with _translated(file), contextlib.ExitStack() as opened:
            connection = sqlite3.connect(
                f"file:{_quoted(file)}?{options}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            opened.enter_context(contextlib.closing(connection))
            ledger = cls(connection, inode, file)
            if ledger._is_new():
                return None
            version = check_format(connection, file)
            if version < FORMAT:
                return cls(migrated_copy(connection, version), inode, file)
            opened.pop_all()
            return ledger

    @classmethod
    def empty(cls) -> Ledger:
        """One in memory, that knows nothing."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.executescript(SCHEMA)
        return cls(connection, 0, "a ledger in memory")

    def close(self) -> None:
        """Closes the database; the last one to do so folds the log into it."""
        self._connection.close()

    def check_format(self) -> None:
        """Refuses a ledger that a newer version has migrated since it was opened."""
        with _translated(self.file):
            check_format(self._connection, self.file)

    def _is_new(self) -> bool:
        """Whether it still has no tables."""
        return not self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()

    def _check(self, file: str) -> None:
        """Refuses what is damaged, and disbelieves a copy."""
        if self._connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise CorruptLedgerError(f"{file}: damaged")
        deque(self.names(), maxlen=0)
        if self.get_meta("inode") not in (None, self.inode):
            _log.warning("%s: was copied or restored; every file is read anew", file)
            self._connection.execute("UPDATE rows SET recorded_ns = 0")
        if self.get_meta("inode") != self.inode:
            self.set_meta("inode", self.inode)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside."""
        with _translated(self.file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself if the disk was full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    # Reading

    @property
    def is_believed(self) -> bool:
        """Whether its signatures were recorded by this very file, not by a copy's original."""
        return self.get_meta("inode") == self.inode

    def get_meta(self, key: str) -> object:
        """A value that belongs to the whole mirror, or ``None``."""
        with _translated(self.file):
            row = self._connection.execute(
                "SELECT value FROM meta WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else row[0]

    def rows(self, where: str = "TRUE", *values: str) -> list[Row]:
        """The rows that satisfy a condition, in the order of their names."""
        return list(self.each_row(where, *values))

    def page(self, span: Span) -> list[Row]:
        """Returns the first few rows of declared paths in a span, by name."""
        where, names = span.condition
        return list(self.each_row(f"declared AND {where}", *names, limit=_PAGE))

    def signatures(self, span: Span) -> list[Recorded]:
        """Returns what a look at the first few declared paths in a span needs, by name."""
        where, names = span.condition
        sql = (
            "SELECT name, kind, NOT (unsynced OR seen), mode, asked_ns, recorded_ns, inode, size,"
            f" mtime_ns, ctime_ns FROM rows WHERE declared AND {where} ORDER BY name LIMIT {_PAGE}"
        )
        with _translated(self.file):
            found = self._connection.execute(sql, names).fetchall()
        _check_names([recorded[0] for recorded in found])
        return found

    def middle(self) -> Name:
        """Returns the name that about one half of all follow; empty if there is none."""
        # Without a condition, which would have to look into every row.
        half = "SELECT count(*) / 2 FROM rows"
        names = self._names(f"SELECT name FROM rows ORDER BY name LIMIT 1 OFFSET ({half})")
        return next(names, ROOT)

    def each_row(self, where: str = "TRUE", *values: str, limit: int = -1) -> Iterator[Row]:
        """The same, one by one; nothing may be written meanwhile."""
        sql = f"SELECT {_FIELDS} FROM rows WHERE {where} ORDER BY name LIMIT {limit}"
        with _translated(self.file):
            cursor = self._connection.execute(sql, values)
            while some := cursor.fetchmany(_PAGE):
                _check_names([found[0] for found in some])
                yield from itertools.starmap(Row, some)

    def names(self, where: str = "TRUE", *values: str) -> Iterator[Name]:
        """Their names only; nothing may be written meanwhile."""
        yield from self._names(f"SELECT name FROM rows WHERE {where} ORDER BY name", *values)

    def _names(self, sql: str, *values: str) -> Iterator[Name]:
        """What a query for names finds."""
        with _translated(self.file):
            cursor = self._connection.execute(sql, values)
            while some := cursor.fetchmany(_PAGE):
                names: list[Name] = [name for (name,) in some]
                _check_names(names)
                yield from names

    def figures(self) -> tuple[int, int, int, int, int]:
        """How many owners, leaves and folders there are, their bytes, and the last record."""
        sql = (
            "SELECT count(DISTINCT owner), count(*) FILTER (WHERE kind <> ?),"
            " count(*) FILTER (WHERE kind = ?), sum(size), max(recorded_ns) FROM rows"
        )
        with _translated(self.file):
            found = self._connection.execute(sql, (Kind.DIR, Kind.DIR)).fetchone()
        owners, leaves, folders, size, recorded = (int(figure or 0) for figure in found)
        return owners, leaves, folders, size, recorded

    def rows_named(self, names: Iterable[Name]) -> dict[Name, Row]:
        """The rows of some names."""
        found: list[Row] = []
        with _translated(self.file):
            for chunk in _chunks(sorted(set(names))):
                marks = ",".join("?" * len(chunk))
                sql = f"SELECT {_FIELDS} FROM rows WHERE name IN ({marks}) ORDER BY name"
                found += itertools.starmap(Row, self._connection.execute(sql, chunk))
        _check_names([row.name for row in found])
        return {row.name: row for row in found}

    def rows_below(self, name: Name) -> list[Row]:
        """The rows of everything inside a folder."""
        return self.rows("name > ? AND name < ?", f"{name}/", f"{name}0")  # "0" follows "/"

    def rows_of(self, owner: str, container: str = "") -> list[Row]:
        """The rows of an owner, or of one of its containers and those below it."""
        return self.rows(
            "owner = ? AND substr(container, 1, length(?)) = ?", owner, container, container
        )

    def is_declared(self, name: Name, *, is_folder: bool) -> bool:
        """Whether a path, or something below it, is declared; of a folder, as a folder."""
        sql = "SELECT 1 FROM rows WHERE declared AND {} LIMIT 1"
        at = "name = ? AND kind = 'dir'" if is_folder else "name = ?"
        with _translated(self.file):
            execute = self._connection.execute
            if execute(sql.format(at), (name,)).fetchone():
                return True
            below = f"{name}/", f"{name}0"  # "0" follows "/"
            return execute(sql.format("name > ? AND name < ?"), below).fetchone() is not None

    def deserted(self, owner: str) -> list[Row]:
        """The folders that an owner made for what is no longer declared, the deepest first."""
        below = "below.name > rows.name || '/' AND below.name < rows.name || '0'"
        found = self.rows(
            "owner = ? AND kind = ? AND made AND NOT declared AND NOT EXISTS"
            f" (SELECT 1 FROM rows AS below WHERE {below} AND (declared OR kind <> ?))",
            *(owner, Kind.DIR, Kind.DIR),
        )
        return found[::-1]

    def count(self, owner: str = "") -> int:
        """How many files and links an owner has, or all have."""
        with _translated(self.file):
            sql = "SELECT count(*) FROM rows WHERE kind <> ? AND ? IN ('', owner)"
            return int(self._connection.execute(sql, (Kind.DIR, owner)).fetchone()[0])

    def is_empty(self) -> bool:
        """Whether nothing at all is managed."""
        with _translated(self.file):
            sql = "SELECT 1 FROM rows UNION ALL SELECT 1 FROM intents LIMIT 1"
            return self._connection.execute(sql).fetchone() is None

    def displaced(self) -> list[Displaced]:
        """Every declared path that had to give way."""
        with _translated(self.file):
            sql = 'SELECT name, owner, container, component, "by", seen FROM displaced'
            return [Displaced._make(found) for found in self._connection.execute(sql)]

    def pending(self) -> list[Pending]:
        """The intents that an interrupted batch left, by batch and name."""
        with _translated(self.file):
            sql = "SELECT batch, notes FROM intents ORDER BY batch, owner, part"
            found = self._connection.execute(sql).fetchall()
        notes = [Pending(batch, *note) for batch, packed in found for note in _unpacked(packed)]
        _check_names([note.row.name for note in notes])
        last = {(note.batch, note.home, note.entry): note for note in notes}
        return sorted(last.values(), key=lambda note: (note.batch, note.row.name))

    def owners(self) -> frozenset[str]:
        """Who writes here, according to this very file."""
        return frozenset(identity for identity, _, _ in self.known_owners())

    def known_owners(self) -> list[tuple[str, str, int]]:
        """Who writes here: the identity, who that is, and since when, in nanoseconds."""
        sql = "SELECT substr(key, 7), value FROM meta WHERE key LIKE 'owner:%'"
        with _translated(self.file):
            found = self._connection.execute(sql).fetchall()
        parts = [(identity, *str(value).partition(" ")) for identity, value in found]
        return [(identity, by, int(since or 0)) for identity, since, _, by in parts]

    def add_owner(self, identity: str, by: str, since_ns: int) -> None:
        """Somebody new writes here."""
        self.set_meta(f"owner:{identity}", f"{since_ns} {by}")

    # Writing

    def set_meta(self, key: str, value: object) -> None:
        """Stores a value that belongs to the whole mirror."""
        with _translated(self.file):
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def begin(self, intents: Sequence[Pending], *, durable: bool = False) -> None:
        """Writes down what a batch is about to do; for the same slot, the last note counts.

        Args:
            intents: Its steps.
            durable: Whether it must be on the disk now, instead of with the first barrier.
        """
        with _translated(self.file):
            if durable:
                self._connection.execute("PRAGMA synchronous=FULL")
            with self.transaction():
                for batch, owner, notes in _packed(intents):
                    sql = "SELECT count(*) FROM intents WHERE batch = ? AND owner = ?"
                    part = self._connection.execute(sql, (batch, owner)).fetchone()[0]
                    values = batch, owner, part, notes
                    self._connection.execute("INSERT INTO intents VALUES (?, ?, ?, ?)", values)
            if durable:
                self._connection.execute("PRAGMA synchronous=NORMAL")

    def commit(self, rows: Iterable[Row], gone: Iterable[Name], batch: str | None = None) -> None:
        """Records what is true now, and ends a batch.

        Args:
            rows: The rows to be stored.
            gone: The names that are no longer ours.
            batch: The batch whose intents are settled by this.
        """
        with self.transaction():
            execute = self._connection.executemany
            execute("DELETE FROM rows WHERE name = ?", ((name,) for name in gone))
            execute(f"INSERT OR REPLACE INTO rows ({_FIELDS}) VALUES ({_ROW})", map(_stored, rows))
            if batch is not None:
                self._connection.execute("DELETE FROM intents WHERE batch = ?", (batch,))

    def set_displaced(self, added: Iterable[Displaced], ended: Iterable[Displaced]) -> None:
        """Stores and removes notes of declarations that had to give way."""
        with self.transaction():
            self._connection.executemany(
                "DELETE FROM displaced WHERE name = ? AND owner = ? AND container = ?",
                (note[:3] for note in ended),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO displaced VALUES (?, ?, ?, ?, ?, ?)", added
            )

    def forget(self, owner: str) -> None:
        """Drops everything that is known of an owner."""
        with self.transaction():
            for table in ("rows", "displaced", "intents"):
                self._connection.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,))
            self._connection.execute("DELETE FROM meta WHERE key = ?", (f"owner:{owner}",))

    def set_seen(self, names: Iterable[Name], seen: bool) -> None:
        """Notes of some rows whether their drift was seen, and has not been healed."""
        with self.transaction():
            self._connection.executemany(
                "UPDATE rows SET seen = ? WHERE name = ?", ((+seen, name) for name in names)
            )


_Notes: TypeAlias = list[tuple[Name, str, bool, Row]]
"""Of each intent the home, the entry, whether it is a removal, and the row."""


def _packed(intents: Sequence[Pending]) -> Iterator[tuple[str, str, bytes]]:
    """Packs notes for the table of intents: an owner's can be dropped without being read."""
    by_owner: defaultdict[tuple[str, str], list[Pending]] = defaultdict(list)
    for intent in intents:
        by_owner[intent.batch, intent.row.owner].append(intent)
    for (batch, owner), some in by_owner.items():
        for start in range(0, len(some), _NOTES):
            part = some[start : start + _NOTES]
            notes: _Notes = [(note.home, note.entry, note.removal, note.row) for note in part]
            yield batch, owner, msgspec.msgpack.encode(notes)


def _unpacked(packed: bytes) -> _Notes:
    """What is in such a row."""
    try:
        # Not strict: a row that was read from the ledger has 0 and 1 for its booleans.
        return msgspec.msgpack.decode(packed, type=_Notes, strict=False)
    except (msgspec.DecodeError, TypeError) as error:
        raise CorruptLedgerError(f"holds an intent that can't be read: {error}") from error


def _stored(row: Row) -> tuple[object, ...]:
    """A row in the plain types that SQLite takes without asking around for an adapter."""
    name, kind, *same, made, declared, unsynced, seen, target, asked_ns, inode, ctime_ns = astuple(
        row
    )
    booleans = (+made, +declared, +unsynced, +seen)
    return (name, str(kind), *same, *booleans, target, asked_ns, inode, ctime_ns)


def _leads_to(file: str, there: os.stat_result) -> bool:
    """Whether a path leads to the file that was found in another way."""
    try:
        return os.path.samestat(os.stat(file), there)
    except OSError:
        return False


def _quoted(file: str) -> str:
    """A path in a URI."""
    return file.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _is_there(file: str) -> bool:
    """Whether a file is there; what can't be told is raised."""
    try:
        os.lstat(file)
    except FileNotFoundError:
        return False
    return True


def _check_names(names: list[Name]) -> None:
    """Refuses what we would never have stored; the file could have been made by anybody."""
    try:
        check_names(names)
    except (InvalidNameError, TypeError) as error:
        raise CorruptLedgerError(f"holds what is no name: {error}") from error


def _chunks(names: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Runs of at most as many as one statement takes."""
    return (names[start : start + _IN] for start in range(0, len(names), _IN))


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Raises our errors instead of SQLite's."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorruptLedgerError(f"{what}: holds what is no text") from error
    except sqlite3.Error as error:
        # Without a code it is Python's complaint about a value that can't be decoded.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _CORRUPT:
            raise CorruptLedgerError(f"{what}: {error}") from error
        hint = _HINTS.get(code, "")
        raise LedgerError(f"{what}: {error}" + (f" ({hint})" if hint else "")) from error
