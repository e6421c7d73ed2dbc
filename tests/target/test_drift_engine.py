"""Drift without copies is healed at the next update by rerunning only the owners of the files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._target import declare
from tests.support import backups, contents, exact_state
from tests.target import flows
from tests.target.declaring import declare_sub
from tests.target.flows import OUT, Flow, memoized, page, plain, ran

MakeFlow = Callable[..., Flow]
MAINS = pytest.mark.parametrize("main", [plain, memoized])
pytestmark = pytest.mark.usefixtures("without_copies")


def edit(path: Path) -> None:
    """Writes other content, of another size."""
    path.write_bytes(path.read_bytes() + b" edited")


def replace(path: Path) -> None:
    """Replaces the file by another of its size."""
    other = path.with_name("other")
    other.write_bytes(b"x" * path.stat().st_size)
    other.replace(path)


def to_link(path: Path) -> None:
    """Replaces the file by a symbolic link."""
    path.unlink()
    path.symlink_to("/etc/passwd")


def edit_unseen(path: Path) -> None:
    """Changes the content, and keeps size, inode and mtime, as ``touch -r`` would."""
    seen = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


TAMPERS = [edit, replace, to_link, edit_unseen, Path.unlink]


@MAINS
@pytest.mark.parametrize("tamper", TAMPERS)
def test_tampered_file_comes_back_at_the_next_update(
    make_flow: MakeFlow, main: object, tamper: Callable[[Path], None]
) -> None:
    flow = make_flow(main)
    flow.files = {"a": b"1234", "deep/b": b"5678"}
    flow.update()
    tamper(flow.root / "deep/b")
    flow.update()
    assert contents(flow.tree) == flow.files
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before


def test_healed_edit_is_kept_in_the_backup_area(flow: Flow) -> None:
    flow.files = {"a": b"1"}
    flow.update()
    (flow.root / "a").write_bytes(b"precious")
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == [b"precious"]


def test_only_components_with_drifted_files_run_out_of_1000(
    make_flow: MakeFlow,
) -> None:
    flow = make_flow(memoized)
    flow.files = {f"d{n % 7}/f{n}": b"%d" % n for n in range(1000)}
    flow.update()
    assert len(ran) == 1000
    flow.update()
    assert ran == []
    edit(flow.root / "d1/f1")
    (flow.root / "d0/f700").unlink()
    replace(flow.root / "d5/f999")
    flow.close()
    flow.update()
    assert sorted(ran) == ["d0/f700", "d1/f1", "d5/f999"]
    assert contents(flow.tree) == flow.files
    flow.update()
    assert ran == []


async def with_modes(flow: Flow) -> None:
    """Asks for the mode of each file, in memoized components."""
    out = await fsmirror.mount_dir_target(OUT)
    await coco.mount_each(page_with_mode, [(name, name) for name in flow.files], out)


@coco.fn(memo=True)
async def page_with_mode(name: str, out: fsmirror.DirTarget) -> None:
    """Declares one file with its mode."""
    ran.append(name)
    out.declare_file(name, b"1", mode=0o640)


def test_declared_mode_is_restored(make_flow: MakeFlow) -> None:
    flow = make_flow(with_modes)
    flow.files = {"a": b"", "b": b"", "c": b""}
    flow.update()
    inode = (flow.root / "b").stat().st_ino
    (flow.root / "b").chmod(0o666)
    flow.update()
    assert ran == ["b"]
    assert (flow.root / "b").stat().st_mode & 0o7777 == 0o640
    assert (flow.root / "b").stat().st_ino == inode


def test_undeclared_mode_is_left_alone(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.files = {"a": b"1"}
    flow.update()
    (flow.root / "a").chmod(0o600)
    flow.update()
    flow.files = {"a": b"2"}
    flow.update()
    assert (flow.root / "a").stat().st_mode & 0o7777 == 0o600


@MAINS
def test_deleted_root_comes_back_whole(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = {f"d{n % 3}/f{n}": b"%d" % n for n in range(20)}
    flow.update()
    shutil.rmtree(flow.root)
    flow.update()
    assert contents(flow.tree) == flow.files
    before = exact_state(flow.root)
    flow.update()
    assert ran == []
    assert exact_state(flow.root) == before


# Owners that can't be told


@pytest.fixture
def hidden(make_flow: MakeFlow) -> Flow:
    """A flow whose memoized components reach the target through a global."""

    async def main(flow: Flow) -> None:
        global _target  # noqa: PLW0603
        _target = await fsmirror.mount_dir_target(OUT)
        items = [(name, (name, content)) for name, content in flow.files.items()]
        await coco.mount_each(page_by_global, items)

    flow = make_flow(main)
    flow.files = {"a": b"1", "b": b"2", "c": b"3"}
    flow.update()
    assert sorted(ran) == ["a", "b", "c"]
    return flow


_target: fsmirror.DirTarget


@coco.fn(memo=True)
async def page_by_global(item: flows.Item) -> None:
    """Declares one file, in a memoized component whose target is no argument."""
    ran.append(item[0])
    _target.declare_file(*item)


def test_healing_without_the_target_as_argument_takes_one_update_more(
    hidden: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    edit(hidden.root / "b")
    hidden.update()
    said = [record.message for record in caplog.records if "run" in record.message]
    if contents(hidden.tree) != hidden.files:
        assert said == []
        hidden.update()
        said = [record.message for record in caplog.records if "run" in record.message]
    assert contents(hidden.tree) == hidden.files
    assert len(said) == 1
    assert str(hidden.root) in said[0]
    assert "drifted" in said[0]
    for _ in range(2):
        hidden.update()
        assert ran == []


def test_deleted_root_comes_back_without_the_target_as_argument(hidden: Flow) -> None:
    shutil.rmtree(hidden.root)
    hidden.update()
    assert contents(hidden.tree) == hidden.files


# Sub-directories and owners


async def in_sub(flow: Flow) -> None:
    """Declares files from memoized components in a nested directory target."""
    out = await fsmirror.mount_dir_target(OUT)
    sub = await coco.use_mount(declare_sub, out, "sub/dir")
    await coco.mount_each(page, [(n, (n, c)) for n, c in flow.files.items()], sub)


def test_only_the_owner_runs_in_sub_directory_targets(make_flow: MakeFlow) -> None:
    flow = make_flow(in_sub)
    flow.files = {"a": b"1", "b/c": b"2", "d": b"3"}
    flow.update()
    edit(flow.root / "sub/dir/b/c")
    flow.update()
    assert ran == ["b/c"]
    assert contents(flow.tree) == {f"sub/dir/{n}": c for n, c in flow.files.items()}
    shutil.rmtree(flow.root / "sub")
    flow.update()
    assert sorted(ran) == ["a", "b/c", "d"]
    assert contents(flow.tree) == {f"sub/dir/{n}": c for n, c in flow.files.items()}


@coco.fn(memo=True)
async def several(item: tuple[str, tuple[str, ...]], out: fsmirror.DirTarget) -> None:
    """Declares several files, in one memoized component."""
    ran.append(item[0])
    for name in item[1]:
        out.declare_file(name, b"content")


def test_only_the_new_owner_runs_after_a_file_moved(
    make_flow: MakeFlow,
) -> None:
    owners: dict[str, tuple[str, ...]] = {"one": ("a", "moves"), "two": ("b",), "three": ("c",)}

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount_each(several, [(k, (k, v)) for k, v in owners.items()], out)

    flow = make_flow(main)
    flow.update()
    owners.update(one=("a",), two=("b", "moves"))
    flow.attempt()
    flow.update()
    flow.update()
    assert ran == []
    assert contents(flow.tree) == dict.fromkeys(("a", "b", "c", "moves"), b"content")
    edit(flow.root / "moves")
    flow.update()
    assert ran == ["two"]
    assert contents(flow.tree) == dict.fromkeys(("a", "b", "c", "moves"), b"content")


def test_drift_of_one_app_does_not_run_components_of_another(
    make_flow: MakeFlow,
) -> None:
    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        # The components of both apps have the same path.
        await coco.mount_each(several, [("same", ("same", tuple(flow.files)))], out)

    one, two = make_flow(main, name="one"), make_flow(main, name="two")
    one.files, two.files = {"a": b"content"}, {"b": b"content"}
    one.update()
    two.update()
    edit(one.root / "b")
    for _ in range(2):
        one.update()
        assert ran == []
    two.update()
    assert ran == ["same"]
    assert contents(one.tree) == {"a": b"content", "b": b"content"}
    one.update()
    assert ran == []


# The option verify


def believe(root: Path, name: str) -> None:
    """Writes the current ``lstat`` of a file into its row, so that an edit stays unseen."""
    import sqlite3

    seen = (root / name).lstat()
    ledger = sqlite3.connect(root / ".fsmirror/ledger.sqlite3")
    with ledger:
        changed = ledger.execute(
            "UPDATE rows SET inode = ?, mtime_ns = ?, ctime_ns = ?, recorded_ns = ? WHERE name = ?",
            (seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ctime_ns + 10**9, name),
        ).rowcount
    ledger.close()
    assert changed == 1


@MAINS
def test_verify_content_finds_an_edit_that_no_stat_shows(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = {"a": b"1234", "b": b"5678"}
    flow.update()
    edit_unseen(flow.root / "b")
    believe(flow.root, "b")
    flow.update()
    assert (flow.root / "b").read_bytes() == b"X678"
    flow.options["verify"] = "content"
    flow.update()
    assert contents(flow.tree) == flow.files
    assert ran == (["b"] if main is memoized else [])
    assert backups(flow.root) == [b"X678"]


@MAINS
def test_verify_none_ignores_drift(
    make_flow: MakeFlow, main: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make_flow(main)
    flow.options["verify"] = "none"
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    edit(flow.root / "a")
    (flow.root / "b").unlink()
    monkeypatch.delattr(declare, "observe")
    for _ in range(2):
        flow.update()
        assert flow.tree == {"a": b"1 edited"}
    monkeypatch.undo()
    del flow.options["verify"]
    flow.update()
    assert contents(flow.tree) == flow.files
