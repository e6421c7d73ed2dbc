"""Violations name the rule, quote the contract, tell the story, and can be run again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cocoindex as coco
import pytest
from hypothesis import Phase, settings
from hypothesis.database import InMemoryExampleDatabase

from cocoindex_fsmirror import testing
from cocoindex_fsmirror.testing import (
    PROFILES,
    ContractViolation,
    Delivery,
    Disturb,
    Fault,
    Restart,
    Rule,
    Step,
    Update,
    check_history,
    check_target,
)
from cocoindex_fsmirror.testing._same import same
from tests.kit.connectors import Question, Shelf
from tests.kit.mistakes import AnyForAll, DoesNotLook, NeverSettles, NeverUpdates
from tests.kit.mistakes_of_sinks import CreatesOnce, DeleteRaises, WritesInPlace

INTERRUPTED: list[Step] = [
    Update({"one": {"a": b"1"}}),
    Update({"one": {"a": b"2"}}, Fault("dies", "after")),
    Restart(),
    Update({"one": {"a": b"1"}}),
]


def violation_of(make: type[Shelf], **promises: Any) -> ContractViolation:
    """Returns the violation that the kit finds."""
    with pytest.raises(ContractViolation) as caught:
        check_target(make, settings=PROFILES["ci"], **promises)
    return caught.value


def violation_in(
    make: Callable[[], Shelf], history: Sequence[Step], **promises: Any
) -> ContractViolation:
    """Returns the violation that one history shows."""
    with pytest.raises(ContractViolation) as caught:
        check_history(make, history, **promises)
    return caught.value


# Its text


def test_violation_names_the_rule_and_tells_the_story() -> None:
    violation = violation_in(AnyForAll, INTERRUPTED)
    assert isinstance(violation, AssertionError)
    assert str(violation).splitlines()[:7] == [
        f"AnyForAll breaks the rule “believes only what it may”: {violation.rule.reason}.",
        f"The contract: {violation.rule.contract}.",
        "The history that breaks it:",
        "  1. update {'a': b'1'}: finishes",
        "  2. update {'a': b'2'}: dies after the sink",
        "  3. restart",
        "  4. update {'a': b'1'}: finishes",
    ]
    assert violation.found == (
        "'a' is b'2' and should be b'1': "
        "reconcile('a', b'1', [b'1', b'2'], prev_may_be_missing=False) returned None"
    )
    assert f"\n  => {violation.found}\n" in str(violation)
    assert (violation.subject, violation.history) == ("AnyForAll", tuple(INTERRUPTED))


def test_violation_tells_how_an_update_went_where_that_matters() -> None:
    two = {"one": {"a": b"1"}, "two": {"b": b"2"}}
    violation = violation_in(
        AnyForAll,
        [
            Update(two, Fault("fails", "before"), together=True, asks=2, full_reprocess=True),
            Update({"one": {}}, delivery=Delivery.TWICE, invalidation="lossy"),
            *INTERRUPTED,
        ],
    )
    assert violation.story[:2] == (
        "1. update component one {'a': b'1'}, component two {'b': b'2'}, full reprocess, "
        "all in one batch, reconcile called 2 times: "
        "fails before the sink; tried again in halves; finishes",
        "2. update {}, lossy container, actions delivered twice: finishes",
    )


def test_violation_comes_without_the_frames_of_the_search() -> None:
    violation = violation_in(NeverSettles, [Update({"one": {"a": b""}})])
    assert type(violation) is ContractViolation
    assert (violation.__cause__, violation.__suppress_context__) == (None, True)
    assert not hasattr(violation, "__notes__")


@pytest.mark.parametrize("rule", Rule)
def test_each_rule_has_a_reason_and_a_quotation_unless_it_is_ours(rule: Rule) -> None:
    assert rule.title
    assert rule.reason
    assert bool(re.search("“.+” \\(.+\\)", rule.contract)) == (rule is not Rule.ATOMIC)


def test_quotations_stand_in_the_engine() -> None:
    (quoted,) = re.findall("“(.+)”", Rule.PURE.contract)
    docstring = " ".join((coco.TargetHandler.__doc__ or "").split())
    if "``reconcile`` may be called more than once" not in docstring:
        pytest.skip("this engine does not document it yet")
    assert "docstring of TargetHandler" in Rule.PURE.contract
    assert quoted in docstring


# The shortest history; how the last update is repeated is not a part of it.


@pytest.mark.slow
def test_any_for_all_is_shown_by_one_interrupted_change() -> None:
    first, second = violation_of(AnyForAll).history
    assert isinstance(first, Update)
    assert isinstance(second, Update)
    assert first.fault is None
    assert list(first.declared) == ["one"]
    assert second.fault is not None
    assert first.declared["one"].keys() == second.declared["one"].keys()
    assert len(first.declared["one"]) == 1


def test_deletion_of_a_missing_value_takes_at_most_two_updates() -> None:
    violation = violation_of(DeleteRaises)
    first, last = violation.history[0], violation.story[-1]
    assert isinstance(first, Update)
    assert len(first.declared["one"]) == 1
    assert len(violation.history) <= 2
    assert re.fullmatch(r"\d\. update \{\}(, actions delivered twice)?: apply raises", last)


# To run it again


PLAYED: list[tuple[type[Shelf], list[Step]]] = [
    (AnyForAll, INTERRUPTED),
    (NeverSettles, [Update({"one": {}, "two": {"a'": b"\xff"}}, together=True, asks=3)]),
    (
        DeleteRaises,
        [Update({"one": {"a": b""}}, Fault("fails", "inside", lasting=True)), Update({})],
    ),
    (CreatesOnce, [Update({"one": {"a": b""}}, delivery=Delivery.TWICE, full_reprocess=True)]),
]


def rerun(violation: ContractViolation, names: dict[str, Any]) -> ContractViolation:
    """Runs the printed lines; returns their violation."""
    _, _, printed = str(violation).partition("To run it again:\n")
    with pytest.raises(ContractViolation) as caught:
        exec(printed, names)
    return caught.value


@pytest.mark.parametrize(("make", "history"), PLAYED)
def test_printed_lines_run_and_break_the_same_rule(make: type[Shelf], history: list[Step]) -> None:
    violation = violation_in(make, history)
    names: dict[str, Any] = {make.__name__: make}
    again = rerun(violation, names)
    assert (again.rule, again.story) == (violation.rule, violation.story)
    assert eval(repr(violation.history), vars(testing)) == violation.history == tuple(history)


def test_adapter_without_a_usable_name_is_called_make() -> None:
    class Local(NeverSettles):
        pass

    made: list[Callable[[], Shelf]] = [lambda: Local(), partial(Local), Local]  # noqa: PLW0108
    for make, name in zip(made, ["make", "make", "Local"], strict=True):
        violation = violation_in(make, [Update({"one": {"a": b""}})])
        assert rerun(violation, {name: make}).rule is violation.rule
        hint = f"\n# make: what makes the adapter, here {violation.subject}\n"
        assert (hint in str(violation)) == (name == "make")


class Closing(NeverSettles):
    """Can't be closed once it was used."""

    def close(self) -> None:
        if self.store:
            raise OSError("busy")


