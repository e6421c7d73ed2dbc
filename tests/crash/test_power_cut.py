"""The power may fail after an update, and in the middle of one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._mirror.drift import DriftReport
from tests.crash import scene
from tests.crash.disks import CUTS, Cut, Disk, made_disk
from tests.crash.harness import die_at, lose_power_after, lose_power_at
from tests.support import OWNER, Tree, contents, snapshot, write

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """No log."""
    caplog.set_level("CRITICAL")


@pytest.fixture(params=CUTS, ids=str)
def cut(request: pytest.FixtureRequest) -> Cut:
    """A file system, and how its power is cut."""
    assert isinstance(request.param, Cut)
    return request.param


@pytest.fixture
def disk(cut: Cut, tmp_path: Path) -> Iterator[Disk]:
    """A disk with nothing on it."""
    with made_disk(cut, tmp_path / "machine") as disk:
        yield disk


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the ledger says after an uninterrupted update."""
    return scene.undisturbed(tmp_path_factory.mktemp("undisturbed") / "root")


def _apply_without_closing(root: Path) -> None:
    """Applies the batch; the ledger stays open, as it does in an engine's process."""
    Mirror(root).apply(scene.intents(root))


def _cut_off(disk: Disk, apply: Callable[[Path], object]) -> tuple[Path, Tree]:
    """A root whose last update was lost in a power cut, and what was there before.

    Who writes back everything on the machine meanwhile (a benchmark, say, in the other
    worker) spoils that; then it is tried again.
    """
    for number in range(5):
        root = disk.at / f"root-{number}"
        old = scene.lay_out(root)
        disk.sync()
        lose_power_after(disk, lambda root=root: apply(root))  # type: ignore[misc]
        if snapshot(root) != scene.NEW:
            return root, old
    pytest.fail("the power cut took nothing back")


def _identities(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and mtime of all files of a mirror."""
    names = contents(snapshot(root))
    return {name: ((seen := (root / name).lstat()).st_ino, seen.st_mtime_ns) for name in names}


def test_a_finished_update_is_all_there_after_a_power_cut(disk: Disk, rows: list[Any]) -> None:
    root = disk.at / "root"
    scene.lay_out(root)
    disk.sync()
    lose_power_after(disk, lambda: _apply_without_closing(root))
    assert snapshot(root) == scene.NEW
    before = _identities(root)
    with Mirror(root) as mirror:
        mirror.prepare(OWNER, mirror.observe())
        mirror.apply(scene.intents(root))
        assert scene.problems_in_the_end(root, rows) == []
        assert mirror.verify(content=True) == []
    assert _identities(root) == before


def test_a_root_that_was_made_is_there_after_a_power_cut(disk: Disk) -> None:
    root = disk.at / "made" / "root"
    mirror = Mirror(root)
    lose_power_after(disk, lambda: mirror.prepare(OWNER, DriftReport()))
    assert root.is_dir()
    lose_power_after(disk, lambda: mirror.apply([write("a/b.txt", b"1")]))
    assert snapshot(root) == {"a": "dir", "a/b.txt": b"1"}
    with Mirror(root) as again:
        again.apply([write("a/b.txt", b"1")])
        again.tear_down(OWNER)
    assert not (disk.at / "made").exists()


def test_what_was_torn_down_does_not_come_back_after_a_power_cut(disk: Disk) -> None:
    root = disk.at / "made" / "root"
    with Mirror(root) as mirror:
        mirror.prepare(OWNER, DriftReport())
        mirror.apply([write("a/b.txt", b"1"), write("c.txt", b"2")])
    disk.sync()
    lose_power_after(disk, lambda: Mirror(root).tear_down(OWNER))
    assert "made" not in os.listdir(disk.at)


def test_a_power_cut_in_the_middle_of_an_update_leaves_old_or_new(
    disk: Disk, rows: list[Any]
) -> None:
    wrong = {}
    for step in itertools.count(5, 9):
        root = disk.at / f"root-{step}"
        old = scene.lay_out(root)
        disk.sync()
        name = lose_power_at(step, disk, lambda root=root: scene.apply(root))  # type: ignore[misc]
        found = scene.problems(root, old)
        with Mirror(root) as mirror:
            mirror.apply(scene.intents(root))
            wrong[f"{step}, {name}"] = found + scene.problems_in_the_end(root, rows)
            assert mirror.verify(content=True) == [], step
        if name is None:
            break
    assert len(wrong) > 10
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.parametrize("cut", [c for c in CUTS if c.how != "log flushed"], ids=str, indirect=True)
def test_what_a_dead_process_had_put_in_place_is_there_after_a_power_cut(disk: Disk) -> None:
    batch = [write("a/b.txt", b"b"), write("c.txt", b"c, new")]
    for step in itertools.count(12, 4):
        root = disk.at / f"root-{step}"
        root.mkdir()
        with Mirror(root) as mirror:
            mirror.apply([write("c.txt", b"c, old")])
        disk.sync()
        name = die_at(step, lambda root=root: Mirror(root).apply(batch))  # type: ignore[misc]
        lose_power_after(disk, lambda root=root: Mirror(root).apply(batch))  # type: ignore[misc]
        assert snapshot(root) == {"a": "dir", "a/b.txt": b"b", "c.txt": b"c, new"}, (step, name)
        if name is None:
            break


def test_without_barriers_the_same_power_cut_loses_the_update(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", lambda fd: None)
    _cut_off(disk, _apply_without_closing)  # It fails if nothing is lost.


@pytest.mark.parametrize("cut", [c for c in CUTS if c.how == "log flushed"], ids=str, indirect=True)
def test_without_barriers_names_run_ahead_of_their_bytes(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", lambda fd: None)
    root, old = _cut_off(disk, _apply_without_closing)
    assert "replaced.txt holds b''" in scene.problems(root, old)


def test_an_update_that_need_not_be_durable_is_healed_after_a_power_cut(disk: Disk) -> None:
    def batch(root: Path) -> list[Intent]:
        return [msgspec.structs.replace(each, durable=False) for each in scene.intents(root)]

    root, _ = _cut_off(disk, lambda root: Mirror(root).apply(batch(root)))
    with Mirror(root) as mirror:
        mirror.apply(batch(root))
        assert mirror.verify(content=True) == []
    assert snapshot(root) == scene.NEW
