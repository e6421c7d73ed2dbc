"""Copies follow the mode and the time of their sources, also in memoized components."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest
from cocoindex.connectors import localfs

import cocoindex_fsmirror as fsmirror
from tests.support import exact_state
from tests.target.flows import OUT, Flow, ran

MakeFlow = Callable[..., Flow]
BOTH = {"preserve": ("mode", "mtime")}


@coco.fn(memo=True)
async def copied(file: localfs.File, out: fsmirror.DirTarget, options: dict[str, Any]) -> None:
    """Declares a copy, in a memoized component."""
    ran.append(file.file_path.path.name)
    await out.declare_copy(file.file_path.path.name, file, **options)


@coco.fn(memo=True)
async def perhaps_copied(
    file: localfs.File, out: fsmirror.DirTarget, options: dict[str, Any]
) -> None:
    """Declares a copy of a file that says so, in a memoized component."""
    ran.append(file.file_path.path.name)
    if await file.read() == b"copy":
        await out.declare_copy(file.file_path.path.name, file, **options)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sources, below the working directory."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(name)
        (folder / name).chmod(0o640)
    monkeypatch.chdir(tmp_path)
    return folder


def make(make_flow: MakeFlow, where: Any, function: Any = copied, **options: Any) -> Flow:
    """Returns a flow that copies every file of a folder."""

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount_each(function, localfs.walk_dir(where).items(), out, options)

    return make_flow(main)


def dress(path: Path) -> tuple[int, int]:
    """Returns the mode and the time of a file."""
    seen = path.stat()
    return stat.S_IMODE(seen.st_mode), seen.st_mtime_ns


def runs(flow: Flow) -> list[str]:
    """Runs an update as a new process would; returns the components whose body ran."""
    flow.close()
    flow.update()
    return sorted(ran)


@pytest.mark.parametrize("where", ["relative", "absolute", "key"])
def test_copy_follows_chmod_and_touch_of_its_source_alone(
    make_flow: MakeFlow, sources: Path, where: str
) -> None:
    at = {
        "relative": Path("sources"),
        "absolute": sources,
        "key": localfs.FilePath("../sources", base_dir=OUT),
    }
    flow = make(make_flow, at[where], **BOTH)
    flow.root.mkdir()
    flow.update()
    assert runs(flow) == []
    (sources / "a").chmod(0o750)
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a") == dress(sources / "a")
    assert runs(flow) == []
    os.utime(sources / "a", ns=(7, 7))
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a") == dress(sources / "a") == (0o750, 7)
    before = exact_state(flow.root)
    assert runs(flow) == []
    assert exact_state(flow.root) == before


def test_copy_follows_its_source_after_a_change_of_content(
    make_flow: MakeFlow, sources: Path
) -> None:
    flow = make(make_flow, sources, **BOTH)
    flow.update()
    (sources / "a").write_text("new")
    (sources / "a").chmod(0o600)
    assert runs(flow) == ["a"]
    assert runs(flow) == []
    (sources / "a").chmod(0o644)
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a") == dress(sources / "a")


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"preserve": ()}, "mode and time"),
        ({"mode": 0o600}, "mode and time"),
        ({"preserve": ("mtime",)}, "mode"),
        ({}, "time"),
    ],
)
def test_copy_does_not_follow_what_it_does_not_preserve(
    make_flow: MakeFlow, sources: Path, options: dict[str, Any], changes: str
) -> None:
    flow = make(make_flow, sources, **options)
    flow.update()
    if "mode" in changes:
        (sources / "a").chmod(0o750)
    if "time" in changes:
        os.utime(sources / "a", ns=(7, 7))
    assert runs(flow) == []


@coco.fn(memo=True)
async def twice(file: localfs.File, out: fsmirror.DirTarget, _: dict[str, Any]) -> None:
    """Declares two copies of a file, which follow other attributes of it."""
    name = file.file_path.path.name
    ran.append(name)
    await out.declare_copy(f"{name}.time", file, preserve=("mtime",))
    await out.declare_copy(f"{name}.mode", file)


def test_two_copies_of_a_source_follow_what_each_preserves(
    make_flow: MakeFlow, sources: Path
) -> None:
    flow = make(make_flow, sources, twice)
    flow.update()
    os.utime(sources / "a", ns=(1, 1))
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a.time")[1] == 1
    (sources / "a").chmod(0o600)
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a.mode")[0] == 0o600
    assert runs(flow) == []


def test_component_that_copies_later_follows_its_source_too(
    make_flow: MakeFlow, sources: Path
) -> None:
    flow = make(make_flow, sources, perhaps_copied)
    flow.update()
    assert flow.tree == {}
    (sources / "a").write_text("copy")
    assert runs(flow) == ["a"]
    (sources / "a").chmod(0o750)
    (sources / "b").chmod(0o750)
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a")[0] == 0o750
    assert runs(flow) == []


def test_memo_of_an_earlier_build_stays_valid(
    make_flow: MakeFlow, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(_: object, prev_state: int | coco.NonExistenceType) -> coco.MemoStateOutcome:
        return coco.MemoStateOutcome(state=1, memo_valid=prev_state == 1)

    flow = make(make_flow, sources)
    with monkeypatch.context() as patch:
        patch.setattr(fsmirror.DirTarget, "__coco_memo_state__", before)
        flow.update()
        assert runs(flow) == []
    assert runs(flow) == []
    (sources / "a").write_text("new")
    assert runs(flow) == ["a"]
    (sources / "a").chmod(0o750)
    assert runs(flow) == ["a"]


def test_source_whose_name_is_not_utf_8_is_followed(make_flow: MakeFlow, sources: Path) -> None:
    odd = sources / os.fsdecode(b"\xff")
    odd.write_bytes(b"odd")

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount(coco.component_subpath("one"), listed, str(sources), out)

    flow = make_flow(main)
    flow.update()
    odd.chmod(0o750)
    assert runs(flow) == ["listed"]
    assert dress(flow.root / odd.name)[0] == 0o750
    assert runs(flow) == []


@coco.fn(memo=True)
async def listed(folder: str, out: fsmirror.DirTarget) -> None:
    """Declares copies of the files in a folder, whose content is no argument."""
    ran.append("listed")
    for path in Path(folder).iterdir():
        await out.declare_copy(path.name, path)


def test_source_that_is_gone_runs_nothing_again(make_flow: MakeFlow, sources: Path) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount(coco.component_subpath("one"), fixed, str(sources / "a"), out)

    flow = make_flow(main)
    flow.update()
    (sources / "a").unlink()
    assert runs(flow) == []
    assert flow.tree == {"a": b"a"}


@coco.fn(memo=True)
async def fixed(source: str, out: fsmirror.DirTarget) -> None:
    """Declares a copy of a file whose content is no argument."""
    ran.append("fixed")
    await out.declare_copy("a", Path(source))


def test_moved_project_follows_its_own_sources(
    make_flow: MakeFlow, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make(make_flow, Path("sources"))
    flow.update()
    (sources.parent / "moved").mkdir()
    sources.rename(sources.parent / "moved" / "sources")
    monkeypatch.chdir(sources.parent / "moved")
    assert runs(flow) == []
    Path("sources/a").chmod(0o750)
    assert runs(flow) == ["a"]
    assert dress(flow.root / "a")[0] == 0o750
