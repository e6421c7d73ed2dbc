"""Histories show every trait, and never one that a user forbids; profiles are fixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cocoindex_fsmirror.testing import (
    PROFILES,
    Delivery,
    Disturb,
    History,
    Restart,
    Update,
    histories,
)

KEYS, VALUES = st.integers(0, 9), st.sampled_from("xyz")


def few(keys: AbstractSet[int]) -> bool:
    """True if no two keys follow each other."""
    return not any(key + 1 in keys for key in keys)


def updates(history: History) -> list[Update]:
    """Returns the updates of a history."""
    return [step for step in history if isinstance(step, Update)]


def keys_of(update: Update) -> list[int]:
    """Returns the keys of an update, in any component."""
    return list(itertools.chain(*update.declared.values()))


@given(histories(KEYS, VALUES, allows=few, max_steps=6))
def test_history_is_short_and_keeps_to_allowed_steps(history: History) -> None:
    assert len(history) <= 2 * 6  # Any update may be tried again.
    assert len(set(itertools.chain(*map(keys_of, updates(history))))) <= 8
    for update in updates(history):
        assert update.declared.keys() <= {"one", "two"}
        assert len(keys_of(update)) == len(set(keys_of(update)))  # One component declares a key.
        assert few(set(keys_of(update)))
        assert all(set(states.values()) <= set("xyz") for states in update.declared.values())


@given(histories(KEYS, VALUES))
def test_disturbances_come_only_if_asked_for(history: History) -> None:
    assert not any(isinstance(step, Disturb) for step in history)


@given(histories(st.just("only"), st.just("same")))
def test_single_key_and_value_are_enough(history: History) -> None:
    assert {key for update in updates(history) for key in keys_of(update)} <= {"only"}


@given(histories(KEYS, st.just(["not hashable"])))
def test_values_need_not_be_hashable(history: History) -> None:
    declared = [states for update in updates(history) for states in update.declared.values()]
    assert all(value == ["not hashable"] for states in declared for value in states.values())


# Traits


def traits(history: History) -> Iterator[object]:
    """Returns the traits of a history."""
    if len(updates(history)) > 3:
        yield "several updates"
    before: dict[int, tuple[str, str]] = {}
    for step in history:
        if not isinstance(step, Update):
            yield type(step)
            continue
        yield from traits_of(step)
        declared = step.declared.items()
        now = {key: (name, states[key]) for name, states in declared for key in states}
        yield from (how(before.get(key), now.get(key)) for key in {*before, *now})
        before = now


def how(before: tuple[str, str] | None, now: tuple[str, str] | None) -> str:
    """Names the fate of a key."""
    if before is None or now is None:
        return "added" if before is None else "removed"
    if before == now:
        return "kept"
    return "changed" if before[0] == now[0] else "moved"


def traits_of(step: Update) -> Iterator[object]:
    """Returns the traits of an update."""
    yield "nothing declared" if not step.declared else f"{len(step.declared)} components"
    yield from (f"an empty {name}" for name, states in step.declared.items() if not states)
    yield from (step.delivery, ("asks", step.asks), ("full", step.full_reprocess))
    yield from (step.invalidation, ("together", step.together))
    fault = step.fault
    if fault is None:
        yield "no fault"
        return
    yield from ((fault.kind, fault.where), ("batch", fault.batch), ("lasting", fault.lasting))
    if fault.where == "inside":
        yield "a late step" if fault.step > 15 else ("step", min(fault.step, 4))


COMING = {
    *(Restart, Disturb, "several updates", *Delivery),
    *("added", "removed", "kept", "changed", "moved"),
    *("nothing declared", "1 components", "2 components", "an empty one"),
    *(("asks", 1), ("asks", 2), ("asks", 3), ("full", False), ("full", True)),
    *(None, "lossy", "destructive", ("together", False), ("together", True)),
    *("no fault", ("batch", 0), ("batch", 1), ("lasting", False), ("lasting", True)),
    *itertools.product(("dies", "fails"), ("before", "inside", "after")),
    *(("step", number) for number in range(5)),
    "a late step",
}


def test_every_trait_comes_within_the_examples_of_the_ci_profile() -> None:
    seen: set[object] = set()

    @settings(PROFILES["ci"], phases=[Phase.generate])
    @given(histories(KEYS, VALUES, disturbs=True))
    def look(history: History) -> None:
        seen.update(traits(history))

    look()
    assert seen == COMING


# Shrinking


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("removed", (Update({"one": {0: "x"}}), Update({}))),
        ("moved", (Update({"one": {0: "x"}}), Update({"two": {0: "x"}}))),
        ("changed", (Update({"one": {0: "x"}}), Update({"one": {0: "y"}}))),
        ("kept", (Update({"one": {0: "x"}}), Update({"one": {0: "x"}}))),
        (Restart, (Restart(),)),
    ],
)
def test_history_shrinks_to_the_steps_that_matter(wanted: object, expected: History) -> None:
    assert shrunk(wanted) == expected


def test_fault_shrinks_to_one_that_strikes_early() -> None:
    (update,) = updates(shrunk(("dies", "inside")))
    assert update.fault is not None
    assert (update.fault.step, update.fault.batch, update.fault.lasting) == (0, 0, False)
    assert replace(update, fault=None) == Update({})


class _FoundError(Exception):
    """The trait was found in a history."""


def shrunk(wanted: object) -> History:
    """Returns the simplest history with a trait."""
    found: list[History] = []

    @settings(PROFILES["ci"], phases=[Phase.generate, Phase.shrink], print_blob=False)
    @given(histories(st.just(0), VALUES, disturbs=True))
    def look(history: History) -> None:
        if wanted in set(traits(history)):
            found.append(history)
            raise _FoundError

    with pytest.raises(_FoundError):
        look()
    return found[-1]


# Profiles


def test_three_profiles_are_offered() -> None:
    assert list(PROFILES) == ["dev", "ci", "nightly"]
    sizes = [profile.max_examples for profile in PROFILES.values()]
    assert sizes == sorted(set(sizes))
    assert all(profile.deadline is None for profile in PROFILES.values())
    assert [name for name, profile in PROFILES.items() if profile.derandomize] == ["ci"]


def test_profiles_can_not_be_changed() -> None:
    with pytest.raises(TypeError, match="item assignment"):
        PROFILES["ci"] = settings()  # type: ignore[index]
