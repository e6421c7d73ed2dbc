"""Declaration: the desired state of a path, as a program or a source folder asks for it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

import msgspec

from .attributes import PRESERVED, UNASKED, Attributes
from .names import Name
from .rows import Row
from .states import Absent, Content, Desired, Kind, Signature

__all__ = ["Declaration", "Declared"]


class Declaration(msgspec.Struct, frozen=True, gc=False):
    """The desired state of a path, and where its bytes are.

    Attributes:
        desired: The state; that of a copy has no digest until its source is read.
        content: The bytes of a file that is no copy.
        copied: The path of the file that is copied; empty if none is.
        source: The signature that this file had when it was declared.
        own: The attributes that a copy does not take from its source.
        preserve: Those that it takes.
    """

    desired: Desired
    content: bytes | Content | None = None
    copied: str = ""
    source: Signature | None = None
    own: Attributes = UNASKED
    preserve: Collection[str] = PRESERVED

    def is_recorded(self, row: Row) -> bool:
        """True if a row records this state, and for a copy an unchanged source.

        Size, inode and ctime prove a source: an edit that puts its mtime back moves its ctime.
        A row of an earlier release has no inode and ctime of the source.
        """
        desired, source = self.desired, self.source
        if isinstance(desired, Absent):
            return False
        if row.attributes != desired.attributes:
            return False
        if source is None:
            return row.digest == desired.digest and row.kind == desired.kind
        return (
            row.kind == Kind.FILE
            and row.size == source.size
            and row.source_inode == source.inode
            and row.source_ctime_ns == source.ctime_ns
        )


Declared: TypeAlias = Iterable[tuple[Name, Declaration | None]]
"""Paths by name, each with its declaration; ``None`` for one that stays as it is, with all that is
below it."""
