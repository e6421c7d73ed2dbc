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
from .text import encoded

__all__ = [
    "ABSENT",
    "Absent",
    "Actual",
    "Content",
    "Desired",
    "DirState",
    "FileState",
    "Kind",
    "Leaf",
    "LinkState",
    "OtherState",
    "Signature",
    "Stat",
    "State",
    "digest_of",
    "inode_of",
    "is_older",
    "proves",
    "same",
    "same_content",
    "signature_of",
]

_TICKS: Final[tuple[int, ...]] = (
    2_000_000_000,
    *(10**power for power in range(9, 0, -1)),
)  # nanoseconds
_OF_LINKS: Final = 1  # Another seed than that of contents, which is 0.


class Kind(enum.StrEnum):
    """The kind of path that a ledger row or a tracking record describes."""

    FILE = "file"
    LINK = "link"
    DIR = "dir"


# A large batch makes hundreds of thousands of these values. Structs are made faster than
# dataclasses; they hold no cycles, so the garbage collector need not track them.
class FileState(msgspec.Struct, frozen=True, gc=False):
    """A regular file.

    Attributes:
        digest: xxh3-128 of the content, 16 bytes; ``None`` if it was not read.
        size: In bytes.
        attributes: The attributes that the file has, or that a desired state asks for.
    """

    digest: bytes | None
    size: int
    attributes: Attributes = UNASKED
    kind: ClassVar[Kind] = Kind.FILE
    target: ClassVar[str] = ""


class LinkState(msgspec.Struct, frozen=True, gc=False):
    """A symbolic link, never followed.

    Attributes:
        target: The path that it points to.
        attributes: As of a file, but without a mode.
    """

    target: str
    attributes: Attributes = UNASKED
    kind: ClassVar[Kind] = Kind.LINK

    @property
    def digest(self) -> bytes:
        """The fingerprint of the target, which no file can have."""
        return xxhash.xxh3_128_digest(encoded(self.target), seed=_OF_LINKS)

    @property
    def size(self) -> int:
        """The length of the target, in bytes."""
        return len(encoded(self.target))


class DirState(msgspec.Struct, frozen=True, gc=False):
    """A directory; attributes as of a file."""

    attributes: Attributes = UNASKED
    kind: ClassVar[Kind] = Kind.DIR
    digest: ClassVar[None] = None
    size: ClassVar[int] = 0
    target: ClassVar[str] = ""


class OtherState(msgspec.Struct, frozen=True, gc=False):
    """A FIFO, socket or device."""

    digest: ClassVar[None] = None
    attributes: ClassVar[Attributes] = UNASKED


class Absent(msgspec.Struct, frozen=True, gc=False):
    """Non-existence as a value: :data:`ABSENT`."""

    digest: ClassVar[None] = None
    attributes: ClassVar[Attributes] = UNASKED


ABSENT: Final = Absent()

State: TypeAlias = FileState | LinkState | DirState | OtherState | Absent
Leaf: TypeAlias = FileState | LinkState
"""A state that has a digest, and is put in place in one step."""
Desired: TypeAlias = FileState | LinkState | DirState | Absent
"""A state that can be declared."""


def digest_of(content: bytes) -> bytes:
    """Computes the fingerprint of a content: xxh3-128, 16 bytes."""
    return xxhash.xxh3_128_digest(content)


def same(desired: State, actual: State) -> bool:
    """True if an actual state satisfies a desired (or last-written) one."""
    missing = desired.attributes.missing_in(actual.attributes)
    return missing == UNASKED and same_content(desired, actual)


def same_content(desired: State, actual: State) -> bool:
    """True if two states agree apart from their attributes; an unread file agrees with none."""
    if desired.digest is None:
        return type(desired) is type(actual) and not isinstance(desired, FileState)
    return desired.digest == actual.digest


class Signature(msgspec.Struct, frozen=True, gc=False):
    """The identity of a file according to ``lstat``; times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_like(self, other: Signature) -> bool:
        """True if both may be of one file. A rename between them changes only the ctime."""
        mine = self.inode, self.size, self.mtime_ns
        return mine == (other.inode, other.size, other.mtime_ns)


class Stat(Protocol):
    """The result of a ``stat`` call, as far as it is used here."""

    @property
    def st_ino(self) -> int:
        """The inode number."""
        ...

    @property
    def st_size(self) -> int:
        """The size, in bytes."""
        ...

    @property
    def st_mtime_ns(self) -> int:
        """The time of the last change of the content."""
        ...

    @property
    def st_ctime_ns(self) -> int:
        """The time of the last change of anything."""
        ...


def inode_of(result: Stat) -> int:
    """Returns the inode number without its top bit, since SQLite's integers are signed.

    Only some FUSE file systems, which use hashes for inode numbers, have it set.
    """
    return result.st_ino & ~(1 << 63)


def signature_of(result: Stat) -> Signature:
    """Returns the signature in the result of a ``stat`` call.

    Some file systems hold times that the ledger can't. Such a time counts as the latest that it
    can, which is never older than a look and so proves no content.
    """
    times = (result.st_mtime_ns, result.st_ctime_ns)
    kept = (time if -(1 << 63) <= time < 1 << 63 else (1 << 63) - 1 for time in times)
    return Signature(inode_of(result), result.st_size, *kept)


def proves(signature: Signature, recorded: Signature, recorded_ns: int) -> bool:
    """True if an unchanged signature proves an unchanged content.

    The file's last change must be strictly older than the record, by the clock that
    stamps files: a later change within the same tick would leave the same times. (The
    "racy git" problem; see git's ``Documentation/technical/racy-git.txt``.)
    """
    return signature == recorded and is_older(signature.ctime_ns, recorded_ns)


def is_older(stamp_ns: int, than_ns: int) -> bool:
    """True if the stamp of a file is from an earlier tick of the clock than a given time.

    A tick is as long as the resolution of the file system's times, which is no longer than the
    zeros at the end of the stamp allow: two seconds with FAT, 10 ms with exFAT, 100 ns with NTFS.
    """
    if stamp_ns % 10:
        return stamp_ns < than_ns
    tick_ns = next(tick for tick in _TICKS if stamp_ns % tick == 0)
    return stamp_ns + tick_ns <= than_ns


class Actual(msgspec.Struct, frozen=True, gc=False):
    """The state of a path on the disk.

    Attributes:
        state: The state.
        signature: The signature, unless nothing is there.
        is_linked: True of a file or link with further names (hard links), perhaps outside the
            root. Whatever changes it in its place would change those, too.
    """

    state: State
    signature: Signature | None = None
    is_linked: bool = False


class Content(Protocol):
    """The content of another file, most often not held in memory.

    Attributes:
        source: The path of the file, for messages.
        digest: As of a file; ``None`` if the content is hashed while it is copied.
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
        """Returns a descriptor that reads from the start; the caller closes it.

        Raises:
            SourceError: The file can't be read any more.
        """

    def is_unchanged(self, fd: int) -> bool:
        """True if the file of a descriptor still has the signature that was looked at."""
