"""Backups with unusual names and of any depth, and those of mirrors inside the root."""

from __future__ import annotations

import inspect
import os
import resource
import sys
from pathlib import Path

import pytest

from cocoindex_fsmirror import InvalidNameError, Mirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk.homes import back_up
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror.backups import find
from tests.disk.test_names_on_disk import NASTY
from tests.mirror.displacing import (
    AREA,
    STAMP,
    backup_area,
    displace,
    displace_tree,
    listed,
    locked,
    purged,
    put_back,
)
from tests.support import snapshot

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")

UNUSUAL = [*NASTY, os.fsdecode(b"not \xff text"), "d\udcff/x", f"{'n' * 255}.d"[:254] + "/y"]


def test_nasty_names_are_listed_restored_and_purged(mirror: Mirror, root: Path) -> None:
    for name in UNUSUAL:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"1")

    def act(tree: Tree) -> None:
        for name in UNUSUAL:
            back_up(tree, Name(name), STAMP)

    for _ in range(2):
        locked(mirror, act)
        found = listed(mirror)
        assert sorted(backup.name for backup in found) == sorted(UNUSUAL)
        assert [find(found, name) for name in UNUSUAL] == [
            [backup for backup in found if backup.name == name] for name in UNUSUAL
        ]
        for backup in found:
            put_back(mirror, backup)
        assert {name for name, state in snapshot(root).items() if state == b"1"} == set(UNUSUAL)
        assert backup_area(root) == {}
    locked(mirror, act)
    assert purged(mirror, listed(mirror)) == (len(UNUSUAL), len(UNUSUAL))
    assert backup_area(root) == {}


def test_backup_of_a_nested_mirror_is_not_restored_into_our_own_folder(
    mirror: Mirror, root: Path
) -> None:
    """A displaced mirror has a ``.fsmirror`` that may not be restored under that name."""
    inner = root / "sub" / AREA
    inner.mkdir(parents=True)
    (inner / "x").write_bytes(b"1")
    displace_tree(mirror, "sub")
    (backup,) = listed(mirror)
    assert backup.name == f"sub/{AREA}/x"
    with pytest.raises(InvalidNameError):
        put_back(mirror, backup)
    put_back(mirror, backup, "sub/x")
    assert snapshot(root) == {"sub": "dir", "sub/x": b"1"}
    assert backup_area(root) == {}


def test_very_deep_backups_need_neither_frames_nor_descriptors(mirror: Mirror, root: Path) -> None:
    deep, usual = "/".join(["d"] * 300), sys.getrecursionlimit()
    made = os.open(root, os.O_RDONLY)
    for part in deep.split("/"):
        os.mkdir(part, dir_fd=made)
        below = os.open(part, os.O_RDONLY, dir_fd=made)
        os.close(made)
        made = below
    os.close(made)
    displace_tree(mirror, "d")
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        (backup,) = listed(mirror)
        put_back(mirror, backup, f"e/{deep}")
        displace_tree(mirror, "e")
        counted = purged(mirror, listed(mirror))
    finally:
        sys.setrecursionlimit(usual)
    assert (backup.name, counted) == (deep, (1, 0))
    assert backup_area(root) == {}


def test_right_file_is_moved_with_few_descriptors(mirror: Mirror, root: Path) -> None:
    displace(mirror, "a/b/c/d/x")
    decoys = ["t", "t/u", "t/u/v", "t/u/v/w"]
    (root / decoys[-1]).mkdir(parents=True)
    for folder in decoys:
        (root / folder / "x").write_bytes(b"decoy")
    (backup,) = listed(mirror)
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, was[1]))
    try:
        put_back(mirror, backup, "t/u/v/w/y")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
    assert (root / "t/u/v/w/y").read_bytes() == b"foreign"
    assert {(root / folder / "x").read_bytes() for folder in decoys} == {b"decoy"}


def test_mirror_inside_the_root_keeps_its_backups_to_itself(mirror: Mirror, root: Path) -> None:
    """Paths of backups there could be paths of this mirror."""
    with Mirror(root / "sub") as inner:
        inner.create()
        displace(inner, "sub/x")
        assert listed(mirror) == []
        assert [backup.name for backup in listed(inner)] == ["sub/x"]
