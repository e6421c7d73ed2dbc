"""The three states of a path, and the one notion of "the same".

Desired (what a flow declared), last-written (a :class:`Row` of the ledger) and
actual (what is on the disk) are told in the same few types. Absence is a value.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import xxhash

from ._paths import ROOT, Name

__all__ = [
    "ABSENT",
    "Absent",
    "Actual",
    "DirState",
    "Displaced",
    "Doubt",
    "FileState",
    "Intent",
    "Kind",
    "LinkState",
    "OnConflict",
    "OtherState",
    "Row",
    "Signature",
    "digest_of",
    "proves",
    "same",
]

_NS: Final = 1_000_000_000

OnConflict: TypeAlias = Literal["backup", "overwrite", "error", "keep"]
"""What happens to foreign bytes. ``keep`` (leave them, without an error) is for teardown only."""


class Absent(enum.Enum):
    """Non-existence as a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class FileState:
    """A regular file.

    Attributes:
        digest: xxh3-128 of the content, 16 bytes; ``None`` if it was not read.
        size: In bytes.
        mode: Permission bits; ``None`` in a desired state that asks for none.
    """

    digest: bytes | None
    size: int
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class LinkState:
    """A symbolic link, never followed."""

    target: str


@dataclass(frozen=True, slots=True)
class DirState:
    """A directory."""


@dataclass(frozen=True, slots=True)
class OtherState:
    """A FIFO, socket or device."""


State: TypeAlias = FileState | LinkState | DirState | OtherState | Absent


def digest_of(content: bytes) -> bytes:
    """The fingerprint of a content: xxh3-128, 16 bytes."""
    return xxhash.xxh3_128_digest(content)


def same(desired: State, actual: State) -> bool:
    """Whether an actual (or last-written) state satisfies a desired one."""
    if isinstance(desired, FileState) and isinstance(actual, FileState):
        if desired.digest is None or desired.digest != actual.digest:
            return False
        return desired.mode is None or desired.mode == actual.mode
    return desired == actual


class Signature(NamedTuple):
    """What ``lstat`` tells about the identity of a file; times in nanoseconds."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Actual(NamedTuple):
    """What is at a path now, and the signature that it was seen with."""

    state: State
    signature: Signature | None = None

    @property
    def digest(self) -> bytes | None:
        """The digest of a file that was read."""
        return self.state.digest if isinstance(self.state, FileState) else None


class Kind(enum.StrEnum):
    """What a ledger row or a tracking record is about."""

    FILE = "file"
    DIR = "dir"


class Doubt(enum.IntEnum):
    """Why a row is not to be believed at the next look."""

    NONE = 0
    SEEN = 1
    """Its drift was seen at an earlier update, and has not been healed."""
    UNSYNCED = 2
    """A barrier failed after its bytes were put in place: they are written anew."""


class Row(NamedTuple):
    """The last-written state of one path: a row of the ledger.

    ``mode`` is the mode that was asked for, if one was. ``made`` is false for what
    we found already right and adopted: those bytes are not ours to destroy.
    ``declared`` is false for folders that only hold declared paths.
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
    doubt: Doubt = Doubt.NONE

    @property
    def state(self) -> FileState | DirState:
        """The last-written state."""
        if self.kind == Kind.DIR:
            return DirState()
        return FileState(self.digest, self.size, self.mode)

    @property
    def signature(self) -> Signature:
        """The signature that the file had when the row was recorded."""
        return Signature(self.inode, self.size, self.mtime_ns, self.ctime_ns)

    @property
    def declaration(self) -> Row:
        """The row without what was seen on the disk: who declared what."""
        return self._replace(inode=0, mtime_ns=0, ctime_ns=0, recorded_ns=0, doubt=Doubt.NONE)

    def seen(self, signature: Signature, recorded_ns: int) -> Row:
        """The row with the signature of the file at the time of the record."""
        return self._replace(
            inode=signature.inode,
            mtime_ns=signature.mtime_ns,
            ctime_ns=signature.ctime_ns,
            recorded_ns=recorded_ns,
        )


def proves(signature: Signature, recorded: Signature, recorded_ns: int) -> bool:
    """Whether an unchanged signature proves an unchanged content.

    It does only if the file's last change is strictly older than the time of the
    record, by the clock that stamps files: a later change within the same tick
    would leave the same times. (The "racy git" problem; see git's
    ``Documentation/technical/racy-git.txt``.) A file system that keeps whole
    seconds has a tick of a second.
    """
    if signature != recorded:
        return False
    if signature.ctime_ns % _NS == 0:
        return signature.ctime_ns < recorded_ns // _NS * _NS
    return signature.ctime_ns < recorded_ns


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


@dataclass(frozen=True, slots=True)
class Intent:
    """One path and the state that it should have.

    Attributes:
        name: The path, relative to the root.
        desired: A file, a directory, or absence.
        owner: The identity of the mirror (a UUID) that asks.
        container: The chain of directory targets below the root that declared
            it, each followed by ``//``; empty for the root itself.
        component: The path of the engine's component that declared it.
        content: The bytes of a file.
        ours: Digests that the engine remembers to have declared for this path.
        on_conflict: What to do about foreign bytes.
        create_parents: Whether missing parent folders are made.
        durable: Whether the batch has to survive a power cut.
        rival: A path that is declared too and can't be there together with this
            one; :data:`ROOT` if there is none.
    """

    name: Name
    desired: FileState | DirState | Absent
    owner: str
    container: str = ""
    component: str = ""
    content: bytes | None = field(default=None, repr=False)
    ours: frozenset[bytes] = frozenset()
    on_conflict: OnConflict = "backup"
    create_parents: bool = True
    durable: bool = True
    rival: Name = ROOT
