"""The kit's model agrees with the real engine, record by record, in their order."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cocoindex_fsmirror.testing import Fault, History, Update, histories
from tests.kit.model_engine import ModelEngine, taken_in_turn
from tests.kit.model_events import EVENTS, Events
from tests.kit.real_engine import Database, RealEngine
from tests.kit.real_engine_life import Seen, live
from tests.kit.recording import Kind
from tests.target.flows import IS_NEW

KINDS = st.sampled_from(["records", "fingerprints"])
VALUES = st.sampled_from(["x", "y", "z", "always", "never", "untracked", "poison"])
SHORT = histories(st.sampled_from("abcd"), VALUES)
LONG = st.lists(SHORT, min_size=2, max_size=5).map(lambda parts: sum(parts, ()))

# Random histories


RARE: Final[dict[str, History]] = {
    "a removed component is not reprocessed": (
        Update({"one": {"a": "x"}}),
        Update({}, full_reprocess=True),
    ),
    "what was never tracked is not deleted": (
        Update({"one": {"a": "untracked"}}, Fault("fails", "before")),
        Update({"one": {}}),
    ),
    "a lossy update that was interrupted": (
        Update({"one": {"a": "x"}}),
        Update({"one": {"a": "x"}}, Fault("fails", "before"), invalidation="lossy"),
        Update({"one": {"a": "x"}}),
    ),
    # Both components are in their second version when one takes over from the other.
    "versions of the former owner": (
        Update({"one": {"a": "x"}, "two": {"b": "x"}}),
        Update({"one": {"a": "y"}, "two": {"b": "x"}}, Fault("dies", "before")),
        Update({"two": {"a": "z", "b": "x"}}),
        Update({"two": {"a": "z", "b": "x"}}),
    ),
}


@pytest.mark.timeout(3_600)  # The nightly profile is long.
def test_model_and_engine_agree_on_random_histories(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    databases = [Database(tmp_path / "0.db")]

    @example(RARE["a removed component is not reprocessed"], "records")
    @example(RARE["what was never tracked is not deleted"], "records")
    @example(RARE["a lossy update that was interrupted"], "records")
    @example(RARE["versions of the former owner"], "records")
    @given(LONG, KINDS)
    def run(history: History, kind: Kind) -> None:
        counts["histories"] += 1
        if counts["histories"] % 100 == 0:  # A database holds few apps.
            databases[:] = [Database(tmp_path / f"{counts['histories']}.db")]
        real = RealEngine(databases[0], kind, f"app{counts['histories']}")
        model, events = ModelEngine(kind), Events(counts, kind)
        for step in taken_in_turn(history):
            seen = real.update(step), real.recording.take()
            assert model.update(step) == seen, step
            events.count(step, *seen)

    run()
    if settings().derandomize:
        assert {event for event in EVENTS if not counts[event]} == set()
        assert counts["not asked, with records"] == 0


# Processes that die


def only_deaths(history: History) -> History:
    """Returns a history with a death in the place of each fault."""
    return tuple(
        dataclasses.replace(step, fault=dataclasses.replace(step.fault, kind="dies"))
        if isinstance(step, Update) and step.fault is not None
        else step
        for step in history
    )


@pytest.mark.timeout(3_600)
def test_model_and_engine_agree_on_deaths_in_the_sink(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=max(4, settings().max_examples // 20))
    @given(SHORT.map(only_deaths), KINDS)
    def run(history: History, kind: Kind) -> None:
        counts["histories"] += 1
        model, steps = ModelEngine(kind), list(taken_in_turn(history))
        while steps:
            lives = live(tmp_path / f"{counts['histories']}.db", kind, steps)
            for (ended, turns, _), step in zip(lives, steps, strict=False):
                assert model.update(step) == (ended, turns), step
                counts[ended] += 1
            del steps[: len(lives)]

    run()
    if settings().derandomize:
        assert counts["dies"] > 2
        assert counts["finishes"] > 2


# Batches of several components


def in_one_batch(at: Path, steps: Sequence[Update]) -> list[Seen]:
    """Takes steps of which the second has all its actions in one batch.

    Who stands in line when the sink is free is a matter of time: tried until all do.
    """
    acting = {key for states in steps[1].declared.values() for key in states} - {"idle"}
    for attempt in range(8):
        database = at / f"{attempt}.db"
        lives: list[Seen] = []
        while len(lives) < len(steps):
            lives += live(database, "records", steps[len(lives) :], 0.1 * 2**attempt)
        if set(keys_of(lives[1][2])) == acting:
            return lives
    raise AssertionError("the engine never made one batch of all")


def keys_of(actions: Sequence[str]) -> list[str]:
    """Returns the keys of a batch; each component has one key, of its own name."""
    return [action.partition(" ")[0] for action in actions]


def declared(values: str, **more: str) -> dict[str, dict[str, str]]:
    """Returns a component for each letter, with a value; a blank stands for a poison."""
    states = dict(zip("abcde", values.replace(" ", "!"), strict=False)) | more
    return {
        name: {name: {"!": "poison", "#": "crowd"}.get(value, value)}
        for name, value in states.items()
    }


ONE_BATCH: Final = {
    "one fails for good": Update(declared("y yyy"), together=True),
    "three fail for good": Update(declared(" yy  "), together=True),
    "all fail for good": Update(declared("     "), together=True),
    "it fails once, before": Update(declared("yyyyy"), Fault("fails", "before"), together=True),
    "it fails once, after": Update(declared("yyyyy"), Fault("fails", "after"), together=True),
    "the process dies in the second half, after the first went through": Update(
        declared("#####"), Fault("dies", "after", batch=2), together=True
    ),
    "one acts, and one has nothing to do": Update(declared(" ", idle="x"), together=True),
}


@pytest.mark.parametrize("case", ONE_BATCH)
def test_model_and_engine_agree_on_failed_batches_of_components(tmp_path: Path, case: str) -> None:
    together = ONE_BATCH[case]
    before = {name: {name: "x"} for name in together.declared}
    after = {name: {name: "y"} for name in together.declared}
    steps = [Update(before), together, Update(after), Update(after)]
    lives = in_one_batch(tmp_path, steps)
    in_line = [*keys_of(lives[1][2]), "idle"]
    model = ModelEngine("records")
    for (ended, turns, _), step in zip(lives, steps, strict=True):
        ordered = sorted(step.declared, key=in_line.index)
        same = dataclasses.replace(step, declared={name: step.declared[name] for name in ordered})
        if step.together and not IS_NEW:
            assert len(turns[0].batches) == 1  # All fail with it; the model knows newer engines.
            return
        model_ended, model_turns = model.update(same)
        assert (model_ended, {turn.component: turn for turn in model_turns}) == (
            ended,
            {turn.component: turn for turn in turns},
        )
