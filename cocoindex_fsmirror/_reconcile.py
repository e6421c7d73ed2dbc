"""Reconcile: desired state against what the engine remembers. Pure.

After an interrupted update the engine holds several tracking records, each of
which may be the truth, and may add that the path could be missing. Nothing may
be skipped unless every possibility is already the desired state.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ._state import ABSENT, Absent, DirState, FileState, Kind

__all__ = ["Record", "is_settled", "owner_of", "record_of", "remembered_digests"]


@dataclass(frozen=True, slots=True)
class Record:
    """A tracking record: what the engine stores about one declared path.

    It lives in users' databases: fields are only ever added, with a default.

    Attributes:
        kind: ``file`` or ``dir``.
        digest: xxh3-128 of the content, 16 bytes; empty for a directory.
        size: In bytes.
        mode: The mode that was asked for, if one was.
        component: The path of the component that declared it.
        owner: For a root, the identity of its mirror; else empty.
    """

    kind: str
    digest: bytes = b""
    size: int = 0
    mode: int | None = None
    component: str = ""
    owner: str = ""


def record_of(
    desired: FileState | DirState | Absent, component: str, owner: str = ""
) -> Record | Absent:
    """The tracking record of a desired state."""
    if isinstance(desired, FileState):
        digest = desired.digest or b""
        return Record(Kind.FILE.value, digest, desired.size, desired.mode, component, owner)
    if isinstance(desired, DirState):
        return Record(Kind.DIR.value, component=component, owner=owner)
    return ABSENT


def is_settled(
    record: Record | Absent, previous: Collection[Record], *, may_be_missing: bool, drifted: bool
) -> bool:
    """Whether there is nothing to do for a path.

    Args:
        record: The record of the desired state.
        previous: The tracking records, each of which may be true.
        may_be_missing: The path may also not exist.
        drifted: The path was seen to differ from its last-written state.
    """
    if record is ABSENT or may_be_missing or drifted or not previous:
        return False
    return all(candidate == record for candidate in previous)


def remembered_digests(previous: Collection[Record]) -> frozenset[bytes]:
    """The digests of every content that the engine may have had us write."""
    return frozenset(record.digest for record in previous if record.kind == Kind.FILE)


def owner_of(previous: Collection[Record], fresh: str) -> str:
    """The identity of a mirror: the remembered one, or a fresh one at first.

    All records of one root hold the same identity, since each was made from
    the one before; the smallest is taken in case that was ever broken.
    """
    return min((record.owner for record in previous if record.owner), default=fresh)
