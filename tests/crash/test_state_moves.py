"""The state folder moves, and a process dies, or the power fails, at any step of that."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from tests.crash.disks import Disk
from tests.crash.harness import die_at, leave_out_barriers, lose_power_at
from tests.mirror.keeping import FILES, declare
from tests.support import contents, snapshot

NEW = FILES | {"a": b"new", "more": b"more"}
MOVES = [("root", "state"), ("state", "root"), ("state", "second")]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out the log."""
    caplog.set_level("CRITICAL")


def update(top: Path, place: str, files: dict[str, bytes] = FILES) -> None:
    """Brings files to the disk."""
    with Mirror(top / "root", state=top / place, state_note=True) as mirror:
        declare(mirror, files)


def problems(top: Path, place: str, *, reverted: bool) -> list[str]:
    """Moves on, or back, which leaves what was copied already; lists what is wrong then."""
    root, found = top / "root", []
    inodes = {name: (root / name).stat().st_ino for name in contents(snapshot(root))}
    update(top, place)
    if {name: (root / name).stat().st_ino for name in contents(snapshot(root))} != inodes:
        found.append("something was written anew")
    ledgers = [each.parent for each in top.rglob("ledger.sqlite3*")]
    at = root / ".fsmirror" if place == "root" else next((top / place).iterdir())
    if {*ledgers} != {at} and not reverted:
        found.append(f"ledgers in {ledgers}")
    for name in ("root/.fsmirror", "state", "second"):
        folder = top / name
        kept = {".gitignore", "location"} if folder.name == ".fsmirror" else set()
        entries = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
        if not (folder in {at, at.parent} or entries <= kept or reverted):
            found.append(f"something is left in {name}: {[*folder.rglob('*')]}")
    shutil.rmtree(root / "d")
    (root / "large").unlink()
    with Mirror(root) as mirror:
        if mirror.heal().healed != ["d/b", "d/c", "large"]:
            found.append("not all was healed")
        if mirror.verify(content=True):
            found.append("something differs")
    update(top, place, NEW)
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
        top = tmp_path / "top"
        update(top, before)
        name = die_at(step, lambda top=top: update(top, after))  # type: ignore[misc]
        if step % 2:
            with Mirror(top / "root") as mirror:  # Somebody looks meanwhile.
                assert mirror.verify() == []
        reverted = name is not None and step % 3 == 0
        place = before if reverted else after
        wrong[f"{step}, {name}"] = problems(top, place, reverted=reverted)
        shutil.rmtree(top)
        if name is None:
            break
    assert len(wrong) > 40
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.root
@pytest.mark.parametrize(("before", "after"), MOVES)
def test_state_that_moves_survives_a_power_cut(before: str, after: str, disk: Disk) -> None:
    wrong: dict[str, list[str]] = {}
    for step in itertools.count(3, 9):
        top = disk.at / f"top-{step}"
        update(top, before)
        disk.sync()
        name = lose_power_at(step, disk, lambda top=top: update(top, after))  # type: ignore[misc]
        reverted = name is not None and step % 2 == 0
        place = before if reverted else after
        wrong[f"{step}, {name}"] = problems(top, place, reverted=reverted)
        if name is None:
            break
    assert len(wrong) > 4
    assert {step: found for step, found in wrong.items() if found} == {}
