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
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._disk import calls as _calls
from tests.crash import scene
from tests.crash.disks import CUTS, Cut, Disk, made_disk
from tests.crash.harness import die_at, lose_power_after, lose_power_at
from tests.support import OWNER, Tree, contents, snapshot, write

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out the log."""
    caplog.set_level("CRITICAL")


@pytest.fixture(params=CUTS, ids=str)
def cut(request: pytest.FixtureRequest) -> Cut:
    """A file system, and a way to cut its power."""
    assert isinstance(request.param, Cut)
    return request.param


@pytest.fixture
def disk(cut: Cut, tmp_path: Path) -> Iterator[Disk]:
    """An empty disk."""
    with made_disk(cut, tmp_path / "machine") as disk:
        yield disk


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The rows after an uninterrupted update."""
    return scene.undisturbed(tmp_path_factory.mktemp("undisturbed") / "root")


def _apply_without_closing(root: Path) -> None:
    """Applies the batch; the ledger stays open, as it does in an engine's process."""
    Mirror(root).apply(scene.intents(root))


def _cut_off(disk: Disk, apply: Callable[[Path], object]) -> tuple[Path, Tree]:
    """Makes a root whose last update was lost in a power cut; returns it and its old state.

    If another process syncs the whole machine meanwhile (a benchmark in the other worker,
    for one), nothing is lost, and another root is tried.
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
    """Returns inode and mtime of all files of a mirror."""
    names = contents(snapshot(root))
    return {name: ((seen := (root / name).lstat()).st_ino, seen.st_mtime_ns) for name in names}


def test_finished_update_survives_a_power_cut(disk: Disk, rows: list[Any]) -> None:
    root = disk.at / "root"
    scene.lay_out(root)
    disk.sync()
    lose_power_after(disk, lambda: _apply_without_closing(root))
    assert snapshot(root) == scene.NEW
    before = _identities(root)
    with Mirror(root) as mirror:
        mirror.prepare(Owner(OWNER), mirror.observe())
        mirror.apply(scene.intents(root))
        assert scene.problems_in_the_end(root, rows) == []
        assert mirror.verify(content=True) == []
    assert _identities(root) == before


def test_new_root_survives_a_power_cut(disk: Disk) -> None:
    root = disk.at / "made" / "root"
    mirror = Mirror(root)
    lose_power_after(disk, lambda: mirror.prepare(Owner(OWNER), DriftReport()))
    assert root.is_dir()
    lose_power_after(disk, lambda: mirror.apply([write("a/b.txt", b"1")]))
    assert snapshot(root) == {"a": "dir", "a/b.txt": b"1"}
    with Mirror(root) as again:
        again.apply([write("a/b.txt", b"1")])
        again.tear_down(OWNER)
    assert not (disk.at / "made").exists()


def test_torn_down_root_does_not_come_back_after_a_power_cut(disk: Disk) -> None:
    root = disk.at / "made" / "root"
    with Mirror(root) as mirror:
        mirror.prepare(Owner(OWNER), DriftReport())
        mirror.apply([write("a/b.txt", b"1"), write("c.txt", b"2")])
    disk.sync()
    lose_power_after(disk, lambda: Mirror(root).tear_down(OWNER))
    assert "made" not in os.listdir(disk.at)


def test_power_cut_in_the_middle_of_an_update_leaves_old_or_new(
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
def test_recovery_makes_files_of_a_dead_process_durable(disk: Disk) -> None:
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


def test_update_without_barriers_is_lost_in_a_power_cut(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", lambda fd: None)
    _cut_off(disk, _apply_without_closing)  # Fails if nothing is lost.


@pytest.mark.parametrize("cut", [c for c in CUTS if c.how == "log flushed"], ids=str, indirect=True)
def test_names_run_ahead_of_their_bytes_without_barriers(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", lambda fd: None)
    root, old = _cut_off(disk, _apply_without_closing)
    assert "replaced.txt holds b''" in scene.problems(root, old)


def test_update_without_durability_is_healed_after_a_power_cut(disk: Disk) -> None:
    def batch(root: Path) -> list[Intent]:
        return [msgspec.structs.replace(each, durable=False) for each in scene.intents(root)]

    root, _ = _cut_off(disk, lambda root: Mirror(root).apply(batch(root)))
    with Mirror(root) as mirror:
        mirror.apply(batch(root))
        assert mirror.verify(content=True) == []
    assert snapshot(root) == scene.NEW
