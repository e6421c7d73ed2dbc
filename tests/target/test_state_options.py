"""Ways to say where the state of a flow's mirror is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import Mirror, RootError
from tests.support import backups, contents, snapshot, unmark
from tests.target.declaring import MakeFlow
from tests.target.flows import Flow, memoized, plain
from tests.target.projects import end
from tests.target.test_state_elsewhere import FILES, assert_nothing_runs, folders

STATES = coco.ContextKey[Path]("tests/target/states")


@pytest.fixture
def flow(make_flow: MakeFlow, state: Path) -> Flow:
    """A flow whose state lies elsewhere."""
    flow = make_flow(memoized)
    flow.files, flow.options = dict(FILES), {"state": state}
    flow.update()
    return flow


@pytest.mark.parametrize("make", [str, Path, fsmirror.FilePath])
def test_ways_to_name_a_state_directory(
    make_flow: MakeFlow, state: Path, make: Callable[[Any], Any]
) -> None:
    flow = make_flow(plain)
    flow.files, flow.options = dict(FILES), {"state": make(state)}
    flow.update()
    assert folders(state) == ["root"]


@pytest.mark.parametrize("below", ["", "sub"])
def test_state_directory_that_a_context_provides(
    make_flow: MakeFlow, state: Path, tmp_path: Path, below: str
) -> None:
    flow = make_flow(memoized)
    flow.files = dict(FILES)
    flow.options["state"] = fsmirror.FilePath(below, base_dir=STATES) if below else STATES
    environment = flow.app._environment
    assert isinstance(environment, coco.Environment)
    environment.context_provider.provide(STATES, state)
    flow.update()
    assert folders(state / below) == ["root"]
    shutil.rmtree(flow.root)
    assert_nothing_runs(flow)
    flow.options["state"] = None
    assert_nothing_runs(flow)
    assert folders(state / below) == []


def test_context_that_provides_no_state_directory(make_flow: MakeFlow) -> None:
    flow = make_flow(plain)
    flow.options["state"] = STATES
    assert "nothing is provided" in flow.attempt()
    assert not flow.root.exists()


def test_state_that_is_no_path(make_flow: MakeFlow) -> None:
    flow = make_flow(plain)
    flow.options["state"] = 7
    assert "state: a path, a FilePath or a ContextKey, not int" in flow.attempt()


def test_empty_path_of_a_state_directory_is_refused(make_flow: MakeFlow) -> None:
    flow = make_flow(plain)
    flow.options["state"] = ""
    assert "state: the path is empty" in flow.attempt()


def test_state_inside_of_the_root_is_refused(make_flow: MakeFlow) -> None:
    flow = make_flow(plain)
    flow.options["state"] = flow.root / "state"
    assert "inside of it" in flow.attempt()
    assert not flow.root.exists()


def test_note_is_left_as_declared(flow: Flow, state: Path) -> None:
    flow.options["state_note"] = True
    flow.update()
    end(flow)
    (flow.root / "d1" / "1").unlink()
    with Mirror(flow.root) as mirror:
        assert mirror.verify() == ["d1/1"]
        assert mirror.heal().healed == ["d1/1"]
    assert_nothing_runs(flow)
    flow.options["state_note"] = False
    end(flow)
    assert_nothing_runs(flow)
    assert not (flow.root / ".fsmirror").exists()
    with Mirror(flow.root) as mirror:
        assert mirror.verify() == []
    unmark(flow.root)
    with Mirror(flow.root) as mirror, pytest.raises(RootError, match="is no mirror"):
        mirror.verify()
    with Mirror(flow.root, state=state) as mirror:
        assert mirror.verify() == []


def test_single_file_has_its_state_elsewhere(
    make_flow: MakeFlow, state: Path, tmp_path: Path
) -> None:
    async def main(flow: Flow) -> None:
        for name, content in flow.files.items():
            fsmirror.declare_file(flow.root / name, content, **flow.options)

    flow = make_flow(main)
    flow.files, flow.options = {"a": b"a", "b": b"b"}, {"state": state}
    flow.update()
    assert sorted(os.listdir(flow.root)) == ["a", "b"]
    assert folders(state) == ["root"]
    (flow.root / "a").write_bytes(b"edited")
    flow.update()
    assert contents(flow.tree) == flow.files
    flow.options["state"] = tmp_path / "second"
    flow.update()
    assert (folders(state), folders(tmp_path / "second")) == ([], ["root"])
    del flow.files["a"]
    flow.update()
    flow.options["state"] = None
    flow.update()
    assert sorted(os.listdir(flow.root)) == [".fsmirror", "b"]
    flow.options["state"] = state
    flow.update()
    flow.files = {}
    flow.update()
    assert folders(state) == folders(tmp_path / "second") == []
    assert snapshot(flow.root) == {}
    assert backups(flow.root) == [b"edited"]  # They had come here with the state.


def test_exact_mirror_with_its_state_elsewhere(flow: Flow, state: Path) -> None:
    flow.options["exact"] = True
    (flow.root / "theirs").write_bytes(b"theirs")
    assert_nothing_runs(flow)
    assert backups(flow.root, state) == [b"theirs"]
    assert folders(state) == ["root"]
