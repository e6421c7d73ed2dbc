"""Exact mirrors: what is not managed goes to the backup area, and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import known_in, survey
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import exact
from cocoindex_fsmirror._mirror.exact import foreign, sweep
from tests.support import (
    OWNER,
    Mount,
    backups,
    delete,
    exact_state,
    folder,
    ledger_rows,
    link,
    snapshot,
    write,
)


def _lay_out(mirror: Mirror, root: Path) -> None:
    """Makes managed files and folders, and foreign ones of every kind between them."""
    mirror.apply([write("a", b"1"), write("d/e/b", b"2"), folder("empty"), link("l", "a")])
    (root / "foreign").write_bytes(b"foreign")
    (root / "d" / "-rf\n").write_bytes(b"nasty")
    (root / "theirs" / "deep").mkdir(parents=True)
    (root / "theirs" / "deep" / "file").write_bytes(b"deep")
    (root / "theirs" / "link").symlink_to("/etc")
    os.mkfifo(root / "d" / "fifo")


def test_foreign_paths_are_moved_and_managed_ones_stay(mirror: Mirror, root: Path) -> None:
    _lay_out(mirror, root)
    moved = mirror.session.run(sweep).backed_up
    assert set(moved) == {"foreign", "d/-rf\n", "theirs/deep/file", "theirs/link", "d/fifo"}
    assert snapshot(root) == {
        "a": b"1",
        "d": "dir",
        "d/e": "dir",
        "d/e/b": b"2",
        "empty": "dir",
        "l": "-> a",
    }
    assert backups(root) == sorted([b"foreign", b"nasty", b"deep"])
    for name, where in moved.items():
        assert where.endswith(name)
        assert os.path.lexists(root / where)
    assert mirror.verify() == []
    before = exact_state(root)
    assert mirror.session.run(sweep).backed_up == {}
    assert exact_state(root) == before


def test_paths_of_other_owners_are_not_foreign(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a", b"1"), write("d/b", b"2", owner="another")])
    assert mirror.session.run(sweep).backed_up == {}
    assert snapshot(root) == {"a": b"1", "d": "dir", "d/b": b"2"}


def test_mirror_inside_the_root_is_left_alone(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a", b"1")])
    (root / "sub" / "inner").mkdir(parents=True)
    (root / "sub" / "theirs").write_bytes(b"beside")
    with Mirror(root / "sub" / "inner") as inner:
        inner.create()
        inner.apply([write("b", b"2")])
    (root / "sub" / "inner" / "edited by hand").write_bytes(b"3")
    assert list(mirror.session.run(sweep).backed_up) == ["sub/theirs"]
    with Mirror(root / "sub" / "inner") as inner:
        assert inner.verify() == []
    assert (root / "sub" / "inner" / "edited by hand").exists()


@pytest.mark.root
def test_mount_is_left_alone(mirror: Mirror, root: Path, mount: Mount) -> None:
    mirror.apply([write("a", b"1")])
    point = mount(root / "disk", "-t", "tmpfs", "tmpfs")
    (point / "theirs").write_bytes(b"2")
    with Mirror(root) as seeing:
        assert seeing.session.run(sweep).backed_up == {}
    assert (point / "theirs").read_bytes() == b"2"


@pytest.mark.root
def test_device_that_is_in_no_list_of_mounts_is_left_alone(
    mirror: Mirror, root: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign subvolume of btrfs is such a device."""
    mount(root / "disk", "-t", "tmpfs", "tmpfs")
    (root / "disk" / "x").write_bytes(b"1")
    monkeypatch.setattr(_tree, "mounts_below", lambda _fd: ("tmpfs", []))
    outcome = mirror.session.run(sweep)
    assert (outcome.backed_up, outcome.failures) == ({}, [])
    assert snapshot(root) == {"disk": "dir", "disk/x": b"1"}


