"""Histories: what happens to a connector, step by step."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

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
    """The way in which the actions of a batch reach the sink; no way may make a difference."""

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
    """A failure or a crash in an update.

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

    def __post_init__(self) -> None:
        _check_one_of("kind", self.kind, ("dies", "fails"))
        _check_one_of("where", self.where, ("before", "inside", "after"))


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

    def __post_init__(self) -> None:
        _check_one_of("invalidation", self.invalidation, (None, "lossy", "destructive"))
        if not isinstance(self.delivery, Delivery):
            raise TypeError(f"delivery is {self.delivery!r}, not a Delivery such as Delivery.TWICE")
        if not isinstance(self.fault, Fault | None):
            raise TypeError(f"fault is {self.fault!r}, not a Fault")
        _check_declared(self.declared)


def _check_one_of(name: str, given: object, known: Collection[object]) -> None:
    """Refuses what has no meaning."""
    if given not in known:
        raise ValueError(f"{name} is {given!r}, and can be {', '.join(map(repr, known))}")


def _check_declared(declared: object) -> None:
    """Refuses what does not say which component declares what, and each key once."""
    if not isinstance(declared, Mapping):
        raise TypeError(f"an update declares a mapping, not {declared!r}")
    owners: dict[Key, object] = {}
    for component, states in declared.items():
        if not isinstance(component, str) or not isinstance(states, Mapping):
            raise TypeError(
                "an update says which component declares what, as in "
                f"Update({{'one': {{key: value}}}}), not {{{component!r}: {states!r}}}"
            )
        for key in states:
            if owners.setdefault(key, component) != component:
                raise ValueError(f"{key!r} is declared by {owners[key]!r} and by {component!r}")


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
_T = TypeVar("_T")


def _weighted(*choices: tuple[int, st.SearchStrategy[_T]]) -> st.SearchStrategy[_T]:
    """Draws one of several, by weight; ``st.one_of`` merges a strategy that is named twice."""
    each = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(each) - 1).flatmap(each.__getitem__)


# Some sinks take two steps for an update, and some take sixty.
_STEPS = _weighted(
    (2, st.integers(0, 3)),
    (3, st.integers(0, 15)),
    (2, st.integers(0, 60)),
    (1, st.integers(0, 250)),
)


def _faults() -> st.SearchStrategy[Fault]:
    """Draws a fault; mostly in the first batch, and inside the sink."""
    kinds = st.sampled_from(["dies", "fails", "fails"])
    batches = st.sampled_from([0, 0, 0, 0, 1])
    inside = st.builds(Fault, kinds, st.just("inside"), _STEPS, batches, st.booleans())
    outside = st.builds(Fault, kinds, st.sampled_from(["before", "after"]), batch=batches)
    return _weighted((1, outside), (2, inside))


@st.composite
def histories(
    draw: st.DrawFn,
    keys: st.SearchStrategy[Key],
    values: st.SearchStrategy[Value],
    *,
    allows: Callable[[AbstractSet[Key]], bool] = _ANY,
    disturbs: bool = False,
    max_steps: int = 12,
) -> History:
    """Draws histories of updates, crashes and restarts; any of them shrinks to a short one.

    Args:
        draw: Given by Hypothesis.
        keys: The keys of target states.
        values: What is declared for a key.
        allows: Whether these keys may be declared together.
        disturbs: Whether to put in changes behind the connector's back.
        max_steps: How many steps it has at most, without updates that are tried again.
    """
    # Few of each, so that they meet again.
    some_keys = draw(st.lists(keys, min_size=1, max_size=8, unique=True))
    some_values = draw(st.lists(values, min_size=2, max_size=3))
    # Nothing at all comes first: what a failure does not need shrinks to it, and is left out.
    others: list[tuple[int, st.SearchStrategy[Any]]] = [(1, st.none()), (1, st.builds(Restart))]
    others += [(2, st.builds(Disturb))] if disturbs else []
    fates = [_fates(len(some_values) - 1)] * len(some_keys)
    change = st.tuples(st.permutations(some_keys), st.tuples(*fates))
    update = st.tuples(change, st.booleans(), _UPDATES, st.booleans())
    # What is there already is written again, and cut off: no record tells of it.
    often = st.sampled_from([False, True, True, True])
    again = st.tuples(st.none(), st.booleans(), _AGAIN, often)
    choices = _weighted(*others, (10, update), (4, again))
    drawn = draw(st.lists(choices, min_size=3, max_size=max_steps))
    placed: _Placed = {}
    steps: list[Step] = []
    for step in drawn:
        if isinstance(step, tuple):
            change_of, is_empty, update_of, is_tried_again = step
            if change_of is not None:
                placed = _changed(placed, change_of, allows, len(some_values))
            declared: dict[str, dict[Key, Value]] = {"one": {}} if is_empty else {}
            for key, (component, value) in placed.items():
                declared.setdefault(component, {})[key] = some_values[value]
            steps.append(update_of(declared))
            if is_tried_again:
                steps.append(Update(declared))
        elif step is not None:
            steps.append(step)
    return tuple(steps)


_Placed: TypeAlias = dict[Key, tuple[str, int]]
"""What is declared: by which component, and which of the values."""

_Fate: TypeAlias = tuple[str, int]
"""What happens to a key, and by how much its value moves on if that is it."""


@functools.cache
def _fates(furthest: int) -> st.SearchStrategy[_Fate]:
    """Draws what happens to a key."""
    kinds = st.sampled_from(["drop", "set", "set", "set", "set", "keep", "move"])
    return st.tuples(kinds, st.integers(1, furthest))


def _changed(
    placed: _Placed,
    change: tuple[Iterable[Key], Iterable[_Fate]],
    allows: Callable[[AbstractSet[Key]], bool],
    count: int,
) -> _Placed:
    """Draws what the next update declares: some as before; a key that is set gets another value."""
    changed: _Placed = {}
    for key, (fate, offset) in zip(*change, strict=True):
        component, value = placed.get(key, ("", -1))
        if fate == "drop" or (fate == "keep" and not component) or not allows({*changed, key}):
            continue
        if fate == "move":
            component = "two" if component == "one" else "one"
        if fate == "set" or value < 0:
            value = (value + offset) % count
        changed[key] = component or "one", value
    return changed


def _update(
    fault: Fault | None, options: Mapping[str, Any]
) -> Callable[[Mapping[str, Mapping[Key, Value]]], Update]:
    """Draws a way for an update to go; what it declares is filled in later."""
    return functools.partial(Update, fault=fault, **options)


# Made once: Hypothesis looks closely at each new strategy, which takes longer than to draw from it.
_UPDATES = st.builds(
    _update,
    st.none() | _faults(),
    st.fixed_dictionaries(
        {
            "together": st.booleans(),
            "delivery": st.sampled_from([Delivery.ONCE, Delivery.ONCE, *Delivery]),
            "asks": st.sampled_from([1, 1, 2, 3]),
            "full_reprocess": st.sampled_from([*[False] * 5, True]),
            "invalidation": st.sampled_from([*[None] * 8, "lossy", "destructive"]),
        }
    ),
)

_AGAIN = st.builds(
    _update,
    st.builds(
        Fault,
        st.sampled_from(["dies", "dies", "fails"]),
        st.just("inside"),
        _weighted((3, st.integers(0, 3)), (2, st.integers(0, 15)), (1, st.integers(0, 60))),
    ),
    st.fixed_dictionaries({"full_reprocess": st.sampled_from([False, True, True, True])}),
)
