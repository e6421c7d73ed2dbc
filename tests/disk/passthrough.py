"""Mounts a folder through FUSE, and misbehaves as asked.

Run as a program: ``passthrough.py BEHIND POINT WAYS``, where WAYS is JSON of :class:`Ways`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

_NOREPLACE = 1  # renameat2(2)


@dataclass(frozen=True)
class Ways:
    """The ways of a file system, where they are not those of the folder behind.

    Attributes:
        modes: The modes that every file and every folder has; chmod changes nothing.
        chmod: The error of each chmod.
        grain_ns: The resolution of times, in nanoseconds.
        is_ctime_mtime: True if the ctime is the mtime, which anybody can set.
        inodes: ``real``; ``top bit``; ``salted``, so that each mount has others; or ``own``, those
            of the FUSE library, which differ for each spelling of a name too.
        rename: ``obeys`` the flags of renameat2, ``refuses`` them, or ``ignores`` them.
        links: True if there are hard links.
        symlinks: True if there are symbolic links.
        folds: True if names that differ in case only are one.
        lists_lower: True if names are listed in lower case.
        apart: The name of a folder; renames into or out of it fail with ``EXDEV``.
        failing: Operations that always fail, with the name of the error.
        unreadable: The ending of the names of files whose bytes can't be read (``EIO``).
    """

    modes: tuple[int, int] | None = None
    chmod: str = ""
    grain_ns: int = 1
    is_ctime_mtime: bool = False
    inodes: str = "real"
    rename: str = "obeys"
    links: bool = True
    symlinks: bool = True
    folds: bool = False
    lists_lower: bool = False
    apart: str = ""
    failing: dict[str, str] = field(default_factory=dict)
    unreadable: str = ""

    def packed(self) -> str:
        """Returns these ways as JSON."""
        return json.dumps(asdict(self))


def _fail(name: str) -> NoReturn:
    """Raises the error with a name."""
    code = getattr(errno, name)
    raise OSError(code, os.strerror(code))


class Passthrough:
    """The operations, as the FUSE library calls them; a path begins with a slash."""

    use_ns = True

    def __init__(self, behind: str, ways: Ways) -> None:
        self._behind = behind
        self._ways = ways
        self._salt = int.from_bytes(os.urandom(3), "big") << 32
        self._libc: Any = ctypes.CDLL(None, use_errno=True)

    def _at(self, path: str) -> str:
        """Returns the path behind a path."""
        found = self._behind
        for part in path.strip("/").split("/"):
            inner = os.path.join(found, part)
            if self._ways.folds and not os.path.lexists(inner) and os.path.isdir(found):
                twins = (e for e in os.listdir(found) if e.casefold() == part.casefold())
                inner = os.path.join(found, next(twins, part))
            found = inner
        return found

    def _may(self, operation: str) -> None:
        """Raises if an operation is to fail."""
        if operation in self._ways.failing:
            _fail(self._ways.failing[operation])

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        at = self._at(path)
        found = os.lstat(at) if fh is None or os.path.lexists(at) else os.fstat(fh)
        keys = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
        seen = {key: getattr(found, key) for key in keys}
        for key in ("st_atime", "st_mtime", "st_ctime"):
            ns = getattr(found, f"{key}_ns")
            seen[key] = ns // self._ways.grain_ns * self._ways.grain_ns
        if self._ways.is_ctime_mtime:
            seen["st_ctime"] = seen["st_mtime"]
        if self._ways.modes is not None and not stat.S_ISLNK(found.st_mode):
            mode = self._ways.modes[stat.S_ISDIR(found.st_mode)]
            seen["st_mode"] = stat.S_IFMT(found.st_mode) | mode
        if self._ways.inodes == "top bit":
            seen["st_ino"] |= 1 << 63
        elif self._ways.inodes == "salted":
            seen["st_ino"] ^= self._salt
        return seen

    def chmod(self, path: str, mode: int) -> int:
        if self._ways.chmod:
            _fail(self._ways.chmod)
        if self._ways.modes is None:
            os.chmod(self._at(path), stat.S_IMODE(mode))
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        self._may("chown")
        os.chown(self._at(path), uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._may("utimens")
        if times is None:
            os.utime(self._at(path), follow_symlinks=False)
        else:
            os.utime(self._at(path), ns=times, follow_symlinks=False)
        return 0

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        found = os.listdir(self._at(path))
        shown = [".", "..", *(map(str.lower, found) if self._ways.lists_lower else found)]
        # An entry with the inode number 0 would be skipped by the C library.
        return [(name, {"st_ino": 1}, 0) for name in shown]

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def symlink(self, path: str, target: str) -> int:
        if not self._ways.symlinks:
            _fail("EPERM")
        os.symlink(target, self._at(path))
        return 0

    def link(self, path: str, existing: str) -> int:
        if not self._ways.links:
            _fail("EPERM")
        os.link(self._at(existing), self._at(path), follow_symlinks=False)
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        apart = self._ways.apart
        if apart and (f"/{apart}/" in old) != (f"/{apart}/" in new):
            _fail("EXDEV")
        if flags and self._ways.rename == "refuses":
            _fail("EINVAL")
        source, target = self._at(old), self._at(new)
        if not flags or self._ways.rename == "ignores":
            if source == target and self._ways.folds:
                target = os.path.join(os.path.dirname(source), os.path.basename(new))
            os.rename(source, target)
            if os.path.basename(target).casefold() == os.path.basename(new).casefold():
                # A file that was replaced gets the new spelling, as with exFAT.
                os.rename(target, os.path.join(os.path.dirname(target), os.path.basename(new)))
            return 0
        names = os.fsencode(source), os.fsencode(target)
        if self._libc.renameat2(-100, names[0], -100, names[1], flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return 0

    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        return os.open(self._at(path), flags | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        if self._ways.unreadable and path.endswith(self._ways.unreadable):
            _fail("EIO")
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._may("fsync")
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._may("fsyncdir")
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._behind)
        return {
            key: getattr(found, key)
            for key in (
                "f_bsize",
                "f_frsize",
                "f_blocks",
                "f_bfree",
                "f_bavail",
                "f_files",
                "f_ffree",
                "f_namemax",
            )
        }


def main(behind: str, point: str, ways: str) -> None:
    """Serves until it is unmounted."""
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # That of version 2 knows no flags of rename.
    import mfusepy  # type: ignore[import-untyped]

    os.umask(0)

    class Serving(mfusepy.FUSE):  # type: ignore[misc]
        def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
            # The binding itself drops the flags, so that an exchange removes a file.
            return int(self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags))

    asked = Ways(**json.loads(ways))
    Serving(
        Passthrough(behind, asked), point, foreground=True, nothreads=True, fsname="passthrough",
        attr_timeout=0, entry_timeout=0, negative_timeout=0, use_ino=asked.inodes != "own",
        hard_remove=True, default_permissions=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