@pytest.mark.root
def test_foreign_files_on_a_mount_with_files_of_ours_stay_on_it(
    mirror: Mirror, root: Path, mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    point = mount(root / "disk", "-t", "tmpfs", "tmpfs")
    with Mirror(root) as seeing:
        seeing.apply([write("disk/ours", b"1")])
        (point / "theirs").write_bytes(b"2")
        moved = seeing.session.run(sweep).backed_up
    assert (root / moved[Name("disk/theirs")]).read_bytes() == b"2"
    assert "1 foreign file was moved to 'disk/.fsmirror/backup/" in caplog.text
    assert (point / "ours").read_bytes() == b"1"


def test_link_is_moved_and_not_followed(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"1")
    mirror.create()
    (root / "link").symlink_to(outside)
    before = exact_state(outside)
    assert list(mirror.session.run(sweep).backed_up) == ["link"]
    assert exact_state(outside) == before


def test_socket_with_a_listener_is_moved(mirror: Mirror, root: Path) -> None:
    mirror.create()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        assert list(mirror.session.run(sweep).backed_up) == ["s"]


def test_two_sweeps_within_a_second_lose_nothing(mirror: Mirror, root: Path) -> None:
    mirror.create()
    for number in range(3):
        (root / "x").write_bytes(b"%d" % number)
        mirror.session.run(sweep)
    assert backups(root) == [b"0", b"1", b"2"]


# Folders that stay, and sweeps that are delayed


def test_declared_path_that_is_not_managed_is_left_alone(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    mirror.create()
    (root / "d").mkdir()
    for name in ("d/theirs", "d/other", "dd", "e"):
        (root / name).write_bytes(b"1")
    (root / "empty").mkdir()
    (root / "f").mkdir()
    (source / "d").mkdir(parents=True)
    (source / "d" / "theirs").touch()
    (source / "f").touch()
    for name in ("empty", "e"):
        (source / name).mkdir()
    with contextlib.closing(survey(Options(str(source)))) as found:
        besides = known_in(found)
    assert set(mirror.session.run(partial(sweep, besides=besides)).backed_up) == {"d/other", "dd"}
    # A folder where a file belongs stays; a file where a folder belongs may be replaced.
    assert snapshot(root) == {"d": "dir", "d/theirs": b"1", "empty": "dir", "e": b"1"}


def test_folder_where_a_file_is_declared_is_foreign(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1"), write("d/y", b"1")])
    (root / "x").unlink()
    (root / "x" / "deep").mkdir(parents=True)
    (root / "x" / "deep" / "mine").write_bytes(b"mine")
    assert list(mirror.session.run(sweep).backed_up) == ["x/deep/mine"]
    assert snapshot(root) == {"d": "dir", "d/y": b"1"}


@pytest.mark.parametrize("how", ["swept", "moved away by its owner"])
def test_folder_goes_with_the_foreign_file_that_had_kept_it(
    mirror: Mirror, root: Path, how: str
) -> None:
    mirror.apply([write("a", b"1"), write("x/y/f", b"1"), folder("kept"), write("z/g", b"1")])
    (root / "x" / "y" / "mine").write_bytes(b"mine")
    mirror.apply([delete("x/y/f")])
    assert (root / "x" / "y" / "mine").exists()
    mirror.prepare(Owner(OWNER), DriftReport())
    assert (root / "x" / "y" / "mine").exists()
    if how == "swept":
        assert list(mirror.session.run(sweep).backed_up) == ["x/y/mine"]
        assert not (root / "x").exists()
    else:
        (root / "x" / "y" / "mine").unlink()
    mirror.prepare(Owner(OWNER), DriftReport())
    assert snapshot(root) == {"a": b"1", "kept": "dir", "z": "dir", "z/g": b"1"}
    assert sorted(row.name for row in ledger_rows(mirror)) == ["a", "kept", "z", "z/g"]


def test_folders_keep_their_times_through_sweeps_and_prunes(mirror: Mirror, root: Path) -> None:
    mirror.apply([folder("x", mtime_ns=5), write("x/y/f", b"1")])
    (root / "x" / "y" / "mine").write_bytes(b"mine")
    (root / "x" / "mine").write_bytes(b"mine")
    mirror.apply([delete("x/y/f")])
    act = partial(sweep, besides=lambda name, _is_folder: name == "x/y/mine")
    assert set(mirror.session.run(act).backed_up) == {"x/mine"}
    assert (root / "x").lstat().st_mtime_ns == 5
    (root / "x" / "y" / "mine").unlink()
    mirror.prepare(Owner(OWNER), DriftReport())
    assert snapshot(root) == {"x": "dir"}
    assert (root / "x").lstat().st_mtime_ns == 5


def test_folder_that_can_not_be_listed_stays_and_is_named(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.apply([write("d/a", b"1")])
    for closed in ("closed", "d/closed"):
        (root / closed).mkdir()
        (root / closed / "inner").write_bytes(b"1")
    (root / "mine").write_bytes(b"mine")
    real = Tree.names_in

    def names_in(tree: Tree, name: Name) -> list[Name]:
        if name.endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(tree, name)

    monkeypatch.setattr(Tree, "names_in", names_in)
    assert foreign(mirror.root) == (["closed/", "d/closed/", "mine"], [])
    outcome = mirror.session.run(sweep)
    assert list(outcome.backed_up) == ["mine"]
    assert [(failure.path, str(failure)) for failure in outcome.failures] == [
        (name, f"move away {name!r}: Permission denied (it is not managed, and stays where it is)")
        for name in ("closed", "d/closed")
    ]
    assert (root / "d" / "closed" / "inner").exists()


# At an update


def all_of_it(_name: Name, _is_folder: bool) -> bool:
    """Spares nothing."""
    return False


def test_owner_sweeps_from_its_second_update_on(mirror: Mirror, root: Path) -> None:
    (root / "same").write_bytes(b"1")
    (root / "theirs").write_bytes(b"2")
    inode = (root / "same").lstat().st_ino
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    assert mirror.apply([write("same", b"1")]).adopted == ["same"]
    assert snapshot(root) == {"same": b"1", "theirs": b"2"}
    assert backups(root) == []
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    assert snapshot(root) == {"same": b"1"}
    assert (root / "same").lstat().st_ino == inode
    assert backups(root) == [b"2"]


def test_update_that_can_not_sweep_a_path_logs_it(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    (root / "theirs").write_bytes(b"2")

    def back_up(*_: object) -> Name:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(exact, "back_up", back_up)
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    problem = "Operation not permitted (it is not managed, and stays where it is)"
    assert caplog.messages == [f"{mirror.root}: move away 'theirs': {problem}"]


def test_new_owner_in_a_mirror_of_others_sweeps_nothing(mirror: Mirror, root: Path) -> None:
    mirror.prepare(Owner("another"), DriftReport())
    mirror.apply([write("a", b"1", owner="another")])
    (root / "theirs").write_bytes(b"2")
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    assert snapshot(root) == {"a": b"1", "theirs": b"2"}


def test_owner_of_a_lost_ledger_sweeps_nothing(mirror: Mirror, root: Path) -> None:
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    mirror.apply([write("a", b"1")])
    mirror.close()
    for path in (root / ".fsmirror").glob("ledger*"):
        path.unlink()
    mirror.prepare(Owner(OWNER), DriftReport(), exact=all_of_it)
    assert snapshot(root) == {"a": b"1"}


def test_update_that_is_not_exact_sweeps_nothing(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"1")
    for _ in range(2):
        mirror.prepare(Owner(OWNER), DriftReport())
    assert snapshot(root) == {"x": b"1"}


@pytest.fixture
def deep_root(root: Path) -> Iterator[Path]:
    """A root that may become too deep for pytest to clean up."""
    yield root
    subprocess.run(["rm", "-rf", root], check=True)


def test_deep_trees_are_swept_file_by_file_with_few_descriptors(
    mirror: Mirror, deep_root: Path
) -> None:
    """Each file keeps its bytes, however many folders have to be opened."""
    root, usual = deep_root, sys.getrecursionlimit()
    mirror.create()
    deep = root
    for number in range(300):
        deep = deep / "f"
        deep.mkdir()
        (deep / "x").write_bytes(b"%d" % number)
    sys.setrecursionlimit(len(inspect.stack(0)) + 250)
    try:
        moved = mirror.session.run(sweep).backed_up
    finally:
        sys.setrecursionlimit(usual)
    assert snapshot(root) == {}
    assert len(moved) == 300
    for name, where in moved.items():
        assert (root / where).read_bytes() == b"%d" % (name.count("/") - 1)
