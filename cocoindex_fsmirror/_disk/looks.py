"""Looks: what is at an entry of an open folder, as values of the core."""

from __future__ import annotations

import os
import stat

from .._core.attributes import Attributes
from .._core.signatures import Signature
from .._core.states import Actual, DirState, FileState, LinkState, OtherState
from .calls import closing, open_file
from .copying import digest_of_file


def inode_of(result: os.stat_result) -> int:
    """Returns the inode number without its top bit, since SQLite's integers are signed.

    Only some FUSE file systems, which hash, have it set.
    """
    return result.st_ino & ~(1 << 63)


def signature_of(result: os.stat_result) -> Signature:
    """Returns the signature in the result of a ``stat`` call."""
    return Signature(inode_of(result), result.st_size, result.st_mtime_ns, result.st_ctime_ns)


def attributes_of(result: os.stat_result) -> Attributes:
    """Returns the attributes in the result of a ``stat`` call."""
    mode = None if stat.S_ISLNK(result.st_mode) else stat.S_IMODE(result.st_mode)
    return Attributes(mode, result.st_mtime_ns)


def look_at(base: str, folder: int, *, digest: bool) -> Actual:
    """Looks at an entry of a folder; with its digest, if asked for, where it is a file.

    The digest stays ``None`` if the file is unreadable or changes while it is read.

    Raises:
        OSError: It is not there.
    """
    found = os.stat(base, dir_fd=folder, follow_symlinks=False)
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return (_read(base, folder) if digest else None) or _file(found, None)
    if stat.S_ISDIR(mode):
        return Actual(DirState(attributes_of(found)), signature_of(found))
    if stat.S_ISLNK(mode):
        target = os.readlink(base, dir_fd=folder)
        return Actual(LinkState(target, attributes_of(found)), signature_of(found))
    return Actual(OtherState(), signature_of(found))


def _file(found: os.stat_result, digest: bytes | None) -> Actual:
    """Returns the actual state of a regular file."""
    return Actual(FileState(digest, found.st_size, attributes_of(found)), signature_of(found))


def _read(base: str, folder: int) -> Actual | None:
    """Reads a regular file; returns ``None`` if it is unreadable, or changes meanwhile."""
    try:
        with closing(open_file(base, folder)) as fd:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):  # A FIFO took the name.
                return None
            digest = digest_of_file(fd)
            is_same = signature_of(os.fstat(fd)) == signature_of(before)
    except PermissionError:
        return None
    return _file(before, digest) if is_same else None
