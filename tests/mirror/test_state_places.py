"""Roots and state directories are moved, copied, reached in another way, lost, or of no use."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import LedgerError, Mirror, RootError
from cocoindex_fsmirror._disk.locations import Root
from cocoindex_fsmirror._mirror import known as _known
from cocoindex_fsmirror._mirror import state_folder as _state_folder
from cocoindex_fsmirror._mirror.adopt import claimable
from cocoindex_fsmirror._mirror.exact import foreign
from tests.mirror.keeping import FILES
from tests.mirror.state import NEW, drifted, folder, folders, healed, update, written
from tests.support import Mount, contents, exact_state, snapshot, unmark

# Roots and state directories that are moved, copied or reached in another way.


def test_project_that_was_moved_carries_on(tmp_path: Path) -> None:
    update(tmp_path / "one" / "root", tmp_path / "one" / "state")
    files = written(tmp_path / "one" / "root")
    (tmp_path / "one").rename(tmp_path / "two")
    root, state = tmp_path / "two" / "root", tmp_path / "two" / "state"
    assert drifted(root, state) == []
    update(root, state)
    assert written(root) == files
    assert claimable(Mirror(root, state=state).location) == {}
    (root / "a").unlink()
    assert healed(root, state) == ["a"]


def test_copied_project_leaves_its_original_alone(tmp_path: Path) -> None:
    update(tmp_path / "one" / "root", tmp_path / "one" / "state")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    before = exact_state(tmp_path / "one")
    root, state = tmp_path / "two" / "root", tmp_path / "two" / "state"
    update(root, state, {"a": b"other"})
    assert contents(snapshot(root)) == {"a": b"other"}
    assert exact_state(tmp_path / "one") == before
    with Mirror(root, state=state) as mirror:
        mirror.tear_down("")
    assert exact_state(tmp_path / "one") == before


def test_copied_root_is_no_mirror(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state)
    copied = tmp_path / "copied"
    shutil.copytree(root, copied)
    with Mirror(copied, state=state) as mirror, pytest.raises(RootError, match="is no mirror"):
        mirror.verify()
    update(copied, state, {"a": FILES["a"]})
    assert contents(snapshot(copied)) == FILES
    assert drifted(root, state) == []


def test_root_that_was_moved_takes_its_state_along(root: Path, tmp_path: Path, state: Path) -> None:
    update(tmp_path / "another", state, {"a": b"another"})
    update(root, state)
    moved = tmp_path / "moved"
    root.rename(moved)
    assert drifted(moved, state) == []
    files = written(moved)
    update(moved, state, FILES)
    assert written(moved) == files
    assert folders(state) == ["another", "moved"]
    update(moved, state, {})
    assert contents(snapshot(moved)) == {}


def test_new_root_in_the_place_of_a_moved_one_has_its_own_state(
    root: Path, tmp_path: Path, state: Path
) -> None:
    update(root, state)
    moved = tmp_path / "moved"
    root.rename(moved)
    update(moved, state, FILES)
    update(root, state, {"a": b"another"})
    assert contents(snapshot(moved)) == FILES
    assert drifted(moved, state) == drifted(root, state) == []


def test_root_of_another_time_does_not_take_the_state_of_a_lost_one(
    root: Path, tmp_path: Path, state: Path
) -> None:
    update(root, state)
    shutil.rmtree(root)
    update(tmp_path / "new", state, {"a": b"new"})
    assert contents(snapshot(tmp_path / "new")) == {"a": b"new"}
    assert healed(root, state) == sorted([*FILES])


@pytest.mark.root
def test_root_that_is_mounted_elsewhere_too_has_one_state(
    root: Path, tmp_path: Path, state: Path, mount: Mount
) -> None:
    update(root, state)
    again = mount(tmp_path / "deep" / "again", "--bind", str(root))
    assert drifted(again, state) == []
    update(again, state, {"a": b"new"})
    assert contents(snapshot(root)) == {"a": b"new"}
    assert folders(state) == ["root"]
    update(root, state, {"a": b"newer"})
    assert drifted(again, state) == drifted(root, state) == []


def test_links_to_a_root_and_a_state_directory(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state)
    (tmp_path / "deep").mkdir()
    for name, target in (("root", root), ("state", state)):
        (tmp_path / "deep" / name).symlink_to(target)
    assert drifted(tmp_path / "deep" / "root", tmp_path / "deep" / "state") == []
    update(tmp_path / "deep" / "root", tmp_path / "deep" / "state", NEW)
    assert drifted(root, state) == []
    assert folders(state) == ["root"]


# State directories that are lost, put back, or can't be used.


def test_state_that_is_lost_leaves_the_files(root: Path, state: Path) -> None:
    update(root, state)
    shutil.rmtree(state)
    files = written(root)
    update(root, state)
    assert written(root) == files
    assert drifted(root, state) == []


def test_state_that_was_put_back_is_not_believed(
    root: Path, tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    update(root, state)
    shutil.copytree(state, tmp_path / "backup")
    update(root, state, {"a": b"newer"})
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    assert healed(root, state) == []
    update(root, state, NEW)
    assert "was copied or restored" in caplog.text
    assert contents(snapshot(root)) == NEW
    assert drifted(root, state) == []


@pytest.mark.root
def test_state_on_a_full_disk(root: Path, tmp_path: Path, mount: Mount) -> None:
    state = mount(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "tmpfs") / "state"
    update(root, state, {"a": b"a"})
    many = {f"{n}": os.urandom(1000) for n in range(500)}
    update(root, state, many)
    assert contents(snapshot(root)) == many
    assert drifted(root, state) == []
    (state.parent / "rest").write_bytes(b"")
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012, SIM117
        with (state.parent / "rest").open("ab", 0) as rest:
            while True:
                rest.write(b"x" * 512)
    with pytest.raises((LedgerError, RootError)):
        update(root, state, many | {f"{n}": os.urandom(1000) for n in range(1000)})
    assert {name: (root / name).read_bytes() for name in many} == many
    (state.parent / "rest").unlink()
    update(root, state, {"a": b"b"})
    assert contents(snapshot(root)) == {"a": b"b"}


@pytest.mark.root
def test_state_on_a_read_only_disk(root: Path, tmp_path: Path, mount: Mount) -> None:
    state = mount(tmp_path / "volume", "-t", "tmpfs", "tmpfs") / "state"
    update(root, state)
    subprocess.run(["mount", "-o", "remount,ro", state.parent], check=True)
    with pytest.raises(RootError, match="is on a read-only file system"):
        update(root, state, NEW)
    assert contents(snapshot(root)) == FILES
    assert drifted(root, state) == []
    with pytest.raises(RootError, match=r"volume/other.*is on a read-only file system"):
        update(root.with_name("another"), state.parent / "other", NEW)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/nowhere/at/all")])
def test_state_directory_that_is_none(
    root: Path, state: Path, make: Callable[[Path], object]
) -> None:
    make(state)
    with pytest.raises(RootError, match=r"state/root-.*: "):
        update(root, state)
    assert not root.exists() or os.listdir(root) == []


@pytest.mark.parametrize("inside", ["state", "d/e", ".fsmirror/state"])
def test_state_inside_of_the_root_is_refused(root: Path, inside: str) -> None:
    with pytest.raises(RootError, match=r"inside of it .*name a directory outside"):
        Mirror(root, state=root / inside)


def test_link_in_the_root_to_a_state_directory_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "state")
    with pytest.raises(RootError, match="inside of it"):
        Mirror(root, state=root / "link")


def test_empty_path_of_a_state_directory_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="the path is empty"):
        Mirror(root, state="")


def test_root_inside_of_its_state_directory(state: Path) -> None:
    update(state / "root", state)
    shutil.rmtree(state / "root")
    assert healed(state / "root", state) == sorted([*FILES])


@pytest.mark.root
@pytest.mark.parametrize("place", ["folder", "ledger", "root"])
def test_folders_and_files_that_others_may_have_written_are_refused(
    root: Path, state: Path, place: str
) -> None:
    update(root, state)
    theirs = {
        "folder": folder(state),
        "ledger": folder(state) / "ledger.sqlite3",
        "root": root / ".fsmirror",
    }[place]
    if place == "root":  # Whoever may write to the root may plant a staging area.
        (theirs / "tmp" / "batch.ready").mkdir(parents=True)
    os.chown(theirs, 12_345, -1)
    with pytest.raises(LedgerError, match="belongs to user 12345"):
        update(root, state, NEW)
    assert contents(snapshot(root)) == FILES


def test_two_ledgers_are_refused_by_name(root: Path, state: Path) -> None:
    update(root, state)
    unmark(root)
    update(root, None, NEW)
    for act in (update, drifted):
        with pytest.raises(RootError, match=r"has two ledgers, in .*\.fsmirror and in .*root-"):
            act(root, state)
    assert contents(snapshot(root)) == NEW
    shutil.rmtree(root / ".fsmirror")
    update(root, state, NEW)
    assert drifted(root, state) == []


# Moves of the state that meet something else.


def test_ledger_of_another_project_is_not_taken(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    update(one / "root", one / "state", {"a": b"a", "gone": b"1"})
    with contextlib.closing(sqlite3.connect(folder(one / "state") / "ledger.sqlite3")) as ledger:
        told = [("move", "1" * 32), ("moved from", str(one / "root" / ".fsmirror"))]
        ledger.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", told)
        ledger.commit()  # As after a move that was cut off.
    one.rename(two)
    update(one / "root", None, {"b": b"b"})
    before = exact_state(one)
    update(two / "root", two / "state", {"a": b"a"})
    assert contents(snapshot(two / "root")) == {"a": b"a"}
    assert exact_state(one) == before


def test_ledger_of_another_time_is_set_aside(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    shutil.copytree(state, tmp_path / "kept")
    update(root, tmp_path / "second", NEW, is_noted=True)
    shutil.rmtree(state)
    (tmp_path / "kept").rename(state)
    update(root, state, {"a": b"last"}, is_noted=True)
    assert contents(snapshot(root)) == {"a": b"last"}
    assert len([*folder(state).glob("ledger.sqlite3.corrupt-*")]) == 1


def test_state_directory_that_was_moved_when_the_root_is_lost(
    root: Path, tmp_path: Path, state: Path
) -> None:
    update(root, state)
    shutil.rmtree(root)
    (tmp_path / "deep").mkdir()
    state.rename(tmp_path / "deep" / "state")
    assert healed(root, tmp_path / "deep" / "state") == sorted([*FILES])


def test_root_and_state_that_move_together(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    moved = tmp_path / "moved"
    root.rename(moved)
    files = written(moved)
    update(moved, tmp_path / "second", is_noted=True)
    assert written(moved) == files
    assert claimable(Mirror(moved).location) == {}
    assert (folders(state), folders(tmp_path / "second")) == ([], ["moved"])


def test_root_on_another_device_is_no_moved_one(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state)
    with contextlib.closing(sqlite3.connect(folder(state) / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE meta SET value = value + 1 WHERE key = 'device'")
        ledger.commit()  # As in a snapshot, which has all inode numbers and times.
    root.rename(tmp_path / "snapshot")
    update(tmp_path / "snapshot", state)
    assert folders(state) == ["root", "snapshot"]


@pytest.mark.parametrize("place", ["second", "root"])
def test_move_that_fails_leaves_the_state_where_it_is(
    root: Path,
    tmp_path: Path,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    update(root, state, is_noted=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_state_folder, "share_file", full)
        update(root, tmp_path / place, NEW, is_noted=True)
    assert "stays in" in caplog.text
    assert contents(snapshot(root)) == NEW
    assert folders(state) == ["root"]
    assert not (root / ".fsmirror" / "ledger.sqlite3").exists()
    (root / "large").unlink()
    update(root, tmp_path / place, NEW, is_noted=True)
    assert folders(state) == []
    assert drifted(root, None) == []


def test_look_at_a_ledger_that_moves_meanwhile(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(root, None)
    find, count = _known.find, iter(range(100))

    def overtaken(where: Root) -> _known.Found:
        found = find(where)
        if next(count) == 0:
            update(root, state, is_noted=True)
        return found

    location = Mirror(root, state=state).location
    monkeypatch.setattr(_known, "find", overtaken)
    with _known.known(location) as ledger:
        assert ledger.count() == len(FILES)


def test_exact_mirror_leaves_state_folders_alone(root: Path, tmp_path: Path) -> None:
    update(tmp_path / "another", root / "states")
    update(root, None, {"x": b"x"})
    assert foreign(str(root)) == (["states/"], [])


def test_damaged_ledger_at_the_goal_is_set_aside(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    ledger = _planted(root, tmp_path / "second")
    update(root, tmp_path / "second", NEW, is_noted=True)
    assert contents(snapshot(root)) == NEW
    assert drifted(root, None) == []
    (aside,) = ledger.parent.glob("ledger.sqlite3.corrupt-*")
    assert aside.read_bytes() == PLANTED
    assert folders(state) == []


@pytest.mark.root
def test_ledger_of_others_at_the_goal_is_refused(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    ledger = _planted(root, tmp_path / "second")
    os.chown(ledger, 12_345, -1)
    with pytest.raises(LedgerError, match="belongs to user 12345"):
        update(root, tmp_path / "second", NEW, is_noted=True)
    assert ledger.read_bytes() == PLANTED
    assert contents(snapshot(root)) == FILES
    assert folders(state) == ["root"]


PLANTED = b"no ledger" * 1000


def _planted(root: Path, state: Path) -> Path:
    """Makes the state folder of a root, with something else in the place of its ledger."""
    ledger = Path(Mirror(root, state=state).location.spot.path, "ledger.sqlite3")
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(PLANTED)
    return ledger
