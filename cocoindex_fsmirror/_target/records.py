"""Records: desired states compared with the tracking records of the engine. Pure.

After an interrupted update the engine holds several tracking records, each of
which may be the truth, and may add that the path could be missing. Nothing may
be skipped unless every possibility is already the desired state.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from .._core.states import ABSENT, Absent, Desired

__all__ = ["PROVIDER", "Record", "is_settled", "owner_of", "record_of", "remembered_digests"]


PROVIDER: Final = "cocoindex_fsmirror/root"
"""The name of the provider of roots, as the engine stores it."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A tracking record: what the engine stores about one declared path.

    Records live in users' databases: fields are only ever added, with a default.

    Attributes:
        kind: ``file``, ``link`` or ``dir``.
        digest: xxh3-128 of the content, or of the target, 16 bytes; empty for a directory.
        size: In bytes.
        mode: The mode that was asked for, if one was.
        component: The path of the component that declared it.
        owner: For a root, the identity of its mirror; else empty.
        mtime_ns: The time of the last change that was asked for, if one was.
        epoch: For a root, the update that was begun; empty in records of earlier releases.
        before: For a root, the update that had changed it last before that.
        state: For a root, and a file that is declared by itself, the packed key of the state
            directory; empty if the state folder is in the root.
    """

    kind: str
    digest: bytes = b""
    size: int = 0
    mode: int | None = None
    component: str = ""
    owner: str = ""
    mtime_ns: int | None = None
    epoch: str = ""
    before: str = ""
    state: bytes = b""


def record_of(
    desired: Desired, component: str, owner: str = "", state: bytes = b""
) -> Record | Absent:
    """Returns the tracking record of a desired state."""
    if isinstance(desired, Absent):
        return ABSENT
    return Record(
        desired.kind.value,
        desired.digest or b"",
        desired.size,
        desired.attributes.mode,
        component,
        owner,
        desired.attributes.mtime_ns,
        state=state,
    )


def is_settled(
    record: Record | Absent, previous: Collection[Record], *, may_be_missing: bool, drifted: bool
) -> bool:
    """True if there is nothing to do for a path.

    Args:
        record: The record of the desired state.
        previous: The tracking records, each of which may be true.
        may_be_missing: True if the path may also not exist.
        drifted: True if the path was seen to differ from its last-written state.
    """
    if record is ABSENT or may_be_missing or drifted or not previous:
        return False
    return all(candidate == record for candidate in previous)


def remembered_digests(previous: Collection[Record]) -> tuple[bytes, ...]:
    """Returns the digests of all that the engine may have had us write; ``b""`` for a folder."""
    # No set: that would take four times the memory, and the garbage collector would visit it.
    return tuple([record.digest for record in previous])


def owner_of(previous: Collection[Record], fresh: str) -> str:
    """Returns the identity of a mirror: the remembered one, or a fresh one at first.

    All records of one root hold the same identity, since each was made from
    the one before; the smallest is taken in case that was ever broken.
    """
    return min((record.owner for record in previous if record.owner), default=fresh)
