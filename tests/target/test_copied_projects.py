"""A copy of a project, or of its database, never touches the original."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._target import sink
from tests.support import Mount, backups, beside_ours, contents, snapshot
from tests.target.flows import BoomError, Flow, Main, failing_step, ran
from tests.target.projects import (
    absolute,
    by_context,
    copied,
    earlier_release,
    end,
    like,
    relative,
    sync_over,
)

FILES = {"a": b"1", "deep/b": b"2"}
MAINS = pytest.mark.parametrize("main", [relative(), by_context], ids=["relative", "context"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Main], Flow]:
    """Makes a project and runs it once."""

    def make(main: Main) -> Flow:
        flow = Flow(tmp_path / "p", main)
        flow.root.parent.mkdir()
        flow.files = dict(FILES)
        update(flow, monkeypatch)
        return flow

    return make


def state(root: Path) -> object:
    """Returns the state of a mirror: all files with their times, and the rows of the ledger."""
    sink.close_all()
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        return beside_ours(root), [*ledger.iterdump()]


def update(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates a flow in its own folder."""
    monkeypatch.chdir(flow.database.parent)
    flow.update()


@MAINS
def test_copied_project_works_on_its_own_files(
    project: Callable[[Main], Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: Main
) -> None:
    original = project(main)
    copy = copied(original, tmp_path / "copy")
    before = state(original.root)
    update(copy, monkeypatch)
    assert ran == []
    assert contents(copy.tree) == FILES
    copy.files = {"a": b"changed", "new": b"3"}
    update(copy, monkeypatch)
    assert contents(copy.tree) == copy.files
    assert backups(copy.root) == []
    copy.drop()
    assert not copy.root.exists()
    assert state(original.root) == before
    update(original, monkeypatch)
    assert ran == []
    assert contents(original.tree) == FILES


def test_copies_that_run_at_once_do_not_meet(
    project: Callable[[Main], Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = project(by_context)
    flows = [copied(original, tmp_path / name) for name in ("one", "two")]
    flows.append(original)
    for number, flow in enumerate(flows):
        flow.files = FILES | {"a": b"%d" % number}
    failed: list[str] = []
    threads = [threading.Thread(target=lambda f=flow: failed.append(f.attempt())) for flow in flows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == ["", "", ""]
    assert [contents(flow.tree) for flow in flows] == [flow.files for flow in flows]


@pytest.mark.parametrize("is_alone", [True, False])
def test_copied_database_is_refused_by_the_mirror_of_the_original(
    project: Callable[[Main], Flow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_alone: bool,
) -> None:
    """The whole project is copied, with a root that is an absolute path, or the database alone."""
    original = project(absolute(tmp_path / "p" / "root"))
    copy = copied(original, tmp_path / "copy")
    if is_alone:
        shutil.rmtree(copy.root)
    copy.files = {"a": b"of the copy"}
    before = state(original.root)
    told = copy.attempt()
    assert f"{original.root}: belongs to the database {original.database}, of which" in told
    assert f"{copy.database} is a copy; nothing was changed (declare another directory" in told
    assert ran == []
    assert state(original.root) == before
    end(copy)
    shutil.rmtree(original.database)
    update(copy, monkeypatch)
    assert contents(original.tree) == copy.files
    assert backups(original.root) == []


def test_copied_database_recovers_nothing_in_the_mirror_of_the_original(
    project: Callable[[Main], Flow], tmp_path: Path
) -> None:
    original = project(absolute(tmp_path / "p" / "root"))
    copy = copied(original, tmp_path / "copy")
    with failing_step(8), pytest.raises(BoomError):
        original.drop()
    end(original)
    before = contents(snapshot(original.root, ours=True))
    assert "is a copy; nothing was changed" in copy.attempt()
    end(copy)
    assert contents(snapshot(original.root, ours=True)) == before


def test_teardown_from_a_copied_database_removes_nothing_and_says_so(
    project: Callable[[Main], Flow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
) -> None:
    original = project(absolute(tmp_path / "p" / "root"))
    copy = copied(original, tmp_path / "copy", absolute(tmp_path / "elsewhere"))
    before = state(original.root)
    lines.clear()
    update(copy, monkeypatch)
    assert state(original.root) == before
    (line,) = lines
    assert line.startswith(f"{original.root}: nothing was removed, since it belongs to ")
    assert "fsmirror drop" in line
    with Mirror(tmp_path / "elsewhere") as mirror:
        assert mirror.managed() == ["a", "deep/b"]
    copy.drop()
    assert state(original.root) == before
    assert not (tmp_path / "elsewhere").exists()


def test_single_file_of_the_original_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Callable[[Main], Flow]
) -> None:
    async def main(flow: Flow) -> None:
        for name, content in flow.files.items():
            fsmirror.declare_file(tmp_path / "p" / "root" / name, content)

    original = project(main)
    copy = copied(original, tmp_path / "copy")
    before = state(original.root), state(original.root / "deep")
    copy.files = {"a": b"changed"}
    assert "is a copy; nothing was changed" in copy.attempt()
    copy.files = {}
    copy.attempt()
    end(copy)
    assert (state(original.root), state(original.root / "deep")) == before
    original.files = {"a": b"changed"}
    update(original, monkeypatch)
    assert contents(original.tree) == original.files


@MAINS
def test_moved_project_runs_no_component_again(
    project: Callable[[Main], Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: Main
) -> None:
    flow = project(main)
    end(flow)
    (tmp_path / "p").rename(tmp_path / "q")
    moved = like(flow, tmp_path / "q")
    del moved.files["a"]
    before = beside_ours(moved.root)[str(moved.root / "deep" / "b")]
    update(moved, monkeypatch)
    assert ran == []
    assert contents(moved.tree) == {"deep/b": b"2"}
    assert beside_ours(moved.root)[str(moved.root / "deep" / "b")] == before
    assert backups(moved.root) == []
    moved.drop()
    assert not moved.root.exists()
    assert moved.root.parent.exists()


def test_output_that_is_copied_alone_is_adopted(
    project: Callable[[Main], Flow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a Git worktree, or a checkout that holds the output and nothing of ours."""
    original = project(relative())
    end(original)
    worktree = tmp_path / "worktree"
    worktree.mkdir()
    sync_over(original.root, worktree / "root", "--exclude=/.fsmirror")
    before = state(original.root)
    other = like(original, worktree)
    update(other, monkeypatch)
    assert contents(other.tree) == FILES
    other.drop()
    assert state(original.root) == before


# Databases of earlier releases


def test_database_of_an_earlier_release_keeps_its_key_in_place(
    project: Callable[[Main], Flow], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    with earlier_release():
        flow = project(relative())
    before = beside_ours(flow.root)
    for _ in range(2):
        end(flow)
        update(flow, monkeypatch)
        assert ran == []
        assert contents(flow.tree) == FILES
    assert lines == []
    assert beside_ours(flow.root) == before


@pytest.mark.parametrize("is_moved", [True, False])
def test_rows_of_an_absolute_key_are_handed_over_to_a_relative_one(
    project: Callable[[Main], Flow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_moved: bool,
) -> None:
    with earlier_release():
        original = project(relative())
    other = copied(original, tmp_path / "q")
    if is_moved:
        shutil.rmtree(tmp_path / "p")
    before = None if is_moved else state(original.root)
    other.files = {"a": b"changed"}
    update(other, monkeypatch)
    assert contents(other.tree) == other.files
    assert backups(other.root) == []
    update(other, monkeypatch)
    assert ran == []
    with Mirror(other.root) as mirror:
        assert mirror.status().owners == 1
    if before is not None:
        assert state(original.root) == before


def test_two_apps_in_one_database_keep_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the second one has the same database and key as that of the first."""
    env = coco.Environment(coco.Settings(db_path=tmp_path / "db"))
    declared: dict[str, list[str]] = {"one": ["a", "b"], "two": ["c"]}

    async def main(name: str) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / "root")
        for each in declared[name]:
            out.declare_file(each, b"1")

    apps = [coco.App(coco.AppConfig(name, environment=env), main, name) for name in declared]
    for app in apps:
        app.update_blocking()
    declared["one"] = ["a"]
    for app in (*apps, *apps):
        app.update_blocking()
        assert {p.name for p in (tmp_path / "root").iterdir()} == {".fsmirror", "a", "c"}


@pytest.mark.root
def test_snapshot_of_a_project_never_touches_its_original(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot of a subvolume has the inode numbers and the times of all that is in it."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("btrfs-progs are not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    top = mount(tmp_path / "disk", "-o", "loop", str(image))
    command = ["btrfs", "subvolume"]
    subprocess.run([*command, "create", str(top / "p")], check=True, capture_output=True)
    original, copy = (Flow(top / name, absolute(top / "p" / "root")) for name in ("p", "q"))
    with contextlib.ExitStack() as until:
        until.callback(end, original, copy)
        until.callback(os.chdir, tmp_path)
        original.files = dict(FILES)
        update(original, monkeypatch)
        end(original)
        taken = [*command, "snapshot", str(top / "p"), str(top / "q")]
        subprocess.run(taken, check=True, capture_output=True)
        before = state(original.root)
        copy.files = {"a": b"changed"}
        os.chdir(top / "q")
        assert "is a copy; nothing was changed" in copy.attempt()
        copy.drop()
        assert state(original.root) == before
