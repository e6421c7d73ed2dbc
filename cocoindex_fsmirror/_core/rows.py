"""Rows: the last-written states, as the ledger keeps them, and the notes of a batch. Pure.

A row begins as *made* (written by us) or *adopted* (found right), and is made once we replace
those bytes. A failed barrier makes it ``unsynced`` until the path is written anew; drift that an
update has seen makes it ``seen`` until the path is written or found right. All fields of
:class:`Row` are columns of the ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from .attributes import Attributes
from .names import Name
from .packing import Packer
from .states import DirState, FileState, Kind, LinkState, Signature

__all__ = ["Displaced", "Pending", "Row", "packed", "unpacked"]

_MOST: Final = 2048  # notes that are packed into one value; they are only read all together


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The last-written state of one path: a row of the ledger.

    ``mode`` and ``asked_ns`` are the mode and the mtime that were asked for, if
    any. ``target`` is that of a link. ``made`` is false for a path that was found
    right and adopted: those bytes are not ours to destroy. ``declared`` is false
    for folders that only hold declared paths. ``unsynced`` is true after a failed
    barrier: the bytes are written anew. ``seen`` is true if drift was seen at an
    earlier update and has not been healed; of a folder that is no longer declared, if a
    batch failed to remove it and told so. ``source_inode`` and ``source_ctime_ns`` are
    those of the file that a copy was read from; 0 if unknown. ``copied`` is true if
    a copy of the content is kept, from which the path can be restored.
    """

    name: Name
    kind: Kind
    owner: str
    container: str
    component: str = ""
    digest: bytes | None = None
    size: int = 0
    mode: int | None = None
    inode: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    recorded_ns: int = 0
    made: bool = True
    declared: bool = True
    unsynced: bool = False
    seen: bool = False
    target: str = ""
    asked_ns: int | None = None
    source_inode: int = 0
    source_ctime_ns: int = 0
    copied: bool = False

    @property
    def declaration(self) -> tuple[Name, str, str]:
        """The identity of the declaration that the path was written for."""
        return self.name, self.owner, self.container

    @property
    def state(self) -> FileState | LinkState | DirState:
        """The last-written state; an mtime that was asked for is as the file system stored it."""
        attributes = Attributes(self.mode, None if self.asked_ns is None else self.mtime_ns)
        if self.kind == Kind.DIR:
            return DirState(attributes)
        if self.kind == Kind.LINK:
            return LinkState(self.target, attributes)
        return FileState(self.digest, self.size, attributes)

    @property
    def attributes(self) -> Attributes:
        """The attributes that were asked for."""
        return Attributes(self.mode, self.asked_ns)

    @property
    def signature(self) -> Signature:
        """The signature that the file had when the row was recorded."""
        return Signature(self.inode, self.size, self.mtime_ns, self.ctime_ns)

    def with_signature(
        self, signature: Signature, recorded_ns: int, *, copied: bool | None = None
    ) -> Row:
        """Returns the row with the signature of its file, and the time of the look at it.

        Args:
            signature: The signature.
            recorded_ns: The time of the look, in nanoseconds since 1970.
            copied: True if the content has a copy; by default what the row says.
        """
        return replace(
            self,
            inode=signature.inode,
            mtime_ns=signature.mtime_ns,
            ctime_ns=signature.ctime_ns,
            recorded_ns=recorded_ns,
            copied=self.copied if copied is None else copied,
        )


class Displaced(NamedTuple):
    """A note that a declared path had to give way to another declaration.

    The other declaration may have come just before the news that this one has ended. If
    this one is still declared at the next update, both are declared again, which is refused.
    ``seen`` is true if an update began with this note.
    """

    name: Name
    owner: str
    container: str
    component: str
    by: Name
    seen: bool = False


class Pending(msgspec.Struct, frozen=True, gc=False):
    """The note of a step of a batch, stored before the step is done: what a crash may have left.

    ``home`` and ``entry`` tell the slot in the staging area of ``batch``;
    ``row`` is what the path should hold afterwards, unless it is a ``removal``.
    """

    batch: str
    home: Name
    entry: str
    removal: bool
    row: Row


_Notes: TypeAlias = list[tuple[Name, str, bool, Row]]
"""The fields of each note without its batch."""
_packer: Final = Packer(_Notes)


def packed(notes: Iterable[Pending]) -> Iterator[tuple[str, str, bytes]]:
    """Yields batch, owner and packed notes: an owner's can be dropped without being read."""
    by_owner: defaultdict[tuple[str, str], _Notes] = defaultdict(list)
    for note in notes:
        key = note.batch, note.row.owner
        by_owner[key].append((note.home, note.entry, note.removal, note.row))
    for (batch, owner), found in by_owner.items():
        for start in range(0, len(found), _MOST):
            yield batch, owner, _packer.pack(found[start : start + _MOST])


def unpacked(batch: str, notes: bytes) -> list[Pending]:
    """Unpacks notes of a batch.

    Raises:
        msgspec.DecodeError: They can't be read.
        TypeError: They are of another type than bytes.
    """
    return [Pending(batch, *note) for note in _packer.unpack(notes)]
