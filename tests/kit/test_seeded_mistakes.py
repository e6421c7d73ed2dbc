"""The kit catches each seeded mistake by its rule; the twin without the mistake passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings

from cocoindex_fsmirror.testing import (
    PROFILES,
    ContractViolation,
    Delivery,
    Disturb,
    Fault,
    Rule,
    Step,
    Update,
    check_history,
    check_target,
)
from tests.kit import mistakes as planning
from tests.kit import mistakes_of_sinks as sinks
from tests.kit.connectors import Shelf


class Seeded(NamedTuple):
    """A connector with a mistake, the rule that names it, and what was promised."""

    wrong: type[Shelf]
    rule: Rule
    promises: Mapping[str, Any] = MappingProxyType({})
    shrinks: bool = False  # True if only the shortest history tells the rule from others.
    examples: int = 200  # The number of examples that the search may take.

    @property
    def right(self) -> type[Shelf]:
        """The connector without the mistake."""
        (base,) = self.wrong.__bases__
        assert issubclass(base, Shelf)
        return base


MISTAKES = (
    Seeded(planning.AnyForAll, Rule.BELIEVES_ONLY_WHAT_IT_MAY),
    Seeded(planning.NewestRecordOnly, Rule.BELIEVES_ONLY_WHAT_IT_MAY),
    Seeded(planning.FlagIgnored, Rule.BELIEVES_ONLY_WHAT_IT_MAY, shrinks=True),
    Seeded(planning.NeverSettles, Rule.SETTLES),
    Seeded(planning.NeverUpdates, Rule.CONVERGES),
    Seeded(planning.DoesNotLook, Rule.CONVERGES, {"heals": True}),
    Seeded(planning.RemembersPlans, Rule.PURE, shrinks=True),
    Seeded(planning.NumbersDeletions, Rule.PURE),
    Seeded(planning.WritesWhilePlanning, Rule.PURE),
    Seeded(planning.LengthOnly, Rule.RECORDS),
    Seeded(planning.TruncatedDigest, Rule.RECORDS),
    Seeded(planning.NotStorable, Rule.RECORDS),
    Seeded(planning.PairsWithoutType, Rule.RECORDS),
    Seeded(planning.FieldNotRead, Rule.RECORDS),
    Seeded(sinks.DeleteRaises, Rule.DELETES_WHAT_MAY_BE_GONE),
    Seeded(sinks.Appends, Rule.IDEMPOTENT),
    Seeded(sinks.FoldsCase, Rule.CONVERGES, shrinks=True),
    Seeded(sinks.DeletesFirst, Rule.IDEMPOTENT, shrinks=True),
    Seeded(sinks.ClearsFirst, Rule.IDEMPOTENT, {"container": True}),
    Seeded(sinks.TakesAllForOne, Rule.CONVERGES, shrinks=True),
    Seeded(sinks.ForgetsMoved, Rule.CONVERGES, shrinks=True),
    Seeded(sinks.DeletesByPrefix, Rule.CONVERGES),
    Seeded(sinks.RemembersRows, Rule.CONVERGES, shrinks=True),
    Seeded(sinks.BelievesList, Rule.CONVERGES, shrinks=True),
    Seeded(sinks.SparesForAWhile, Rule.CONVERGES),
    Seeded(sinks.CreatesOnce, Rule.IDEMPOTENT, shrinks=True),
    Seeded(sinks.StagesOnce, Rule.IDEMPOTENT, shrinks=True),
    Seeded(sinks.UnlinkRaises, Rule.DELETES_WHAT_MAY_BE_GONE),
    Seeded(sinks.SwallowsErrors, Rule.NO_SWALLOWED_FAILURE),
    Seeded(sinks.HearsTheFirstOnly, Rule.NO_SWALLOWED_FAILURE, examples=1_000),
    Seeded(sinks.WritesInPlace, Rule.CONVERGES, shrinks=True),
    Seeded(sinks.WritesInPlace, Rule.ATOMIC, {"atomic": True}),
    Seeded(sinks.WritesInPlace, Rule.ATOMIC, {"atomic": True, "deaths": "fork"}),
    Seeded(sinks.LeavesResidue, Rule.CONVERGES),
    Seeded(sinks.InsertsOnce, Rule.IDEMPOTENT, shrinks=True),
    Seeded(sinks.SwallowsSqlErrors, Rule.NO_SWALLOWED_FAILURE),
)


# To shrink a history takes most of the time.
UNSHRUNK = settings(PROFILES["ci"], phases=[Phase.generate])


def _name(wrong: type[Shelf], promises: Mapping[str, Any]) -> str:
    """Returns the name of a case."""
    return "-".join([wrong.__name__, *(f"{key}={value}" for key, value in promises.items())])


@pytest.mark.parametrize(
    "seeded", [pytest.param(each, id=_name(each.wrong, each.promises)) for each in MISTAKES]
)
def test_seeded_mistake_is_caught_and_named_by_its_rule(seeded: Seeded) -> None:
    profile = PROFILES["ci"] if seeded.shrinks else UNSHRUNK
    with pytest.raises(ContractViolation) as caught:
        check_target(
            seeded.wrong,
            settings=settings(profile, max_examples=seeded.examples),
            **seeded.promises,
        )
    assert caught.value.rule is seeded.rule, caught.value


ONE = Update({"one": {"a": b"1"}})
OTHER = Update({"one": {"a": b"2"}}, Fault("dies", "after"))


MOVED = Update({"one": {}, "two": {"a": b"1"}})
BOTH = Update({"one": {"a": b"1"}, "two": {"b": b"1"}})


@pytest.mark.parametrize(
    ("seeded", "history"),
    [
        (Seeded(sinks.ClearsFirst, Rule.CONVERGES, {"container": True}), [BOTH]),
        (
            Seeded(sinks.ClearsFirst, Rule.IDEMPOTENT, {"container": True}),
            [Update({"one": {"a": b"1", "b": b"1"}}, delivery=Delivery.IN_HALVES)],
        ),
        (Seeded(sinks.ForgetsMoved, Rule.CONVERGES), [ONE, MOVED]),
        (
            Seeded(sinks.DeletesFirst, Rule.IDEMPOTENT),
            [ONE, Update({"one": {"A": b"1"}}, delivery=Delivery.IN_HALVES)],
        ),
        (Seeded(planning.NotStorable, Rule.RECORDS), [replace(ONE, asks=2)]),
        (Seeded(planning.NeverUpdates, Rule.CONVERGES), [ONE, replace(OTHER, fault=None)]),
        (Seeded(planning.LengthOnly, Rule.RECORDS), [ONE, replace(OTHER, fault=None)]),
        (Seeded(planning.LengthOnly, Rule.RECORDS), [ONE, OTHER, ONE]),
        (Seeded(planning.AnyForAll, Rule.BELIEVES_ONLY_WHAT_IT_MAY), [ONE, OTHER, ONE]),
    ],
)
def test_rule_is_found_by_the_needs_of_the_history(seeded: Seeded, history: list[Step]) -> None:
    with pytest.raises(ContractViolation) as caught:
        check_history(seeded.wrong, history, **seeded.promises)
    assert caught.value.rule is seeded.rule, caught.value


EDITED = Disturb((b"theirs", "a"))
HALFWAY = Update({"one": {}, "two": {"b": b"1"}}, Fault("dies", "before", batch=1))


def test_spared_value_is_foreign_though_the_update_died() -> None:
    history: list[Step] = [ONE, EDITED, HALFWAY, replace(HALFWAY, fault=None)]
    check_history(sinks.Sparing, history)
    with pytest.raises(ContractViolation, match="it was b'theirs', and is absent"):
        check_history(sinks.SparesForAWhile, history)


TWINS = {_name(each.right, each.promises): each for each in MISTAKES}


@pytest.mark.parametrize("name", TWINS)
def test_twin_without_the_mistake_passes(name: str) -> None:
    check_target(TWINS[name].right, settings=PROFILES["ci"], **TWINS[name].promises)
