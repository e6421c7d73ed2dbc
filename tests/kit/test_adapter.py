"""Adapters are checked first, and refused by what they lack."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import cocoindex as coco
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from cocoindex_fsmirror.testing import (
    ContractViolation,
    Disturb,
    Fault,
    Target,
    Update,
    check_history,
    check_target,
)
from cocoindex_fsmirror.testing._adapter import stable
from tests.kit.connectors import Action, Handler, Output, Shelf
from tests.kit.mistakes import Draw, NeverSettles

Check = Callable[[Callable[[], Any]], None]
FEW = settings(max_examples=20, database=None, derandomize=True)
WRITTEN = Update({"one": {"a": b"1"}})

checks = pytest.mark.parametrize(
    "check",
    [lambda make: check_target(make, settings=FEW), lambda make: check_history(make, [WRITTEN])],
    ids=["check_target", "check_history"],
)


class Closed(Shelf):
    """Counts open instances."""

    opened = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).opened += 1

    def close(self) -> None:
        type(self).opened -= 1


# Checks before anything happens


@checks
@pytest.mark.parametrize("missing", ["keys", "values", "handler", "apply", "observe"])
def test_missing_method_is_named(missing: str, check: Check) -> None:
    incomplete = type("Incomplete", (Shelf,), {missing: None})
    message = f"^Incomplete is no target adapter: it has no {missing}\\(\\)$"
    with pytest.raises(TypeError, match=message):
        check(incomplete)


def test_missing_methods_are_named_at_once() -> None:
    listed = "keys(), values(), handler(), apply(), observe()"
    with pytest.raises(
        TypeError, match=re.escape(f"object is no target adapter: it has no {listed}")
    ):
        check_target(object, settings=FEW)  # type: ignore[arg-type]


class Several(Closed):
    """Wrong in each method."""

    def keys(self) -> Any:
        return "abc"

    def values(self) -> Any:
        return [b"1"]

    def handler(self) -> Any:
        return object()

    def apply(self) -> None:  # type: ignore[override]
        pass

    def observe(self) -> Any:
        return ["a"]


@checks
def test_methods_of_the_wrong_kind_are_named_at_once(check: Check) -> None:
    with pytest.raises(TypeError) as caught:
        check(Several)
    assert str(caught.value) == (
        "Several is no target adapter: keys() gives a str, not a Hypothesis strategy; "
        "values() gives a list, not a Hypothesis strategy; handler() gives a object, which has no "
        "reconcile(key, desired, prev_possible_records, prev_may_be_missing); "
        "apply() does not take the actions as its only argument; "
        "observe() gives a list, not a mapping"
    )
    assert Several.opened == 0


class TooShort:
    """A handler with another signature."""

    def reconcile(self, key: str, desired: bytes) -> None:
        pass


def test_handler_with_another_reconcile_is_refused() -> None:
    wrong = type("Wrong", (Shelf,), {"handler": lambda _: TooShort()})
    with pytest.raises(TypeError, match=r"^Wrong is no .* a TooShort, which has no reconcile"):
        check_target(wrong, settings=FEW)


def test_adapter_made_by_a_function_is_named_by_it() -> None:
    def shelf() -> object:
        return object()

    with pytest.raises(TypeError, match=r"shelf is no target adapter"):
        check_target(shelf, settings=FEW)  # type: ignore[arg-type]


def test_adapter_need_not_inherit_from_the_protocol() -> None:
    assert isinstance(Shelf(), Target)
    assert not isinstance(object(), Target)


# What else an adapter may be


class Slow(Shelf):
    """Applies in a coroutine."""

    async def apply(self, actions: Sequence[Action]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().apply(actions)


class SlowForever(Slow):
    """Can't delete what is gone."""

    def remove(self, key: str) -> None:
        del self.store[key]


def test_apply_may_be_a_coroutine() -> None:
    check_target(Slow, settings=FEW)
    with pytest.raises(ContractViolation, match="was not there any more, raised KeyError"):
        check_history(
            SlowForever, [Update({"one": {"a": b""}}, Fault("dies", "before")), Update({})]
        )


class Cell(NamedTuple):
    """A key with names for its parts."""

    row: int
    column: tuple[str, None]


class SheetHandler(Handler):
    """Records the types of its keys."""

    seen: ClassVar[set[type]] = set()

    def reconcile(self, key: coco.StableKey, *asked: Any) -> Output | None:
        self.seen.add(type(key))
        return super().reconcile(repr(key), *asked)


class Sheet(Shelf):
    """A connector with keys of several parts, shown as they are declared."""

    def keys(self) -> st.SearchStrategy[Any]:
        return st.builds(Cell, st.integers(1, 2), st.tuples(st.sampled_from("ab"), st.none()))

    def handler(self) -> Handler:
        return SheetHandler(self)

    def observe(self) -> Mapping[Any, bytes]:
        return {Cell(*ast.literal_eval(key)): value for key, value in self.store.items()}


def test_a_named_tuple_comes_back_from_the_engine_as_a_tuple() -> None:
    check_target(Sheet, settings=FEW)
    assert SheetHandler.seen == {tuple}


@pytest.mark.parametrize("key", [None, True, 1, "a", b"a", uuid.UUID(int=1), (1, ("a", None))])
def test_valid_key_of_the_engine_is_left_unchanged(key: object) -> None:
    assert stable(key) is key or stable(key) == key


@pytest.mark.parametrize("key", [1.5, ("a", 1.5), frozenset("a")])
def test_invalid_key_of_the_engine_is_refused_by_name(key: object) -> None:
    refused = key[1] if isinstance(key, tuple) else key
    message = f"keys() gives {refused!r}: a {type(refused).__name__} is no key of the engine"
    with pytest.raises(TypeError, match=re.escape(message)):
        check_history(Closed, [Update({"one": {key: b"1"}})])
    assert Closed.opened == 0


class Inhabited(Shelf):
    """Something is there already."""

    def __init__(self) -> None:
        super().__init__()
        self.store["x"] = b"of somebody else"


class Clearing(Inhabited):
    """Removes foreign values."""

    def apply(self, actions: Sequence[Action]) -> None:
        super().apply(actions)
        self.store.pop("x", None)


def test_state_that_is_there_at_first_is_foreign() -> None:
    check_target(Inhabited, settings=FEW)
    found = "'x' was never declared; it was b'of somebody else', and is absent"
    with pytest.raises(ContractViolation, match=re.escape(found)):
        check_history(Clearing, [WRITTEN])


# Instances are closed


class Spoiled(Closed, NeverSettles):
    """Breaks a rule."""


class Disturbed(Closed):
    """Draws more than a history may have."""

    def disturb(self, draw: Draw) -> None:
        draw(st.none())


@checks
@pytest.mark.parametrize("make", [Closed, Spoiled])
def test_instances_are_closed_when_a_rule_is_broken(make: type[Closed], check: Check) -> None:
    expected = pytest.raises(ContractViolation) if make is Spoiled else contextlib.nullcontext()
    with expected:
        check(make)
    assert make.opened == 0


def test_instances_are_closed_when_a_history_is_given_up() -> None:
    check_history(Closed, [WRITTEN, Update(WRITTEN.declared, invalidation="destructive")])
    assert Closed.opened == 0
    with pytest.raises(ValueError, match="no value for none"):
        check_history(Disturbed, [Disturb()])
    assert Disturbed.opened == 0


def test_incomplete_instance_is_closed() -> None:
    class Incomplete(Closed):
        observe = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="it has no observe"):
        check_target(Incomplete, settings=FEW)  # type: ignore[arg-type]
    assert Incomplete.opened == 0
