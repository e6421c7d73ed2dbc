"""Contradictions: declarations that can't all be met fail, and name each other. Pure.

Several declarers may ask for one path, a file may be declared above another path, and a file
system may take two names for one. All other declarations can be planned path by path.
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

__all__ = ["Wanted", "coalesce"]


class Wanted(msgspec.Struct):
    """The intents of a batch, one a path, without contradictions.

    Attributes:
        asked: The last intent of each declaration in the batch.
        absent: Paths that are no longer declared.
        present: Paths that are declared.
        displaced: Declarations that give way, or are refused because of another one.
        failures: One error for each path of a contradiction.
    """

    asked: dict[tuple[Name, str, str], Intent]
    absent: dict[Name, Intent] = msgspec.field(default_factory=dict)
    present: dict[Name, Intent] = msgspec.field(default_factory=dict)
    displaced: dict[tuple[Name, str, str], Displaced] = msgspec.field(default_factory=dict)
    failures: list[PathError] = msgspec.field(default_factory=list)

    def displace(self, declared: Intent | Row, by: Name) -> None:
        """Notes that a declaration gives way to another one, or is refused because of it."""
        note = Displaced(*declared.declaration, declared.component, by)
        self.displaced.setdefault(declared.declaration, note)

    def refuse(self, intent: Intent, problem: str) -> None:
        """Fails a declared path."""
        self.present.pop(intent.name, None)
        self.failures.append(ConflictError(intent.name, "write", problem, "undeclare one"))


def coalesce(intents: Iterable[Intent], rows: Mapping[Name, Row], folding: Folding) -> Wanted:
    """Takes one intent for each path, in the order of the names; contradictions fail."""
    asked: dict[tuple[Name, str, str], Intent] = {}
    for intent in intents:
        key = intent.declaration
        known = asked.get(key)
        asked[key] = replace(intent, ours=intent.ours + known.ours) if known else intent
    wanted, by_name = Wanted(asked), attrgetter("name")
    for name, group in groupby(sorted(asked.values(), key=by_name), key=by_name):
        _take_one(wanted, list(group), rows.get(name))
    _refuse_below_files(wanted)
    if folding:
        _refuse_folded(wanted, rows.values(), folding)
    _refuse_rivals(wanted)
    return wanted


def _take_one(wanted: Wanted, intents: list[Intent], row: Row | None) -> None:
    """Takes the one intent that stands for all declarers of a path."""
    present = [intent for intent in intents if intent.desired is not ABSENT]
    if len(present) > 1 and not all(isinstance(i.desired, DirState) for i in present):
        places = " and ".join(sorted({_place(intent) for intent in present}))
        wanted.refuse(present[0], f"it is declared in {places}")
        return
    recorded = [i for i in intents if row is not None and i.declaration == row.declaration]
    first = (present or recorded or intents)[0]
    if len(intents) > 1:
        first = replace(first, ours=tuple(digest for i in intents for digest in i.ours))
    (wanted.present if present else wanted.absent)[first.name] = first


def _refuse_below_files(wanted: Wanted) -> None:
    """Refuses ``a`` as a file together with ``a/b``."""
    present = dict(wanted.present)
    files = {name for name, i in present.items() if not isinstance(i.desired, DirState)}
    above = {
        folder: next((name for name in (*ancestors(folder), folder) if name in files), None)
        for folder in {parent(name) for name in present}
    }
    for name, intent in present.items():
        file = above[parent(name)]
        if file is not None:
            wanted.refuse(intent, f"{file!r} is declared as a file")
            if file in wanted.present:  # The file fails only once.
                wanted.refuse(present[file], f"{name!r} is declared below it")


def _refuse_folded(wanted: Wanted, rows: Iterable[Row], folding: Folding) -> None:
    """Refuses a name that this file system takes for another one."""
    ending = {key for key, intent in wanted.asked.items() if intent.desired is ABSENT}
    staying = {row.name for row in rows if row.declared and row.declaration not in ending}
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
    """Refuses contested paths, with notes that have both sides declared again."""
    for intent in [intent for intent in wanted.present.values() if intent.rival]:
        wanted.displace(intent, intent.rival)
        wanted.refuse(intent, f"{intent.rival!r} is declared too, and both can't be there")


def _place(intent: Intent) -> str:
    """Names the directory target that declared a path, for messages."""
    return repr(intent.container.removesuffix("//")) if intent.container else "the root"
