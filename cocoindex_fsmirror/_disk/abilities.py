"""Abilities: finds out what the file system of a root can do, by trying it in our own folder.

Its type tells little: a server, a driver's options or a layer below decide. The result is kept in
``.fsmirror/abilities.json``, so that looks, which change nothing, know it too; it is tried
anew once the root is on another device. What a failing call tells by its errno (hard links,
symbolic links, locks) is not tried beforehand.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import Final

import msgspec

from .._core.attributes import Attributes
from . import calls
from .calls import closing, write_all

__all__ = ["Abilities", "attributes_for_copy", "attributes_of", "try_out"]

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_MODES: Final = (0o751, 0o640)
# No digit of its fraction is 0, so that the zeros it comes back with are the resolution.
_TIME: Final = 1_000_000_001_123_456_789  # nanoseconds since 1970
_GRAINS: Final = (2_000_000_000, *(10**power for power in range(9, -1, -1)))  # nanoseconds


class Abilities(msgspec.Struct, frozen=True):
    """The abilities of the file system of a root; by default all.

    Attributes:
        path: The path of the root, for messages.
        device: The number of the device on which they were tried.
        kind: The type of its file system, by which a look knows that they are of another one.
        exchange: True if two names can be exchanged in one step.
        modes: True if permission bits that are set are kept.
        grain_ns: The resolution of times, in nanoseconds; 0 if they can't be set.
        ctime: True if the time of the last change is not simply the mtime, which can be put back.
        folds_case: True if names that differ in case only are one.
        folds_unicode: True if names that differ only in how characters are composed are one.
        edges: Folders over whose edge no file can be renamed, though on one device.
        searched: Folders in which a search for edges that was cut off may have left something.
    """

    path: str = ""
    device: int = 0
    kind: str = ""
    exchange: bool = True
    modes: bool = True
    grain_ns: int = 1
    ctime: bool = True
    folds_case: bool = False
    folds_unicode: bool = False
    edges: frozenset[str] = frozenset()
    searched: frozenset[str] = frozenset()

    def say_once(self, problem: str) -> None:
        """Warns once in a process of what this file system can't do."""
        calls.say_once(f"{self.path}: this file system ({self.kind or 'unknown'}) {problem}")

    def now_ns(self) -> int:
        """Returns the time by the clock that stamps files; 0 if their stamps prove nothing."""
        if self.ctime:
            return calls.coarse_now_ns()
        self.say_once("has no ctime of its own; every file is read, to find edits")
        return 0

    def kept(self, wanted: Attributes) -> Attributes:
        """Returns attributes as the file system stores them; ``None`` for what it does not."""
        mode, mtime_ns = wanted.mode, wanted.mtime_ns
        if mode is not None and not self.modes:
            self.say_once("keeps no modes; they are neither set nor compared")
            mode = None
        if mtime_ns is not None and not self.grain_ns:
            self.say_once("keeps no times that are set")
            mtime_ns = None
        if mtime_ns is not None:
            mtime_ns -= mtime_ns % self.grain_ns
        return Attributes(mode, mtime_ns)

    def attributes(self, found: os.stat_result) -> Attributes:
        """Returns the attributes in the result of a ``stat`` call that are kept."""
        there = attributes_of(found)
        return Attributes(
            there.mode if self.modes else None, there.mtime_ns if self.grain_ns else None
        )

    def set_attributes(
        self, file: int | str, asked: Attributes, folder: int | None = None
    ) -> os.stat_result:
        """Sets the attributes that are asked for, as far as they are kept.

        Args:
            file: The descriptor of a file or folder, or the name of a link.
            asked: The attributes.
            folder: The descriptor of the folder that holds the link.

        Returns:
            The result of a ``stat`` call afterwards.
        """
        is_open, wanted = folder is None, self.kept(asked)
        if wanted.mtime_ns is not None:
            times = (time.time_ns(), wanted.mtime_ns)
            os.utime(file, ns=times, dir_fd=folder, follow_symlinks=is_open)
        found = os.stat(file, dir_fd=folder, follow_symlinks=is_open)
        if isinstance(file, int) and wanted.mode not in (None, stat.S_IMODE(found.st_mode)):
            os.fchmod(file, wanted.mode)
            found = os.fstat(file)
        return found


