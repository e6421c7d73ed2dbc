"""File systems to mirror to, each with its ways; mounted for a test, and gone after it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.disks import need, run
from tests.disk import passthrough
from tests.disk.passthrough import Ways

_ADD_KEY: Final = 0xC0506617  # FS_IOC_ADD_ENCRYPTION_KEY of <linux/fscrypt.h>
_SET_POLICY: Final = 0x800C6613  # FS_IOC_SET_ENCRYPTION_POLICY


@dataclass
class Ground:
    """A mounted file system, with a folder for a mirror.

    Attributes:
        kind: Its kind.
        folder: The test's own folder.
        stack: Takes everything away in the end.
        device: The loop device, if there is one.
        layers: The number of layers of an overlay.
    """

    kind: Kind
    folder: Path
    stack: contextlib.ExitStack
    device: str = ""
    layers: int = 1
    _server: subprocess.Popen[bytes] | None = None

    @property
    def point(self) -> Path:
        """The mount point."""
        return self.path("mnt")

    @property
    def root(self) -> Path:
        """The path of the mirror."""
        return self.point / "root"

    def path(self, name: str) -> Path:
        """Makes a folder beside the mount point."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def set_up_loop(self, size: int, *command: str) -> None:
        """Makes a file system of some MiB on a loop device."""
        image = self.folder / "image"
        with image.open("wb") as file:
            file.truncate(size << 20)
        self.device = run("losetup", "-f", "--show", str(image)).strip()
        self.stack.callback(run, "losetup", "-d", self.device)
        run(*command, self.device)

    def mount(self) -> None:
        """Mounts the file system."""
        self.kind.mount(self)

    def unmount(self) -> None:
        """Unmounts the file system, if it is mounted; lazily if it is in use."""
        if f" {self.point} " in Path("/proc/self/mounts").read_text():
            try:
                run("umount", str(self.point))
            except OSError:
                run("umount", "-l", str(self.point))
                raise
        if self._server is not None:
            self._server.wait(30)
            self._server = None

    def remount(self) -> None:
        """Unmounts the file system, and mounts it again."""
        self.unmount()
        self.mount()

    def serve(self, ways: Ways) -> None:
        """Mounts a passthrough with some ways."""
        pytest.importorskip("mfusepy")
        command = [sys.executable, passthrough.__file__, str(self.path("behind")), str(self.point)]
        self._server = subprocess.Popen([*command, ways.packed()])
        for _ in range(1_000):
            if os.path.ismount(self.point):
                return
            assert self._server.poll() is None, "the passthrough has ended"
            time.sleep(0.01)
        raise AssertionError("the passthrough was not mounted")


@dataclass(frozen=True)
class Kind:
    """A kind of file system.

    Attributes:
        name: Its name in the tests.
        mount: Mounts it.
        set_up: Makes it, once.
        needs: The commands that it needs.
        modes: True if it keeps modes.
        symlinks: True if it has symbolic links.
        folds: True if it takes names that differ in case for one.
        ctime: True if each change moves a time that nobody can set.
        apart: A folder in the root, beyond an edge that no rename crosses.
    """

    name: str
    mount: Callable[[Ground], object]
    set_up: Callable[[Ground], object] = lambda _ground: None
    needs: tuple[str, ...] = ()
    modes: bool = True
    symlinks: bool = True
    folds: bool = False
    ctime: bool = True
    apart: str = ""

    def __str__(self) -> str:
        return self.name


def _mount_loop(*options: str) -> Callable[[Ground], object]:
    """Returns a function that mounts the loop device."""
    return lambda ground: run("mount", *options, ground.device, str(ground.point))


def _run_on_loop(*command: str) -> Callable[[Ground], object]:
    """Returns a function that starts a FUSE driver with the loop device."""
    return lambda ground: run(*command, ground.device, str(ground.point))


def _loop(size: int, *command: str) -> Callable[[Ground], object]:
    """Returns a function that makes a file system on a loop device."""
    return lambda ground: ground.set_up_loop(size, *command)


