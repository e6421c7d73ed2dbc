"""Losing a memory (the engine's, ours, or both) loses nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.support import backups, contents, exact_state
from tests.target.flows import OUT, Flow, memoized, page, plain, ran

MakeFlow = Callable[..., Flow]
MAINS = pytest.mark.parametrize("main", [plain, memoized])
FILES = {"same": b"1", "deep/same": b"2", "edited": b"3", "orphan": b"4"}


def forget_database(flow: Flow) -> None:
    """Removes the engine's database."""
    shutil.rmtree(flow.database)


def forget_ledger(flow: Flow) -> None:
    """Removes the ledger."""
    for file in (flow.root / ".fsmirror").glob("ledger*"):
        file.unlink()


def forget_own_folder(flow: Flow) -> None:
    """Removes ``.fsmirror`` whole."""
    shutil.rmtree(flow.root / ".fsmirror")


def forget_both(flow: Flow) -> None:
    """Removes database and ledger."""
    forget_database(flow)
    forget_ledger(flow)


def flip_ledger(flow: Flow) -> None:
    """Overwrites the ledger with bytes that are no database."""
    ledger = flow.root / ".fsmirror/ledger.sqlite3"
    for log in ledger.parent.glob("*-wal"):
        log.unlink()
    ledger.write_bytes(bytes(byte ^ 0xFF for byte in ledger.read_bytes()))


