"""Plan: the ordered steps of a batch, as a frozen value that can be printed. Pure.

:func:`.planner.make_plan` makes one. Applying it decides nothing more, except to look once
more, by the table of :mod:`.ownership`, at what a rename brings out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .attributes import UNASKED, Attributes
from .errors import PathError
from .intents import Intent, OnConflict
from .names import Folding, Name
from .ownership import Fate, Verdict, fate_of
from .rows import Displaced, Row, kind_of
from .states import Absent, Actual, LinkState

__all__ = ["Keep", "MakeFolder", "Plan", "Put", "Remove", "View", "row_of"]


class View(msgspec.Struct, frozen=True):
    """All that a plan is made from.

    Attributes:
        rows: The ledger's rows of every path that matters.
        actual: The actual states of the same paths; a folder in the way of a
            file comes with everything in it.
        folding: Which names the file system takes for one.
    """

    rows: Mapping[Name, Row]
    actual: Mapping[Name, Actual]
    folding: Folding = msgspec.field(default_factory=Folding)


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Remove a file, of which ``verdict`` tells whose it is.

    ``on_behalf`` is the declared path that it gives way to; ``None`` if it goes because it
    is no longer declared.
    """

    name: Name
    expected: Actual
    verdict: Verdict
    policy: OnConflict
    on_behalf: Name | None = None

    @property
    def keep_copy(self) -> bool:
        """True if it goes to the backup area."""
        return fate_of(self.verdict, self.policy) is Fate.BACK_UP


class MakeFolder(msgspec.Struct, frozen=True, gc=False):
    """Make a folder; ``row`` is what the ledger will say of it."""

    row: Row


class Put(msgspec.Struct, frozen=True, gc=False):
    """Put a file or link in place, with ``attributes``.

    ``expected`` is the state that it replaces, and ``verdict`` tells whose that is.
    """

    intent: Intent
    expected: Actual
    verdict: Verdict
    attributes: Attributes
    made: bool = True

    @property
    def keep_copy(self) -> bool:
        """True if what it replaces goes to the backup area."""
        return fate_of(self.verdict, self.intent.on_conflict) is Fate.BACK_UP


class Keep(msgspec.Struct, frozen=True, gc=False):
    """Record a path that is right on the disk, but for the attributes that are ``missing``.

    ``adopts`` is true if it was not in the ledger.
    """

    row: Row
    actual: Actual
    missing: Attributes = UNASKED
    adopts: bool = False


class Plan(msgspec.Struct, frozen=True):
    """The steps of a batch, in the order in which they are applied."""

    clear: tuple[Remove, ...] = ()
    clear_folders: tuple[tuple[Name, Name], ...] = ()
    """Folder, and the declared path that it gives way to; the deepest first."""
    folders: tuple[MakeFolder, ...] = ()
    files: tuple[Put, ...] = ()
    keep: tuple[Keep, ...] = ()
    remove: tuple[Remove, ...] = ()
    prune: tuple[Row, ...] = ()
    """Folders that we made and that may be empty afterwards; the deepest first."""
    dress: tuple[Row, ...] = ()
    """Folders with attributes of their own in which something changes."""
    forget: tuple[Name, ...] = ()
    left: tuple[Name, ...] = ()
    """Paths that were ours once, hold foreign bytes now, and stay."""
    displaced: tuple[Displaced, ...] = ()
    """Declarations that give way, or are refused because of another one."""
    failures: tuple[PathError, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """True if no step would change the disk, or what the ledger says of it."""
        untouched = {"left", "failures", "dress", "displaced"}
        steps = (field for field in self.__struct_fields__ if field not in untouched)
        return not any(getattr(self, field) for field in steps)


def row_of(intent: Intent, *, made: bool = True) -> Row:
    """Returns the row of a declaration, still without a signature."""
    desired, source = intent.desired, intent.source
    assert not isinstance(desired, Absent)
    return Row(
        intent.name,
        kind_of(desired),
        intent.owner,
        intent.container,
        intent.component,
        desired.digest,
        desired.size,
        desired.attributes.mode,
        made=made,
        target=desired.target if isinstance(desired, LinkState) else "",
        asked_ns=desired.attributes.mtime_ns,
        source_inode=source.inode if source else 0,
        source_ctime_ns=source.ctime_ns if source else 0,
    )
