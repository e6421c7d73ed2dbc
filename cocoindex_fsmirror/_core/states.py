"""The three states of a path, and the one notion of "the same".

Desired (what a flow declared), last-written (a :class:`Row` of the ledger) and
actual (what is on the disk) are told in the same few types. Absence is a value.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
import xxhash
from msgspec.structs import replace

from .names import ROOT, Name

__all__ = [
    "ABSENT",
    "Absent",
    "Actual",
    "Content",
    "Desired",
    "DirState",
    "Displaced",
    "FileState",
    "Intent",
    "Kind",
    "Leaf",
    "LinkState",
    "OnConflict",
    "OtherState",
    "Row",
    "Signature",
    "digest_in",
    "digest_of",
    "dressed",
    "is_older",
    "kind_of",
    "proves",
    "same",
    "same_content",
]

_NS: Final = 1_000_000_000
_OF_LINKS: Final = 1  # Another seed than that of contents, which is 0.

OnConflict: TypeAlias = Literal["backup", "overwrite", "error", "keep"]
"""What happens to foreign bytes. ``keep`` (leave them, without an error) is for teardown only."""


class Absent(enum.Enum):
    """Non-existence as a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT


# Values are structs, of which a large batch makes hundreds of thousands: they are made
# faster than dataclasses, and hold no cycles, so that the garbage collector need not look.
class FileState(msgspec.Struct, frozen=True, gc=False):
    """A regular file.

    Attributes:
        digest: xxh3-128 of the content, 16 bytes; ``None`` if it was not read.
        size: In bytes.
        mode: Permission bits; ``None`` in a desired state that asks for none.
        mtime_ns: Time of the last change, in nanoseconds; ``None`` as for ``mode``.
    """

    digest: bytes | None
    size: int
    mode: int | None = None
    mtime_ns: int | None = None


class LinkState(msgspec.Struct, frozen=True, gc=False):
    """A symbolic link, never followed.

    Attributes:
        target: What it says.
        mtime_ns: As of a file.
    """

    target: str
    mtime_ns: int | None = None
    mode: ClassVar[None] = None

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
    """A directory; mode and time as of a file."""

    mode: int | None = None
    mtime_ns: int | None = None
    digest: ClassVar[None] = None
    size: ClassVar[int] = 0


class OtherState(msgspec.Struct, frozen=True, gc=False):
    """A FIFO, socket or device."""


State: TypeAlias = FileState | LinkState | DirState | OtherState | Absent
Leaf: TypeAlias = FileState | LinkState
"""What can be put in place in one step: it has a digest."""
Desired: TypeAlias = FileState | LinkState | DirState | Absent
"""What can be asked for."""


def digest_of(content: bytes) -> bytes:
    """The fingerprint of a content: xxh3-128, 16 bytes."""
    return xxhash.xxh3_128_digest(content)


def same(desired: State, actual: State) -> bool:
    """Whether an actual state satisfies a desired (or last-written) one."""
    if isinstance(desired, Absent | OtherState) or type(desired) is not type(actual):
        return desired == actual
    return same_content(desired, actual) and dressed(desired, actual) == (None, None)


def same_content(desired: State, actual: State) -> bool:
    """The same, whatever its mode and time."""
    if isinstance(desired, FileState | LinkState) and type(desired) is type(actual):
        return desired.digest is not None and desired.digest == digest_in(actual)
    return isinstance(desired, DirState) and isinstance(actual, DirState)


def digest_in(state: State) -> bytes | None:
    """The digest of a file that was read, or of a link."""
    return state.digest if isinstance(state, FileState | LinkState) else None


def dressed(desired: State, actual: State) -> tuple[int | None, int | None]:
    """Mode and time that are still to be set: each is ``None`` if it is right, or not asked for."""
    wanted, found = _dress(desired), _dress(actual)
    mode, mtime_ns = (w if w != f else None for w, f in zip(wanted, found, strict=True))
    return mode, mtime_ns


def _dress(state: State) -> tuple[int | None, int | None]:
    """Mode and time of a state; a link has no mode of its own."""
    return (None, None) if isinstance(state, Absent | OtherState) else (state.mode, state.mtime_ns)


