"""The root, the ledger or the engine's database is put back from another time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._mirror.writer import Writer
from tests.support import backups, contents, exact_state
from tests.target.flows import OUT, BoomError, Flow, Main, failing_step, page, ran
from tests.target.projects import (
    Put,
    anew,
    by_context,
    copy_over,
    end,
    in_main,
    sync_in_place,
    sync_over,
    tar_over,
)

OLD = {"same": b"0", "changed": b"1", "gone": b"2", "deep/changed": b"3"}
NEW = {"same": b"0", "changed": b"one", "deep/changed": b"three", "added": b"4"}
PUTS = pytest.mark.parametrize("put", [copy_over, tar_over, sync_over, sync_in_place, anew])
MAINS = pytest.mark.parametrize("main", [in_main, by_context])


@pytest.fixture
def aged(make_flow: Callable[..., Flow], tmp_path: Path) -> Callable[[Main], Flow]:
    """Makes a flow that has been at ``NEW`` since its backup of ``OLD`` was made."""

    def make(main: Main) -> Flow:
        flow = make_flow(main)
        flow.files = dict(OLD)
        flow.update()
        end(flow)
        for each in (flow.root, flow.database):
            copy_over(each, tmp_path / "backup" / each.name)
        flow.files = dict(NEW)
        flow.update()
        end(flow)
        return flow

    return make


def kept(flow: Flow, memory: Path) -> Path:
    """Returns the backup of a folder."""
    return flow.database.parent / "backup" / memory.name


def assert_right(flow: Flow) -> None:
    """Checks that the root holds what is declared, and that a further update does nothing."""
    flow.update()
    assert contents(flow.tree) == flow.files
    with Mirror(flow.root) as mirror:
        assert mirror.verify(content=True) == []
        assert mirror.managed() == sorted(flow.files)
    before = exact_state(flow.root)
    flow.update()
    assert ran == []
    assert exact_state(flow.root) == before


@MAINS
@PUTS
def test_restored_root_is_brought_up_to_date_by_one_update(
    aged: Callable[[Main], Flow], main: Main, put: Put
) -> None:
    flow = aged(main)
    put(kept(flow, flow.root), flow.root)
    assert_right(flow)
    assert backups(flow.root) == []


async def declared_apart(flow: Flow) -> None:
    """Declares the root in a component of its own, which ends before the others."""
    out = await coco.use_mount(fsmirror.declare_dir_target, OUT)
    await coco.mount_each(page, [(name, (name, flow.files[name])) for name in flow.files], out)


def test_restored_root_that_is_declared_apart_is_noticed(aged: Callable[[Main], Flow]) -> None:
    """Nobody tells when the update has ended, so a stale file stays, as an orphan."""
    flow = aged(declared_apart)
    anew(kept(flow, flow.root), flow.root)
    flow.update()
    assert contents(flow.tree) == NEW | {"gone": b"2"}
    for _ in range(3):
        flow.update()
        assert ran == []


@PUTS
def test_root_restored_without_our_folder_loses_nothing(
    aged: Callable[[Main], Flow], put: Put
) -> None:
    """The ledger of now tells that these files are not what was written last."""
    flow = aged(by_context)
    shutil.rmtree(kept(flow, flow.root) / ".fsmirror")
    if put in (sync_over, sync_in_place):
        shutil.copytree(flow.root / ".fsmirror", kept(flow, flow.root) / ".fsmirror")
    put(kept(flow, flow.root), flow.root)
    flow.update()
    found = contents(flow.tree)
    assert {name: found[name] for name in NEW} == NEW
    survives = {*backups(flow.root), *found.values()}
    assert {b"1", b"3"} <= survives


@MAINS
def test_restored_ledger_is_brought_up_to_date(aged: Callable[[Main], Flow], main: Main) -> None:
    flow = aged(main)
    anew(kept(flow, flow.root) / ".fsmirror", flow.root / ".fsmirror")
    assert_right(flow)


def test_exact_mirror_with_a_restored_ledger_moves_nothing_of_its_own(
    aged: Callable[[Main], Flow],
) -> None:
    """The ledger does not know what was added since, so that it would be moved away."""
    flow = aged(by_context)
    flow.options = {"exact": True}
    (flow.root / "foreign").write_bytes(b"foreign")
    anew(kept(flow, flow.root) / ".fsmirror", flow.root / ".fsmirror")
    flow.update()
    assert backups(flow.root) == []
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == [b"foreign"]


@MAINS
@pytest.mark.parametrize("is_newest", [True, False])
def test_restored_database_leaves_nothing_stale(
    aged: Callable[[Main], Flow], main: Main, is_newest: bool
) -> None:
    """The flow declares what it declared last, or what it declared when the backup was made."""
    flow = aged(main)
    anew(kept(flow, flow.database), flow.database)
    if not is_newest:
        flow.files = dict(OLD)
    assert_right(flow)
    assert backups(flow.root) == []


def test_database_and_root_of_one_time_run_nothing(aged: Callable[[Main], Flow]) -> None:
    flow = aged(by_context)
    for each in (flow.root, flow.database):
        anew(kept(flow, each), each)
    flow.files = dict(OLD)
    flow.update()
    assert ran == []
    assert contents(flow.tree) == OLD


@pytest.mark.parametrize("what", ["root", "database"])
def test_memory_restored_after_updates_without_changes_runs_nothing(
    make_flow: Callable[..., Flow], tmp_path: Path, what: str
) -> None:
    flow = make_flow(by_context)
    flow.files = dict(OLD)
    flow.update()
    end(flow)
    memory = flow.root if what == "root" else flow.database
    copy_over(memory, kept(flow, memory))
    for _ in range(3):
        flow.update()
    end(flow)
    anew(kept(flow, memory), memory)
    flow.update()
    assert ran == []
    assert contents(flow.tree) == OLD


def test_ledger_of_the_middle_of_an_update_is_not_believed(
    make_flow: Callable[..., Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make_flow(by_context)
    flow.files = {"a": b"1"}
    flow.update()
    real, calls = Writer.apply, list[int]()

    def apply(mirror: Mirror, *args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            copy_over(flow.root, kept(flow, flow.root))
        return real(mirror, *args, **options)  # type: ignore[arg-type]

    flow.files = {f"{number}": b"2" for number in range(200)}
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "apply", apply)
        flow.update()
    assert len(calls) > 1
    end(flow)
    anew(kept(flow, flow.root), flow.root)
    assert_right(flow)


@pytest.mark.parametrize("step", range(0, 24, 3))
@pytest.mark.parametrize("what", ["update", "drop"])
def test_database_of_before_what_was_cut_off_is_not_believed(
    make_flow: Callable[..., Flow], what: str, step: int
) -> None:
    flow = make_flow(by_context)
    flow.files = dict(OLD)
    flow.update()
    end(flow)
    copy_over(flow.database, kept(flow, flow.database))
    flow.files = dict(NEW)
    with failing_step(step), contextlib.suppress(Exception):
        flow.attempt() if what == "update" else flow.drop()
    end(flow)
    anew(kept(flow, flow.database), flow.database)
    flow.files = dict(OLD)
    assert_right(flow)
    assert backups(flow.root) == []


def test_update_in_doubt_that_is_interrupted_begins_anew(aged: Callable[[Main], Flow]) -> None:
    flow = aged(by_context)
    anew(kept(flow, flow.root), flow.root)
    with failing_step(3):
        assert flow.attempt()
    end(flow)
    assert_right(flow)


async def in_two_steps(flow: Flow) -> None:
    """Waits for one component before it mounts the others, or fails in between."""
    out = await fsmirror.mount_dir_target(OUT)
    first, *rest = sorted(flow.files)
    handle = await coco.mount(coco.component_subpath(first), page, (first, flow.files[first]), out)
    await handle.ready()
    if "broken" in flow.wanted:
        raise BoomError("between")
    for name in rest:
        await coco.mount(coco.component_subpath(name), page, (name, flow.files[name]), out)


def test_update_in_doubt_that_ends_half_way_begins_anew(aged: Callable[[Main], Flow]) -> None:
    flow = aged(in_two_steps)
    anew(kept(flow, flow.root), flow.root)
    flow.wanted["broken"] = declare_nothing
    assert "between" in flow.attempt()
    assert ran == ["added"]
    end(flow)
    flow.wanted.clear()
    assert_right(flow)


async def declare_nothing(_out: fsmirror.DirTarget[Any], _name: str) -> None:
    """Declares nothing."""


# Components that can't tell


async def partly(flow: Flow) -> None:
    """Declares each file in a component, one of which fails."""
    out = await fsmirror.mount_dir_target(OUT)
    names = [(name, (name, flow.files[name])) for name in flow.files]
    await coco.mount_each(fragile, names, out)


@coco.fn(memo=True)
async def fragile(item: tuple[str, bytes], out: fsmirror.DirTarget) -> None:
    """Declares a file, and another one for each further letter, unless that is a bad one."""
    if item[1] == b"bad":
        raise ValueError("bad")
    for number in range(len(item[1])):
        out.declare_file(item[0] + number * "+", item[1])


@pytest.mark.parametrize("what", ["lost", "restored"])
def test_last_output_of_a_component_that_fails_stays(
    make_flow: Callable[..., Flow], what: str
) -> None:
    flow = make_flow(partly)
    flow.files = {"a": b"1"}
    flow.update()
    end(flow)
    copy_over(flow.database, kept(flow, flow.database))
    flow.files = {"a": b"1", "b": b"2", "c": b"3"}
    flow.update()
    end(flow)
    if what == "lost":
        shutil.rmtree(flow.database)
    else:
        anew(kept(flow, flow.database), flow.database)
    flow.files = {"a": b"1", "b": b"bad"}
    assert "bad" in flow.attempt()
    assert contents(flow.tree) == {"a": b"1", "b": b"2"}
    flow.files = {"a": b"1"}
    flow.update()  # The engine forgets the component at the end of this update.
    flow.update()
    assert contents(flow.tree) == flow.files
    with Mirror(flow.root) as mirror:
        assert mirror.status().owners == 1


def test_outputs_that_a_failing_component_made_since_stay(make_flow: Callable[..., Flow]) -> None:
    """The database that was put back knows the component, but not its second file."""
    flow = make_flow(partly)
    flow.files = {"a": b"1"}
    flow.update()
    end(flow)
    copy_over(flow.database, kept(flow, flow.database))
    flow.files = {"a": b"22"}
    flow.update()
    end(flow)
    anew(kept(flow, flow.database), flow.database)
    flow.files = {"a": b"bad"}
    assert "bad" in flow.attempt()
    assert contents(flow.tree) == {"a": b"22", "a+": b"22"}
    flow.files = {"a": b"3"}
    flow.update()
    assert contents(flow.tree) == flow.files


# Roots that came and went


def test_database_of_before_a_rename_takes_the_new_root_up(
    tmp_path: Path, make_flow: Callable[..., Flow]
) -> None:
    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / place)
        for name, content in flow.files.items():
            out.declare_file(name, content)

    place = "one"
    flow = make_flow(main)
    flow.files = {"a": b"1"}
    flow.update()
    end(flow)
    copy_over(flow.database, kept(flow, flow.database))
    place, flow.files = "two", {"a": b"1", "b": b"2"}
    flow.update()
    end(flow)
    anew(kept(flow, flow.database), flow.database)
    flow.files = {"a": b"new"}
    flow.update()
    assert not (tmp_path / "one").exists()
    assert (tmp_path / "two" / "a").read_bytes() == b"new"
    assert not (tmp_path / "two" / "b").exists()
    with Mirror(tmp_path / "two") as mirror:
        assert mirror.status().owners == 1


def test_database_of_before_a_drop_writes_all_again(aged: Callable[[Main], Flow]) -> None:
    flow = aged(by_context)
    flow.drop()
    assert not flow.root.exists()
    anew(kept(flow, flow.database), flow.database)
    assert_right(flow)


def test_path_that_another_database_declared_meanwhile_comes_back(
    make_flow: Callable[..., Flow],
) -> None:
    first, second = make_flow(by_context), make_flow(by_context, name="other")
    first.files, second.files = {"a": b"1", "b": b"1"}, {"a": b"2"}
    for flow in (first, second, first):
        flow.update()
        end(flow)
        assert contents(flow.tree)["a"] == flow.files["a"]
    second.files = {}
    second.update()
    assert contents(first.tree) == first.files
