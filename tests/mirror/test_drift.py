"""Drift is found by every way of looking, and healed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, RootError
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.errors import CorruptLedgerError
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._mirror import reader as _reader
from cocoindex_fsmirror._mirror.drift import differences, has_drifted, row_of, rows
from tests.mirror.drifting import edit_in_place, edit_secretly, looks
from tests.steps import quiet_state
from tests.support import OWNER, delete, folder, write


def _edit(x: Path) -> None:
    x.write_bytes(b"longer than before")


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
    edit_in_place,
    edit_secretly,
    _replace,
    _link,
    _parent_link,
    _folder,
    _fifo,
    Path.unlink,
    _parent_gone,
]


@pytest.mark.parametrize("happens", DRIFTS)
def test_drift_is_noticed_and_healed(
    mirror: Mirror, root: Path, x: Path, happens: Callable[[Path], None]
) -> None:
    happens(x)
    before = quiet_state(root)
    for found in looks(mirror):
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


def test_touched_file_is_refreshed_and_is_no_drift(mirror: Mirror, x: Path) -> None:
    os.utime(x, ns=(1, 1))
    while coarse_now_ns() <= x.lstat().st_ctime_ns:
        os.sched_yield()  # A touch within this tick of the clock could hide an edit.
    for found in looks(mirror):
        assert found.names == set()
        assert [row.name for row in found.refreshed] == ["d/x"]
    mirror.prepare(Owner(OWNER), mirror.observe())
    assert mirror.observe().refreshed == ()


def test_deleted_root_is_drift_of_every_path(mirror: Mirror, root: Path, x: Path) -> None:
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


def test_removed_or_replaced_folder_is_drift(mirror: Mirror, root: Path) -> None:
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


def test_reading_contents_does_not_block_the_event_loop(mirror: Mirror, root: Path) -> None:
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
    assert turns >= size // _calls._CHUNK


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_large_ledger_is_read_page_by_page_while_others_write(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    names = [f"d{number}/{number}" for number in range(7)]
    mirror.apply([write(name) for name in names])
    monkeypatch.setattr(_reader, "PAGE", size)
    changed = {names[0], names[2], names[3], names[6]}
    for name in changed:
        (root / name).write_bytes(b"edited")
    for found in looks(mirror):
        assert found.names == changed
    assert {each.name for each in differences(mirror.root)} == changed
    walk = rows(mirror.root)
    first = next(walk)
    mirror.apply([delete(names[-2]), write("later")])
    rest = [str(row.name) for row in walk]
    assert [str(first.name), *rest][:5] == names[:5]
    if size < 3:
        assert rest[4:] == [names[-1], "later"]


@pytest.mark.parametrize("content", [False, True], ids=["stat", "content"])
@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097])
def test_every_path_is_looked_at_once_at_page_boundaries(
    mirror: Mirror, root: Path, count: int, content: bool
) -> None:
    names = [f"{number:04}" for number in range(count)]
    mirror.apply([write(name, b"1") for name in names])
    for name in names:
        (root / name).write_bytes(b"22")
    found = differences(mirror.root, content=content)
    assert [difference.name for difference in found] == names
    assert {difference.how for difference in found} <= {"modified"}


def test_unreadable_ledger_is_logged_once(
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


def test_unsynced_row_that_stays_unwritten_makes_its_owner_stale(
    mirror: Mirror, root: Path, x: Path
) -> None:
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE rows SET unsynced = 1 WHERE name = 'd/x'")
        ledger.commit()
    assert mirror.observe().stale == frozenset()
    mirror.prepare(Owner(OWNER), mirror.observe())
    assert mirror.observe().stale == {OWNER}
    row = row_of(mirror.root, Name("d/x"))
    assert row is not None
    assert (row.unsynced, row.seen) == (True, True)
