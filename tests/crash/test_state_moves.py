"""The state folder moves, and a process dies, or the power fails, at any step of that."""

from __future__ import annotations

import itertools
import shutil
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk import roots
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import session, state_folder
from tests.crash.disks import Disk
from tests.crash.harness import die_at, leave_out_barriers, lose_power_at
from tests.mirror.keeping import FILES, declare
from tests.support import contents, snapshot

NEW = FILES | {"a": b"new", "more": b"more"}
BACKUPS = ("a", "d/b")
MOVES = [("root", "state"), ("state", "root"), ("state", "second")]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out the log."""
    caplog.set_level("CRITICAL")


def update(
    top: Path, place: str, files: dict[str, bytes] = FILES, *, is_noted: bool = True
) -> None:
    """Brings files to the disk."""
    with Mirror(top / "root", state=top / place, state_note=is_noted) as mirror:
        declare(mirror, files)


def begin(top: Path, place: str, *, is_noted: bool = True) -> None:
    """Brings files to the disk; of two that somebody has edited, there are backups."""
    update(top, place, is_noted=is_noted)
    for name in BACKUPS:
        (top / "root" / name).write_bytes(name.encode())
    update(top, place, is_noted=is_noted)


def _mark_nothing(_tree: Tree, _state: str) -> None:
    """Stands for a file system without attributes."""


def problems(top: Path, place: str, *, reverted: bool, is_noted: bool = True) -> list[str]:
    """Moves on, or back, which leaves what was copied already; lists what is wrong then."""
    root, found = top / "root", []
    inodes = {name: (root / name).stat().st_ino for name in contents(snapshot(root))}
    update(top, place, is_noted=is_noted)
    if {name: (root / name).stat().st_ino for name in contents(snapshot(root))} != inodes:
        found.append("something was written anew")
    ledgers = [each.parent for each in top.rglob("ledger.sqlite3*")]
    at = root / ".fsmirror" if place == "root" else next((top / place).iterdir())
    if {*ledgers} != {at} and not reverted:
        found.append(f"ledgers in {ledgers}")
    for name in ("root/.fsmirror", "state", "second"):
        folder = top / name
        kept = {".gitignore", "location", "backup"} if folder.name == ".fsmirror" else set()
        entries = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
        if not (folder in {at, at.parent} or entries <= kept or reverted):
            found.append(f"something is left in {name}: {[*folder.rglob('*')]}")
    shutil.rmtree(root / "d")
    (root / "large").unlink()
    with Mirror(root) as mirror:
        backups = {each.name: (root / each.where).read_text() for each in mirror.backups()}
        if backups != {name: name for name in BACKUPS}:
            found.append(f"the backups are {mirror.backups()}")
        if mirror.heal().healed != ["d/b", "d/c", "large"]:
            found.append("not all was healed")
        if mirror.verify(content=True):
            found.append("something differs")
    update(top, place, NEW, is_noted=is_noted)
    if contents(snapshot(root)) != NEW:
        found.append("other files are there")
    return found


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_state_that_moves_survives_a_death_at_any_step(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_barriers(monkeypatch)
    wrong: dict[str, list[str]] = {}
    for step in itertools.count(1):
        top, is_noted = tmp_path / "top", step % 4 < 2  # Else a mark tells the place.
        begin(top, before, is_noted=is_noted)
        name = die_at(step, partial(update, top, after, is_noted=is_noted))
        if step % 2:
            with Mirror(top / "root") as mirror:  # Somebody looks meanwhile.
                assert mirror.verify() == []
        reverted = name is not None and step % 3 == 0
        place = before if reverted else after
        wrong[f"{step}, {name}"] = problems(top, place, reverted=reverted, is_noted=is_noted)
        shutil.rmtree(top)
        if name is None:
            break
    assert len(wrong) > 40
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.root
@pytest.mark.parametrize(("before", "after"), MOVES)
def test_state_that_moves_survives_a_power_cut(
    before: str, after: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_mark = roots.set_mark
    wrong: dict[str, list[str]] = {}
    for step in itertools.count(3, 9):
        top, is_noted = disk.at / f"top-{step}", step % 4 > 1  # Else a mark tells the place.
        for module in (session, state_folder):
            monkeypatch.setattr(module, "set_mark", _mark_nothing if is_noted else set_mark)
        begin(top, before, is_noted=is_noted)
        disk.sync()
        move = partial(update, top, after, is_noted=is_noted)
        name = lose_power_at(step, disk, move)
        reverted = name is not None and step % 2 == 0
        place = before if reverted else after
        wrong[f"{step}, {name}"] = problems(top, place, reverted=reverted, is_noted=is_noted)
        if name is None:
            break
    assert len(wrong) > 4
    assert {step: found for step, found in wrong.items() if found} == {}
