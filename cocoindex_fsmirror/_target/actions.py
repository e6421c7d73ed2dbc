"""Actions: values that the handlers decide on and the engine hands to the sink.

Their text is what a preview shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import msgspec

from .._core.errors import counted, readable
from .._core.intents import Intent
from .._core.names import ROOT, Name, join
from .._core.ownership import INHERITED, NO_COPIES, Policies
from .._core.states import ABSENT, Desired, DirState, FileState, LinkState
from .keys import IN_ROOT, RootKey, StateKey
from .specs import Options, RootUpdate, Spec

__all__ = ["Action", "Change", "Conclude", "Drop", "Mount", "Place", "Single"]


@dataclass(frozen=True, slots=True)
class Place:
    """A directory target: its root, its path and options in that, and the policies it has told."""

    root: RootKey
    owner: str
    options: Options
    update: RootUpdate = field(repr=False, compare=False)
    prefix: Name = ROOT
    container: str = ""
    policies: Policies = INHERITED

    def inside(self, key: Name, spec: Spec) -> Place:
        """Returns the directory target that is declared below this one."""
        return replace(
            self,
            prefix=join(self.prefix, key),
            container=f"{self.container}{key}//",
            options=self.options.changed(spec.given, is_root=False),
            policies=Policies(spec.given.get("copies"), spec.given.get("on_conflict")),
        )


class Change(msgspec.Struct, frozen=True, gc=False):
    """One path below a root. ``child`` is set for a directory that is declared."""

    place: Place
    intent: Intent
    closed: tuple[tuple[str, str], ...] = ()
    child: Place | None = None
    is_settled: bool = False

    @property
    def is_of_gone(self) -> bool:
        """True if the path goes because its component is gone, as far as we know."""
        running = self.place.update.declarations.components
        return self.intent.desired is ABSENT and self.intent.component not in running

    def __repr__(self) -> str:
        line = _line(str(self.intent.name), self.intent.desired)
        return line.replace("make", "keep", 1) if self.is_settled else line


class Single(msgspec.Struct, frozen=True):
    """A file that is declared by itself; its mirror is the folder that holds it.

    ``former`` are packed keys: where the state folder may be so far.
    """

    path: RootKey
    intent: Intent
    was_dir: bool
    policies: Policies = NO_COPIES
    state: StateKey = IN_ROOT
    former: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return _line(str(self.path), self.intent.desired)


class Mount(msgspec.Struct, frozen=True):
    """A root that is declared."""

    child: Place
    spec: Spec
    was_file: Intent | None

    def __repr__(self) -> str:
        healable = self.child.update.healable(self.child.owner)
        healed = f", and heal {counted(len(healable), 'path')} from copies" if healable else ""
        return f"mirror {self.child.root}{healed}"


class Conclude(msgspec.Struct, frozen=True):
    """The end of an update in which some paths may be declared no longer."""

    root: RootKey
    owner: str
    update: RootUpdate

    def __repr__(self) -> str:
        return f"remove from {self.root} what is no longer declared"


class Drop(msgspec.Struct, frozen=True):
    """A root that is no longer declared; ``former`` is as in :class:`Single`."""

    root: RootKey
    owner: str
    former: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"drop {self.root}"


Action: TypeAlias = Change | Single | Mount | Drop | Conclude


def _line(name: str, desired: Desired) -> str:
    """Returns one short line for a preview."""
    shown = name if name.isprintable() else repr(name)
    if isinstance(desired, FileState):
        return f"write {shown} ({readable(desired.size)})"
    if isinstance(desired, LinkState):
        return f"link {shown}"
    return f"make {shown}/" if isinstance(desired, DirState) else f"delete {shown}"
