"""The twin of the model: histories on the real engine, in a process that SIGKILL ends anywhere."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cocoindex_fsmirror.testing import (
    Disturb,
    Fault,
    History,
    Restart,
    Step,
    Update,
    edits,
    histories,
    paths,
    trees,
)
from tests.kit.twin import Life, Twin
from tests.kit.twin_life import Files, Order
from tests.support import contents, snapshot


def fit(keys: AbstractSet[str]) -> bool:
    """True if there can be files at all these paths."""
    return not any(key.startswith(f"{other}/") for key in keys for other in keys)


@st.composite
def edited_trees(draw: st.DrawFn) -> History:
    """Draws updates that declare one tree after another, in two components."""
    tree, steps = draw(trees()), list[Step]()
    for _ in range(draw(st.integers(1, 5))):
        parts: dict[str, dict[str, bytes | None]] = {"one": {}, "two": {}}
        for path, content in tree.items():
            parts[draw(st.sampled_from(["one", "one", "one", "two"]))][path] = content
        fault = draw(st.none() | st.builds(Fault, batch=st.integers(0, 2)))
        steps.append(Update(parts, fault, draw(st.booleans()), full_reprocess=draw(st.booleans())))
        steps.extend(draw(st.sampled_from([[], [], [Disturb()], [Restart()]])))
        tree = draw(edits(tree))
    return tuple(steps)


class Play:
    """One history.

    Attributes:
        story: What happened.
    """

    def __init__(self, life: Life, at: Path, history: History, data: st.DataObject) -> None:
        self._life, self._history, self._draw = life, history, data.draw
        self._twin = Twin(at / "root")
        # A former owner that is memoized may not be asked again, after a death in between:
        # tests/target/test_lost_ownership.py.
        self._is_memoized = not moves(history) and data.draw(st.booleans())
        self._order = Order(str(at), {}, memoized=self._is_memoized)
        keys = {path for step in history if isinstance(step, Update) for path in all_keys(step)}
        near = {f"{path.rpartition('/')[0]}/mine".lstrip("/") for path in keys}
        self._places = sorted(p for p in keys | near | {"mine"} if not below_any(p, keys))
        self.story: list[str] = [f"memoized: {self._is_memoized}"]

    def run(self) -> None:
        """Takes every step; then restarts, and updates without a kill."""
        is_fresh = False
        for step in self._history:
            self.story.append(repr(step))
            if isinstance(step, Update):
                self._update(step, is_fresh=is_fresh)
                is_fresh = False
            elif isinstance(step, Disturb):
                self._disturb()
            else:
                is_fresh = True
        self.story.append("restart, and the last update")
        order = self._order._replace(is_fresh=True)
        self._run(order, None)
        self._twin.check_settled(self._life, order._replace(is_fresh=False))

    def _update(self, step: Update, *, is_fresh: bool) -> None:
        """Updates, with a kill if the step has a fault."""
        self._order = order = self._order._replace(
            declared={name: dict(files) for name, files in step.declared.items()},
            is_fresh=is_fresh,
            together=step.together,
            full_reprocess=step.full_reprocess,
        )
        delay = None
        fault = step.fault
        if (
            fault is not None
            and fault.kind == "fails"
            and (fault.where != "inside" or fault.lasting)
        ):
            # No exception here, but a kill from outside, at a moment of the clock.
            delay = self._life.pace * self._draw(st.integers(0, 200)) / 100
        elif fault is not None and fault.where == "inside":
            order = order._replace(death=("inside", self._draw(st.integers(0, self._life.steps))))
        elif fault is not None:
            order = order._replace(death=(fault.where, fault.batch + 1))
        self._run(order, delay)

    def _run(self, order: Order, delay: float | None) -> None:
        """Updates once, and checks the disk."""
        self._twin.declare(order.declared)
        self._life.update(order, delay)
        last = self._life.phases[-1]
        how = f"SIGKILL after {delay} s" if delay is not None else f"SIGKILL: {order.death}"
        self.story.append(f"{how}; it ends with {last!r}")
        if order.death is not None or delay is not None:
            self._twin.check_killed()
        else:
            self._twin.check_finished()

    def _disturb(self) -> None:
        """Acts as the neighbour."""
        path = self._draw(st.sampled_from(self._places))
        how = self._draw(st.sampled_from(["write", "replace", "remove"]))
        self.story.append(f"somebody else: {how} {path!a}")
        self._twin.disturb(path, how)
        self._twin.check_killed()


def all_keys(step: Update) -> Iterable[str]:
    """Returns the keys of an update."""
    return itertools.chain(*step.declared.values())


def below_any(path: str, keys: AbstractSet[str]) -> bool:
    """True if a path is below one of others, whose folder would be in its way."""
    return any(path.startswith(f"{key}/") for key in keys)


def moves(history: History) -> bool:
    """True if a key is ever declared by another component than before."""
    updates = [step for step in history if isinstance(step, Update)]
    owners = {
        (key, name) for step in updates for name, keys in step.declared.items() for key in keys
    }
    return len(owners) > len({key for key, _ in owners})


def kills(history: History) -> bool:
    """True if a process is killed in a history."""
    return any(isinstance(step, Update) and step.fault is not None for step in history)


HISTORIES = {
    "keys": histories(
        paths(), st.binary(max_size=5000), allows=fit, disturbs=True, max_steps=6
    ).filter(kills),
    "trees": edited_trees().filter(kills),
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_history_converges_wherever_its_processes_are_killed(tmp_path: Path, kind: str) -> None:
    problems: list[str] = []
    numbers = itertools.count()

    # A kill by the clock can't be repeated, so a failure is reported, not shrunk.
    @settings(
        max_examples=max(14, min(settings().max_examples * 14 // 100, 150)),
        phases=[Phase.generate],
        database=None,
    )
    @given(HISTORIES[kind], st.data())
    def live(history: History, data: st.DataObject) -> None:
        if problems:
            return
        at = tmp_path / str(next(numbers))
        at.mkdir()
        play = Play(life, at, history, data)
        try:
            play.run()
        except AssertionError as error:
            problems.append("\n".join([*play.story, str(error)]))

    with Life() as life:
        live()
    assert not problems, problems[0]


# The tools


PATHS = ("a/f", "b/f", "c/f")
OLD: Files = {"one": dict.fromkeys(PATHS, b"old")}
NEW: Files = {"one": dict.fromkeys(PATHS, b"new")}


@pytest.mark.parametrize(
    ("death", "last"),
    [
        (("before", 1), "before 1"),
        (("inside", 250), "inside 250 "),
        (("after", 1), "after 1"),
        (("inside", 100_000), "after 1"),
    ],
)
def test_process_dies_at_the_given_step(tmp_path: Path, death: tuple[str, int], last: str) -> None:
    with Life() as life:
        life.update(Order(str(tmp_path), OLD))
        assert life.steps > 300  # Most of them in the one call that writes.
        life.update(Order(str(tmp_path), NEW, death=death))
        assert life.phases[-1].startswith(last)
        life.update(Order(str(tmp_path), NEW))
    assert contents(snapshot(tmp_path / "root")) == NEW["one"]


def test_kill_by_the_clock_comes_in_any_case(tmp_path: Path) -> None:
    with Life() as life:
        life.update(Order(str(tmp_path), OLD), delay=0.0)
        assert life.process is None
        assert life.ended == [-signal.SIGKILL]


def fail(life: Life, at: Path) -> None:
    """Fails while a process runs, as a test would."""
    with life:
        life.update(Order(str(at), OLD))
        raise ZeroDivisionError


def test_process_never_outlives_a_failed_test(tmp_path: Path) -> None:
    life = Life()
    with pytest.raises(ZeroDivisionError):
        fail(life, tmp_path)
    assert life.process is None
    assert life.ended == [-signal.SIGKILL]
