"""Plan: the ordered steps of a batch, as a frozen value that can be printed. Pure.

:func:`.planner.make_plan` makes a plan. Applying it decides nothing, except that bytes which a
rename brings out are judged once more, by :func:`judge_bytes` and the same table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from .attributes import UNASKED, Attributes
from .errors import PathError
from .intents import Intent
from .names import Folding, Name
from .ownership import Fate, Policy, Verdict, fate_of
from .rows import Displaced, Row
from .states import (
    ABSENT,
    Absent,
    Actual,
    DirState,
    FileState,
    LinkState,
    State,
    same_content,
)

__all__ = ["ClearFolder", "Keep", "Plan", "Put", "Remove", "View", "judge", "judge_bytes", "row_of"]


class View(msgspec.Struct, frozen=True):
    """The knowledge that a plan is made from.

    Attributes:
        rows: The ledger's rows of the paths in the batch, and of the folders above them.
        actual: The actual states of these paths, and of everything in a folder that is
            in the way of a file.
        folding: The names that the file system takes for one.
        unseen: The paths that can't be looked at, with the error; a plan that needs one fails.
    """

    rows: Mapping[Name, Row]
    actual: Mapping[Name, Actual]
    folding: Folding = msgspec.field(default_factory=Folding)
    unseen: Mapping[Name, OSError] = msgspec.field(default_factory=dict)


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Remove a file or link; ``verdict`` tells whose it is.

    ``on_behalf`` is the declared path that the file gives way to; ``None`` if the file goes
    because it is no longer declared.
    """

    name: Name
    expected: Actual
    verdict: Verdict
    policy: Policy
    on_behalf: Name | None = None

    @property
    def keep_copy(self) -> bool:
        """True if the file goes to the backup area."""
        return fate_of(self.verdict, self.policy) is Fate.BACK_UP


class ClearFolder(NamedTuple):
    """Remove a folder that has become empty, and gives way to the declared path ``name``."""

    folder: Name
    name: Name


class Put(msgspec.Struct, frozen=True, gc=False):
    """Put a file or link in place, with ``attributes``.

    ``expected`` is the actual state that gets replaced, and ``verdict`` tells whose that is.
    ``made`` is recorded in the row.
    """

    intent: Intent
    expected: Actual
    verdict: Verdict
    attributes: Attributes
    made: bool = True

    @property
    def name(self) -> Name:
        """The path, relative to the root."""
        return self.intent.name

    @property
    def keep_copy(self) -> bool:
        """True if the replaced file goes to the backup area."""
        return fate_of(self.verdict, self.intent.on_conflict) is Fate.BACK_UP

    @property
    def grows(self) -> bool:
        """True if the path will take more room than it does now, its backup included."""
        old, new = self.expected.state, self.intent.desired
        if self.keep_copy or isinstance(new, Absent) or not isinstance(old, FileState | LinkState):
            return True
        return new.size > old.size


class Keep(msgspec.Struct, frozen=True, gc=False):
    """Record a path that is right on the disk, and set the attributes that are ``missing``.

    ``adopts`` is true of a file or link that was not in the ledger.
    """

    row: Row
    actual: Actual
    missing: Attributes = UNASKED
    adopts: bool = False

    @property
    def name(self) -> Name:
        """The path, relative to the root."""
        return self.row.name


class Plan(msgspec.Struct, frozen=True):
    """The steps of a batch, in the order in which they are applied."""

    clear: tuple[Remove, ...] = ()
    clear_folders: tuple[ClearFolder, ...] = ()
    """The deepest first."""
    folders: tuple[Row, ...] = ()
    """Folders to be made, as the ledger will record them; from the top."""
    files: tuple[Put, ...] = ()
    keep: tuple[Keep, ...] = ()
    remove: tuple[Remove, ...] = ()
    prune: tuple[Row, ...] = ()
    """Folders that we made and that may be empty afterwards; the deepest first."""
    dress: tuple[Row, ...] = ()
    """Folders with attributes that were asked for, in which something may change."""
    forget: tuple[Name, ...] = ()
    left: tuple[Name, ...] = ()
    """Paths that were ours, and stay since they hold foreign bytes now."""
    displaced: tuple[Displaced, ...] = ()
    """Declarations that give way, or are refused because of another one."""
    failures: tuple[PathError, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """True if no step would change the disk, or what the ledger says of it."""
        untouched = {"left", "failures", "dress", "displaced"}
        steps = (field for field in self.__struct_fields__ if field not in untouched)
        return not any(getattr(self, field) for field in steps)


def row_of(intent: Intent, *, made: bool = True, copied: bool = False) -> Row:
    """Returns the row that a declaration is recorded as, without a signature."""
    desired, source = intent.desired, intent.source
    assert not isinstance(desired, Absent)
    return Row(
        intent.name,
        desired.kind,
        intent.owner,
        intent.container,
        intent.component,
        desired.digest,
        desired.size,
        desired.attributes.mode,
        made=made,
        target=desired.target,
        asked_ns=desired.attributes.mtime_ns,
        source_inode=source.inode if source else 0,
        source_ctime_ns=source.ctime_ns if source else 0,
        copied=copied,
    )


def judge(intent: Intent, row: Row | None, actual: Actual) -> Verdict:
    """Tells whose bytes are at a path.

    Args:
        intent: The desired state, and who asks for it.
        row: The row of the path, if there is one.
        actual: The actual state; of a regular file with its digest, if it could be read.
    """
    ours: Collection[bytes | None] = intent.ours
    if row is not None and row.owner == intent.owner:
        # Adopted bytes are the user's, though the engine remembers their digest, too.
        ours = (*ours, row.digest) if row.made else {*ours} - {row.digest}
    return judge_bytes(actual, ours, intent.desired)


def judge_bytes(actual: Actual, ours: Collection[bytes | None], desired: State = ABSENT) -> Verdict:
    """Tells whose bytes are at a path, by nothing but digests.

    Args:
        actual: The actual state.
        ours: The digests of the versions that we wrote.
        desired: The state that the path should have.
    """
    state = actual.state
    if state is ABSENT:
        return Verdict.ABSENT
    if isinstance(state, DirState):
        return Verdict.FOLDER
    if same_content(desired, state):
        return Verdict.RIGHT
    return Verdict.OURS if state.digest is not None and state.digest in ours else Verdict.FOREIGN
