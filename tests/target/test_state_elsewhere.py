"""The state of a flow's mirror lies elsewhere: the output may be lost whole, at no cost."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._mirror.session import Session, held
from tests.support import backups, contents, exact_state, snapshot
from tests.target.declaring import MakeFlow
from tests.target.flows import IS_NEW, OUT, Flow, failing_step, plain, ran
from tests.target.projects import absolute, copied, end, like, relative
from tests.target.test_healing import assert_healed, dressed

FILES = {f"d{n % 4}/{n}": b"content %d" % n * 20 for n in range(12)}


@pytest.fixture
def flow(make_flow: MakeFlow, state: Path) -> Flow:
    """A flow that has written files, each in a memoized component; its state lies elsewhere."""
    flow = make_flow(dressed)
    flow.files, flow.options = dict(FILES), {"state": state}
    flow.update()
    assert len(ran) == len(FILES)
    return flow


def folders(state: Path) -> list[str]:
    """Lists the state folders in a state directory, by the names of their roots."""
    return sorted(each.name.rpartition("-")[0] for each in state.iterdir())


def assert_nothing_runs(flow: Flow) -> None:
    """Asserts that an update runs no body, and that every file is there."""
    flow.update()
    assert ran == []
    assert contents(flow.tree) == flow.files


def test_no_body_runs_for_1000_outputs_whose_whole_folder_is_gone(
    make_flow: MakeFlow, state: Path
) -> None:
    flow = make_flow(dressed)
    flow.files = {f"d{n % 10}/{n}": b"content %d" % n for n in range(1000)}
    flow.options["state"] = state
    flow.update()
    assert len(ran) == 1000
    shutil.rmtree(flow.root)
    assert_healed(flow)
    assert sorted(os.listdir(flow.root)) == [f"d{n}" for n in range(10)]


def test_clean_up_that_removes_what_no_repository_holds(flow: Flow) -> None:
    for path in flow.root.iterdir():  # As `git clean -xfd` does, `.fsmirror` included.
        shutil.rmtree(path)
    assert_healed(flow)


def test_copy_without_dot_files(make_flow: MakeFlow, tmp_path: Path) -> None:
    flow = make_flow(relative())
    flow.files, flow.options = dict(FILES), {"state": "state"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(flow.root.parent)
        flow.update()
        assert len(ran) == len(FILES)
        end(flow)
    there = tmp_path / "there"
    there.mkdir()
    for entry in flow.root.parent.iterdir():
        if not entry.name.startswith("."):
            shutil.copytree(entry, there / entry.name, ignore=shutil.ignore_patterns(".*"))
    other = like(flow, there)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        assert_nothing_runs(other)
        (other.root / "d1" / "1").write_bytes(b"edited")
        assert_nothing_runs(other)


def test_source_that_changed_too_runs_its_component_once(flow: Flow) -> None:
    shutil.rmtree(flow.root)
    flow.files["d1/1"] = b"new content"
    flow.update()
    assert ran == ["d1/1"]
    assert contents(flow.tree) == flow.files


def test_preview_of_a_root_that_is_gone(flow: Flow) -> None:
    shutil.rmtree(flow.root)
    if IS_NEW:
        told = flow.preview()
        assert any(f"heal {len(FILES)} paths from copies" in line for line in told)
        assert not flow.root.exists()
    assert_healed(flow)


@pytest.mark.parametrize("step", [0, 5, 11])
def test_healing_that_was_cut_off_goes_on(flow: Flow, step: int) -> None:
    shutil.rmtree(flow.root)
    with failing_step(step):
        flow.attempt()
    flow.update()
    assert contents(flow.tree) == flow.files
    assert_nothing_runs(flow)


# The state moves.


def test_state_moves_to_where_it_is_declared(flow: Flow, state: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    for given in (None, state, second, None, second, state):
        flow.options["state"] = given
        assert_nothing_runs(flow)
        found = [each for each in (state, second) if each.is_dir() and folders(each)]
        assert found == ([given] if given is not None else [])
        assert (flow.root / ".fsmirror").exists() is (given is None)
        shutil.rmtree(flow.root / "d1")
        assert_nothing_runs(flow)


def test_state_moves_of_a_target_without_a_memory(make_flow: MakeFlow, state: Path) -> None:
    async def main(flow: Flow) -> None:
        out = await coco.use_mount(
            coco.component_subpath("out"), fsmirror.declare_dir_target, OUT, **flow.options
        )
        for name, content in flow.files.items():
            out.declare_file(name, content)

    flow = make_flow(main)
    flow.files = dict(FILES)
    for given in (None, state, None):
        flow.options["state"] = given
        flow.update()
        before = {name: (flow.root / name).stat().st_ino for name in FILES}
        flow.update()
        assert contents(flow.tree) == FILES
        assert {name: (flow.root / name).stat().st_ino for name in FILES} == before
        assert (flow.root / ".fsmirror").exists() is (given is None)
        assert not state.exists() or len(folders(state)) == (given is not None)


def test_update_that_is_cut_off_before_the_state_moved(flow: Flow, tmp_path: Path) -> None:
    flow.options["state"] = second = tmp_path / "second"
    with failing_step(0):
        flow.files["d1/1"] = b"new content"
        flow.attempt()
    flow.update()
    assert contents(flow.tree) == flow.files
    assert folders(second) == ["root"]
    assert_nothing_runs(flow)


@pytest.mark.parametrize(("before", "tried"), [(None, "a"), ("a", None), ("a", "b")])
def test_change_of_place_that_is_taken_back_runs_nothing(
    flow: Flow, tmp_path: Path, before: str | None, tried: str | None
) -> None:
    def declare(name: str | None) -> None:
        flow.options["state"] = None if name is None else tmp_path / name

    declare(before)
    assert_nothing_runs(flow)
    declare(tried)
    flow.options["max_delete"] = "wrong"  # Fails once the root is mounted, or before.
    assert flow.attempt() != ""
    flow.options["max_delete"] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "mount_each", _fail)
        assert "boom" in flow.attempt()
    declare(before)
    assert_nothing_runs(flow)


def _fail(*_: object) -> None:
    """Fails in the middle of an update."""
    raise RuntimeError("boom")


def test_move_that_is_put_off_is_not_forgotten(flow: Flow, tmp_path: Path) -> None:
    flow.options["state"] = second = tmp_path / "second"
    with closing(Session(Mirror(flow.root).location)) as session, held(session):
        assert_nothing_runs(flow)
        assert not second.exists() or folders(second) == []
    assert_nothing_runs(flow)
    assert folders(second) == ["root"]


@pytest.mark.parametrize(("before", "after"), [(None, "a"), ("a", None), ("a", "b")])
def test_copied_database_is_refused_after_the_state_has_moved(
    tmp_path: Path, before: str | None, after: str | None
) -> None:
    (tmp_path / "here").mkdir()
    flow = Flow(tmp_path / "here", absolute(tmp_path / "here" / "root"))
    flow.files = dict(FILES)
    flow.options["state"] = None if before is None else tmp_path / before
    flow.update()
    other = copied(flow, tmp_path / "there")
    flow.options["state"] = None if after is None else tmp_path / after
    assert_nothing_runs(flow)
    end(flow)
    before_it = exact_state(flow.root)
    del other.files["d1/1"]
    assert "is a copy; nothing was changed" in other.attempt()
    end(other)
    assert exact_state(flow.root) == before_it
    assert_nothing_runs(flow)
    end(flow)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_drop_leaves_nothing(flow: Flow, state: Path, is_restarted: bool) -> None:
    (flow.root / "d1" / "1").write_bytes(b"edited")
    if is_restarted:
        end(flow)
    flow.drop()
    assert contents(snapshot(flow.root)) == {"d1/1": b"edited"}
    assert folders(state) == []


def test_drop_of_a_root_that_is_gone_leaves_nothing(flow: Flow, state: Path) -> None:
    shutil.rmtree(flow.root)
    flow.drop()
    assert not flow.root.exists()
    assert folders(state) == []


def test_target_that_is_no_longer_declared(make_flow: MakeFlow, state: Path) -> None:
    async def main(flow: Flow) -> None:
        if flow.files:
            await plain(flow)

    flow = make_flow(main)
    flow.files, flow.options = dict(FILES), {"state": state}
    flow.update()
    end(flow)
    flow.files = {}
    flow.update()
    assert not flow.root.exists()
    assert folders(state) == []


def test_state_that_is_lost_costs_no_file(flow: Flow, state: Path) -> None:
    shutil.rmtree(state)
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == []
    assert_nothing_runs(flow)
    del flow.files["d1/1"]
    flow.update()
    assert contents(flow.tree) == flow.files


def test_state_that_was_put_back_from_another_time(flow: Flow, state: Path, tmp_path: Path) -> None:
    end(flow)
    shutil.copytree(state, tmp_path / "backup")
    flow.files["d1/1"] = b"newer"
    del flow.files["d2/2"]
    flow.update()
    end(flow)
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    flow.update()
    assert contents(flow.tree) == flow.files
    flow.update()
    assert_nothing_runs(flow)


# Copies.


def test_copied_project_never_touches_its_original(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    flow = Flow(tmp_path / "here", relative())
    flow.files, flow.options = dict(FILES), {"state": Path("state")}
    here, there = flow.root.parent, tmp_path / "there"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        flow.update()
        other = copied(flow, there)
        before = exact_state(here)
        patch.chdir(there)
        assert_nothing_runs(other)
        other.files["d1/1"] = b"other"
        del other.files["d2/2"]
        other.update()
        assert ran == ["d1/1"]
        assert contents(other.tree) == other.files
        assert folders(there / "state") == ["root"]
        other.drop()
        assert exact_state(here) == before
        patch.chdir(here)
        assert_nothing_runs(flow)
        end(flow, other)


def test_copied_project_with_the_state_directory_of_its_original(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    flow = Flow(tmp_path / "here", relative())
    flow.files, flow.options = dict(FILES), {"state": tmp_path / "states"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(flow.root.parent)
        flow.update()
        other = copied(flow, tmp_path / "there")
        patch.chdir(tmp_path / "there")
        other.files["d1/1"] = b"other"
        del other.files["d2/2"]
        other.update()
        assert contents(other.tree) == other.files
        assert folders(tmp_path / "states") == ["root", "root"]
        patch.chdir(flow.root.parent)
        assert_nothing_runs(flow)
        end(flow, other)


def test_project_that_was_moved_carries_on(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    flow = Flow(tmp_path / "one", relative("deep/root"))
    flow.root = flow.root.parent / "deep" / "root"
    flow.files, flow.options = dict(FILES), {"state": tmp_path / "states"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "one")
        flow.update()
        end(flow)
        patch.chdir(tmp_path)
        (tmp_path / "one").rename(tmp_path / "two")
        other = like(flow, tmp_path / "two")
        other.root = tmp_path / "two" / "deep" / "root"
        patch.chdir(tmp_path / "two")
        assert_nothing_runs(other)
        assert folders(tmp_path / "states") == ["root"]
        shutil.rmtree(other.root)
        assert_nothing_runs(other)
        end(other)
