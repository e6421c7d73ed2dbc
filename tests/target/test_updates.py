"""Updates of a real app: every change of what is declared reaches the disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.steps import failing_at
from tests.support import contents, exact_state
from tests.target.declaring import declare_sub
from tests.target.flows import Flow, failing_sink, memoized, plain

MAINS = pytest.mark.parametrize("main", [plain, memoized])
MakeFlow = Callable[..., Flow]


@MAINS
def test_files_are_created_changed_renamed_and_deleted(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = {"kept": b"1", "changed": b"2", "deleted": b"3", "deep/er/old": b"4"}
    flow.update()
    assert contents(flow.tree) == flow.files
    flow.files = {"kept": b"1", "changed": b"two", "deep/new": b"4"}
    flow.update()
    assert flow.tree == {"kept": b"1", "changed": b"two", "deep": "dir", "deep/new": b"4"}


@MAINS
def test_a_second_update_changes_nothing_on_the_disk(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = {"a": b"1", "deep/b": b"2", "empty": b""}
    flow.update()
    before = exact_state(flow.root)
    flow.update()
    flow.close()
    flow.update()
    flow.update(reprocess=True)
    assert exact_state(flow.root) == before


SWAPS = [
    ({"a": b"1"}, {"a/b": b"2"}),
    ({"a": b"1"}, {"a/b/c": b"2", "a/d": b"3"}),
    ({"a/b": b"1", "a/c/d": b"2"}, {"a": b"3"}),
    ({"a": b"1", "b/c": b"2"}, {"a/c": b"1", "b": b"2"}),
    ({"a/b/c": b"1", "x": b"2"}, {"a/b": b"1", "x": b"2"}),
]


@MAINS
@pytest.mark.parametrize(("first", "then"), SWAPS)
def test_files_become_folders_and_folders_become_files(
    make_flow: MakeFlow, main: object, first: dict[str, bytes], then: dict[str, bytes]
) -> None:
    flow = make_flow(main)
    for files in (first, then, first):
        flow.files = files
        flow.update()
        assert contents(flow.tree) == files
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before


def test_equivalent_spellings_of_a_name_are_one_file(flow: Flow) -> None:
    for spelling in ("a//b", "a/./b", "./a/b", "a/b/"):
        flow.files = {spelling: b"1"}
        flow.update()
        assert contents(flow.tree) == {"a/b": b"1"}


def test_an_empty_directory_target_is_an_empty_folder(flow: Flow) -> None:
    flow.update()
    assert flow.tree == {}
    assert flow.root.is_dir()


@pytest.mark.parametrize("at", ["key", "root"])
def test_key_becomes_a_file_and_a_directory_target_again(
    tmp_path: Path, make_flow: MakeFlow, at: str
) -> None:
    kind = "dir"

    async def main(flow: Flow) -> None:
        if at == "root" and kind == "file":
            await coco.mount(fsmirror.declare_file, tmp_path / "root" / "k", b"file")
        elif at == "root":
            inner = await fsmirror.mount_dir_target(tmp_path / "root" / "k")
            inner.declare_file("x/y", b"inside")
        elif kind == "file":
            (await fsmirror.mount_dir_target(tmp_path / "root")).declare_file("k", b"file")
        else:
            out = await fsmirror.mount_dir_target(tmp_path / "root")
            await coco.use_mount(declare_inner, out, b"inside")

    flow = make_flow(main)
    for kind in ("dir", "file", "dir", "file"):
        flow.update()
        expected = {"k": b"file"} if kind == "file" else {"k/x/y": b"inside"}
        found = {n: c for n, c in contents(flow.tree).items() if ".fsmirror" not in n}
        assert found == expected
        before = exact_state(flow.root)
        flow.update()
        assert exact_state(flow.root) == before


@coco.fn
async def declare_inner(out: fsmirror.DirTarget, content: bytes) -> None:
    """Declares a directory target below another, with one file."""
    inner = await coco.use_mount(coco.component_subpath("inner"), declare_sub, out, "k")
    inner.declare_file("x/y", content)


@pytest.mark.parametrize("start", [True, False])
def test_file_moves_from_the_root_target_to_a_sub_target_and_back(
    tmp_path: Path, make_flow: MakeFlow, start: bool
) -> None:
    below = start

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / "root")
        sub = await coco.use_mount(declare_sub, out, "sub")
        sub.declare_file("stays", b"1")
        if below:
            sub.declare_file("f", b"2")
        else:
            out.declare_file("sub/f", b"2")

    flow = make_flow(main)
    for below in (start, not start, start):  # noqa: B007  # main reads it
        flow.update()
        assert contents(flow.tree) == {"sub/stays": b"1", "sub/f": b"2"}
        before = exact_state(flow.root)
        flow.update()
        assert exact_state(flow.root) == before


@coco.fn
async def declare_one(name: str, content: bytes, out: fsmirror.DirTarget) -> None:
    """Declares one file, in a component."""
    out.declare_file(name, content)


def test_several_components_declare_into_one_target(tmp_path: Path, make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / "root")
        out.declare_file("main", b"0")
        for name in ("one", "two"):
            await coco.mount(coco.component_subpath(name), declare_one, name, b"1", out)

    flow = make_flow(main)
    flow.update()
    assert flow.tree == {"main": b"0", "one": b"1", "two": b"1"}


# Roots


def test_relative_root_is_looked_for_in_the_working_directory(
    tmp_path: Path, make_flow: MakeFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(Path("out"))
        out.declare_file("a", b"1")

    flow = make_flow(main)
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        flow.update()
        assert (tmp_path / place / "out" / "a").read_bytes() == b"1"
    assert (tmp_path / "one" / "out" / "a").read_bytes() == b"1"


def test_renaming_a_root_moves_its_files(tmp_path: Path, make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / name)
        out.declare_file("deep/a", b"1")

    flow = make_flow(main)
    for name in ("old", "new"):  # noqa: B007  # main reads it
        flow.update()
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "new/deep/a").read_bytes() == b"1"


@MAINS
def test_changed_context_key_fills_the_new_root(
    make_flow: MakeFlow, main: object, tmp_path: Path
) -> None:
    flow = make_flow(main)
    flow.files = {"a": b"1", "b/c": b"2"}
    flow.update()
    flow.close()
    flow.root = tmp_path / "moved"
    flow.update()
    assert contents(flow.tree) == flow.files
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before


# Failures


@MAINS
def test_bad_file_stops_only_itself(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    for name in ("bad1", "bad2"):
        (flow.root / name).mkdir(parents=True)
        (flow.root / name / "mine").write_bytes(b"foreign")
    flow.files = {"bad1": b"0", "bad2": b"0", "good1": b"1", "good2": b"2"}
    said = flow.attempt()
    assert "bad1/mine" in said
    assert "bad2/mine" in said
    foreign: dict[str, bytes | str] = {
        "bad1": "dir", "bad1/mine": b"foreign", "bad2": "dir", "bad2/mine": b"foreign",
    }  # fmt: skip
    assert flow.tree == {**foreign, "good1": b"1", "good2": b"2"}
    assert flow.attempt()
    (flow.root / "bad1/mine").unlink()
    (flow.root / "bad1").rmdir()
    (flow.root / "bad2/mine").rename(flow.root / "elsewhere")
    (flow.root / "bad2").rmdir()
    flow.update()
    assert flow.tree == {**flow.files, "elsewhere": b"foreign"}


@MAINS
def test_folder_that_may_not_be_removed_is_told_once(
    make_flow: MakeFlow, main: object, caplog: pytest.LogCaptureFixture
) -> None:
    flow = make_flow(main)
    flow.files = {"d/e/x": b"1", "y": b"1"}
    flow.update()
    flow.files = {"y": b"2", "z": b"2"}
    with failing_at(flow.root / "d" / "e", errno.EPERM, ["rmdir"]):
        said = f"{flow.attempt()} {caplog.text}"
        assert "remove 'd/e': Operation not permitted" in said
        assert contents(flow.tree) == flow.files
        caplog.clear()
        for _ in range(2):
            flow.update()
        assert "d/e" not in caplog.text
    assert flow.tree == {**flow.files, "d": "dir", "d/e": "dir"}
    flow.update()
    assert flow.tree == flow.files


def test_error_in_the_main_component_is_ours_and_names_every_path(flow: Flow) -> None:
    for name in ("bad1", "bad2"):
        (flow.root / name / "mine").mkdir(parents=True)
    flow.files = {"bad1": b"0", "bad2": b"0", "good": b"1"}
    with pytest.raises(fsmirror.ApplyError) as caught:
        flow.app.update_blocking()
    assert {e.path for e in caught.value.exceptions if isinstance(e, fsmirror.PathError)} == {
        "bad1",
        "bad2",
    }
    assert str(flow.root) in str(caught.value)


@pytest.mark.parametrize("after", [False, True])
@MAINS
def test_failed_update_is_made_up_for_by_the_next(
    make_flow: MakeFlow, main: object, after: bool
) -> None:
    flow = make_flow(main)
    flow.files = {"a": b"1", "b": b"2", "c/d": b"3"}
    flow.update()
    flow.files = {"a": b"changed", "c/d": b"3", "new": b"4"}
    with failing_sink(after=after):
        assert "BoomError" in flow.attempt()
    flow.close()
    flow.update()
    assert contents(flow.tree) == flow.files


def test_wrong_type_of_content_fails_at_the_declaration(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(flow.root)
        out.declare_file("good", b"1")
        out.declare_file("bad", ["not", "bytes"])  # type: ignore[arg-type]

    flow = make_flow(main)
    with pytest.raises(TypeError, match="list") as caught:
        flow.app.update_blocking()
    assert __file__ in [str(entry.path) for entry in caught.traceback]
    assert flow.tree == {}


def test_a_bad_name_fails_at_the_declaration(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(flow.root)
        out.declare_file("../outside", b"1")  # A mistake of the user.

    flow = make_flow(main)
    with pytest.raises(fsmirror.InvalidNameError, match=r"'\.\./outside'") as caught:
        flow.app.update_blocking()
    assert any("# A mistake of the user" in str(entry.statement) for entry in caught.traceback)
    assert not (flow.root.parent / "outside").exists()


class _Text(str):
    __slots__ = ()


class _Bytes(bytes):
    pass


class _Number(int):
    pass


def test_subclasses_of_plain_types_are_accepted(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(flow.root)
        mode, mtime_ns = _Number(0o640), _Number(1_000_000_000)
        out.declare_file(_Text("f"), _Bytes(b"x" * 10), mode=mode, mtime_ns=mtime_ns)

    flow = make_flow(main)
    flow.update()
    first = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == first
    (flow.root / "f").chmod(0o600)
    flow.update()
    there = (flow.root / "f").stat()
    assert (there.st_mode & 0o777, there.st_mtime_ns, there.st_size) == (0o640, 10**9, 10)
