"""Ledgers that releases wrote: each is read, and carried on from, with all that it knows.

``tests/ledgers/format-2.sql`` is the ledger of a mirror that release 0.1.0 kept, dumped with
``iterdump`` of :mod:`sqlite3`. ``format-3.sql`` and ``format-4.sql`` are the same ledger as the
releases with those formats carried it on; of the latter, ``A`` has an epoch, and ``B`` is in
doubt. The mirror went through this, with ``A`` and ``B`` as owners:

1. ``prepare`` of both; ``adopted.txt`` was there already.
2. A batch with a row of every kind, one of them of a container, then one of ``B``.
3. ``gives`` was written over ``gives/way``, and ``sub/x`` failed because of ``sub/inner.txt``:
   notes. ``seen.txt`` was edited, and ``prepare`` told what ``observe`` found. ``late`` failed
   because of ``gives``: a note that no update began with.
4. The second barrier of a batch with ``unsynced.txt`` failed.
5. A batch was interrupted before anything of it was in place.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cocoindex_fsmirror import LedgerError, Mirror
from cocoindex_fsmirror._core.errors import CorruptLedgerError
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Epoch, Owner
from cocoindex_fsmirror._core.rows import Displaced, Row
from cocoindex_fsmirror._disk.locations import Location
from cocoindex_fsmirror._mirror import formats as _formats
from cocoindex_fsmirror._mirror import reader as _reader
from cocoindex_fsmirror._mirror.drift import rows, suspects
from cocoindex_fsmirror._mirror.formats import FORMAT
from cocoindex_fsmirror._mirror.ledger import Ledger
from cocoindex_fsmirror._mirror.reader import LedgerReader
from tests.support import backups, contents, delete, exact_state, snapshot, write

KEPT = Path(__file__).parent.parent / "ledgers"
A, B = "owner-a", "owner-b"
FILES = {
    "adopted.txt": b"adopted",
    "d/dressed.txt": b"dressed",
    "d/plain.txt": b"plain",
    "gives": b"new",
    "gone.txt": b"gone",
    "seen.txt": b"edited",
    "sub/inner.txt": b"inner",
    "theirs.txt": b"of b",
    "unsynced.txt": b"unsynced",
}
UNSYNCED, SEEN = {"unsynced.txt"}, {"seen.txt", "sub/inner.txt"}
NOTES = [
    Displaced(Name("gives/way"), A, "", "/one", Name("gives"), seen=True),
    Displaced(Name("late"), A, "", "/three", Name("gives"), seen=False),
    Displaced(Name("sub/x"), A, "", "/two", Name("sub/inner.txt"), seen=True),
]
_DOUBT = 14  # The place of that column, and of that field in a packed row, in format 2.


def _kept(root: Path, version: int) -> Path:
    """Makes the ledger of a release in a root without any files."""
    file = root / ".fsmirror" / "ledger.sqlite3"
    file.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute("PRAGMA journal_mode=WAL")
        ledger.executescript((KEPT / f"format-{version}.sql").read_text())
        inode = file.stat().st_ino
        ledger.execute("UPDATE meta SET value = ? WHERE key = 'inode'", (inode,))
        ledger.execute("UPDATE meta SET value = ? WHERE key = 'origin'", (str(inode),))
        ledger.commit()
    return file


@pytest.fixture
def file(root: Path) -> Path:
    """The ledger of format 2."""
    return _kept(root, 2)


def _opened(root: Path) -> Ledger:
    """Opens the ledger for writing."""
    folder = os.open(root / ".fsmirror", os.O_RDONLY)
    try:
        return Ledger.open(str(root / ".fsmirror"), folder, str(root), wal=True)
    finally:
        os.close(folder)


def _peeked(root: Path) -> LedgerReader:
    """Opens the ledger for reading."""
    return LedgerReader.peek(Location(str(root)).spot)


def _rows_of_2(file: Path) -> dict[str, list[Any]]:
    """Returns the rows as the database holds them, by name."""
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        return {row[0]: list(row) for row in ledger.execute("SELECT * FROM rows")}


def _intents_of_2(file: Path) -> dict[str, list[Any]]:
    """Returns the packed notes of the unfinished batch, by the name of their row."""
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        packed = ledger.execute("SELECT notes FROM intents").fetchall()
    notes = [note for (notes,) in packed for note in msgspec.msgpack.decode(notes)]
    return {note[-1][0]: note for note in notes}


def _repack(file: Path, owner: str, doubt: int) -> None:
    """Sets the doubt in the packed row of an owner, which the dump does not have."""
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        (packed,) = ledger.execute("SELECT notes FROM intents WHERE owner = ?", (owner,)).fetchone()
        ((*note, row),) = msgspec.msgpack.decode(packed)
        row[_DOUBT] = doubt
        repacked = msgspec.msgpack.encode([[*note, row]])
        ledger.execute("UPDATE intents SET notes = ? WHERE owner = ?", (repacked, owner))
        ledger.commit()


def _from_2(row: list[Any]) -> Row:
    """Returns the row for a list of the fields of format 2."""
    doubt, target, asked_ns = row[_DOUBT:]
    fields = [*row[:_DOUBT], doubt == 2, doubt == 1, target, asked_ns, 0, 0, False]
    return Row(**dict(zip(Row.__struct_fields__, fields, strict=True)))


EPOCHS = {
    3: [(Epoch(), False), (Epoch(), False)],
    4: [(Epoch("0123456789abcdef0123456789abcdef", 3), False), (Epoch(), True)],
}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("open_ledger", [_opened, _peeked])
def test_ledger_of_a_later_format_is_read_with_every_value(
    root: Path, open_ledger: Any, version: int
) -> None:
    rows = _rows_of_2(_kept(root, version))
    with contextlib.closing(open_ledger(root)) as ledger:
        names = Row.__struct_fields__
        columns = [info[1] for info in ledger._connection.execute("PRAGMA table_info(rows)")]
        read = {row.name: [getattr(row, name) for name in columns] for row in ledger.rows()}
        assert {*columns} == {*names}
        assert {name: [*row, False] for name, row in rows.items()} == read
        owners = ledger.owners().values()
        assert [(each.epoch, each.in_doubt) for each in owners] == EPOCHS[version]
        assert len(ledger.pending()) == 6


@pytest.mark.parametrize("open_ledger", [_opened, _peeked])
def test_ledger_of_format_2_is_read_with_every_value(
    file: Path, root: Path, open_ledger: Any
) -> None:
    _repack(file, "owner-b", doubt=2)
    _repack(file, "", doubt=1)
    rows, intents = _rows_of_2(file), _intents_of_2(file)
    with contextlib.closing(open_ledger(root)) as ledger:
        assert ledger.get_meta("format") == FORMAT
        assert ledger.rows() == [_from_2(rows[name]) for name in sorted(rows)]
        assert {row.name for row in ledger.rows() if row.unsynced} == UNSYNCED
        assert {row.name for row in ledger.rows() if row.seen} == SEEN
        assert {row.name for row in ledger.rows() if row.made} == {*rows} - {"adopted.txt"}
        assert sorted(ledger.displaced()) == NOTES
        assert ledger.is_believed
        assert ledger.get_meta("note:source") == "/source"
        assert [(owner.identity, str(owner.declarer)) for owner in ledger.owners().values()] == [
            (A, "/state/flow.db pages"),
            (B, "/state/other.db site"),
        ]
        pending = {note.row.name: note for note in ledger.pending()}
        assert pending.keys() == {"gone.txt", "n", "n/deep.txt", "new.txt", "newlink", "other.txt"}
        for name, note in pending.items():
            home, entry, removal, row = intents[name]
            assert (note.home, note.entry, note.removal) == (home, entry, removal)
            assert note.row == _from_2(row)


def test_migrated_ledger_has_the_tables_of_a_new_one(file: Path, root: Path) -> None:
    def columns(ledger: LedgerReader) -> dict[str, list[Any]]:
        tables = ("meta", "rows", "owners", "displaced", "intents", "policies")
        execute = ledger._connection.execute
        infos = {table: execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
        return {table: [info[:4] + info[5:] for info in found] for table, found in infos.items()}

    with (
        contextlib.closing(_opened(root)) as migrated,
        contextlib.closing(Ledger.empty()) as new,
    ):
        assert columns(migrated) == columns(new)


def test_walk_through_an_older_format_migrates_one_copy(
    file: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, copies = _formats.migrated_copy, list[int]()

    def migrated_copy(connection: sqlite3.Connection, version: int) -> sqlite3.Connection:
        copies.append(version)
        return real(connection, version)

    monkeypatch.setattr(_reader, "PAGE", 1)
    monkeypatch.setattr(_reader, "migrated_copy", migrated_copy)
    for walk in (rows, suspects):
        copies.clear()
        assert len([*walk(str(root))]) > 3
        assert copies == [2]


def test_peek_at_an_older_format_changes_nothing_on_disk(file: Path, root: Path) -> None:
    before = exact_state(root)
    with contextlib.closing(_peeked(root)) as ledger:
        assert ledger.rows()
    assert Mirror(root).observe().names
    assert exact_state(root) == before


def test_peek_at_an_older_format_reads_names_that_are_no_text(file: Path, root: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute("UPDATE rows SET name = CAST(x'ff' AS TEXT) WHERE name = 'theirs.txt'")
        ledger.commit()
    with contextlib.closing(_peeked(root)) as peeked:
        assert "\udcff" in {row.name for row in peeked.rows()}


def test_failed_migration_changes_nothing(file: Path, root: Path) -> None:
    """The bad notes of a batch come after the rows, which are migrated by then."""
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute("UPDATE intents SET notes = x'9194a0a131c293a12f' WHERE owner = ''")
        ledger.commit()
    before = _rows_of_2(file)
    for open_ledger in (_opened, _peeked):
        with pytest.raises(CorruptLedgerError, match="no release stores"):
            open_ledger(root)
    assert _rows_of_2(file) == before


@pytest.mark.parametrize(
    "notes", ["x'ff'", "x'9194a0a131c293a12f'", "x'9191a0'", "x'9194a0a130c291a178'", "'text'", "5"]
)
def test_unreadable_intents_of_format_2_are_a_corrupt_ledger(
    file: Path, root: Path, notes: str
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute(f"UPDATE intents SET notes = {notes}")
        ledger.commit()
    with pytest.raises(CorruptLedgerError, match="intent"):
        _opened(root)


@pytest.mark.parametrize("owner", ["", "soon /p/db", "soon"])
def test_unreadable_owner_of_an_earlier_format_is_a_corrupt_ledger(
    file: Path, root: Path, owner: str
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute("UPDATE meta SET value = ? WHERE key LIKE 'owner:%'", (owner,))
        ledger.commit()
    for open_ledger in (_opened, _peeked):
        with pytest.raises(CorruptLedgerError, match="no release stores: an owner"):
            open_ledger(root)


def test_notes_that_sync_has_no_use_for_any_more_go(file: Path, root: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        for key in ("what was mirrored of", "listings with", "identity of"):
            ledger.execute("INSERT INTO meta VALUES (?, 'x')", (f"note:sync: {key} /s",))
        ledger.commit()
    with contextlib.closing(_opened(root)) as opened:
        found = opened._connection.execute("SELECT key FROM meta WHERE key LIKE 'note:sync%'")
        assert {key for (key,) in found if "/s" in key} == {"note:sync: identity of /s"}


# A kept mirror goes on


@pytest.fixture(params=[2, 3])
def kept(request: pytest.FixtureRequest, root: Path) -> Path:
    """The mirror of a kept ledger, with the files as the release left them."""
    file = _kept(root, request.param)
    for name, content in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    (root / "sub").chmod(0o750)
    (root / "d" / "dressed.txt").chmod(0o600)
    os.utime(root / "d" / "dressed.txt", ns=(0, 1_700_000_000_000_000_005))
    (root / "link").symlink_to("d/plain.txt")
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        for name in (*FILES, "link"):
            seen = (root / name).lstat()
            signature = (seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ctime_ns + 1)
            sql = "UPDATE rows SET inode = ?, mtime_ns = ?, ctime_ns = ?, recorded_ns = ?"
            ledger.execute(f"{sql} WHERE name = ?", (*signature, name))
        ledger.execute("DELETE FROM displaced")
        ledger.commit()
    return root


def test_rows_of_an_earlier_release_keep_ownership_and_drift(kept: Path) -> None:
    drift = Mirror(kept).observe()
    unfinished = {"gone.txt", "n", "n/deep.txt", "new.txt", "newlink", "other.txt"}
    assert drift.names == {"seen.txt", "unsynced.txt"} | unfinished
    assert drift.stale == {A}
    assert drift.owners.keys() == {A, B}
    with Mirror(kept) as mirror:
        mirror.prepare(Owner(A), drift)
        assert mirror.observe().stale == {A}
        gone = ("gone.txt", "sub/inner.txt", "theirs.txt")
        intents = [write(name, content) for name, content in FILES.items() if name not in gone]
        inner = write("sub/inner.txt", b"inner", container="sub//")
        mirror.apply([*intents, write("seen.txt", b"seen"), inner, delete("gone.txt")])
        assert mirror.verify() == []
        assert backups(kept) == [b"edited"]
        mirror.tear_down(B)
        mirror.tear_down(A)
    assert contents(snapshot(kept)) == {"adopted.txt": b"adopted"}


# Newer formats


def _migrate_further(file: Path) -> None:
    """Migrates the ledger to the next format, as a newer release may do."""
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute("UPDATE meta SET value = ? WHERE key = 'format'", (FORMAT + 1,))
        ledger.execute("ALTER TABLE rows RENAME COLUMN made TO created")
        ledger.execute("CREATE TABLE contents (digest BLOB)")
        ledger.execute("CREATE INDEX by_digest ON rows (digest)")
        ledger.commit()


@pytest.mark.parametrize("open_ledger", [_opened, _peeked])
def test_newer_format_is_refused_by_name_with_a_remedy(
    file: Path, root: Path, open_ledger: Any
) -> None:
    _migrate_further(file)
    before = file.read_bytes()
    formats = f"has format {FORMAT + 1}; this version knows up to {FORMAT}"
    problem = rf"{formats} \(update cocoindex-fsmirror .*\)"
    with pytest.raises(LedgerError, match=problem) as refusal:
        open_ledger(root)
    assert type(refusal.value) is LedgerError
    assert file.read_bytes() == before


def test_ledger_migrated_meanwhile_by_a_newer_release_stays(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    _migrate_further(root / ".fsmirror" / "ledger.sqlite3")
    with pytest.raises(LedgerError, match=f"has format {FORMAT + 1}"):
        mirror.apply([write("x", b"2")])
    assert not [path for path in (root / ".fsmirror").iterdir() if "corrupt" in path.name]
    assert snapshot(root) == {"x": b"1"}


@pytest.mark.parametrize("open_ledger", [_opened, _peeked])
def test_format_before_the_first_release_is_corrupt(
    file: Path, root: Path, open_ledger: Any
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute("UPDATE meta SET value = 1 WHERE key = 'format'")
        ledger.commit()
    with pytest.raises(CorruptLedgerError, match="has format 1"):
        open_ledger(root)


@pytest.mark.parametrize("change", ["DELETE FROM meta WHERE key = 'format'", "DROP TABLE meta"])
@pytest.mark.parametrize("open_ledger", [_opened, _peeked])
def test_ledger_without_a_format_is_corrupt(
    file: Path, root: Path, open_ledger: Any, change: str
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        ledger.execute(change)
        ledger.commit()
    with pytest.raises(CorruptLedgerError):
        open_ledger(root)
