"""Modes, groups, default ACLs, and other mounts inside the root."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import BarrierError, Mirror
from cocoindex_fsmirror._disk.staging import Staging
from cocoindex_fsmirror._disk.tree import Tree
from tests.steps import watched
from tests.support import (
    OWNER,
    Elsewhere,
    Mount,
    contents,
    copy,
    delete,
    failing,
    folder,
    snapshot,
    write,
)


def _mode(path: Path) -> int:
    """Returns the permission bits of a path."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sets a umask for the length of a test."""
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def test_new_files_and_folders_respect_the_umask(mirror: Mirror, root: Path, umask: int) -> None:
    mirror.apply([write("d/x", b"1")])
    assert _mode(root / "d" / "x") == 0o666 & ~umask
    assert _mode(root / "d") == 0o777 & ~umask


def test_declared_mode_does_not_depend_on_the_umask(mirror: Mirror, root: Path, umask: int) -> None:
    mirror.apply([write("x", b"1", mode=0o775)])
    assert _mode(root / "x") == 0o775


@pytest.mark.parametrize("content", [b"ours", b"foreign"])
def test_mode_of_an_existing_file_is_kept(mirror: Mirror, root: Path, content: bytes) -> None:
    mirror.apply([write("x", b"ours")])
    (root / "x").write_bytes(content)
    (root / "x").chmod(0o604)
    assert mirror.verify() == (["x"] if content == b"foreign" else [])
    mirror.apply([write("x", b"new")])
    assert (root / "x").read_bytes() == b"new"
    assert _mode(root / "x") == 0o604


@pytest.mark.parametrize("content", [b"ours", b"foreign"])
def test_folder_in_the_place_of_a_file_gets_its_mode_and_time(
    mirror: Mirror, root: Path, content: bytes
) -> None:
    mirror.apply([write("x", b"ours")])
    (root / "x").write_bytes(content)
    mirror.apply([delete("x"), folder("x", mode=0o710, mtime_ns=5), write("x/y", b"1")])
    assert (_mode(root / "x"), (root / "x").lstat().st_mtime_ns) == (0o710, 5)
    assert mirror.verify() == []


def test_new_bytes_do_not_inherit_setuid(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"foreign")
    (root / "x").chmod(0o6755)
    mirror.apply([write("x", b"new")])
    assert _mode(root / "x") == 0o755


@pytest.mark.parametrize("content", [b"1", b"2"])
def test_changed_declared_mode_is_drift_and_is_healed(
    mirror: Mirror, root: Path, content: bytes
) -> None:
    mirror.apply([write("x", b"1", mode=0o640)])
    (root / "x").chmod(0o666)
    assert mirror.verify() == ["x"]
    mirror.apply([write("x", content, mode=0o640)])
    assert _mode(root / "x") == 0o640
    assert mirror.verify() == []


