"""Judges an update: names the rule that is broken, if one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cocoindex as coco

from ._engine import Asked
from ._history import Key, Value
from ._rules import Broken, Rule
from ._same import same
from ._storage import Stored, serialize
from ._text import ABSENT, short
from ._world import Memory, World

__all__ = ["Facts", "check_atomic", "judge", "why_apply_raised"]


@dataclass
class Facts:
    """The facts of one update.

    Attributes:
        wanted: The values to be seen after it, by key.
        tracked: The keys that the engine knew before it.
        again: The keys with actions that were cut off before it.
        asked: The last call of reconcile for each key.
        swallowed: The keys of a batch in which a failure was not reported.
        repeated: The keys with actions that came twice in it, in parts, or after a failure.
    """

    wanted: dict[Key, Value]
    tracked: set[Key]
    again: set[Key]
    asked: dict[Key, Asked] = field(default_factory=dict)
    swallowed: set[Key] = field(default_factory=set)
    repeated: set[Key] = field(default_factory=set)


def judge(world: World, facts: Facts) -> None:
    """Compares what is there after an update that finished with what should be.

    Raises:
        Broken: It differs.
    """
    there, others = world.see(), world.memory.others
    for key, value in facts.wanted.items():
        if not same(there.get(key, ABSENT), value):
            raise _differs(world, facts, key, there.get(key, ABSENT))
    for key in {**there, **others}:
        if key in facts.wanted:
            continue
        seen = there.get(key, ABSENT)
        if key not in facts.tracked and not same(seen, others.get(key, ABSENT)):
            was = short(others.get(key, ABSENT))
            found = f"{short(key)} was never declared; it was {was}, and is {short(seen)}"
            raise Broken(Rule.CONVERGES, found)
        if key in facts.tracked and seen is not ABSENT and key not in world.memory.loose:
            raise _differs(world, facts, key, seen)
    left = {key: value for key, value in there.items() if key not in facts.wanted}
    world.memory = Memory(left, facts.wanted)


def _differs(world: World, facts: Facts, key: Key, seen: Value) -> Broken:
    """Builds the violation for a key that is not as it should be."""
    wanted, asked = facts.wanted.get(key, ABSENT), facts.asked.get(key)
    found = f"{short(key)} is {short(seen)} and should be {short(wanted)}"
    if asked is None:
        return Broken(Rule.CONVERGES, found)
    rule = _rule_for(world, facts, asked, wanted)
    return Broken(rule, f"{found}: {world.handler.answered(asked)}")


def _rule_for(world: World, facts: Facts, asked: Asked, wanted: Value) -> Rule:
    """Returns the rule that says why a key may have gone wrong."""
    if asked.key in facts.swallowed:
        return Rule.NO_SWALLOWED_FAILURE
    if asked.output is not None:
        return Rule.IDEMPOTENT if asked.key in facts.repeated else Rule.CONVERGES
    if asked.may_be_missing or len(set(asked.records)) > 1:
        return Rule.BELIEVES_ONLY_WHAT_IT_MAY
    is_another = not same(world.memory.finished.get(asked.key, wanted), wanted)
    return Rule.RECORDS if is_another and _is_recorded(world, asked) else Rule.CONVERGES


def _is_recorded(world: World, asked: Asked) -> bool:
    """True if the record that a desired state gets is there already, for another one."""
    output = world.handler.reconcile(asked.key, asked.desired, [], True)
    if output is None or coco.is_non_existence(output.tracking_record):
        return False
    return Stored(serialize(output.tracking_record)) in asked.records


def why_apply_raised(
    facts: Facts,
    planned: Sequence[Asked],
    error: str,
    before: dict[Key, Value],
    *,
    is_again: bool,
) -> Broken:
    """Returns the rule that a sink broke by raising although nothing went wrong.

    Args:
        facts: The update.
        planned: The actions.
        error: What was raised.
        before: What was there before the batch.
        is_again: Whether this is not the first call for the batch.
    """
    gone = [
        asked.key
        for asked in planned
        if coco.is_non_existence(asked.desired) and (is_again or asked.key not in before)
    ]
    if gone:
        found = f"deleting {short(gone[0])}, which was not there any more, raised {error}"
        return Broken(Rule.DELETES_WHAT_MAY_BE_GONE, found)
    repeated = facts.again | facts.repeated
    comes_again = is_again or any(asked.key in repeated for asked in planned)
    rule = Rule.IDEMPOTENT if comes_again else Rule.CONVERGES
    return Broken(rule, f"apply raised {error}")


def check_atomic(
    world: World, facts: Facts, planned: Sequence[Asked], before: dict[Key, Value]
) -> None:
    """Checks that each key shows what it was, or what it should become, after an interruption.

    That is what the batch wants of it; or what it is at the end of the update, since
    what is undeclared may have to make way before the batch with its removal comes.

    Raises:
        Broken: One does not.
    """
    wanted = {asked.key: world.to_be_seen(asked.key, asked.desired) for asked in planned}
    there = world.see()
    for key in {**before, **there}:
        seen, old = there.get(key, ABSENT), before.get(key, ABSENT)
        last = facts.wanted.get(key, ABSENT) if key in facts.tracked else old
        if not any(same(seen, version) for version in (old, wanted.get(key, old), last)):
            versions = f"was {short(old)} and should become {short(wanted.get(key, old))}"
            raise Broken(Rule.ATOMIC, f"{short(key)} shows {short(seen)}; it {versions}")
