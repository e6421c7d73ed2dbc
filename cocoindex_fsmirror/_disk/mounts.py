"""Mounts: the file system that holds a root, and what is mounted below it."""

from __future__ import annotations

import os
from typing import Final

from . import calls

__all__ = ["WITHOUT_OWNERS", "can_syncfs", "has_events", "mounts_below"]

# No trial can tell either of these; so here, and only here, the name of a type decides.
_REMOTE: Final = (
    *("9p", "afs", "ceph", "cifs", "fuse", "nfs"),
    *("prl_fs", "smb", "vboxsf", "virtiofs"),
)
"""File systems of a server, a host or a program: ``syncfs`` does not prove that a disk has it."""
WITHOUT_OWNERS: Final = (*_REMOTE, "exfat", "hfs", "msdos", "ntfs", "vfat")
"""File systems whose owners and modes are those of a mount, a server or a program."""


def mounts_below(fd: int) -> tuple[str, frozenset[str]]:
    """Returns the type of the root's file system, and the mount points inside the root.

    Where there is no ``/proc`` the type is empty, and no mount point is known.
    """
    try:
        root = os.readlink(f"/proc/self/fd/{fd}")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            mounts = [_parse_mount(line) for line in lines]
    except OSError:
        return "", frozenset()
    prefix = root.rstrip("/") + "/"
    inside = (point.removeprefix(prefix) for point, _ in mounts if point.startswith(prefix))
    holding = [(len(p), kind) for p, kind in mounts if prefix.startswith(p.rstrip("/") + "/")]
    return max(holding, default=(0, ""))[1], frozenset(inside)


def can_syncfs(kind: str) -> bool:
    """True if one call syncs all that was written to a file system of a type."""
    return calls.syncfs is not None and not kind.startswith(_REMOTE)


def has_events(kind: str) -> bool:
    """True if the system tells of all changes on a file system of a type, whoever makes them."""
    return not kind.startswith(_REMOTE)


def _parse_mount(line: str) -> tuple[str, str]:
    """Returns mount point and type of a line of ``/proc/self/mountinfo``."""
    before, _, after = line.partition(" - ")
    point = before.split(" ")[4]
    for octal, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        point = point.replace(f"\\{octal}", character)
    return point, after.split(" ")[0]
