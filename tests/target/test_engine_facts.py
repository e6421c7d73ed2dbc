"""Facts of the engine that we rely on, shown by handlers that record their calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.target.flows import IS_NEW
from tests.target.recording import Asked, Engine, LaterRecord, Scene, Target, engine


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    """Each test starts with handlers that do nothing special."""
    vars(engine).update(vars(Engine()))
    yield
    vars(engine).update(vars(Engine()))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An app whose files are ``a`` and ``b``, updated once."""
    made = Scene(tmp_path)
    made.files = {"a": b"1", "b": b"1"}
    assert made.update()
    return made


def test_container_is_applied_before_its_children_are_reconciled(scene: Scene) -> None:
    scene.files["a"] = b"2"
    assert scene.update()
    order = [event for event in engine.events if event != "reconcile b"]
    assert order == ["reconcile the root", "mount", "reconcile a", "write a"]


def test_records_are_pending_before_the_sink_and_settled_after_it(scene: Scene) -> None:
    scene.files["a"] = b"2"
    engine.fails = lambda actions: "write a" in actions
    assert not scene.update()
    assert engine.asked["a"] == Asked(b"2", [b"1"], may_be_missing=False)
    engine.fails = lambda _: False
    assert scene.update()
    # The sink failed, so nothing is settled; two records do not mean "may be missing".
    previous = engine.asked["a"].previous
    assert (sorted(previous), engine.asked["a"].may_be_missing) == ([b"1", b"2"], False)
    assert engine.batches[-1] == ["write a"]
    assert scene.update()
    assert engine.asked["a"] == Asked(b"2", [b"2"], may_be_missing=False)
    assert engine.batches == [["mount"]]


def test_each_failed_update_leaves_one_more_record(scene: Scene) -> None:
    engine.fails = lambda actions: "write a" in actions
    for content in (b"2", b"3", b"4"):
        scene.files["a"] = content
        assert not scene.update()
    engine.fails = lambda _: False
    assert scene.update()
    assert sorted(engine.asked["a"].previous) == [b"1", b"2", b"3", b"4"]


def test_path_may_be_missing_after_a_failed_first_write(scene: Scene) -> None:
    scene.files["new"] = b"1"
    engine.fails = lambda actions: "write new" in actions
    assert not scene.update()
    engine.fails = lambda _: False
    assert scene.update()
    assert engine.asked["new"] == Asked(b"1", [b"1"], may_be_missing=True)


def test_path_may_be_missing_after_a_failed_deletion(scene: Scene) -> None:
    del scene.files["a"]
    engine.fails = lambda actions: "delete a" in actions
    assert not scene.update()
    engine.fails = lambda _: False
    scene.files["a"] = b"1"
    assert scene.update()
    assert engine.asked["a"] == Asked(b"1", [b"1"], may_be_missing=True)


@pytest.mark.parametrize("how", ["undeclared", "dropped"])
def test_children_are_not_reconciled_when_their_container_goes(scene: Scene, how: str) -> None:
    engine.clear()
    if how == "dropped":
        scene.app.drop_blocking()
    else:
        scene.mounted = False
        assert scene.update()
    assert engine.events == ["reconcile the root", "drop"]


def test_lossy_container_keeps_records_that_may_be_missing(scene: Scene) -> None:
    engine.invalidation = "lossy"
    assert scene.update()
    assert engine.asked["a"] == Asked(b"1", [b"1"], may_be_missing=True)


def test_a_destructive_container_forgets_the_records(scene: Scene) -> None:
    engine.invalidation = "destructive"
    assert scene.update()
    assert engine.asked["a"] == Asked(b"1", [], may_be_missing=True)


# Components


@pytest.fixture
def components(tmp_path: Path) -> Scene:
    """An app with a memoized component for each of three files, updated once."""
    made = Scene(tmp_path)
    made.memoized = True
    made.files = {"a": b"1", "b": b"1", "c": b"1"}
    assert made.update()
    return made


