"""DriftReport is noticed: by a look, within a tick, and by content where a look can't tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import Mirror, RootError
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.states import digest_of
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import copying as _copying
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._disk.roots import open_root
from cocoindex_fsmirror._disk.staging import Slot, Staging
from cocoindex_fsmirror._mirror import apply as _apply_module
from cocoindex_fsmirror._mirror import drift as _drift
from cocoindex_fsmirror._mirror import look as _observe
from cocoindex_fsmirror._mirror import reader as _reader
from cocoindex_fsmirror._mirror.drift import DriftReport, differences, has_drifted
from cocoindex_fsmirror._mirror.formats import CorruptLedgerError
from cocoindex_fsmirror._mirror.reading import row as row_of
from cocoindex_fsmirror._mirror.suspects import rows
from tests.steps import quiet_state
from tests.support import OWNER, delete, folder, ledger_rows, write


@pytest.fixture
def x(mirror: Mirror, root: Path) -> Path:
    """A managed file among others."""
    mirror.apply([write("d/x", b"abc", component="/one"), write("y", b"1", mode=0o644)])
    return root / "d" / "x"


def _edit(x: Path) -> None:
    x.write_bytes(b"longer than before")


def _same_size(x: Path) -> None:
    with x.open("r+b") as file:
        file.write(b"ABC")


def _same_size_and_time(x: Path) -> None:
    before = x.stat()
    _same_size(x)
    os.utime(x, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(x: Path) -> None:
    other = x.with_name("other")
    other.write_bytes(b"ABC")
    shutil.copystat(x, other)
    other.rename(x)


def _link(x: Path) -> None:
    x.rename(x.with_name("moved"))
    x.symlink_to("moved")


def _parent_link(x: Path) -> None:
    x.parent.rename(x.parent.with_name("moved"))
    x.parent.symlink_to("moved")


def _folder(x: Path) -> None:
    x.unlink()
    x.mkdir()


def _fifo(x: Path) -> None:
    x.unlink()
    os.mkfifo(x)


def _parent_gone(x: Path) -> None:
    shutil.rmtree(x.parent)


DRIFTS = [
    _edit,
    _same_size,
    _same_size_and_time,
    _replace,
    _link,
    _parent_link,
    _folder,
    _fifo,
    Path.unlink,
    _parent_gone,
]


def _looks(mirror: Mirror) -> list[DriftReport]:
    """What each way of looking finds."""
    return [
        mirror.observe(),
        mirror.observe(content=True),
        asyncio.run(asyncio.to_thread(mirror.observe, content=True)),
    ]


@pytest.mark.parametrize("happens", DRIFTS)
def test_drift_is_noticed_and_healed(
    mirror: Mirror, root: Path, x: Path, happens: Callable[[Path], None]
) -> None:
    happens(x)
    before = quiet_state(root)
    for found in _looks(mirror):
        assert found.names == {"d/x"}
        assert found.components == {(OWNER, "/one")}
    assert has_drifted(mirror.root, write("d/x").name)
    assert not has_drifted(mirror.root, write("y").name)
    assert quiet_state(root) == before
    if happens is not _folder:
        mirror.apply([write("d/x", b"abc")])
        assert not x.parent.is_symlink()
        assert x.read_bytes() == b"abc"
        assert mirror.verify(content=True) == []


def test_a_mode_is_drift_only_if_it_was_asked_for(mirror: Mirror, root: Path, x: Path) -> None:
    x.chmod(0o600)
    assert mirror.verify() == []
    (root / "y").chmod(0o600)
    assert mirror.verify() == ["y"]


def test_a_touched_file_is_refreshed_and_no_drift(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    while coarse_now_ns() <= x.lstat().st_ctime_ns:
        os.sched_yield()  # A touch within this tick of the clock could hide an edit.
    for found in _looks(mirror):
        assert found.names == set()
        assert [row.name for row in found.refreshed] == ["d/x"]
    mirror.prepare(OWNER, mirror.observe())
    assert mirror.observe().refreshed == ()


def test_a_refreshed_row_does_not_overwrite_a_newer_one(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    found = mirror.observe()
    mirror.apply([write("d/x", b"newer")])
    mirror.prepare(OWNER, found)
    assert mirror.verify() == []
    assert mirror.verify(content=True) == []


def test_the_whole_root_gone_is_drift_of_everything(mirror: Mirror, root: Path, x: Path) -> None:
    (root / "y").unlink()
    before = {"d/x", "y"}
    ledger = root.with_name("ledger")
    shutil.copytree(root / ".fsmirror", ledger)
    shutil.rmtree(root)
    assert mirror.observe() == DriftReport()
    with pytest.raises(RootError, match="no mirror"):
        mirror.verify()
    root.mkdir()
    shutil.move(ledger, root / ".fsmirror")
    assert set(mirror.verify()) == before
    assert not root.joinpath("y").exists()


def test_a_declared_folder_that_was_removed_or_replaced_is_drift(
    mirror: Mirror, root: Path
) -> None:
    mirror.apply([folder("d"), folder("e"), write("f/x", b"1")])
    (root / "d").rmdir()
    (root / "e").rmdir()
    (root / "e").write_bytes(b"file")
    assert mirror.verify() == ["d", "e"]


def test_an_unfinished_batch_counts_as_drift(mirror: Mirror, root: Path, x: Path) -> None:
    def dies(*_args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cocoindex_fsmirror._mirror.batch.record", dies)
        with pytest.raises(KeyboardInterrupt):
            mirror.apply([write("d/x", b"2"), delete("y")])
    assert {"d/x", "y"} <= mirror.observe().names
    mirror.apply([write("d/x", b"2"), delete("y")])
    assert mirror.verify() == []


class _Clock:
    """A clock that stands still, at the latest stamp of the files that are there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> int:
        return self._path.lstat().st_ctime_ns