def attributes_of(result: os.stat_result) -> Attributes:
    """Returns the attributes in the result of a ``stat`` call."""
    mode = None if stat.S_ISLNK(result.st_mode) else stat.S_IMODE(result.st_mode)
    return Attributes(mode, result.st_mtime_ns)


def attributes_for_copy(result: os.stat_result) -> Attributes:
    """Returns the attributes that a copy may take over from its source.

    A copy belongs to us. The set-user-ID bit of another user's program would have that run as
    us, and its set-group-ID bit as our group, or as that of the folder that the copy gets into.
    """
    found = attributes_of(result)
    if found.mode is None:
        return found
    is_file, is_ours = not stat.S_ISDIR(result.st_mode), result.st_uid == os.geteuid()
    lost = 0
    if not is_ours:
        lost |= stat.S_ISUID | (stat.S_ISVTX if is_file else 0)
    if result.st_gid != os.getegid() or (is_file and not is_ours):
        lost |= stat.S_ISGID
    return Attributes(found.mode & ~lost, found.mtime_ns)


def try_out(folder: int) -> Abilities:
    """Tries the abilities of a file system in an empty folder, and leaves files there."""
    with closing(os.open("a", _NEW, 0o600, dir_fd=folder)) as fd:
        write_all(fd, b"a")
        keeps_modes = all(_keeps_mode(fd, mode) for mode in _MODES)
        grain_ns, has_ctime = _try_times(fd)
    accented = "\u00e9"
    try:
        os.close(os.open(accented, _NEW, 0o600, dir_fd=folder))
    except OSError:  # Only some characters can be in a name.
        accented = "b"
        os.close(os.open(accented, _NEW, 0o600, dir_fd=folder))
    # Names that were never listed: an inode number may differ by spelling, or be equal by chance.
    listed = calls.names_at(folder)
    return Abilities(
        exchange=_exchanges("a", accented, folder),
        modes=keeps_modes,
        grain_ns=grain_ns,
        ctime=has_ctime,
        folds_case="A" not in listed and _is_there("A", folder),
        folds_unicode=accented != "b" and "e\u0301" not in listed and _is_there("e\u0301", folder),
    )


def _keeps_mode(fd: int, mode: int) -> bool:
    """True if a file keeps a mode that is set."""
    with contextlib.suppress(OSError):
        os.fchmod(fd, mode)
    return stat.S_IMODE(os.fstat(fd).st_mode) == mode


def _try_times(fd: int) -> tuple[int, bool]:
    """Sets an mtime; returns the resolution in nanoseconds, and true if the ctime is another."""
    with contextlib.suppress(OSError):
        os.utime(fd, ns=(_TIME, _TIME))
    found = os.fstat(fd)
    if not 0 <= _TIME - found.st_mtime_ns < _GRAINS[0]:
        return 0, True
    grain_ns = next(grain for grain in _GRAINS if found.st_mtime_ns % grain == 0)
    return grain_ns, abs(found.st_ctime_ns - found.st_mtime_ns) >= _GRAINS[0]


def _is_there(name: str, folder: int) -> bool:
    """True if a name leads to something."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _exchanges(name: str, other: str, folder: int) -> bool:
    """True if a file with content and an empty one can be exchanged.

    Some FUSE bindings drop the flags of a rename, so that an exchange succeeds and loses a file.
    """
    try:
        if not calls.exchange(name, folder, other, folder):
            return False
        sizes = [
            os.stat(each, dir_fd=folder, follow_symlinks=False).st_size for each in (name, other)
        ]
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EPERM, errno.EACCES, errno.EIO):
            raise
        return False
    return sizes == [0, 1]