def bodies() -> list[str]:
    """Lists the components whose body ran, by the end of their path."""
    return sorted(path.rpartition("/")[2] for kind, path in engine.contexts if kind == "body")


def test_component_has_the_same_path_in_memo_state_and_body(
    components: Scene,
) -> None:
    in_bodies = {path for kind, path in engine.contexts if kind == "body"}
    assert len(in_bodies) == 3
    assert {path for kind, path in engine.contexts if kind == "state"} == in_bodies
    assert components.update()
    assert {path for kind, path in engine.contexts if kind == "state"} == in_bodies
    assert bodies() == []


def test_invalid_memo_state_runs_only_its_own_component(
    components: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(path for kind, path in engine.contexts if kind == "body" and '"b"' in path)
    monkeypatch.setattr(Target, "invalid", {path})
    assert components.update()
    assert bodies() == ['"b"']
    assert engine.asked.keys() == {"b"}
    monkeypatch.setattr(Target, "invalid", ())
    assert components.update()
    assert bodies() == []


def test_a_lossy_container_runs_every_memoized_component_again(components: Scene) -> None:
    engine.invalidation = "lossy"
    assert components.update()
    assert bodies() == ['"a"', '"b"', '"c"']
    assert all(asked.may_be_missing for asked in engine.asked.values())


def test_exception_fails_its_batch_and_other_batches_go_through(
    components: Scene,
) -> None:
    components.files = dict.fromkeys(("a", "b", "c"), b"2")
    engine.fails = lambda actions: "write b" in actions
    assert not components.update()
    assert all("write b" in said for said in components.failed)
    engine.fails = lambda _: False
    assert components.update()
    assert "b" in engine.asked


def test_newer_engine_retries_halves_of_a_batch_and_tears_no_component(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    scene.memoized = True
    scene.files = {str(number): b"1" for number in range(40)}
    assert scene.update()

    def fails(actions: Sequence[str]) -> bool:
        while sum(event.startswith("reconcile") for event in engine.events) < 41:
            time.sleep(0.001)  # All actions come; those that are ready are in the next batch.
        return len(actions) > 1

    scene.files = dict.fromkeys(scene.files, b"2")
    engine.fails = lambda actions: "mount" not in actions and fails(actions)
    assert scene.update() is IS_NEW
    largest = max(engine.batches, key=len)
    halves = [batch for batch in engine.batches if set(batch) < set(largest)]
    assert bool(halves) is IS_NEW
    engine.fails = lambda _: False
    scene.memoized = False
    assert scene.update()
    engine.fails = lambda actions: len(actions) > 1
    scene.files = dict.fromkeys(scene.files, b"3")
    assert not scene.update()
    assert [len(batch) for batch in engine.batches] == [1, 40]


def test_record_of_an_earlier_release_loads_into_one_with_more_fields(scene: Scene) -> None:
    engine.later = True
    assert scene.update()
    assert engine.previous == [LaterRecord(b"1"), LaterRecord(b"1")]
    assert engine.batches == [["mount"]]


# Preview


@pytest.mark.skipif(not IS_NEW, reason="this engine can't preview containers")
def test_a_preview_reconciles_and_never_calls_the_sink(scene: Scene) -> None:
    scene.files = {"a": b"2"}
    engine.clear()
    assert sorted(scene.app.update_blocking(preview=True) or ()) == ["delete b", "mount", "write a"]
    assert engine.batches == []
    assert scene.update()
    assert engine.asked["a"] == Asked(b"2", [b"1"], may_be_missing=False)


@pytest.mark.skipif(not IS_NEW, reason="this engine can't preview containers")
def test_preview_does_not_show_files_that_go_with_a_component(components: Scene) -> None:
    del components.files["b"]
    assert components.app.update_blocking(preview=True) == ["mount"]
    components.mounted = False
    assert components.app.update_blocking(preview=True) == []


@pytest.mark.skipif(IS_NEW, reason="this engine previews containers")
def test_an_older_engine_refuses_to_preview_containers(scene: Scene) -> None:
    with pytest.raises(ValueError, match="preview"):
        scene.app.update_blocking(preview=True)
