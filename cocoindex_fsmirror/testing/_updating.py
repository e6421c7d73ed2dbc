"""One update, in the order of the engine's steps."""

from __future__ import annotations

from ._adapter import stable
from ._engine import Asked, Attempt
from ._history import Delivery, Fault, Key, Update, Value
from ._judging import Facts, check_atomic, judge, why_apply_raised
from ._rules import Broken, Rule
from ._same import same
from ._steps import Outcome
from ._text import describe
from ._world import World

__all__ = ["Updating"]


class _DiedError(Exception):
    """The simulated process is gone."""


class Updating:
    """Runs one update on a world, and judges it.

    Attributes:
        died: True if the process died in the update.
    """

    def __init__(self, world: World, step: Update) -> None:
        self.died = False
        self._world, self._step = world, step
        self._declared = {
            name: {stable(key): value for key, value in states.items()}
            for name, states in step.declared.items()
        }
        self._batches = 0
        self._events: list[str] = []
        self._ended = ""
        self._before: dict[Key, Value] = {}

    def run(self) -> None:
        """Runs an update, from the mount of the container to the judgement.

        Raises:
            Broken: A rule was broken.
        """
        world, step = self._world, self._step
        if step.invalidation == "destructive":
            world.renew()
        world.engine.mount(step.invalidation)
        self._facts = self._known_before()
        world.memory.loose.update(self._facts.wanted.keys() & world.memory.others.keys())
        world.handler.asks = step.asks
        try:
            outcomes = [self._submit(group) for group in self._groups()]
        except _DiedError:
            self.died = True
            return
        finally:
            world.handler.asks = 1
        self._ended = "finishes" if all(outcomes) else "fails"
        if all(outcomes):
            judge(world, self._facts)
            self._must_settle()

    def __str__(self) -> str:
        seen = {
            name: {key: self._world.to_be_seen(key, value) for key, value in states.items()}
            for name, states in self._declared.items()
        }
        how = "; ".join([*self._events, self._ended] if self._ended else self._events)
        return describe(self._step, seen) + (f": {how}" if how else "")

    def _known_before(self) -> Facts:
        """Records what is known before anything happens."""
        world = self._world
        wanted = {
            key: world.to_be_seen(key, value)
            for states in self._declared.values()
            for key, value in states.items()
        }
        return Facts(wanted, world.engine.tracked, set(world.memory.interrupted))

    def _groups(self) -> list[list[str]]:
        """Groups the components by batch; those that were removed come last."""
        engine = self._world.engine
        removed = [name for name in engine.components if name not in self._declared]
        if not self._step.together:
            return [[name] for name in (*self._declared, *removed)]
        groups: list[list[str]] = [[]]
        for name, states in self._declared.items():
            under_way = set[Key]().union(*map(engine.owned, groups[-1]))
            if not under_way.isdisjoint(states):
                groups.append([])  # The engine waits until the former owner is done.
            groups[-1].append(name)
        return [group for group in (*groups, removed) if group]

    def _submit(self, group: list[str]) -> bool:
        """Submits some components, from precommit to commit; True if all were committed."""
        before = self._world.see()
        attempts = [self._precommit(name) for name in group]
        if not same(self._world.see(), before):
            raise Broken(Rule.PURE, "reconcile changed what is there")
        return self._apply(attempts)

    def _precommit(self, name: str) -> Attempt:
        """Asks what one component needs."""
        world = self._world
        is_unnoticed = world.memory.is_disturbed and not world.promises.heals
        is_full = self._step.full_reprocess or is_unnoticed
        attempt = world.engine.precommit(
            name,
            self._declared.get(name, {}),
            world.handler,
            full_reprocess=is_full and name in self._declared,  # It runs no removed ones.
        )
        self._facts.asked.update((asked.key, asked) for asked in attempt.asked)
        return attempt

    def _apply(self, attempts: list[Attempt]) -> bool:
        """Applies a batch, from the sink to the commit; True if all was committed."""
        acting = [attempt for attempt in attempts if attempt.acted]
        self._commit([attempt for attempt in attempts if not attempt.acted])
        through = self._isolate(acting)
        # Only now, also those of a half: a death in the other one leaves both pending.
        self._commit(through)
        return len(through) == len(acting)

    def _isolate(self, attempts: list[Attempt]) -> list[Attempt]:
        """Hands actions to the sink, of a batch that failed the halves again; who gets through."""
        planned = [asked for attempt in attempts for asked in attempt.acted]
        if not planned or self._deliver(planned):
            return attempts
        if len(attempts) == 1:
            return []
        self._events.append("tried again in halves")
        self._facts.repeated.update(asked.key for asked in planned)
        half = len(attempts) // 2
        return self._isolate(attempts[:half]) + self._isolate(attempts[half:])

    def _commit(self, attempts: list[Attempt]) -> None:
        """Commits: the engine remembers that these are done.

        What somebody else put at a key that it forgets with that is theirs from now on.
        """
        world, engine = self._world, self._world.engine
        tracked = engine.tracked
        for attempt in attempts:
            engine.commit(attempt)
            if attempt.component not in self._declared:
                engine.end(attempt.component)
        if left := world.memory.loose.intersection(tracked - engine.tracked):
            there = world.see()
            world.memory.others.update({key: there[key] for key in left if key in there})

    def _deliver(self, planned: list[Asked]) -> bool:
        """Delivers one batch; tells whether it went through."""
        self._world.memory.interrupted.update(asked.key for asked in planned)
        fault = self._step.fault
        if fault is not None and fault.batch != self._batches:
            fault = None
        self._batches += 1
        if fault is not None and fault.where == "before":
            return self._interrupt(fault, "before the sink")
        outcome = self._call(planned, fault)
        if fault is None:
            return True
        at = f"in the sink, at step {fault.step} ({outcome.where})"
        if outcome.where and self._world.promises.atomic:
            self._check_atomic(f"{fault.kind} {at}", planned)
        if outcome.died or outcome.error:
            return self._interrupt(fault, at)
        if outcome.where:
            self._facts.swallowed.update(asked.key for asked in planned)
            self._events.append(f"a call fails {at}, and apply returns")
        elif fault.where == "after" or fault.kind == "dies":
            return self._interrupt(fault, "after the sink")
        return True

    def _call(self, planned: list[Asked], fault: Fault | None) -> Outcome:
        """Calls the sink for each part; a fault strikes in the last."""
        before, outcome = self._world.see(), Outcome()
        self._before = before
        parts = _parts(planned, self._step.delivery)
        if len(parts) > 1:
            self._facts.repeated.update(asked.key for asked in planned)
        for number, part in enumerate(parts, start=1):
            outcome = self._world.apply(part, fault if number == len(parts) else None)
            if outcome.error and not outcome.where:
                self._events.append("apply raises")
                is_again = number > 1
                raise why_apply_raised(self._facts, part, outcome.error, before, is_again=is_again)
        return outcome

    def _check_atomic(self, event: str, planned: list[Asked]) -> None:
        """Checks that each key shows one of its versions now."""
        self._events.append(event)
        check_atomic(self._world, self._facts, planned, self._before)
        self._events.pop()

    def _interrupt(self, fault: Fault, where: str) -> bool:
        """Does to the update what a fault does."""
        self._events.append(f"{fault.kind} {where}")
        if fault.kind == "dies":
            raise _DiedError
        return False

    def _must_settle(self) -> None:
        """Checks that the same declarations need nothing more."""
        world = self._world
        if world.promises.container:
            return
        for asked in world.engine.plan(self._declared, world.handler):
            if asked.output is not None:
                found = f"{world.handler.answered(asked)}, after the update finished"
                raise Broken(Rule.SETTLES, found)


def _parts(planned: list[Asked], delivery: Delivery) -> list[list[Asked]]:
    """Splits a batch into the parts in which it is delivered."""
    half = len(planned) // 2
    if delivery is Delivery.TWICE:
        return [planned, planned]
    if delivery is Delivery.IN_HALVES and half:
        return [planned[:half], planned[half:]]
    return [[asked] for asked in planned] if delivery is Delivery.ONE_BY_ONE else [planned]
