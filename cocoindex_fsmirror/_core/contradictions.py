"""Contradictions: declarations that can't all be met fail, and name each other. Pure.

One path may be asked for by several declarers, a file may be declared above another path,
and a file system may take two names for one. What is left can be planned path by path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import attrgetter

import msgspec
from msgspec.structs import replace

from .errors import ConflictError, PathError
from .intents import Intent
from .names import Folding, Name, ancestors, parent
from .rows import Displaced, Row
from .states import ABSENT, DirState

__all__ = ["Wanted", "coalesce", "declares", "displaced"]


class Wanted(msgspec.Struct):
    """The intents of a batch, one a path, without contradictions.

    Attributes:
        absent: Paths that are no longer declared.
        present: Paths that are declared.
        given_up: Name, owner and container of each declaration that is withdrawn.
        displaced: Declarations that are refused because of another one.
        failures: One error for each path of a contradiction.
    """

    absent: dict[Name, Intent] = msgspec.field(default_factory=dict)
    present: dict[Name, Intent] = msgspec.field(default_factory=dict)
    given_up: set[tuple[Name, str, str]] = msgspec.field(default_factory=set)
    displaced: list[Displaced] = msgspec.field(default_factory=list)
    failures: list[PathError] = msgspec.field(default_factory=list)

    def withdraws(self, row: Row) -> bool:
        """True if the declaration of a row is withdrawn in this batch."""
        return (row.name, row.owner, row.container) in self.given_up

    def refuse(self, intent: Intent, problem: str) -> None:
        """Fails a declared path."""
        self.present.pop(intent.name, None)
        self.failures.append(ConflictError(intent.name, "write", problem, "undeclare one"))


def coalesce(intents: Iterable[Intent], rows: Mapping[Name, Row], folding: Folding) -> Wanted:
    """Makes one intent a path, in the order of the names; contradictions fail."""
    wanted = Wanted()
    latest: dict[tuple[Name, str, str], Intent] = {}
    for intent in intents:
        key = intent.name, intent.owner, intent.container
        known = latest.get(key)
        latest[key] = replace(intent, ours=intent.ours + known.ours) if known else intent
        if intent.desired is ABSENT:
            wanted.given_up.add(key)
    by_name = attrgetter("name")
    for name, asked in groupby(sorted(latest.values(), key=by_name), key=by_name):
        _take_one(wanted, list(asked), rows.get(name))
    _refuse_below_files(wanted)
    if folding:
        _refuse_folded(wanted, rows.values(), folding)
    _refuse_rivals(wanted)
    return wanted


def _take_one(wanted: Wanted, intents: list[Intent], row: Row | None) -> None:
    """Takes the one intent that stands for those of several declarers."""
    present = [intent for intent in intents if intent.desired is not ABSENT]
    if len(present) > 1 and not all(isinstance(i.desired, DirState) for i in present):
        places = " and ".join(sorted({_place(intent) for intent in present}))
        wanted.refuse(present[0], f"it is declared in {places}")
    elif present:
        ours = tuple(digest for intent in intents for digest in intent.ours)
        first = present[0] if len(intents) == 1 else replace(present[0], ours=ours)
        wanted.present[first.name] = first
    else:
        withdrawn = next((i for i in intents if row and declares(i, row)), intents[0])
        wanted.absent[withdrawn.name] = withdrawn


def _refuse_below_files(wanted: Wanted) -> None:
    """Refuses ``a`` as a file together with ``a/b``."""
    present = dict(wanted.present)
    files = {name for name, i in present.items() if not isinstance(i.desired, DirState)}
    covered = {
        folder: above
        for folder in {parent(name) for name in present}
        if (above := next((a for a in (*ancestors(folder), folder) if a in files), None))
    }
    for name, intent in present.items() if covered else ():
        above = covered.get(parent(name))
        if above is not None:
            wanted.refuse(intent, f"{above!r} is declared as a file")
            if above in wanted.present:  # It fails only once.
                wanted.refuse(present[above], f"{name!r} is declared below it")


def _refuse_folded(wanted: Wanted, rows: Iterable[Row], folding: Folding) -> None:
    """Refuses a name that this file system takes for another one."""
    staying = {row.name for row in rows if row.declared and not wanted.withdraws(row)}
    meeting: defaultdict[str, set[Name]] = defaultdict(set)
    for name in {*staying, *wanted.present}:
        for part in (*ancestors(name), name):
            meeting[folding(part)].add(part)
    for name, intent in list(wanted.present.items()):
        for part in (*ancestors(name), name):
            twins = sorted(meeting[folding(part)] - {part})
            if twins:
                problem = f"this file system takes {part!r} and {twins[0]!r} for one name"
                wanted.refuse(intent, problem)
                break


def _refuse_rivals(wanted: Wanted) -> None:
    """Refuses a contested path, and has both sides declared again at the next update."""
    for intent in [intent for intent in wanted.present.values() if intent.rival]:
        wanted.displaced.append(displaced(intent, intent.rival))
        wanted.refuse(intent, f"{intent.rival!r} is declared too, and both can't be there")


def displaced(declared: Intent | Row, by: Name) -> Displaced:
    """Returns the note that a declaration has to give way."""
    return Displaced(declared.name, declared.owner, declared.container, declared.component, by)


def declares(intent: Intent, row: Row) -> bool:
    """True if a row stems from the same declaration as an intent."""
    return (row.owner, row.container) == (intent.owner, intent.container)


def _place(intent: Intent) -> str:
    """Names the directory target that declared a path, for messages."""
    return repr(intent.container.removesuffix("//")) if intent.container else "the root"
