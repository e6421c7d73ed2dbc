"""A handler that is asked several times, and whose records are looked at."""

from __future__ import annotations

from typing import Any, TypeAlias

import cocoindex as coco

from ._engine import Asked
from ._history import Key, Value
from ._rules import Broken, Rule
from ._same import same
from ._storage import Stored, serialize, typed
from ._text import short

__all__ = ["Asking"]

_Output: TypeAlias = coco.TargetReconcileOutput[Any, Any] | None


class Asking:
    """Checks each answer of a handler.

    Attributes:
        asks: How often reconcile is called for one answer.
    """

    def __init__(self, handler: object) -> None:
        self._typed = typed(handler)
        self.tracks_value_fingerprint = self._typed.tracks_value_fingerprint
        self.asks = 1

    def reconcile(
        self, key: Key, desired: Value, records: list[Stored], may_be_missing: bool, /
    ) -> _Output:
        """Decides what a key needs.

        Raises:
            Broken: It raised, gave two answers, or a record that can't be stored.
        """
        question = Asked(key, desired, records, may_be_missing, None)
        output = self._ask(question)
        if output is not None and not coco.is_non_existence(output.tracking_record):
            self._check_record(output.tracking_record)
        for _ in range(self.asks - 1):
            again = self._ask(question)
            if not _alike(output, again):
                found = f"{self.call(question)} returned {_answer(output)}, then {_answer(again)}"
                raise Broken(Rule.PURE, found)
        return output

    def call(self, asked: Asked) -> str:
        """Shows a call of reconcile, as text."""
        shown = short([self._typed.restored(record) for record in asked.records])
        wanted = "NON_EXISTENCE" if coco.is_non_existence(asked.desired) else short(asked.desired)
        flag = f"prev_may_be_missing={asked.may_be_missing}"
        return f"reconcile({short(asked.key)}, {wanted}, {shown}, {flag})"

    def answered(self, asked: Asked) -> str:
        """Shows a call of reconcile and what it returned, as text."""
        return f"{self.call(asked)} returned {_answer(asked.output)}"

    def _ask(self, asked: Asked) -> _Output:
        """Calls reconcile once."""
        try:
            output: _Output = self._typed.reconcile(
                asked.key, asked.desired, list(asked.records), asked.may_be_missing
            )
        except Exception as error:
            found = f"{self.call(asked)} raised {type(error).__name__}: {error}"
            raise Broken(Rule.CONVERGES, found) from error
        if output is not None and not isinstance(output, coco.TargetReconcileOutput):
            raise TypeError(
                f"{self.call(asked)} gives a {type(output).__name__}, "
                "not a TargetReconcileOutput nor None"
            )
        return output

    def _check_record(self, record: object) -> None:
        """Checks that a record comes back as it was stored."""
        try:
            restored = self._typed.restored(Stored(serialize(record)))
        except Exception as error:
            found = f"the record {short(record)} can't be stored and read: {error}"
            raise Broken(Rule.RECORDS, found) from error
        if not same(restored, record):
            found = f"the record {short(record)} comes back as {short(restored)}"
            raise Broken(Rule.RECORDS, found)


def _answer(output: _Output) -> str:
    """Shows what reconcile returned, as text."""
    return "None" if output is None else f"the action {short(output.action)}"


def _alike(one: _Output, other: _Output) -> bool:
    """True if two answers mean the same; actions without an ``__eq__`` of their own can't tell."""
    if one is None or other is None:
        return one is other
    has_equality = "__eq__" in {
        name for kind in type(one.action).__mro__[:-1] for name in vars(kind)
    }
    return (
        _stored(one.tracking_record) == _stored(other.tracking_record)
        and one.child_invalidation == other.child_invalidation
        and (one.action == other.action if has_equality else type(one) is type(other))
    )


def _stored(record: object) -> bytes | None:
    """Returns a record as it would be stored."""
    return None if coco.is_non_existence(record) else serialize(record)