def test_an_edit_in_the_tick_of_the_record_is_noticed(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    mirror.apply([write("x", b"abc")])
    (root / "x").write_bytes(b"old")
    for module in (_calls, _observe, _drift, _apply_module):
        monkeypatch.setattr(module, "coarse_now_ns", _Clock(root / "x"))
    mirror.apply([write("x", b"abc")])
    (root / "x").write_bytes(b"ABC")
    _pretend_unchanged(root, "x")
    assert mirror.verify() == ["x"]


def test_whole_second_stamps_are_believed_only_after_their_second(mirror: Mirror) -> None:
    from cocoindex_fsmirror._core.signatures import Signature, proves

    second = 1_000_000_000
    stamped = Signature(1, 3, 5 * second, 5 * second)
    assert not proves(stamped, stamped, 5 * second + second // 2)
    assert proves(stamped, stamped, 6 * second)


def _pretend_unchanged(root: Path, name: str, *, recorded: bool = False) -> None:
    """Makes the row of a file agree with what ``lstat`` says of it now."""
    seen = (root / name).lstat()
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute(
            "UPDATE rows SET inode = ?, size = ?, mtime_ns = ?, ctime_ns = ? WHERE name = ?",
            (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, name),
        )
        if recorded:
            later = seen.st_ctime_ns + 10**9
            ledger.execute("UPDATE rows SET recorded_ns = ? WHERE name = ?", (later, name))
        ledger.commit()


def test_an_edit_that_kept_size_times_and_inode_is_found_by_content(
    mirror: Mirror, root: Path, x: Path
) -> None:
    _same_size(x)
    _pretend_unchanged(root, "d/x", recorded=True)
    assert mirror.verify() == []
    assert mirror.verify(content=True) == ["d/x"]
    assert asyncio.run(asyncio.to_thread(mirror.observe, content=True)).names == {"d/x"}


def test_an_edit_is_noticed_by_its_ctime_though_the_clock_was_set_back(
    mirror: Mirror, root: Path, x: Path
) -> None:
    _pretend_unchanged(root, "d/x", recorded=True)
    assert mirror.verify() == []
    _same_size_and_time(x)
    assert mirror.verify() == ["d/x"]


def test_reading_contents_lets_others_have_their_turn(mirror: Mirror, root: Path) -> None:
    size = 32 << 20
    mirror.apply([write("large", b"x" * size)])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> DriftReport:
        other = asyncio.create_task(others())
        found = await asyncio.to_thread(mirror.observe, content=True)
        other.cancel()
        return found

    assert asyncio.run(both()).names == set()
    assert turns >= size // _copying._CHUNK


def test_an_older_look_does_not_make_a_newer_record_older(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    while coarse_now_ns() <= x.lstat().st_ctime_ns:
        os.sched_yield()
    older = mirror.observe()
    assert older.refreshed
    while coarse_now_ns() <= older.refreshed[0].recorded_ns:
        os.sched_yield()
    newer = mirror.observe()
    for look in (newer, older):
        mirror.prepare(OWNER, look)
    with contextlib.closing(sqlite3.connect(x.parents[1] / ".fsmirror/ledger.sqlite3")) as database:
        found = database.execute("SELECT recorded_ns FROM rows WHERE name = 'd/x'").fetchone()
    assert found == (newer.refreshed[0].recorded_ns,)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_large_ledger_is_read_some_rows_at_a_time_while_others_write(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    names = [f"d{number}/{number}" for number in range(7)]
    mirror.apply([write(name) for name in names])
    monkeypatch.setattr(_reader, "PAGE", size)
    changed = {names[0], names[2], names[3], names[6]}
    for name in changed:
        (root / name).write_bytes(b"edited")
    for found in _looks(mirror):
        assert found.names == changed
    assert {each.name for each in differences(mirror.root)} == changed
    walk = rows(mirror.root)
    first = next(walk)
    mirror.apply([delete(names[-2]), write("later")])
    rest = [str(row.name) for row in walk]
    assert [str(first.name), *rest][:5] == names[:5]
    if size < 3:
        assert rest[4:] == [names[-1], "later"]


def test_a_mode_that_was_changed_before_we_looked_again_is_drift(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has the ``ctime`` of that change, so that it proves the content only."""
    real = Staging.put

    def put(staging: Staging, slot: Slot, name: Name) -> None:
        real(staging, slot, name)
        (root / name).chmod(0o604)
        time.sleep(0.02)  # More than a tick: the look proves what it sees.

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "put", put)
        mirror.apply([write("asked", b"1", mode=0o640), write("not", b"1")])
    assert mirror.verify() == ["asked"]
    mirror.apply([write("asked", b"1", mode=0o640)])
    assert mirror.verify() == []
    assert (root / "asked").stat().st_mode & 0o777 == 0o640


def test_by_a_copied_ledger_no_lstat_is_proof(mirror: Mirror, root: Path, x: Path) -> None:
    assert mirror.observe().refreshed == ()
    mirror.close()
    ledger = root / ".fsmirror" / "ledger.sqlite3"
    shutil.copy2(ledger, ledger.with_name("copy"))
    os.replace(ledger.with_name("copy"), ledger)
    assert {row.name for row in mirror.observe().refreshed} == {"d/x", "y"}


def test_no_lstat_proves_a_row_that_is_unsynced_or_was_seen_to_drift(
    mirror: Mirror, root: Path, x: Path
) -> None:
    row = row_of(mirror.root, "d/x")
    assert row is not None
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE rows SET seen = 1 WHERE name = 'd/x'")
        ledger.commit()
    assert [(row.name, row.seen) for row in mirror.observe().refreshed] == [("d/x", False)]
    with contextlib.closing(open_root(str(root))[0]) as tree:
        stale, read = replace(row, digest=b"stale"), digest_of(x.read_bytes())
        assert _observe.look_at(tree, row.name, stale).digest == b"stale"
        for doubtful in (replace(stale, unsynced=True), replace(stale, seen=True)):
            assert _observe.look_at(tree, row.name, doubtful).digest == read


def test_a_file_that_was_edited_before_it_was_looked_at_again_proves_nothing(
    root: Path, mirror: Mirror
) -> None:
    mirror.apply([write("x", b"1")])
    row, (tree, _) = ledger_rows(mirror)[0], open_root(str(root))
    with contextlib.closing(tree):
        seen = tree.signature(row.name)
        assert seen is not None
        (root / "x").write_bytes(b"2")
        (recorded,) = _observe.record(tree, [row], {row.name: _observe.Seen(seen, 0)})
    assert (recorded.signature, recorded.recorded_ns) == (seen, 0)


@pytest.mark.parametrize("content", [False, True], ids=["stat", "content"])
@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097])
def test_every_path_is_looked_at_once(
    mirror: Mirror, root: Path, count: int, content: bool
) -> None:
    names = [f"{number:04}" for number in range(count)]
    mirror.apply([write(name, b"1") for name in names])
    for name in names:
        (root / name).write_bytes(b"22")
    found = differences(mirror.root, content=content)
    assert [difference.name for difference in found] == names
    assert {difference.how for difference in found} <= {"modified"}


def test_every_file_of_a_copied_ledger_is_read(mirror: Mirror, root: Path) -> None:
    mirror.apply([write(f"{number}", b"1") for number in range(10)])
    mirror.close()
    ledger = root / ".fsmirror" / "ledger.sqlite3"
    shutil.copy(ledger, root / "copy")
    (root / "copy").replace(ledger)
    (root / "2").write_bytes(b"2")
    (root / "8").write_bytes(b"2")
    assert [difference.name for difference in differences(mirror.root)] == ["2", "8"]


def test_a_ledger_that_can_t_be_read_is_told_once(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("x", b"1"), write("y", b"1")])
    mirror.close()
    (root / ".fsmirror" / "ledger.sqlite3").write_bytes(b"nonsense" * 1000)
    assert mirror.observe() == DriftReport()
    assert len([r for r in caplog.records if "drift can't be looked for" in r.getMessage()]) == 1
    for look in (mirror.verify, partial(differences, mirror.root)):  # Never "in order".
        with pytest.raises(CorruptLedgerError):
            look()


def test_an_unsynced_row_that_nobody_writes_anew_makes_its_owner_stale(
    mirror: Mirror, root: Path, x: Path
) -> None:
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE rows SET unsynced = 1 WHERE name = 'd/x'")
        ledger.commit()
    assert mirror.observe().stale == frozenset()
    mirror.prepare(OWNER, mirror.observe())
    assert mirror.observe().stale == {OWNER}
    row = row_of(mirror.root, "d/x")
    assert row is not None
    assert (row.unsynced, row.seen) == (True, True)
