"""Events of histories, counted to be sure that none is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from cocoindex_fsmirror.testing import Update
from tests.kit.recording import REMOVED, Kind, Turn
from tests.target.flows import IS_NEW


class Events:
    """Counts of the events of histories."""

    def __init__(self, counts: Counter[str], kind: Kind) -> None:
        self._counts, self._kind = counts, kind
        self._several: set[str] = set()
        self._owners: dict[str, str] = {}

    def count(self, step: Update, ended: str, turns: list[Turn]) -> None:
        """Counts the events of one update."""
        found = [*self._of_update(step, ended)]
        for number, turn in enumerate(turns):
            earlier = {key for before in turns[:number] for key in before.asked}
            for key, question in turn.asked.items():
                found += self._of_question(step, turn, key)
                if key in earlier:
                    found.append("moved, the old owner first")
                if len(question.records) > 1:
                    self._several.add(key)
                if question.desired is not None:
                    self._owners[key] = turn.component
            if turn.component == REMOVED and ended != "finishes" and number == len(turns) - 1:
                found.append("a removal was interrupted")
            unasked = step.declared.get(turn.component, {}).keys() - turn.asked.keys()
            found += [f"not asked, with {self._kind}"] * len(unasked)
        self._counts.update(found)

    def _of_update(self, step: Update, ended: str) -> Iterator[str]:
        """Names the end of an update."""
        if step.fault is not None and ended == step.fault.kind:
            yield f"{ended} {step.fault.where}"
        if ended != "finishes" and step.invalidation:
            yield f"{step.invalidation}, and interrupted"

    def _of_question(self, step: Update, turn: Turn, key: str) -> Iterator[str]:
        """Names the events that one call shows."""
        desired, records, may_be_missing = turn.asked[key]
        is_mounted = turn.component != REMOVED
        if len(records) > 1:
            yield "several records"
        elif len(records) == 1 and key in self._several:
            self._several.discard(key)
            yield "settled"
        if records and may_be_missing:
            yield self._why_missing(step)
        if records and desired and self._owners.get(key, turn.component) != turn.component:
            yield "moved, the new owner first"
            if len(records) > 1:
                yield "moved with several records"
        if step.invalidation == "destructive" and key in self._owners and not records:
            yield "destructive"
        if not is_mounted:
            yield "removed"
            if step.full_reprocess and records and not may_be_missing:
                yield "removed, and not reprocessed"
        if desired in ("always", "never", "untracked", "poison"):
            yield desired

    def _why_missing(self, step: Update) -> str:
        """Names the reason why a tracked value may be missing."""
        if step.full_reprocess:
            return "full reprocess"
        return "lossy" if step.invalidation == "lossy" else "a deleted one among the records"


EVENTS: Final = {
    *("several records", "settled", "a deleted one among the records", "full reprocess"),
    *("lossy", "lossy, and interrupted", "destructive", "destructive, and interrupted"),
    *("removed", "removed, and not reprocessed", "a removal was interrupted"),
    *("moved, the new owner first", "moved, the old owner first", "moved with several records"),
    *(f"{kind} {where}" for kind in ("fails", "dies") for where in ("before", "inside", "after")),
    *("always", "never", "untracked", "poison"),
    *(["not asked, with fingerprints"] if IS_NEW else []),
}
