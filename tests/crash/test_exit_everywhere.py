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
    """Leaves out barriers and the log."""
    leave_out_barriers(monkeypatch)
    caplog.set_level("CRITICAL")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The rows after an uninterrupted update."""
    return scene.undisturbed(tmp_path_factory.mktemp("undisturbed") / "root")


def _deaths(tmp_path: Path, steps: Iterator[int]) -> Iterator[tuple[str, Path, Tree]]:
    """Yields, for each step, a scene whose batch died there; the last one survives."""
    for step in steps:
        root = tmp_path / str(step)
        old = scene.lay_out(root)
        name = die_at(step, lambda root=root: scene.apply(root))  # type: ignore[misc]
        yield f"{step}, {name}", root, old
        shutil.rmtree(root)
        if name is None:
            return


def _converge(root: Path, rows: list[Any]) -> list[str]:
    """Applies the batch twice more; returns the problems."""
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
def test_death_at_any_step_leaves_old_or_new_and_the_next_converges(
    part: int, tmp_path: Path, rows: list[Any]
) -> None:
    wrong: dict[str, list[str]] = {}
    for step, root, old in _deaths(tmp_path, itertools.count(part + 1, _PARTS)):
        wrong[step] = scene.problems(root, old) + _converge(root, rows)
    assert len(wrong) > 100 / _PARTS
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.parametrize("part", range(_PARTS))
def test_death_in_the_recovery_is_recovered_from(
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
def test_death_is_survived_without_renameat2_and_syncfs(
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
        # Between a link and an unlink foreign bytes have two names, and both stay.
        wrong[step] = [problem for problem in found if not problem.startswith("twice")]
    assert {step: found for step, found in wrong.items() if found} == {}


def test_declaration_may_change_after_a_death(tmp_path: Path) -> None:
    for step, root, old in _deaths(tmp_path, itertools.count(5, 9)):
        with Mirror(root) as mirror:
            mirror.apply(scene.intents_to_go_back())
            assert mirror.verify(content=True) == [], step
        assert scene.problems_after_going_back(root, old) == [], step
