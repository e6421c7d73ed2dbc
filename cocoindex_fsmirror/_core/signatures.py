"""Signatures: what ``lstat`` tells of a file, and when that proves its content. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["Signature", "is_older", "proves"]

_NS: Final = 1_000_000_000


class Signature(msgspec.Struct, frozen=True, gc=False):
    """The identity of a file according to ``lstat``; times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_like(self, other: Signature) -> bool:
        """True if both may be of one file that was renamed meanwhile, which changes its ctime."""
        mine = self.inode, self.size, self.mtime_ns
        return mine == (other.inode, other.size, other.mtime_ns)


def proves(signature: Signature, recorded: Signature, recorded_ns: int) -> bool:
    """True if an unchanged signature proves an unchanged content.

    The file's last change must be strictly older than the record, by the clock that
    stamps files: a later change within the same tick would leave the same times. (The
    "racy git" problem; see git's ``Documentation/technical/racy-git.txt``.)
    """
    return signature == recorded and is_older(signature.ctime_ns, recorded_ns)


def is_older(stamp_ns: int, than_ns: int) -> bool:
    """True if a file's stamp is from an earlier tick than a time.

    A file system that keeps whole seconds has a tick of a second.
    """
    if stamp_ns % _NS == 0:
        return stamp_ns < than_ns // _NS * _NS
    return stamp_ns < than_ns
