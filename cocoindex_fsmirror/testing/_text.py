"""The text of a history, as violations show it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Final

from ._history import Delivery, Key, Update, Value

__all__ = ["ABSENT", "describe", "short"]


class _Absent:
    """The value that is shown where nothing is."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""Stands for a value where there is none."""


_shown: Final = reprlib.Repr()
_shown.maxother = _shown.maxstring = 80
_shown.maxtuple = _shown.maxlist = _shown.maxdict = 8


def short(value: object) -> str:
    """Shortens the text of a value."""
    return _shown.repr(value)


def describe(step: Update, seen: Mapping[str, Mapping[Key, Value]]) -> str:
    """Describes what an update declares, by component, but not how it went."""
    bodies = {
        name: "{" + ", ".join(f"{short(key)}: {short(states[key])}" for key in states) + "}"
        for name, states in seen.items()
    }
    in_one = list(bodies) in ([], ["one"])
    shown = [body if in_one else f"component {name} {body}" for name, body in bodies.items()]
    more = (
        f"{step.invalidation} container" if step.invalidation else "",
        "full reprocess" if step.full_reprocess else "",
        "all in one batch" if step.together and len(bodies) > 1 else "",
        f"actions delivered {step.delivery.value}" if step.delivery != Delivery.ONCE else "",
        f"reconcile called {step.asks} times" if step.asks > 1 else "",
    )
    return "update " + ", ".join([*(shown or ["{}"]), *filter(None, more)])