def test_healed_mode_writes_no_bytes(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1", mode=0o640)])
    (root / "x").chmod(0o666)
    before = (root / "x").lstat()
    mirror.apply([write("x", b"1", mode=0o640)])
    after = (root / "x").lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_setgid_folder_gives_its_group(mirror: Mirror, root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a folder to another group needs root")
    (root / "team").mkdir()
    os.chown(root / "team", -1, 4242)
    (root / "team").chmod(0o2775)
    mirror.apply([write("team/x", b"1"), write("team/new/y", b"2"), write("z", b"3")])
    mirror.apply([copy("team/copy", Elsewhere(b"4", is_hashed=False))])
    assert (root / "team" / "copy").lstat().st_gid == 4242
    assert (root / "team" / "x").lstat().st_gid == 4242
    assert (root / "team" / "new" / "y").lstat().st_gid == 4242
    assert (root / "team" / "new").lstat().st_gid == 4242
    assert _mode(root / "team" / "new") & stat.S_ISGID
    assert (root / "z").lstat().st_gid != 4242
    assert _mode(root / "team" / "x") == _mode(root / "z")


USER = 4343
_FEW = 96  # Descriptors; fewer than the test has folders.


def _give_default_acl(path: Path) -> None:
    """Gives a folder a default ACL with ``user:4343:rwx``; the kernel's format, version 2."""
    entries = [(0x01, 7, -1), (0x02, 7, USER), (0x04, 5, -1), (0x10, 7, -1), (0x20, 0, -1)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_default", struct.pack("<I", 2) + packed)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("this file system has no ACLs")


def _acl(path: Path) -> bytes:
    """Returns the access ACL of a path in the kernel's format; empty if it has none."""
    try:
        return os.getxattr(path, "system.posix_acl_access")
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return b""


def _residue(root: Path) -> set[str]:
    """Returns our folders anywhere but at the top, and staged paths."""
    inner = {
        os.path.join(at, ".fsmirror")
        for at, folders, _ in os.walk(root)
        if at != str(root) and ".fsmirror" in folders
    }
    staged = {name for name in snapshot(root, ours=True) if name.startswith("tmp/")}
    return inner | staged


@pytest.fixture
def shared(root: Path, mirror: Mirror) -> Path:
    """A folder with a default ACL."""
    (root / "shared").mkdir()
    _give_default_acl(root / "shared")
    return root / "shared"


def test_files_get_the_default_acl_of_their_folder(
    mirror: Mirror, shared: Path, root: Path
) -> None:
    (shared / "plain").write_bytes(b"0")
    mirror.apply([write("shared/x", b"1"), write("shared/new/y", b"2"), write("z", b"3")])
    assert _acl(shared / "plain") != b""
    assert _acl(shared / "x") == _acl(shared / "new" / "y") == _acl(shared / "plain")
    assert _acl(root / "z") == b""
    mirror.apply([write("shared/x", b"4"), copy("shared/z", Elsewhere(b"5", is_hashed=False))])
    assert _acl(shared / "x") == _acl(shared / "z") == _acl(shared / "plain")
    assert _residue(root) == set()


def test_folder_without_the_default_acl_of_the_root_has_files_without(
    mirror: Mirror, root: Path
) -> None:
    (root / "plain" / "inner").mkdir(parents=True)
    _give_default_acl(root)
    (root / "theirs").write_bytes(b"0")
    mirror.apply([write("plain/inner/x", b"1"), write("new/y", b"1"), write("z", b"1")])
    assert _acl(root / "plain" / "inner" / "x") == b""
    assert _acl(root / "new" / "y") == _acl(root / "z") == _acl(root / "theirs") != b""
    assert _residue(root) == set()


@pytest.mark.parametrize("is_told", [True, False])
def test_home_that_others_may_write_to_is_refused(
    mirror: Mirror, shared: Path, root: Path, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    if not is_told:  # Every type of file system is one without owners.
        monkeypatch.setattr("cocoindex_fsmirror._disk.tree.WITHOUT_OWNERS", ("",))
    (shared / ".fsmirror").mkdir()
    (shared / ".fsmirror").chmod(0o777)
    with contextlib.ExitStack() as refused:
        if is_told:
            refused.enter_context(failing("'shared/x'.*: others may write to it"))
        mirror.apply([write("shared/x", b"1"), write("z", b"2")])
    assert ((shared / "x").exists(), (root / "z").read_bytes()) == (not is_told, b"2")


def test_files_below_a_default_acl_are_removed_with_their_folders(
    mirror: Mirror, shared: Path, root: Path
) -> None:
    mirror.apply([write("shared/new/er/x", b"1"), write("shared/new/y", b"2")])
    mirror.apply([delete("shared/new/er/x"), delete("shared/new/y")])
    assert snapshot(root) == {"shared": "dir"}
    assert _residue(root) == set()


def test_folder_below_a_default_acl_becomes_a_file(
    mirror: Mirror, shared: Path, root: Path
) -> None:
    mirror.apply([write("shared/new/er/x", b"1")])
    mirror.apply([write("shared/new", b"2"), delete("shared/new/er/x")])
    assert contents(snapshot(root)) == {"shared/new": b"2"}
    assert _residue(root) == set()


def test_many_default_acls_fit_into_few_descriptors(
    mirror: Mirror, shared: Path, root: Path
) -> None:
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    names = [f"shared/{number}/x" for number in range(100)]
    mirror.apply([write(name, b"1") for name in names])
    few = max(map(int, os.listdir("/proc/self/fd"))) + _FEW
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, was[1]))
    try:
        mirror.apply([write(name, b"2") for name in names])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
    assert contents(snapshot(root)) == dict.fromkeys(names, b"2")
    assert _residue(root) == set()


def test_note_of_a_staging_area_elsewhere_is_synced_at_once(mirror: Mirror, shared: Path) -> None:
    """Recovery finds such an area only by its note; those in the root are found without."""
    mirror.apply([write("x", b"1")])
    assert _pragmas_of(mirror, "y") == ["note"]
    assert _pragmas_of(mirror, f"{shared.name}/x") == ["FULL", "note", "NORMAL"]
    assert _pragmas_of(mirror, f"{shared.name}/y", durable=False) == ["note"]


def test_staging_area_elsewhere_goes_at_last_though_its_disk_failed(
    mirror: Mirror, shared: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    mirror.apply([write("y", b"1")])
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "ready", fail)
        patch.setattr(Tree, "remove_file", fail)
        with pytest.raises(BarrierError):
            mirror.apply([write(f"{shared.name}/x", b"1")])
    assert _residue(root) != set()
    mirror.apply([write(f"{shared.name}/x", b"2")])  # With a new area where the old one was.
    assert (shared / "x").read_bytes() == b"2"
    assert _residue(root) == set()


def _pragmas_of(mirror: Mirror, name: str, *, durable: bool = True) -> list[str]:
    """Writes a file; returns when the ledger was synced in which way, and when it was noted."""
    told: list[str] = []
    ledger = mirror.session.ledger
    assert ledger is not None
    ledger._connection.set_trace_callback(told.append)
    mirror.apply([write(name, b"1", durable=durable)])
    ledger._connection.set_trace_callback(None)
    noted = ("note" if line.startswith("INSERT INTO intents") else line for line in told)
    found = (line.removeprefix("PRAGMA synchronous=") for line in noted)
    return [line for line in found if line in ("FULL", "NORMAL", "note")]


@pytest.fixture
def bound(mirror: Mirror, root: Path, tmp_path: Path, mount: Mount) -> Path:
    """A folder from elsewhere, bound into the root."""
    (tmp_path / "elsewhere").mkdir()
    return mount(root / "bound", "--bind", str(tmp_path / "elsewhere"))


@pytest.mark.root
def test_mount_inside_the_root_is_written_to_and_deleted_from(
    mirror: Mirror, root: Path, bound: Path
) -> None:
    mirror.apply([write("bound/x", b"1"), write("bound/new/y", b"2"), write("z", b"3")])
    assert contents(snapshot(root)) == {"bound/x": b"1", "bound/new/y": b"2", "z": b"3"}
    mirror.apply([write("bound/x", b"4"), delete("bound/new/y")])
    assert contents(snapshot(root)) == {"bound/x": b"4", "z": b"3"}
    assert list(bound.iterdir()) == [bound / "x"]
    mirror.tear_down(OWNER)
    assert snapshot(root) == {"bound": "dir"}
    assert _residue(root) == set()


@pytest.mark.root
@pytest.mark.parametrize("undeclared", [False, True])
def test_foreign_bytes_on_a_mount_inside_the_root_are_backed_up_there(
    mirror: Mirror, root: Path, bound: Path, undeclared: bool
) -> None:
    mirror.apply([write("bound/d/x", b"1")])
    (bound / "d" / "x").write_bytes(b"foreign")
    mirror.apply([delete("bound/d/x") if undeclared else write("bound/d/x", b"2")])
    (moment,) = (bound / ".fsmirror" / "backup").iterdir()
    assert contents(snapshot(moment)) == {"bound/d/x": b"foreign"}
    assert [path.name for path in (bound / ".fsmirror").iterdir()] == ["backup"]


@pytest.mark.root
def test_mount_below_another_mount_is_written_to(
    mirror: Mirror, root: Path, bound: Path, tmp_path: Path, mount: Mount
) -> None:
    inner = mount(bound / "in ner", "-t", "tmpfs", "tmpfs")
    mirror.apply([write("bound/x", b"1"), write("bound/in ner/y", b"2")])
    assert (inner / "y").read_bytes() == b"2"
    assert not (tmp_path / "elsewhere" / "in ner" / "y").exists()
    mirror.apply([delete("bound/x"), delete("bound/in ner/y")])
    assert contents(snapshot(root)) == {}
    assert _residue(root) == set()


@pytest.mark.root
def test_each_barrier_is_on_every_mount_that_was_written_to(
    mirror: Mirror, root: Path, mount: Mount
) -> None:
    """On that of the root with its own descriptor, which is the oldest."""
    mirror.apply([write("y", b"1")])
    inner = mount(root / "inner", "-t", "tmpfs", "tmpfs")
    synced: list[os.stat_result] = []

    def hear(name: str, args: tuple[Any, ...]) -> None:
        if name == "syncfs":
            synced.append(os.fstat(args[0]))

    with watched(hear):
        mirror.apply([write("inner/x", b"1"), write("y", b"2")])
    devices = [root.stat().st_dev, inner.stat().st_dev]
    assert sorted(each.st_dev for each in synced) == sorted(2 * devices)
    own = [each.st_ino for each in synced if each.st_dev == devices[0]]
    assert own == 2 * [root.stat().st_ino]


@pytest.mark.root
def test_subvolume_inside_the_root_is_written_to(tmp_path: Path, mount: Mount) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("btrfs-progs are not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    top = mount(tmp_path / "btrfs", "-o", "loop", str(image))
    root = top / "root"
    root.mkdir()
    made = ["btrfs", "subvolume", "create", str(root / "sub")]
    subprocess.run(made, check=True, capture_output=True)
    with Mirror(root) as mirror:
        mirror.apply([write("sub/x", b"1"), write("y", b"2")])
        assert contents(snapshot(root)) == {"sub/x": b"1", "y": b"2"}
        mirror.apply([write("sub/x", b"3"), delete("y")])
        mirror.apply([delete("sub/x")])
    assert contents(snapshot(root)) == {}
    assert _residue(root) == set()