class Signature(msgspec.Struct, frozen=True, gc=False):
    """What ``lstat`` tells about the identity of a file; times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def is_like(self, other: Signature) -> bool:
        """Whether both may be of one file that was renamed meanwhile, which changes its ctime."""
        return (
            self.inode == other.inode
            and self.size == other.size
            and self.mtime_ns == other.mtime_ns
        )


class Actual(msgspec.Struct, frozen=True, gc=False):
    """What is at a path now, and the signature that it was seen with."""

    state: State
    signature: Signature | None = None

    @property
    def digest(self) -> bytes | None:
        """The digest of a file that was read, or of a link."""
        return digest_in(self.state)


class Kind(enum.StrEnum):
    """What a ledger row or a tracking record is about."""

    FILE = "file"
    LINK = "link"
    DIR = "dir"


def kind_of(desired: Leaf | DirState) -> Kind:
    """What a row or a record of a state is about."""
    if isinstance(desired, LinkState):
        return Kind.LINK
    return Kind.FILE if isinstance(desired, FileState) else Kind.DIR


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The last-written state of one path: a row of the ledger.

    ``mode`` and ``asked_ns`` are the mode and the time of change that were asked
    for, if they were. ``target`` is that of a link. ``made`` is false for what
    we found already right and adopted: those bytes are not ours to destroy.
    ``declared`` is false for folders that only hold declared paths. ``unsynced``
    is true after a failed barrier: the bytes are written anew. ``seen`` is true if
    drift was seen at an earlier update and has not been healed. ``source_inode``
    and ``source_ctime_ns`` are those of the file that a copy was read from; 0 if
    they are not known.
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

    @property
    def state(self) -> FileState | LinkState | DirState:
        """The last-written state, with the time that the file system made of the one asked for."""
        mtime_ns = None if self.asked_ns is None else self.mtime_ns
        if self.kind == Kind.DIR:
            return DirState(self.mode, mtime_ns)
        if self.kind == Kind.LINK:
            return LinkState(self.target, mtime_ns)
        return FileState(self.digest, self.size, self.mode, mtime_ns)

    @property
    def signature(self) -> Signature:
        """The signature that the file had when the row was recorded."""
        return Signature(self.inode, self.size, self.mtime_ns, self.ctime_ns)

    @property
    def declaration(self) -> Row:
        """The row without what was seen on the disk: who declared what."""
        return replace(
            self,
            inode=0,
            mtime_ns=0,
            ctime_ns=0,
            recorded_ns=0,
            unsynced=False,
            seen=False,
            source_inode=0,
            source_ctime_ns=0,
        )

    def with_signature(self, signature: Signature, recorded_ns: int) -> Row:
        """Returns the row with the signature of its file, and the time of that look."""
        return Row(  # replace() would take four times as long.
            self.name,
            self.kind,
            self.owner,
            self.container,
            self.component,
            self.digest,
            self.size,
            self.mode,
            signature.inode,
            signature.mtime_ns,
            signature.ctime_ns,
            recorded_ns,
            self.made,
            self.declared,
            self.unsynced,
            self.seen,
            self.target,
            self.asked_ns,
            self.source_inode,
            self.source_ctime_ns,
        )


def proves(signature: Signature, recorded: Signature, recorded_ns: int) -> bool:
    """Whether an unchanged signature proves an unchanged content.

    It does only if the file's last change is strictly older than the time of the
    record, by the clock that stamps files: a later change within the same tick
    would leave the same times. (The "racy git" problem; see git's
    ``Documentation/technical/racy-git.txt``.)
    """
    return signature == recorded and is_older(signature.ctime_ns, recorded_ns)


def is_older(stamp_ns: int, than_ns: int) -> bool:
    """Whether a file's stamp is from an earlier tick than a time.

    A file system that keeps whole seconds has a tick of a second.
    """
    if stamp_ns % _NS == 0:
        return stamp_ns < than_ns // _NS * _NS
    return stamp_ns < than_ns


class Content(Protocol):
    """The content of another file, which is not held in memory as a rule.

    Attributes:
        source: Its path, for messages.
        digest: As of a file; ``None`` if it was not read yet. It is hashed while it is copied.
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


class Displaced(NamedTuple):
    """A declared path that had to give way to another declaration.

    The other may have come just before the news that this one is gone. If it is
    still there at the next update, both are declared again, which is refused.
    ``seen`` tells that an update began with this note.
    """

    name: Name
    owner: str
    container: str
    component: str
    by: Name
    seen: bool = False


class Intent(msgspec.Struct, frozen=True, gc=False):
    """One path and the state that it should have.

    Attributes:
        name: The path, relative to the root.
        desired: A file, a link, a directory, or absence. A file whose digest is not known yet
            is hashed while it is staged; it is never taken for one that is there already.
        owner: The identity of the mirror (a UUID) that asks.
        container: The chain of directory targets below the root that declared
            it, each followed by ``//``; empty for the root itself.
        component: The path of the engine's component that declared it.
        content: The bytes of a file, or where they are.
        source: The signature of the file that is copied, if any later change will show in it.
        ours: Digests that the engine remembers to have declared for this path.
        on_conflict: What to do about foreign bytes.
        create_parents: Whether missing parent folders are made.
        durable: Whether the batch has to survive a power cut.
        rival: A path that is declared too and can't be there together with this
            one; :data:`ROOT` if there is none.
    """

    name: Name
    desired: Desired
    owner: str
    container: str = ""
    component: str = ""
    content: bytes | Content | None = None
    ours: tuple[bytes, ...] = ()
    on_conflict: OnConflict = "backup"
    create_parents: bool = True
    durable: bool = True
    rival: Name = ROOT
    source: Signature | None = None

    def __repr__(self) -> str:
        shown = (field for field in self.__struct_fields__ if field != "content")
        return f"Intent({', '.join(f'{field}={getattr(self, field)!r}' for field in shown)})"
