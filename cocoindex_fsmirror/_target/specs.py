"""Specifications: files, directories and roots as a flow declares them, with their options.

A new option that nested directories inherit is a key of :class:`TargetOptions` and a field of
:class:`Options`.
"""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict, get_args

import cocoindex as coco
import msgspec
from cocoindex.connectors.localfs import FilePath
from msgspec.structs import replace

from .._core.ages import checked_age
from .._core.attributes import Attributes, check_choice
from .._core.drift_report import DriftReport
from .._core.intents import Durability
from .._core.names import ROOT, Name
from .._core.owners import NOBODY, Declarer, Epoch, fits
from .._core.ownership import CopyPolicy, OnConflict, Policies
from .._core.patterns import checked_patterns, matching
from .._core.states import ABSENT, Content, Desired, FileState, digest_of
from .._disk.locations import Location
from .._mirror.brake import Brake, Limit, check_limit
from .._mirror.exact import Known
from .copies import Copies
from .declarations import Declarations
from .failures import Failures
from .keys import IN_ROOT, RootKey, StateKey
from .records import Record
from .recount import Recount

__all__ = [
    "GONE",
    "Options",
    "RootOptions",
    "RootUpdate",
    "Spec",
    "TargetOptions",
    "Verify",
    "state_of",
]

Verify: TypeAlias = Literal["stat", "content", "none"]


class TargetOptions(TypedDict, total=False):
    """Options of every directory target; one that is missing or ``None`` is inherited."""

    durability: Durability | None
    verify: Verify | None
    on_conflict: OnConflict | None
    copies: CopyPolicy | None


Where: TypeAlias = FilePath | Path | coco.ContextKey[Path]
"""A path; a relative one counts from the current working directory."""


class FileOptions(TargetOptions, total=False):
    """Options of a file that is declared by itself."""

    state: Where | str | None
    state_note: bool


class RootOptions(FileOptions, total=False):
    """Options of a directory target that has no other above it."""

    exact: bool | Sequence[str]
    max_delete: float | None
    keep_backups: str | None


class Options(msgspec.Struct, frozen=True, gc=False):
    """The options that hold for a directory target, with their defaults."""

    durability: Durability = "batch"
    verify: Verify = "stat"
    on_conflict: OnConflict = "backup"
    copies: CopyPolicy = "auto"
    exact: bool | Sequence[str] = False
    max_delete: Limit | None = None
    keep_backups: str = ""

    def __post_init__(self) -> None:
        """Refuses a value that is none of the documented ones."""
        check_limit(self.max_delete)
        if self.keep_backups:
            checked_age(self.keep_backups)
        check_choice("durability", self.durability, get_args(Durability))
        check_choice("verify", self.verify, get_args(Verify))
        check_choice("on_conflict", self.on_conflict, get_args(OnConflict))
        check_choice("copies", self.copies, get_args(CopyPolicy))
        if not isinstance(self.exact, bool):
            checked_patterns("exact", self.exact)
        if self.is_exact and self.verify == "none":
            # With the ledger lost all is foreign, and nobody would declare it again.
            raise ValueError("exact needs verify='stat' or verify='content'")

    def changed(self, given: Mapping[str, Any], *, is_root: bool = True) -> Self:
        """Returns these options with those that are given instead.

        Args:
            given: Options by name; ``None`` changes nothing.
            is_root: True if options of a root may be given; else those get their defaults.

        Raises:
            TypeError: An option has an unknown name.
            ValueError: An option has an unknown value.
        """
        known = RootOptions if is_root else TargetOptions
        if unknown := given.keys() - known.__optional_keys__:
            raise TypeError(f"there is no option {min(unknown)!r} here")
        changed = {name: value for name, value in given.items() if value is not None}
        return replace(self, **({} if is_root else _NESTED), **changed)

    @property
    def is_exact(self) -> bool:
        """True if what is not managed is moved to the backup area."""
        return self.exact is not False

    @property
    def spared(self) -> Known | None:
        """Tells what an exact directory leaves alone; ``None`` if it is not exact."""
        if not self.is_exact:
            return None
        return matching(() if isinstance(self.exact, bool) else self.exact)

    @property
    def durable(self) -> bool:
        """True if barriers are made."""
        return self.durability != "none"

    @property
    def policies(self) -> Policies:
        """The policies by which what is declared is kept and healed."""
        return Policies(self.copies, self.on_conflict)


_NESTED: Final = {"exact": False, "max_delete": None}