def truncate_ledger(flow: Flow) -> None:
    """Cuts the ledger in half."""
    ledger = flow.root / ".fsmirror/ledger.sqlite3"
    for log in ledger.parent.glob("*-wal"):
        log.unlink()
    os.truncate(ledger, max(100, ledger.stat().st_size // 2))


LOSSES = [
    forget_database,
    forget_ledger,
    forget_own_folder,
    forget_both,
    flip_ledger,
    truncate_ledger,
]


def seen(path: Path) -> tuple[int, int]:
    """Returns the ``lstat`` values that change when a file is written."""
    return path.stat().st_ino, path.stat().st_mtime_ns


@MAINS
@pytest.mark.parametrize("lose", LOSSES)
def test_identical_files_are_adopted_and_all_others_are_foreign(
    make_flow: MakeFlow, main: object, lose: Callable[[Flow], None]
) -> None:
    flow = make_flow(main)
    flow.files = dict(FILES)
    flow.update()
    flow.close()
    fold_ledgers()
    lose(flow)
    (flow.root / "edited").write_bytes(b"edited since")
    before = {name: seen(flow.root / name) for name in ("same", "deep/same")}
    flow.update()
    assert contents(flow.tree) == FILES
    assert {name: seen(flow.root / name) for name in before} == before
    assert backups(flow.root) == [b"edited since"]
    exact = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == exact


def fold_ledgers() -> None:
    """Closes the ledgers, as the end of a process does."""
    from cocoindex_fsmirror._target import sink

    sink.close_all()


@pytest.mark.parametrize("lose", [forget_ledger, forget_own_folder, flip_ledger])
def test_engine_records_tell_what_was_ours_without_a_ledger(
    flow: Flow, lose: Callable[[Flow], None]
) -> None:
    flow.files = dict(FILES)
    flow.update()
    fold_ledgers()
    lose(flow)
    flow.files = {"same": b"1", "edited": b"changed by the flow"}
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == []


@pytest.mark.parametrize("lose", [forget_database, forget_both])
def test_only_files_that_no_memory_knows_stay(flow: Flow, lose: Callable[[Flow], None]) -> None:
    flow.files = dict(FILES)
    flow.update()
    flow.close()
    fold_ledgers()
    lose(flow)
    flow.files = {"same": b"1", "edited": b"new"}
    flow.update()
    unknown = {"orphan": b"4", "deep/same": b"2"} if lose is forget_both else {}
    assert contents(flow.tree) == flow.files | unknown
    # The ledger alone still tells what was ours.
    assert backups(flow.root) == ([b"3"] if lose is forget_both else [])


def test_new_database_with_the_inode_of_a_lost_one_carries_on(flow: Flow, tmp_path: Path) -> None:
    flow.files = dict(FILES)
    flow.update()
    flow.close()
    fold_ledgers()
    forget_database(flow)
    # ext4 gives a new folder the inode number of one that was just removed.
    (new := tmp_path / "new").mkdir()
    ledger = sqlite3.connect(flow.root / ".fsmirror/ledger.sqlite3")
    with contextlib.closing(ledger), ledger:
        (stored,) = ledger.execute("SELECT database FROM owners").fetchone()
        device, _, birth = stored.split()
        ledger.execute("UPDATE owners SET database = ?", [f"{device} {new.stat().st_ino} {birth}"])
    new.rename(flow.database)
    flow.files = {"same": b"1", "edited": b"new"}
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == []


def test_files_of_a_lost_database_go_though_the_first_update_was_cut_off(
    make_flow: MakeFlow,
) -> None:
    async def main(flow: Flow) -> None:
        await memoized(flow)
        if flow.files["a"] == b"cut off":
            raise RuntimeError

    flow = make_flow(main)
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    flow.close()
    fold_ledgers()
    forget_database(flow)
    flow.files = {"a": b"cut off"}
    assert flow.attempt()
    flow.files = {"a": b"1"}
    flow.update()
    assert contents(flow.tree) == flow.files


def test_corrupt_ledger_is_set_aside_and_logged(
    flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    flow.files = dict(FILES)
    flow.update()
    fold_ledgers()
    flip_ledger(flow)
    damaged = (flow.root / ".fsmirror/ledger.sqlite3").read_bytes()
    flow.update()
    aside = list((flow.root / ".fsmirror").glob("ledger.sqlite3.corrupt-*"))
    assert [file.read_bytes() for file in aside] == [damaged]
    assert any("corrupt" in record.getMessage() for record in caplog.records)


@MAINS
def test_adopted_files_survive_a_drop_after_a_loss(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = dict(FILES)
    flow.update()
    flow.close()
    fold_ledgers()
    forget_both(flow)
    flow.files["edited"] = b"written anew"
    flow.update()
    flow.drop()
    # Adopted files may have been there before us.
    assert contents(flow.tree).keys() == {"same", "deep/same", "orphan"}


async def nested(flow: Flow) -> None:
    """Declares every file in a memoized component that takes a nested target."""
    out = await fsmirror.mount_dir_target(OUT)
    inner = await coco.use_mount(out.declare_dir_target, "inner")
    await coco.mount_each(page, [(name, (name, flow.files[name])) for name in flow.files], inner)


@pytest.mark.parametrize("lose", [forget_ledger, forget_own_folder])
def test_files_of_a_nested_target_come_back_after_a_loss(
    make_flow: MakeFlow, lose: Callable[[Flow], None]
) -> None:
    flow = make_flow(nested)
    flow.files = {"edited": b"1", "deleted": b"2"}
    flow.update()
    (flow.root / "inner/edited").write_bytes(b"edited")
    (flow.root / "inner/deleted").unlink()
    lose(flow)
    flow.update()
    assert contents(flow.tree) == {"inner/edited": b"1", "inner/deleted": b"2"}
    assert backups(flow.root) == [b"edited"]


def test_file_that_moves_to_another_target_during_a_loss_is_declared_once(
    make_flow: MakeFlow,
) -> None:
    """The engine, which does not know the old declaration, never says that it has ended."""
    before = make_flow(memoized)
    before.files = {"inner/a": b"1"}
    before.update()
    before.close()
    forget_database(before)
    flow = make_flow(nested)
    flow.files = {"a": b"1"}
    for runs in (["a"], [], []):
        flow.update()
        assert ran == runs
    assert contents(flow.tree) == before.files
    assert fsmirror.Mirror(flow.root).verify() == []


async def in_two_targets(flow: Flow) -> None:
    """Declares every file in the main component, those in a folder through its target."""
    out = await fsmirror.mount_dir_target(OUT)
    inner = await coco.use_mount(out.declare_dir_target, "inner")
    for name, content in flow.files.items():
        target = inner if name.startswith("inner/") else out
        target.declare_file(name.removeprefix("inner/"), content)


def test_stale_file_goes_after_a_loss_though_another_target_has_its_name(
    make_flow: MakeFlow,
) -> None:
    flow = make_flow(in_two_targets)
    flow.files = {"a": b"1", "inner/a": b"2"}
    flow.update()
    flow.close()
    forget_database(flow)
    del flow.files["a"]
    flow.update()
    assert contents(flow.tree) == flow.files


async def in_a_folder(flow: Flow) -> None:
    """Declares an empty directory while there are files."""
    out = await fsmirror.mount_dir_target(OUT)
    if flow.files:
        await coco.use_mount(out.declare_dir_target, "inner")


@pytest.mark.parametrize("lose", [forget_ledger, forget_own_folder])
def test_folder_that_the_engine_remembers_is_ours_without_a_ledger(
    make_flow: MakeFlow, lose: Callable[[Flow], None]
) -> None:
    flow = make_flow(in_a_folder)
    flow.files = {"x": b""}
    flow.update()
    lose(flow)
    flow.update()
    assert flow.tree == {"inner": "dir"}
    flow.files = {}
    flow.update()
    assert flow.tree == {}


def test_folder_that_no_memory_knows_stays_when_it_is_undeclared(make_flow: MakeFlow) -> None:
    flow = make_flow(in_a_folder)
    flow.files = {"x": b""}
    (flow.root / "inner").mkdir(parents=True)
    flow.update()
    flow.update()
    flow.files = {}
    flow.update()
    assert flow.tree == {"inner": "dir"}
