"""Teardown takes what we made, and only that."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.support import backups, contents, exact_state, snapshot
from tests.target.declaring import declare_sub
from tests.target.flows import OUT, BoomError, Flow, failing_step, memoized, page, plain

MakeFlow = Callable[..., Flow]
MAINS = pytest.mark.parametrize("main", [plain, memoized])
FILES = {"a": b"1", "deep/b": b"2", "deep/er/c": b"3"}


@pytest.fixture(autouse=True)
def no_rmtree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every removal of a whole tree fail."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("rmtree was called")

    monkeypatch.setattr(shutil, "rmtree", refuse)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns the warnings that were logged."""
    ours = [r for r in caplog.records if r.name == "cocoindex_fsmirror"]
    return [r.getMessage() for r in ours if r.levelno >= logging.WARNING]


@MAINS
def test_drop_leaves_nothing_if_everything_was_ours(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    flow.drop()
    assert not flow.root.exists()


@MAINS
@pytest.mark.parametrize("step", [0, 1, 4])
def test_update_after_a_failed_drop_removes_what_it_declares_no_more(
    make_flow: MakeFlow, main: object, step: int
) -> None:
    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    with failing_step(step), pytest.raises(BoomError):
        flow.drop()
    flow.close()
    flow.files = {"a": b"1"}
    flow.update()
    assert contents(flow.tree) == flow.files


def test_drop_keeps_a_root_that_the_user_made(flow: Flow) -> None:
    flow.root.mkdir()
    flow.files = FILES
    flow.update()
    flow.drop()
    assert list(flow.root.iterdir()) == []


def spoil(root: Path) -> dict[str, bytes]:
    """Adds foreign files and edits one of ours; returns what must stay."""
    (root / "mine").write_bytes(b"foreign")
    (root / "deep/er/mine").write_bytes(b"foreign too")
    (root / "deep/b").write_bytes(b"edited")
    return {"mine": b"foreign", "deep/er/mine": b"foreign too", "deep/b": b"edited"}


@MAINS
def test_drop_keeps_foreign_and_edited_files_and_names_them_in_one_line(
    make_flow: MakeFlow, main: object, caplog: pytest.LogCaptureFixture
) -> None:
    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    stays = spoil(flow.root)
    flow.drop()
    assert contents(flow.tree) == stays
    assert flow.tree.keys() == {*stays, "deep", "deep/er"}
    said = warnings(caplog)
    assert len(said) == 1
    assert all(repr(name) in said[0] for name in stays)
    assert not (flow.root / ".fsmirror").exists()


def test_dropped_app_starts_anew(flow: Flow) -> None:
    flow.files = FILES
    flow.update()
    flow.drop()
    flow.update()
    assert contents(flow.tree) == FILES


@MAINS
def test_drop_of_a_missing_root_is_no_error(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    flow.root.rename(flow.root.with_name("taken away"))
    flow.drop()
    assert not flow.root.exists()
    assert contents(snapshot(flow.root.with_name("taken away"))) == FILES


def test_undeclared_root_is_removed(make_flow: MakeFlow, caplog: pytest.LogCaptureFixture) -> None:
    declared = True

    async def main(flow: Flow) -> None:
        if declared:
            await plain(flow)

    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    stays = spoil(flow.root)
    declared = False
    flow.update()
    assert contents(flow.tree) == stays
    assert len(warnings(caplog)) == 1
    declared = True
    flow.update()
    assert contents(flow.tree) == {**stays, **FILES}
    assert backups(flow.root) == [b"edited"]


def test_renamed_root_leaves_foreign_files_in_the_old_place(
    make_flow: MakeFlow, tmp_path: Path
) -> None:
    name = "old"

    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / name)
        for file, content in flow.files.items():
            out.declare_file(file, content)

    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    stays = spoil(tmp_path / "old")
    name = "new"
    flow.update()
    assert contents(snapshot(tmp_path / "old")) == stays
    assert contents(snapshot(tmp_path / "new")) == FILES


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.usefixtures("without_copies")
def test_undeclared_sub_directory_is_removed(
    make_flow: MakeFlow, caplog: pytest.LogCaptureFixture, nested: bool
) -> None:
    declared = True

    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        out.declare_file("sub/of the root", b"0")
        if declared:
            sub = await coco.use_mount(declare_sub, out, "sub")
            if nested:
                at = coco.component_subpath("nested")
                sub = await coco.use_mount(at, declare_sub, sub, "ne/sted")
            await coco.mount_each(page, [(n, (n, c)) for n, c in flow.files.items()], sub)

    flow = make_flow(main)
    flow.files = FILES
    at = flow.root / ("sub/ne/sted" if nested else "sub")
    flow.update()
    assert contents(snapshot(at)).items() >= FILES.items()
    stays = {str((at / name).relative_to(flow.root)): c for name, c in spoil(at).items()}
    declared = False
    flow.update()
    assert contents(flow.tree) == {**stays, "sub/of the root": b"0"}
    assert len(warnings(caplog)) == 1
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before


def test_sub_directory_with_only_our_files_is_removed_with_its_folder(make_flow: MakeFlow) -> None:
    declared = True

    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        out.declare_file("keep", b"0")
        if declared:
            sub = await coco.use_mount(declare_sub, out, "s/u/b")
            sub.declare_file("x/y", b"1")

    flow = make_flow(main)
    flow.update()
    assert contents(flow.tree) == {"keep": b"0", "s/u/b/x/y": b"1"}
    declared = False
    flow.update()
    assert flow.tree == {"keep": b"0"}


def test_removed_component_takes_its_files_and_folders(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.files = dict(FILES)
    flow.update()
    (flow.root / "deep/mine").write_bytes(b"foreign")
    del flow.files["deep/er/c"], flow.files["deep/b"]
    flow.update()
    assert flow.tree == {"a": b"1", "deep": "dir", "deep/mine": b"foreign"}


def test_edited_file_is_backed_up_when_it_is_undeclared(flow: Flow) -> None:
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    (flow.root / "a").write_bytes(b"edited")
    flow.files = {"b": b"2"}
    flow.update()
    assert flow.tree == {"b": b"2"}
    assert backups(flow.root) == [b"edited"]


def test_two_apps_in_one_root_do_not_touch_each_other(make_flow: MakeFlow) -> None:
    one, two = make_flow(memoized, name="one"), make_flow(plain, name="two")
    one.files = {"a": b"1", "shared/a": b"1"}
    two.files = {"b": b"2", "shared/b": b"2"}
    one.update()
    two.update()
    one.files = {"shared/a2": b"1"}
    one.update()
    assert contents(one.tree) == {**one.files, **two.files}
    before = exact_state(one.root)
    two.update()
    one.update()
    assert exact_state(one.root) == before
    one.drop()
    assert contents(two.tree) == two.files
    two.update()
    assert contents(two.tree) == two.files
    two.drop()
    assert not two.root.exists()