@dataclass
class RootUpdate:
    """One update of a root.

    Attributes:
        drift: The drift that was found when the update began; ``None`` if it was not looked for.
        brake: Limits what the update removes.
        memory: The owner's epoch, and the packed key of the state directory, which the engine
            stores as they are when the update ends, and remembers in the next one; ``None`` where
            it can store nothing.
        state: Where the state folder of the root is to be.
        former: Where it may be so far: packed keys of state directories.
        identity: A UUID.
        why_all_run: The reason why every component below the root runs again, if there is one.
        recount: What is declared, if paths may be there that are declared no longer and that
            the engine does not know.
        declarations: The declarations since then.
        copies: The copies that are declared.
        failures: Its failures, which are told when it has ended.
        loop: The event loop of a live update, as long as that is open; else ``None``.
        is_begun_in_doubt: True if the ledger or the engine's database is new, or of another time.
    """

    drift: DriftReport | None = None
    brake: Brake | None = None
    memory: list[Any] | None = None
    state: StateKey = IN_ROOT
    former: set[bytes] = field(default_factory=set)
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    why_all_run: str = ""
    recount: Recount | None = None
    declarations: Declarations = field(default_factory=Declarations)
    copies: Copies = field(default_factory=Copies)
    failures: Failures = field(default_factory=Failures)
    loop: asyncio.AbstractEventLoop | None = None

    def __post_init__(self) -> None:
        """Registers the failures, to be told once nobody refers to the update, or at exit."""
        weakref.finalize(self, self.failures.tell)
        self._settled = Epoch(*self.memory[:2]) if self.memory else None
        self.is_begun_in_doubt = False

    @property
    def ends_unnoticed(self) -> bool:
        """True if what the last update left over has to go now, since no end is noticed."""
        return self.memory is None and self.recount is not None and not self.is_begun_in_doubt

    @property
    def is_over(self) -> bool:
        """True if a live update has ended for sure."""
        return self.loop is None or self.loop.is_closed()

    def note(self, epoch: Epoch) -> None:
        """Notes the epoch of the owner."""
        if self.memory is not None:
            self.memory[:] = (*epoch, self.state.packed)

    def locate(self, root: RootKey, context_provider: Any) -> Location:
        """Returns the location of the root.

        Raises:
            RootError: A context says nothing, or the state directory is inside of the root.
        """
        resolve = methodcaller("resolve", context_provider)
        return self.state.locate(root.resolve(context_provider), self.former, resolve)

    def healable(self, owner: str) -> set[Name]:
        """Returns the paths of an owner that are restored when the root is mounted.

        What runs again anyway is not, since the ledger may be of another time.
        """
        if self.drift is None or self.why_all_run:
            return set()
        return {name for name, (mine, _) in self.drift.healable.items() if mine == owner}

    def compare_memories(
        self, owner: str, declarer: Declarer, previous: Collection[Record]
    ) -> None:
        """Finds out if the ledger and the engine's database remember the same.

        Args:
            owner: The identity of the root's owner.
            declarer: The database, and the key of the root in it.
            previous: The tracking records of the root.
        """
        if self.drift is None:
            return
        owners = self.drift.owners
        known = owners.get(owner)
        alike = {i: each for i, each in owners.items() if str(each.declarer) == str(declarer)}
        # To a database that remembers the root, an owner beside it belongs to another app.
        others = {
            identity
            for identity, each in alike.items()
            if identity != owner and not (previous and each.declarer.has_file_of(declarer))
        }
        begun = [record.epoch for record in previous]
        before = max((record.before for record in previous), default="")
        is_fitting = known is None or fits(known.epoch, self._settled, begun, before)
        is_out_of_step = bool(previous) and not is_fitting
        self.why_all_run = ""
        if previous and known is None:
            self.why_all_run = "its ledger, or all of it, is gone"
        elif is_out_of_step:
            self.why_all_run = "it, or the engine's database, was put back from another time"
        elif previous and owner in self.drift.stale:
            self.why_all_run = "files drifted, and their component did not run again by itself"
        is_handed_over = known is not None and not previous
        self.is_begun_in_doubt |= is_out_of_step or is_handed_over
        # Without the end of an update the root is new to the engine, or was dropped in part.
        in_doubt = known is not None and (known.in_doubt or self.memory == [])
        if self.is_begun_in_doubt or in_doubt or others:
            self.recount = Recount(frozenset(others), is_out_of_step)


class Spec(msgspec.Struct, frozen=True, gc=False):
    """A declaration, as the engine keeps it until it asks our handler.

    Attributes:
        state: The desired state.
        create_parent_dirs: True to make missing folders above it.
        component: The path of the component that declares it.
        rival: A path that is declared too and can't be there together with this
            one; :data:`ROOT` if there is none.
        content: The bytes of a file, or where they are.
        given: The options of a root or a single file; of a directory target inside
            another one, those that it does not inherit.
        fresh_owner: The identity of the mirror of a root that the engine does not know.
        drifted: True if a single file was seen to differ from its last-written state.
        update: The update of a root that begins.
        declarer: The engine's database, and the key of a root in it.
        place: Where the state folder of a root or a single file is to be.
    """

    state: Desired
    create_parent_dirs: bool = True
    component: str = ""
    rival: Name = ROOT
    content: bytes | Content | None = None
    given: Mapping[str, Any] = {}  # msgspec copies the default.
    fresh_owner: str = ""
    drifted: bool = False
    update: RootUpdate | None = None
    declarer: Declarer = NOBODY
    place: StateKey = IN_ROOT


GONE: Final = Spec(ABSENT)
"""The declaration of a path that is no longer declared."""


def state_of(content: bytes | Content, attributes: Attributes) -> FileState:
    """Returns the desired state of a file."""
    if isinstance(content, bytes):
        return FileState(digest_of(content), len(content), attributes)
    return FileState(content.digest, content.size, attributes)