def test_error_of_closing_does_not_hide_the_violation() -> None:
    for violation in (
        violation_of(Closing),
        violation_in(Closing, [Update({"one": {"a": b""}})]),
    ):
        assert violation.rule is Rule.SETTLES
        assert violation.__notes__ == ["Then close() raised OSError: busy"]


def test_restart_after_a_crash_is_told_wherever_it_comes() -> None:
    dies = [Update({"one": {"a": value}}, Fault("dies", "after")) for value in (b"2", b"3")]
    violation = violation_in(AnyForAll, [INTERRUPTED[0], *dies, INTERRUPTED[0]])
    assert [line.partition(". ")[2] for line in violation.story] == [
        "update {'a': b'1'}: finishes",
        "update {'a': b'2'}: dies after the sink",
        "restart",
        "update {'a': b'3'}: dies after the sink",
        "restart",
        "update {'a': b'1'}: finishes",
    ]


class Numbers(Shelf):
    """Keeps a NaN."""

    def record(self, value: bytes) -> object:
        return [float("nan"), value]

    def is_settled(self, asked: Question) -> bool:
        return not asked.missing and all(r[1] == asked.value for r in asked.previous)

    def expected(self, key: str, value: bytes) -> object:
        return {"content": (value, float("nan"))}

    def observe(self) -> Mapping[str, Any]:
        return {key: self.expected(key, value) for key, value in super().observe().items()}


def test_nan_equals_itself() -> None:
    check_target(Numbers, settings=PROFILES["dev"], atomic=True)
    assert not same({"a": [1.0]}, {"a": [2.0]})
    assert not same([1], [1, 2])
    assert same(True, 1)
    assert same(-0.0, 0.0)


def test_disturbance_and_its_draws_are_in_the_history() -> None:
    violation = violation_of(DoesNotLook, heals=True)
    drawn = [step.drawn for step in violation.history if isinstance(step, Disturb)]
    assert [len(each) for each in drawn] == [2]
    again = violation_in(DoesNotLook, [*violation.history], heals=True)
    assert (again.rule, again.story) == (violation.rule, violation.story)


def test_promises_beyond_the_contract_are_printed() -> None:
    promises = {"atomic": True, "heals": True, "container": True, "deaths": "fork"}
    torn = [Update({"one": {"a": b"12"}}, Fault("dies", "inside", step=2))]
    violation = violation_in(WritesInPlace, torn, **promises)
    assert (violation.rule, violation.promises) == (Rule.ATOMIC, promises)
    assert str(violation).endswith("\n], atomic=True, heals=True, container=True, deaths='fork')")
    as_by_default = violation_in(NeverSettles, [Update({"one": {"a": b""}})], deaths="raise")
    assert as_by_default.promises == {}
    assert str(as_by_default).endswith("\n])")


def test_history_that_lacks_its_draws_says_so() -> None:
    with pytest.raises(ValueError, match="this history has no value for"):
        check_history(DoesNotLook, [Disturb()], heals=True)


class Named:
    """Makes adapters, under a name of its own."""

    def __init__(self, make: type[Shelf], name: str) -> None:
        self.make, self.__qualname__ = make, name

    def __call__(self) -> Shelf:
        return self.make()


def test_earlier_failure_of_the_same_adapter_is_tried_first() -> None:
    again = settings(
        PROFILES["ci"],
        derandomize=False,
        database=InMemoryExampleDatabase(),
        max_examples=1,  # The simplest of the new examples, which passes.
        phases=[Phase.reuse, Phase.generate],
    )
    shelf, other = Named(NeverUpdates, "shelf"), Named(NeverUpdates, "other")
    check_target(shelf, settings=again)  # Nothing is known yet.
    with pytest.raises(ContractViolation) as found:
        check_target(shelf, settings=settings(again, max_examples=200))
    with pytest.raises(ContractViolation) as found_again:
        check_target(shelf, settings=again)
    assert found_again.value.history == found.value.history
    check_target(other, settings=again)
