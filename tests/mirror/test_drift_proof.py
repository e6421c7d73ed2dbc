"""When one ``lstat`` proves that a file is unchanged, and when the file is read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.states import digest_of, inode_of
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._disk.roots import open_root
from cocoindex_fsmirror._disk.staging import Slot, Staging
from cocoindex_fsmirror._mirror import look as _observe
from cocoindex_fsmirror._mirror.drift import differences, row_of
from tests.mirror.drifting import edit_in_place, edit_secretly, pretend_unchanged
from tests.support import OWNER, ledger_rows, write


def test_refreshed_row_does_not_overwrite_a_newer_one(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    found = mirror.observe()
    mirror.apply([write("d/x", b"newer")])
    mirror.prepare(Owner(OWNER), found)
    assert mirror.verify() == []
    assert mirror.verify(content=True) == []


class _Clock:
    """A clock that stands still, at the latest stamp of the files that are there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> int:
        return self._path.lstat().st_ctime_ns


def test_edit_in_the_tick_of_the_record_is_noticed(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    mirror.apply([write("x", b"abc")])
    (root / "x").write_bytes(b"old")
    monkeypatch.setattr(_calls, "coarse_now_ns", _Clock(root / "x"))
    mirror.apply([write("x", b"abc")])
    (root / "x").write_bytes(b"ABC")
    pretend_unchanged(root, "x")
    assert mirror.verify() == ["x"]


def test_whole_second_stamps_are_believed_only_after_their_second(mirror: Mirror) -> None:
    from cocoindex_fsmirror._core.states import Signature, proves

    second = 1_000_000_000
    stamped = Signature(1, 3, 5 * second, 5 * second)
    assert not proves(stamped, stamped, 5 * second + second // 2)
    assert proves(stamped, stamped, 6 * second)


def test_edit_that_keeps_size_times_and_inode_is_found_by_content(
    mirror: Mirror, root: Path, x: Path
) -> None:
    edit_in_place(x)
    pretend_unchanged(root, "d/x", recorded=True)
    assert mirror.verify() == []
    assert mirror.verify(content=True) == ["d/x"]
    assert asyncio.run(asyncio.to_thread(mirror.observe, content=True)).names == {"d/x"}


def test_ctime_shows_an_edit_after_the_clock_was_set_back(
    mirror: Mirror, root: Path, x: Path
) -> None:
    pretend_unchanged(root, "d/x", recorded=True)
    assert mirror.verify() == []
    edit_secretly(x)
    assert mirror.verify() == ["d/x"]


def test_older_look_does_not_make_a_newer_record_older(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    while coarse_now_ns() <= x.lstat().st_ctime_ns:
        os.sched_yield()
    older = mirror.observe()
    assert older.refreshed
    while coarse_now_ns() <= older.refreshed[0].recorded_ns:
        os.sched_yield()
    newer = mirror.observe()
    for look in (newer, older):
        mirror.prepare(Owner(OWNER), look)
    with contextlib.closing(sqlite3.connect(x.parents[1] / ".fsmirror/ledger.sqlite3")) as database:
        found = database.execute("SELECT recorded_ns FROM rows WHERE name = 'd/x'").fetchone()
    assert found == (newer.refreshed[0].recorded_ns,)


def test_row_whose_barrier_failed_after_the_look_is_not_refreshed(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    while coarse_now_ns() <= x.lstat().st_ctime_ns:
        os.sched_yield()
    look = mirror.observe()
    assert look.refreshed
    with contextlib.closing(sqlite3.connect(x.parents[1] / ".fsmirror/ledger.sqlite3")) as database:
        database.execute("UPDATE rows SET unsynced = 1 WHERE name = 'd/x'")
        database.commit()
    mirror.prepare(Owner(OWNER), look)
    row = row_of(mirror.root, Name("d/x"))
    assert row is not None
    assert row.unsynced


def test_mode_changed_between_rename_and_look_is_drift(
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


def test_no_lstat_is_proof_by_a_copied_ledger(mirror: Mirror, root: Path, x: Path) -> None:
    assert mirror.observe().refreshed == ()
    mirror.close()
    ledger = root / ".fsmirror" / "ledger.sqlite3"
    shutil.copy2(ledger, ledger.with_name("copy"))
    os.replace(ledger.with_name("copy"), ledger)
    assert {row.name for row in mirror.observe().refreshed} == {"d/x", "y"}


def test_copied_ledger_knows_its_owners(mirror: Mirror, root: Path, x: Path) -> None:
    """Their epochs tell if it is of the same time as the engine's database."""
    mirror.prepare(Owner(OWNER), mirror.observe())
    assert mirror.observe().owners.keys() == {OWNER}
    mirror.close()
    ledger = root / ".fsmirror" / "ledger.sqlite3"
    shutil.copy2(ledger, ledger.with_name("copy"))
    os.replace(ledger.with_name("copy"), ledger)
    assert mirror.observe().owners.keys() == {OWNER}


def test_no_lstat_proves_an_unsynced_or_drifted_row(mirror: Mirror, root: Path, x: Path) -> None:
    row = row_of(mirror.root, Name("d/x"))
    assert row is not None
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE rows SET seen = 1 WHERE name = 'd/x'")
        ledger.commit()
    assert [(row.name, row.seen) for row in mirror.observe().refreshed] == [("d/x", False)]
    with contextlib.closing(open_root(str(root))[0]) as tree:
        stale, read = replace(row, digest=b"stale"), digest_of(x.read_bytes())
        assert _observe.look_at(tree, row.name, stale).state.digest == b"stale"
        for doubtful in (replace(stale, unsynced=True), replace(stale, seen=True)):
            assert _observe.look_at(tree, row.name, doubtful).state.digest == read


def test_file_edited_before_the_second_look_proves_nothing(root: Path, mirror: Mirror) -> None:
    mirror.apply([write("x", b"1")])
    row, (tree, _) = ledger_rows(mirror)[0], open_root(str(root))
    with contextlib.closing(tree):
        seen = tree.signature(row.name)
        assert seen is not None
        (root / "x").write_bytes(b"2")
        (recorded,) = _observe.record(tree, [row], {row.name: _observe.Seen(seen, 0)})
    assert (recorded.signature, recorded.recorded_ns) == (seen, 0)


def test_every_file_of_a_copied_ledger_is_read(mirror: Mirror, root: Path) -> None:
    mirror.apply([write(f"{number}", b"1") for number in range(10)])
    mirror.close()
    ledger = root / ".fsmirror" / "ledger.sqlite3"
    shutil.copy(ledger, root / "copy")
    (root / "copy").replace(ledger)
    (root / "2").write_bytes(b"2")
    (root / "8").write_bytes(b"2")
    assert [difference.name for difference in differences(mirror.root)] == ["2", "8"]


def test_inode_number_fits_into_a_signed_integer(x: Path) -> None:
    """Some FUSE file systems use hashes, with all 64 bits."""
    found = x.lstat()
    huge = os.stat_result((found.st_mode, (1 << 63) + 5, *found[2:]))
    assert inode_of(huge) == 5


def test_file_that_changes_while_it_is_read_has_no_digest(
    root: Path, x: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _calls.digest_of_file

    def digest_of_file(fd: int) -> bytes:
        digest = real(fd)
        x.write_bytes(b"changed")
        return digest

    monkeypatch.setattr(_tree, "digest_of_file", digest_of_file)
    with contextlib.closing(open_root(str(root))[0]) as tree:
        state = tree.look(Name("d/x"), digest=True).state
    assert state.digest is None
