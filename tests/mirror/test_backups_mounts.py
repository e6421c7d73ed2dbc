"""Backups on other mounts inside the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cocoindex_fsmirror import ConflictError, Mirror, PathError
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._mirror.backups import find
from tests.mirror.displacing import (
    AREA,
    displace,
    displace_tree,
    files_of,
    listed,
    purged,
    put_back,
)
from tests.steps import recorded
from tests.support import Mount, failing, snapshot

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")


@pytest.fixture
def bound(one_moment: None, mirror: Mirror, root: Path, tmp_path: Path, mount: Mount) -> Path:
    """A folder from elsewhere, bound into the root, with a backup of its own."""
    (tmp_path / "elsewhere").mkdir()
    point = mount(root / "bound", "--bind", str(tmp_path / "elsewhere"))
    displace(mirror, "bound/d/x", "y")
    return point


@pytest.mark.root
@pytest.mark.usefixtures("bound")
def test_backup_on_a_mount_is_listed_with_the_others(mirror: Mirror) -> None:
    found = files_of(listed(mirror))
    assert [(backup.where, backup.name) for backup in found] == [
        (f"bound/{AREA}/bound/d/x", "bound/d/x"),
        (f"{AREA}/y", "y"),
    ]


@pytest.mark.root
def test_restore_on_a_mount_leaves_no_folder_of_ours(
    mirror: Mirror, root: Path, bound: Path
) -> None:
    (backup,) = find(files_of(listed(mirror)), "bound/d/x")
    put_back(mirror, backup, "bound/new/x")
    assert (bound / "new" / "x").read_bytes() == b"foreign"
    assert sorted(os.listdir(bound)) == ["d", "new"]


@pytest.mark.root
def test_purge_on_a_mount_leaves_no_folder_of_ours(mirror: Mirror, bound: Path) -> None:
    assert purged(mirror, find(files_of(listed(mirror)), "bound/d/x")) == (1, 7)
    assert os.listdir(bound) == ["d"]


@pytest.mark.root
def test_device_that_is_in_no_list_of_mounts_is_a_home_too(
    mirror: Mirror, root: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subvolume of btrfs is such a device."""
    mount(root / "disk", "-t", "tmpfs", "tmpfs")
    monkeypatch.setattr(_tree, "mounts_below", lambda _fd: ("tmpfs", frozenset()))
    displace(mirror, "disk/x")
    assert [backup.name for backup in files_of(listed(mirror))] == ["disk/x"]


@pytest.mark.root
def test_restore_on_a_mount_syncs_its_disk_too(mirror: Mirror, root: Path, mount: Mount) -> None:
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    mount(root / "disk", "-t", "tmpfs", "tmpfs")
    displace(mirror, "disk/x")
    (backup,) = files_of(listed(mirror))
    with recorded() as calls:
        put_back(mirror, backup, "disk/y")
    assert [name for name, _ in calls].count("syncfs") == 2


@pytest.mark.root
@pytest.mark.parametrize(("name", "to"), [("bound/d/x", "new/er/x"), ("y", "bound/new/y")])
def test_backup_does_not_go_to_another_mount(
    mirror: Mirror, root: Path, bound: Path, name: str, to: str
) -> None:
    (backup,) = find(files_of(listed(mirror)), name)
    before = snapshot(root), listed(mirror)
    with pytest.raises(PathError, match=r"another mount.*copy '.*' there by hand") as error:
        put_back(mirror, backup, to)
    assert not isinstance(error.value, ConflictError)
    assert (snapshot(root), listed(mirror)) == before


@pytest.mark.root
def test_mirror_on_a_mount_keeps_its_backups_to_itself(mirror: Mirror, bound: Path) -> None:
    with Mirror(bound) as inner:
        inner.create()
        displace(inner, "theirs")
        assert [b.name for b in listed(mirror) if "theirs" in b.name] == []
        assert find(listed(inner), "theirs") != []


@pytest.mark.root
def test_mount_in_the_backup_area_is_neither_entered_nor_removed(
    mirror: Mirror, root: Path, mount: Mount
) -> None:
    (root / "tree" / "point").mkdir(parents=True)
    displace_tree(mirror, "tree")
    point = mount(root / AREA / "tree" / "point", "-t", "tmpfs", "tmpfs")
    (point / "x").write_bytes(b"1")
    found = listed(mirror)
    assert [(backup.name, backup.kind) for backup in found] == [("tree/point", "dir")]
    with failing("mount point"):
        purged(mirror, found)
    with pytest.raises(PathError, match="busy"):
        put_back(mirror, found[0], "point")
    assert (point / "x").read_bytes() == b"1"
