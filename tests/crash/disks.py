"""File systems in image files, whose power can be cut."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_SIZES: Final = {
    "btrfs": 128,
    "ext4": 32,
    "xfs": 320,
}  # MiB: the least that each accepts, or little more
_SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_LOG_FLUSHED: Final = 1
_LOG_LOST: Final = 2
_SBIN: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Cut:
    """A way to cut the power.

    Attributes:
        kind: The file system: ext4, xfs or btrfs.
        how: ``log lost`` drops all that is only in memory; ``log flushed`` writes the
            journal first, so that names may be on the disk whose bytes are not; ``copy``
            goes on with a copy of the disk that was taken at that moment.
        block: The size of its blocks, in bytes.
    """

    kind: str
    how: str
    block: int = 4096

    def __str__(self) -> str:
        return f"{self.kind}, {self.how}"


CUTS: Final = [
    Cut("ext4", "log lost"),
    Cut("ext4", "log flushed"),
    Cut("ext4", "copy"),
    Cut("xfs", "log lost"),
    Cut("xfs", "log flushed"),
    Cut("xfs", "copy"),
    Cut("btrfs", "copy"),
]


class Disk:
    """A mounted file system in an image file.

    Nothing reaches the image by the passing of time: what is not synced is lost.

    Args:
        cut: What to make, and how its power will be cut.
        folder: Where the image and the mount point are put.
    """

    def __init__(self, cut: Cut, folder: Path) -> None:
        self._cut = cut
        self._image, self._copy = folder / "image", folder / "copy"
        self.at = folder / "disk"
        self.at.mkdir()
        self._make()
        self._mount()

    def _make(self) -> None:
        """Makes the image, and an empty file system in it."""
        with self._image.open("wb") as file:
            file.truncate(_SIZES[self._cut.kind] << 20)
        size = {"btrfs": "--sectorsize=", "ext4": "-b", "xfs": "-bsize="}[self._cut.kind]
        run(f"mkfs.{self._cut.kind}", "-q", f"{size}{self._cut.block}", str(self._image))

    def _mount(self) -> None:
        """Mounts what is in the image."""
        options = "loop,nouuid" if self._cut.kind == "xfs" else "loop,commit=300"
        run("mount", "-o", options, str(self._image), str(self.at))

    def cut_power(self) -> None:
        """Cuts the power: from here on nothing reaches the disk."""
        if self._cut.how == "copy":
            run("cp", "--sparse=always", str(self._image), str(self._copy))
            return
        flag = _LOG_LOST if self._cut.how == "log lost" else _LOG_FLUSHED
        fd = os.open(self.at, os.O_RDONLY)
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", flag))
        os.close(fd)

    def restart(self) -> None:
        """Mounts the remains of the file system again."""
        unmount(self.at)
        if self._cut.how == "copy":
            self._copy.replace(self._image)
        self._mount()

    def sync(self) -> None:
        """Syncs all writes to the disk."""
        run("sync", "-f", str(self.at))

    def destroy(self) -> None:
        """Unmounts, whatever a test has left behind."""
        unmount(self.at)
        assert run("losetup", "-j", str(self._image)) == ""


class ThinDisk(Disk):
    """A disk that can't keep what it promised to: its blocks get their space when they are written.

    Args:
        folder: Where the memory is mounted that holds the image.
    """

    def __init__(self, folder: Path) -> None:
        self._memory = folder
        run("mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder))
        # A new folder of ours takes a block of which the rest is in use, so that it gets space.
        super().__init__(Cut("ext4", "log lost", block=1024), folder)
        # Only free blocks give their space back: the journal and the tables keep theirs.
        run("fstrim", str(self.at))

    def _make(self) -> None:
        """Makes the image without holes, and an empty file system in it."""
        super()._make()
        self._image.write_bytes(self._image.read_bytes())

    def fill(self) -> None:
        """Takes away all space: later writes never arrive."""
        with contextlib.suppress(OSError), (self._memory / "filler").open("ab", 0) as file:
            while file.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        """Gives the space back."""
        (self._memory / "filler").unlink()

    def destroy(self) -> None:
        """Unmounts the memory too."""
        try:
            super().destroy()
        finally:
            unmount(self._memory)


def run(*command: str) -> str:
    """Runs a command; returns what it prints."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PATH": _SBIN, "LC_ALL": "C"}
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def unmount(at: Path) -> None:
    """Unmounts a mount point; one in use is unmounted lazily, and the error is raised."""
    # os.path.ismount fails on a disk that was shut down.
    if f" {at} " not in Path("/proc/self/mounts").read_text():
        return
    until = time.monotonic() + 10
    while True:
        try:
            run("umount", str(at))
        except OSError:  # An engine closes its database a moment after its last update.
            if time.monotonic() > until:
                run("umount", "-l", str(at))
                raise
            time.sleep(0.05)
        else:
            return


def need(*commands: str) -> None:
    """Skips a test where there is no root, or a command is missing."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    for command in commands:
        if shutil.which(command, path=_SBIN) is None:
            pytest.skip(f"{command} is not installed")


@contextlib.contextmanager
def made_disk(cut: Cut, folder: Path) -> Iterator[Disk]:
    """Yields a disk, and destroys it in the end."""
    need(f"mkfs.{cut.kind}", "mount", "losetup")
    folder.mkdir()
    try:
        disk = Disk(cut, folder)
    except OSError as error:
        pytest.skip(f"no loop-mounted {cut.kind} here: {error}")
    try:
        yield disk
    finally:
        disk.destroy()


@contextlib.contextmanager
def made_thin_disk(folder: Path) -> Iterator[ThinDisk]:
    """Yields a thin disk, and destroys it in the end."""
    need("mkfs.ext4", "mount", "losetup", "fstrim")
    folder.mkdir()
    try:
        disk = ThinDisk(folder)
    except OSError as error:
        unmount(folder / "disk")
        unmount(folder)
        pytest.skip(f"no loop-mounted ext4 on a tmpfs here: {error}")
    try:
        yield disk
    finally:
        disk.destroy()
