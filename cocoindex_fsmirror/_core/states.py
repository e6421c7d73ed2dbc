"""The states of a path, and the one notion of "the same". Pure.

Desired (declared by a flow or a program), last-written (a row of the ledger) and actual
(on the disk) are values of the same few types. Absence is a value, too.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final, Protocol, TypeAlias

import msgspec
import xxhash

from .attributes import UNASKED, Attributes
from .signatures import Signature

__all__ = [
    "ABSENT",
    "Absent",
    "Actual",
    "Content",
    "Desired",
    "DirState",
    "FileState",
    "Leaf",
    "LinkState",
    "OtherState",
    "digest_in",
    "digest_of",
    "missing_in",
    "same",
    "same_content",
]

_OF_LINKS: Final = 1  # Another seed than that of contents, which is 0.


class Absent(enum.Enum):
    """Non-existence as a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT


# A large batch makes hundreds of thousands of these values. Structs are made faster than
# dataclasses; they hold no cycles, so the garbage collector need not track them.
class FileState(msgspec.Struct, frozen=True, gc=False):
    """A regular file.

    Attributes:
        digest: xxh3-128 of the content, 16 bytes; ``None`` if it was not read.
        size: In bytes.
        attributes: All that it has beside the content, or that a desired state asks for.
    """

    digest: bytes | None
    size: int
    attributes: Attributes = UNASKED


class LinkState(msgspec.Struct, frozen=True, gc=False):
    """A symbolic link, never followed.

    Attributes:
        target: The path that it points to.
        attributes: As of a file, but for the mode, of which it has none.
    """

    target: str
    attributes: Attributes = UNASKED

    @property
    def digest(self) -> bytes:
        """A fingerprint of the target, never that of a file."""
        target = self.target.encode(errors="surrogateescape")
        return xxhash.xxh3_128_digest(target, seed=_OF_LINKS)

    @property
    def size(self) -> int:
        """The length of the target, in bytes."""
        return len(self.target.encode(errors="surrogateescape"))


class DirState(msgspec.Struct, frozen=True, gc=False):
    """A directory; attributes as of a file."""

    attributes: Attributes = UNASKED
    digest: ClassVar[None] = None
    size: ClassVar[int] = 0


class OtherState(msgspec.Struct, frozen=True, gc=False):
    """A FIFO, socket or device."""


State: TypeAlias = FileState | LinkState | DirState | OtherState | Absent
Leaf: TypeAlias = FileState | LinkState
"""A state that is put in place in one step: it has a digest."""
Desired: TypeAlias = FileState | LinkState | DirState | Absent
"""A state that can be declared."""


def digest_of(content: bytes) -> bytes:
    """Computes the fingerprint of a content: xxh3-128, 16 bytes."""
    return xxhash.xxh3_128_digest(content)


def same(desired: State, actual: State) -> bool:
    """True if an actual state satisfies a desired (or last-written) one."""
    if isinstance(desired, Absent | OtherState):
        return desired == actual
    return same_content(desired, actual) and missing_in(desired, actual) == UNASKED


def same_content(desired: State, actual: State) -> bool:
    """True if two states agree, whatever their attributes."""
    if isinstance(desired, DirState):
        return isinstance(actual, DirState)
    digest = digest_in(desired)
    return digest is not None and digest == digest_in(actual)


def digest_in(state: State) -> bytes | None:
    """Returns the digest of a file that was read, or of a link."""
    return None if isinstance(state, Absent | OtherState) else state.digest


def missing_in(desired: State, actual: State) -> Attributes:
    """Returns the attributes that a desired state asks for, and that are still to be set."""
    if isinstance(desired, Absent | OtherState) or isinstance(actual, Absent | OtherState):
        return UNASKED
    return desired.attributes.missing_in(actual.attributes)


class Actual(msgspec.Struct, frozen=True, gc=False):
    """The state of a path on the disk, and the signature that it was seen with."""

    state: State
    signature: Signature | None = None

    @property
    def digest(self) -> bytes | None:
        """The digest of a file that was read, or of a link."""
        return digest_in(self.state)


class Content(Protocol):
    """The content of another file, which is not held in memory as a rule.

    Attributes:
        source: Its path, for messages.
        digest: As of a file; ``None`` if it was not read yet: it is hashed while it is copied.
        size: In bytes.
        held: The bytes, if they are held in memory.
    """

    @property
    def source(self) -> str: ...

    @property
    def digest(self) -> bytes | None: ...

    @property
    def size(self) -> int: ...

    @property
    def held(self) -> bytes | None: ...

    def open(self) -> int:
        """Returns a descriptor to read it from the start; the caller closes it.

        Raises:
            SourceError: It can't be read any more.
        """

    def is_unchanged(self, fd: int) -> bool:
        """True if what this descriptor reads is what was looked at, by its signature."""