def _passing(name: str, ways: Ways) -> Kind:
    """Returns a passthrough with some ways."""
    given: dict[str, Any] = {
        "modes": ways.modes is None and not ways.chmod,
        "symlinks": ways.symlinks,
        "folds": ways.folds,
        "ctime": not ways.is_ctime_mtime,
        "apart": ways.apart,
    }
    return Kind(name, lambda ground: ground.serve(ways), needs=("fusermount3",), **given)


def _mount_overlay(ground: Ground, *options: str, two_disks: bool = False) -> None:
    """Mounts an overlay; what was its upper layer before becomes its topmost lower one."""
    lower = [str(ground.path(f"upper{n}")) for n in reversed(range(ground.layers))]
    top = ground.path(f"disk{ground.layers}") if two_disks else ground.folder
    if two_disks:
        run("mount", "-t", "tmpfs", "tmpfs", str(top))
        ground.stack.callback(run, "umount", "-l", str(top))
    upper, work = ground.folder / f"upper{ground.layers}", top / f"work{ground.layers}"
    if two_disks:
        (top / "upper").mkdir()
        upper.symlink_to(top / "upper")
    for path in (upper, work):
        path.mkdir(exist_ok=True)
    layers = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", ",".join((layers, *options)), "overlay", str(ground.point))
    ground.layers += 1


def _mount_bindfs(ground: Ground, *options: str) -> None:
    """Mounts a folder on another one with bindfs."""
    run("bindfs", *options, str(ground.path("behind")), str(ground.point))


def _mount_mergerfs(ground: Ground) -> None:
    """Mounts a union of two folders, one of which alone has a certain folder in it."""
    ground.path("one").joinpath("root").mkdir(exist_ok=True)
    ground.path("two").joinpath("root", "apart").mkdir(parents=True, exist_ok=True)
    branches = f"{ground.path('one')}:{ground.path('two')}"
    run("mergerfs", "-o", "category.create=epmfs", branches, str(ground.point))


def _encrypt(ground: Ground) -> None:
    """Makes a folder in the root whose files are encrypted."""
    with contextlib.ExitStack() as stack:
        fd = os.open(ground.point, os.O_RDONLY)
        stack.callback(os.close, fd)
        key = bytes(range(64))
        request = bytearray(struct.pack("II32xII32x", 2, 0, len(key), 0) + key)
        try:
            fcntl.ioctl(fd, _ADD_KEY, request)
        except OSError as error:
            pytest.skip(f"this kernel encrypts no folders: {error}")
        folder = ground.root / "apart"
        if folder.is_dir():
            return
        folder.mkdir(parents=True)
        inner = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, inner)
        # Version 2, AES-256-XTS for contents, AES-256-CTS for names, padded to 32 bytes.
        fcntl.ioctl(inner, _SET_POLICY, struct.pack("BBBBB3x", 2, 1, 4, 3, 0) + request[8:24])


def _mount_encrypted(ground: Ground) -> None:
    """Mounts the loop device, and unlocks its encrypted folder."""
    run("mount", ground.device, str(ground.point))
    _encrypt(ground)


def _mount_project(ground: Ground) -> None:
    """Mounts the loop device, with a folder that belongs to another project of its quotas."""
    run("mount", ground.device, str(ground.point))
    if not ground.root.exists():
        (ground.root / "apart").mkdir(parents=True)
        folder = str(ground.root / "apart")
        run("xfs_io", "-c", "chproj 1000", "-c", "chattr +P", folder)


def _mount_btrfs(ground: Ground) -> None:
    """Mounts the loop device, with a subvolume in the root."""
    run("mount", ground.device, str(ground.point))
    if not ground.root.exists():
        run("btrfs", "subvolume", "create", str(ground.root))
        run("btrfs", "subvolume", "create", str(ground.root / "apart"))


_EXT4: Final = ("mkfs.ext4", "-q")
_NTFS: Final = ("mkntfs", "-F", "-q", "-Q")

