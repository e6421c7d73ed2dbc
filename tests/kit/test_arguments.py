"""Wrong arguments of the kit are refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from cocoindex_fsmirror.testing import (
    PROFILES,
    Delivery,
    Disturb,
    Fault,
    Update,
    check_history,
    check_target,
)
from tests.kit.connectors import Handler, Shelf

ONE: Any = {"one": {"a": b"1"}}
WRONG: Any = "wrong"  # Any type, for the type checker.


def _shelf(**methods: Any) -> Any:
    """Makes an adapter with other methods."""
    return type("Other", (Shelf,), methods)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda: Fault(WRONG, "after"), ValueError, "kind is 'wrong', and can be 'dies', 'fails'"),
        (lambda: Fault("dies", WRONG), ValueError, "where is 'wrong', and can be 'before', 'ins"),
        (
            lambda: Update(ONE, invalidation=WRONG),
            ValueError,
            "invalidation is 'wrong', and can be None, 'lossy', 'destructive'",
        ),
        (lambda: Update(ONE, delivery=WRONG), TypeError, "delivery is 'wrong', not a Delivery"),
        (lambda: Update(ONE, WRONG), TypeError, "fault is 'wrong', not a Fault"),
        (lambda: Update(WRONG), TypeError, "an update declares a mapping, not 'wrong'"),
        (
            lambda: Update({"a": b"x"}),  # type: ignore[dict-item]
            TypeError,
            "as in Update({'one': {key: value}}), not {'a': b'x'}",
        ),
        (
            lambda: Update({"one": {"a": b"1"}, "two": {"a": b"1"}}),
            ValueError,
            "'a' is declared by 'one' and by 'two'",
        ),
    ],
)
def test_meaningless_step_is_refused(
    given: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        given()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"deaths": WRONG}, ValueError, "deaths is 'wrong', and can be 'raise', 'fork'"),
        ({"atomic": 1}, TypeError, "atomic is 1, not True or False"),
        ({"heals": None}, TypeError, "heals is None, not True or False"),
    ],
)
def test_unknown_promise_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_target(Shelf, settings=PROFILES["dev"], **given)
    with pytest.raises(error, match=message):
        check_history(Shelf, [Update(ONE)], **given)


def test_settings_must_be_settings() -> None:
    with pytest.raises(TypeError, match=r"settings is 'ci', not hypothesis\.settings"):
        check_target(Shelf, settings="ci")  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [None, "restart", Update, Delivery.ONCE])
def test_a_step_of_no_kind_is_refused(step: Any) -> None:
    with pytest.raises(TypeError, match="is no step of a history"):
        check_history(Shelf, [Update(ONE), step])


def test_disturbance_without_a_disturb_method_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Disturb\(\) needs an adapter with a method disturb"):
        check_history(Shelf, [Disturb()])


def test_instance_or_class_with_arguments_is_no_adapter() -> None:
    with pytest.raises(TypeError, match="give Shelf, not an instance of it"):
        check_target(Shelf())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Handler can't be called without arguments"):
        check_target(Handler)  # type: ignore[arg-type]


class Async(Handler):
    """Can't be asked."""

    async def reconcile(self, *asked: Any) -> Any:  # type: ignore[override]
        return super().reconcile(*asked)


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        ({"handler": lambda _: Handler}, "handler() gives the class Handler, not an instance"),
        (
            {"handler": lambda self: Async(self)},  # noqa: PLW0108  # A class is no method.
            "handler() gives a Async, whose reconcile() is a coroutine",
        ),
        ({"expected": lambda _self, value: value}, "expected() must take a key and a value"),
        ({"allows": lambda _self: True}, "allows() must take the keys as its only"),
        ({"disturb": "theirs"}, "disturb is a str, not a method"),
        ({"close": lambda _self, now: now}, "close() must take no arguments"),
    ],
)
def test_broken_adapter_is_refused_at_once(methods: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=re.escape(problem)) as caught:
        check_history(_shelf(**methods), [])
    assert str(caught.value).startswith("Other is no target adapter: ")


class Loose(Handler):
    """Gives anything."""

    def reconcile(self, *asked: Any) -> Any:
        return [super().reconcile(*asked)]


def test_unknown_answer_is_refused() -> None:
    message = "prev_may_be_missing=True) gives a list, not a TargetReconcileOutput nor None"
    with pytest.raises(TypeError, match=re.escape(message)):
        check_history(_shelf(handler=lambda shelf: Loose(shelf)), [Update(ONE)])  # noqa: PLW0108


def test_allows_must_return_a_bool() -> None:
    with pytest.raises(TypeError, match=r"allows\(\) gives 1, not True or False"):
        check_target(_shelf(allows=lambda _, keys: 1), settings=PROFILES["dev"])


def test_observe_with_an_invalid_key_is_named() -> None:
    with pytest.raises(TypeError, match=r"^observe\(\) gives 1\.5: a float is no key"):
        check_history(_shelf(observe=lambda _: {1.5: b""}), [Update(ONE)])
