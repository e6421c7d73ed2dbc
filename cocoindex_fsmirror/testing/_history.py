"""Histories: what happens to a connector, step by step."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from hypothesis import strategies as st

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "Delivery",
    "Disturb",
    "Fault",
    "History",
    "Key",
    "Restart",
    "Step",
    "Update",
    "Value",
    "histories",
]

Key: TypeAlias = Any
"""A key of the engine: ``None``, bool, int, str, bytes, UUID, or a tuple of such."""

Value: TypeAlias = Any
"""Whatever a connector lets its users declare."""


class Delivery(enum.Enum):
    """How the actions of a batch reach the sink, which must not care."""

    ONCE = "once"
    TWICE = "twice"
    IN_HALVES = "in two calls"
    ONE_BY_ONE = "one by one"

    def __repr__(self) -> str:
        return f"Delivery.{self.name}"


class _Brief:
    """A value whose ``repr`` leaves out what is as by default."""

    def __repr__(self) -> str:
        given = cast("DataclassInstance", self)
        shown = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in dataclasses.fields(given)
            if each.default is dataclasses.MISSING or getattr(self, each.name) != each.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Fault(_Brief):
    """What goes wrong in an update.

    Attributes:
        kind: The process ``"dies"``, or something ``"fails"`` with an exception.
        where: Before the sink, inside it, or after it and before the engine
            remembers that it was called.
        step: Inside: before which step that touches the operating system, or
            takes the next action; from 0. If there are fewer, nothing happens
            there, and a process dies after the sink instead.
        batch: In which call of the sink, from 0.
        lasting: Inside, when something fails: whether every later step of this
            call fails as well.
    """

    kind: Literal["dies", "fails"]
    where: Literal["before", "inside", "after"]
    step: int = 0
    batch: int = 0
    lasting: bool = False


@dataclass(frozen=True, repr=False)
class Update(_Brief):
    """An update of the app.

    Attributes:
        declared: The target states that each component declares, by the names of
            the components, in the order in which they run. A component that ran
            before and is not in it has been removed.
        fault: What goes wrong.
        together: Whether the actions of all components come in one batch; if it
            fails, the engine tries again with its halves.
        delivery: How the actions of a batch reach the sink.
        asks: How often reconcile is called for each key, with the same arguments.
        full_reprocess: Whether the update was told to run everything again.
        invalidation: What the container of the target states says of them: all
            ``"lossy"`` (they may be missing), or ``"destructive"`` (it was made
            anew, and is empty).
    """

    declared: Mapping[str, Mapping[Key, Value]]
    fault: Fault | None = None
    together: bool = False
    delivery: Delivery = Delivery.ONCE
    asks: int = 1
    full_reprocess: bool = False
    invalidation: Literal["lossy", "destructive"] | None = None


@dataclass(frozen=True, repr=False)
class Restart(_Brief):
    """The process ends in good order, and another one begins."""


@dataclass(frozen=True, repr=False)
class Disturb(_Brief):
    """Somebody changes the external system, by the adapter's ``disturb``.

    Attributes:
        drawn: What ``disturb`` drew, when a history is told again.
    """

    drawn: tuple[Any, ...] = field(default=())


Step: TypeAlias = Update | Restart | Disturb
History: TypeAlias = tuple[Step, ...]

_ANY: Callable[[AbstractSet[Key]], bool] = lambda _: True  # noqa: E731
_STEPS = st.one_of(*(st.integers(0, most) for most in (3, 3, 7, 15, 150)))


def _faults() -> st.SearchStrategy[Fault]:
    """Anything that may go wrong; mostly in the first batch, and inside the sink."""
    kinds = st.sampled_from(["dies", "fails"])
    batches = st.sampled_from([0, 0, 0, 0, 1])
    inside = st.builds(Fault, kinds, st.just("inside"), _STEPS, batches, st.booleans())
    outside = st.builds(Fault, kinds, st.sampled_from(["before", "after"]), batch=batches)
    return st.one_of(outside, inside, inside, inside)


@st.composite
def histories(
    draw: st.DrawFn,
    keys: st.SearchStrategy[Key],
    values: st.SearchStrategy[Value],
    *,
    allows: Callable[[AbstractSet[Key]], bool] = _ANY,
    disturbs: bool = False,
    max_steps: int = 8,
) -> History:
    """Histories of updates, crashes and restarts; any of them shrinks to a short one.

    Args:
        draw: Given by Hypothesis.
        keys: The keys of target states.
        values: What is declared for a key.
        allows: Whether these keys may be declared together.
        disturbs: Whether to put in changes behind the connector's back.
        max_steps: How many steps it has.
    """
    # Few of each, so that they meet again.
    some_keys = draw(st.lists(keys, min_size=1, max_size=5, unique_by=repr))
    some_values = draw(st.lists(values, min_size=2, max_size=3, unique_by=repr))
    kinds = st.sampled_from([*[Update] * 5, Restart, *([Disturb] if disturbs else [])])
    steps: list[Step] = []
    placed: _Placed = {}
    for kind in draw(st.lists(kinds, min_size=1, max_size=max_steps)):
        if kind is Update:
            placed = draw(_changed(placed, some_keys, some_values, allows))
            steps.append(draw(_updates(placed)))
        else:
            steps.append(kind())
    return tuple(steps)


_Placed: TypeAlias = dict[Key, tuple[str, Value]]  # What is declared, and by which component.


@st.composite
def _changed(
    draw: st.DrawFn,
    placed: _Placed,
    keys: list[Key],
    values: list[Value],
    allows: Callable[[AbstractSet[Key]], bool],
) -> _Placed:
    """What the next update declares: much of it as before."""
    changed: _Placed = {}
    for key in draw(st.permutations(keys)):
        before = placed.get(key)
        fate = draw(st.sampled_from(["drop", "set", "set", "set", "keep", "move"]))
        if fate == "drop" or (fate == "keep" and before is None) or not allows({*changed, key}):
            continue
        component, value = before or ("one", None)
        if fate == "move":
            component = "two" if component == "one" else "one"
        if fate == "set" or before is None:
            others = [other for other in values if before is None or repr(other) != repr(value)]
            value = draw(st.sampled_from(others))
        changed[key] = component, value
    return changed


@st.composite
def _updates(draw: st.DrawFn, placed: _Placed) -> Update:
    """An update that declares something, in one of the ways in which it may go."""
    declared: dict[str, dict[Key, Value]] = {"one": {}} if draw(st.booleans()) else {}
    for key, (component, value) in placed.items():
        declared.setdefault(component, {})[key] = value
    return Update(
        declared,
        draw(st.none() | _faults()),
        together=draw(st.booleans()),
        delivery=draw(st.sampled_from([Delivery.ONCE, Delivery.ONCE, *Delivery])),
        asks=draw(st.sampled_from([1, 1, 2, 3])),
        full_reprocess=draw(st.integers(0, 5)) == 5,
        invalidation=draw(st.sampled_from([*[None] * 8, "lossy", "destructive"])),
    )