KINDS: Final = [
    Kind("ext4", _mount_loop(), _loop(32, *_EXT4), ("mkfs.ext4",)),
    Kind(
        "ext4 with an encrypted folder",
        _mount_encrypted,
        _loop(32, *_EXT4, "-O", "encrypt"),
        ("mkfs.ext4",),
        apart="apart",
    ),
    Kind(
        "xfs with a project",
        _mount_project,
        _loop(320, "mkfs.xfs", "-q"),
        ("mkfs.xfs", "xfs_io"),
        apart="apart",
    ),
    Kind(
        "btrfs with a subvolume",
        _mount_btrfs,
        _loop(128, "mkfs.btrfs", "-q"),
        ("mkfs.btrfs", "btrfs"),
        apart="apart",
    ),
    Kind("overlay", partial(_mount_overlay), needs=("mount",)),
    Kind("overlay, xino=on", lambda ground: _mount_overlay(ground, "xino=on")),
    Kind(
        "overlay of several disks, xino=off",
        lambda ground: _mount_overlay(ground, "xino=off", two_disks=True),
    ),
    Kind(
        "overlay of several disks, xino=on",
        lambda ground: _mount_overlay(ground, "xino=on", two_disks=True),
    ),
    Kind(
        "exFAT",
        _run_on_loop("mount.exfat-fuse"),
        _loop(32, "mkfs.exfat"),
        ("mkfs.exfat", "mount.exfat-fuse"),
        modes=False,
        symlinks=False,
        folds=True,
        ctime=False,
    ),
    Kind("NTFS", _run_on_loop("ntfs-3g"), _loop(32, *_NTFS), ("mkntfs", "ntfs-3g"), modes=False),
    Kind(
        "NTFS with permissions",
        _run_on_loop("ntfs-3g", "-o", "permissions"),
        _loop(32, *_NTFS),
        ("mkntfs", "ntfs-3g"),
    ),
    Kind(
        "NTFS, folding",
        _run_on_loop("lowntfs-3g", "-o", "ignore_case"),
        _loop(32, *_NTFS),
        ("mkntfs", "lowntfs-3g"),
        modes=False,
        folds=True,
    ),
    Kind("bindfs", _mount_bindfs, needs=("bindfs",)),
    Kind(
        "bindfs with fixed modes",
        lambda ground: _mount_bindfs(ground, "--perms=0644:ud+X", "--chmod-ignore"),
        needs=("bindfs",),
        modes=False,
    ),
    Kind("mergerfs", _mount_mergerfs, needs=("mergerfs",), apart="apart"),
    _passing("passthrough", Ways()),
    _passing("fixed modes", Ways(modes=(0o777, 0o777))),
    _passing("chmod refused", Ways(modes=(0o755, 0o755), chmod="EPERM")),
    _passing("times of 1 s", Ways(grain_ns=10**9)),
    _passing("times of 2 s, no ctime", Ways(grain_ns=2 * 10**9, is_ctime_mtime=True)),
    _passing("times that can't be set", Ways(failing={"utimens": "ENOTSUP"})),
    _passing("inode numbers with the top bit", Ways(inodes="top bit")),
    _passing("inode numbers of each mount", Ways(inodes="salted")),
    _passing("inode numbers of each name", Ways(inodes="own", rename="refuses")),
    _passing("no exchange", Ways(rename="refuses")),
    _passing("exchange that loses a file", Ways(rename="ignores")),
    _passing("no exchange, no links", Ways(rename="refuses", links=False, symlinks=False)),
    _passing("folding", Ways(folds=True)),
    _passing("folding, inode numbers of each name", Ways(folds=True, inodes="own", links=False)),
    _passing("folding to lower case", Ways(folds=True, lists_lower=True, rename="refuses")),
    _passing("renames of one folder only", Ways(apart="apart")),
    _passing("no fsync of folders", Ways(failing={"fsyncdir": "ENOTSUP"})),
    _passing(
        "little of all",
        Ways(
            modes=(0o644, 0o755),
            chmod="ENOTSUP",
            grain_ns=2 * 10**9,
            is_ctime_mtime=True,
            inodes="own",
            rename="refuses",
            links=False,
            symlinks=False,
            folds=True,
            failing={"chown": "EPERM", "fsyncdir": "EINVAL"},
        ),
    ),
]


@contextlib.contextmanager
def laid_out(kind: Kind, folder: Path) -> Iterator[Ground]:
    """Yields a mounted file system, and takes it away in the end."""
    need("mount", *kind.needs)
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        ground = Ground(kind, folder, stack)
        kind.set_up(ground)
        stack.callback(ground.unmount)
        ground.mount()
        yield ground
