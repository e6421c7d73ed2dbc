"""A disk refuses bytes long after the write; the kernel reports that once, at a barrier."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import BarrierError, Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk.staging import Staging
from cocoindex_fsmirror._mirror import session
from tests.crash.disks import Cut, Disk, ThinDisk, made_disk, made_thin_disk
from tests.crash.harness import die_at, lose_power_after
from tests.support import OWNER, Tree, snapshot, staged, write

pytestmark = pytest.mark.root

_OLD: Tree = {"kept.txt": b"kept" * 1_000, "replaced.txt": b"old" * 1_000}
_NEW: Tree = {**_OLD, "made.txt": b"made" * 500_000, "replaced.txt": b"new" * 500_000}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out the log."""
    caplog.set_level("CRITICAL")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThinDisk]:
    """A disk that can be made to fail late; its ledger has a write-ahead log, as most have."""
    monkeypatch.setattr(session, "is_mappable", lambda _tree: True)  # Its blocks are small.
    with made_thin_disk(tmp_path / "memory") as disk:
        yield disk


def _intents(tree: Tree) -> list[Intent]:
    """Returns the intents for the files of a tree."""
    return [write(name, found) for name, found in tree.items() if isinstance(found, bytes)]


def _open(disk: Disk) -> tuple[Mirror, Path]:
    """Makes a mirror with the old files; it stays open, like an engine's."""
    root = disk.at / "root"
    mirror = Mirror(root)
    mirror.prepare(Owner(OWNER), DriftReport())
    mirror.apply(_intents(_OLD))
    return mirror, root


def _report(disk: Disk) -> None:
    """Takes the errors that the kernel has not reported yet."""
    fd = os.open(disk.at, os.O_RDONLY)
    try:
        assert _calls.syncfs is not None
        _calls.syncfs(fd)
    finally:
        os.close(fd)


def _check_that_a_new_process_goes_on(root: Path) -> None:
    """Asserts that all is there after a power cut, and that the next update works."""
    assert snapshot(root) == _NEW
    with Mirror(root) as mirror:
        mirror.apply([*_intents(_NEW), write("after.txt", b"after")])
        assert mirror.verify(content=True) == []
    assert snapshot(root) == {**_NEW, "after.txt": b"after"}


def test_batch_whose_bytes_do_not_arrive_fails_and_is_written_anew(disk: ThinDisk) -> None:
    def act() -> None:
        mirror, root = _open(disk)
        disk.fill()
        with pytest.raises(BarrierError):
            mirror.apply(_intents(_NEW))
        assert snapshot(root) == _OLD
        assert staged(root) == []
        with contextlib.suppress(OSError):
            _report(disk)  # Errors of the ledger's own writes since.
        _report(disk)  # No error is left: a second sync alone would be believed wrongly.
        disk.make_room()
        mirror.apply(_intents(_NEW))

    lose_power_after(disk, act)
    _check_that_a_new_process_goes_on(disk.at / "root")


def test_batch_whose_second_barrier_fails_is_written_anew(
    disk: ThinDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, ready = ("made.txt", "replaced.txt"), Staging.ready

    def ready_but_then_full(staging: Staging) -> None:
        ready(staging)
        disk.fill()
        (disk.at / "bystander").write_bytes(b"x" * 2_000_000)

    def act() -> None:
        mirror, root = _open(disk)
        with monkeypatch.context() as patch:
            patch.setattr(Staging, "ready", ready_but_then_full)
            with pytest.raises(BarrierError):
                mirror.apply(_intents(_NEW))
        assert mirror.verify() == [*names]
        disk.make_room()
        doubtful = {name: (root / name).stat().st_ino for name in names}
        mirror.apply(_intents(_NEW))
        assert mirror.verify() == []
        assert not [name for name in names if (root / name).stat().st_ino in doubtful.values()]

    lose_power_after(disk, act)
    _check_that_a_new_process_goes_on(disk.at / "root")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("at_barrier", [1, 2])
def test_disk_that_dies_at_a_barrier_is_named_by_the_error(
    kind: str, at_barrier: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, barriers = _calls.syncfs, iter(range(1, 10))
    assert sync is not None

    def act(disk: Disk) -> None:
        mirror, root = _open(disk)

        def sync_of_a_dying_disk(fd: int) -> None:
            if next(barriers) == at_barrier:
                disk.cut_power()
                raise OSError(5, "Input/output error")

        monkeypatch.setattr(_calls, "syncfs", sync_of_a_dying_disk)
        with pytest.raises(BarrierError, match=str(root)):
            mirror.apply(_intents(_NEW))

    with made_disk(Cut(kind, "log lost"), tmp_path / "machine") as disk:
        assert die_at(0, lambda: act(disk)) is None
        disk.restart()
        found = snapshot(disk.at / "root")
        assert found == _OLD
        with Mirror(disk.at / "root") as mirror:
            monkeypatch.undo()
            mirror.apply(_intents(_NEW))
            assert snapshot(disk.at / "root") == _NEW
