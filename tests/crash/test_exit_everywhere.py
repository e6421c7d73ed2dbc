"""A process may end at any step that changes the disk, and at any step of the recovery."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk import calls as _calls
from tests.crash import scene
from tests.crash.harness import die_at, leave_out_barriers
from tests.support import Tree, exact_state

_PARTS = 4


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No barriers, no log."""
    leave_out_barriers(monkeypatch)
    caplog.set_level("CRITICAL")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the ledger says after an uninterrupted update."""
    return scene.undisturbed(tmp_path_factory.mktemp("undisturbed") / "root")


def _deaths(tmp_path: Path, steps: Iterator[int]) -> Iterator[tuple[str, Path, Tree]]:
    """For each step, a scene whose batch died there, until one survives it."""
    for step in steps:
        root = tmp_path / str(step)
        old = scene.lay_out(root)
        name = die_at(step, lambda root=root: scene.apply(root))  # type: ignore[misc]
        yield f"{step}, {name}", root, old
        shutil.rmtree(root)
        if name is None:
            return


def _converge(root: Path, rows: list[Any]) -> list[str]:
    """Applies the batch again, twice; returns what is wrong then."""
    with Mirror(root) as mirror:
        mirror.apply(scene.intents(root))
        wrong = scene.problems_in_the_end(root, rows)
        wrong += [f"drifted: {name}" for name in mirror.verify(content=True)]
        before = exact_state(root)
        mirror.apply(scene.intents(root))
        if exact_state(root) != before:
            wrong.append("the second run changed something")
    return wrong


@pytest.mark.parametrize("part", range(_PARTS))
def test_a_death_at_any_step_leaves_old_or_new_and_the_next_update_converges(
    part: int, tmp_path: Path, rows: list[Any]
) -> None:
    wrong: dict[str, list[str]] = {}
    for step, root, old in _deaths(tmp_path, itertools.count(part + 1, _PARTS)):
        wrong[step] = scene.problems(root, old) + _converge(root, rows)
    assert len(wrong) > 100 / _PARTS
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.parametrize("part", range(_PARTS))
def test_a_death_in_the_recovery_is_recovered_from_as_well(
    part: int, tmp_path: Path, rows: list[Any]
) -> None:
    wrong: dict[str, list[str]] = {}
    for step, root, old in _deaths(tmp_path, itertools.count(3 + 7 * part, 7 * _PARTS)):
        for again in range(1 + part, 40, 9):
            name = die_at(again, lambda root=root: scene.apply(root))  # type: ignore[misc]
            wrong[f"{step}, then {again}, {name}"] = scene.problems(root, old)
        wrong[step] = _converge(root, rows)
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    ("missing", "stride"), [(["renameat2"], 7), (["syncfs"], 11), (["renameat2", "syncfs"], 13)]
)
def test_a_death_is_survived_where_the_system_lacks_the_better_calls(
    missing: list[str],
    stride: int,
    tmp_path: Path,
    rows: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in missing:
        monkeypatch.setattr(_calls, name, None)
    wrong: dict[str, list[str]] = {}
    for step, root, old in _deaths(tmp_path, itertools.count(3, stride)):
        found = scene.problems(root, old) + _converge(root, rows)
        # Between a link and an unlink foreign bytes have two names, and both are kept.
        wrong[step] = [problem for problem in found if not problem.startswith("twice")]
    assert {step: found for step, found in wrong.items() if found} == {}


def test_after_a_death_the_flow_may_change_its_mind(tmp_path: Path) -> None:
    for step, root, old in _deaths(tmp_path, itertools.count(5, 9)):
        with Mirror(root) as mirror:
            mirror.apply(scene.intents_to_go_back())
            assert mirror.verify(content=True) == [], step
        assert scene.problems_after_going_back(root, old) == [], step
