"""Names that are not UTF-8 are declared, healed, previewed and torn down as all others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.support import Tree
from tests.target.declaring import MakeFlow, assert_converged, declare_sub, displaced, file, link
from tests.target.flows import IS_NEW, Flow, ran

LATIN, BYTE, DEEP = map(os.fsdecode, (b"caf\xe9", b"\xff", b"d\xfe/in\xff"))
FACE = "\U0001f600"  # As text it comes after the surrogates of the others, as bytes before.
FILES = {LATIN: b"1", BYTE: b"2", DEEP: b"3", FACE: b"4", "plain": b"5"}
TREE: Tree = {**FILES, os.path.dirname(DEEP): "dir"}


@coco.fn(memo=True)
async def _page(item: tuple[bytes, bytes], out: fsmirror.DirTarget) -> None:
    """Declares one file; the engine takes such a name as bytes only."""
    ran.append(os.fsdecode(item[0]))
    out.declare_file(os.fsdecode(item[0]), item[1])


async def _memoized(flow: Flow) -> None:
    """Declares every file in a memoized component of its own, whose key is bytes."""
    out = await fsmirror.mount_dir_target(flow.root)
    items = [(os.fsencode(name), content) for name, content in flow.files.items()]
    await coco.mount_each(_page, [(item[0], item) for item in items], out)


@pytest.mark.parametrize("main", [None, _memoized])
@pytest.mark.usefixtures("without_copies")
def test_files_with_byte_names_come_drift_and_go(make_flow: MakeFlow, main: Any) -> None:
    flow = make_flow(main)
    flow.files = dict(FILES)
    flow.update()
    assert flow.tree == TREE
    assert_converged(flow)
    (flow.root / LATIN).write_bytes(b"edited")
    (flow.root / DEEP).unlink()
    flow.update()
    assert {LATIN, DEEP} == set(ran) or main is None
    assert flow.tree == TREE
    assert displaced(flow) == [b"edited"]
    flow.files = {"plain": b"5"}
    flow.update()
    assert flow.tree == {"plain": b"5"}


def test_link_and_its_target_may_be_no_text(make_flow: MakeFlow) -> None:
    flow = make_flow()
    flow.wanted = {BYTE: link(LATIN), LATIN: file(b"1")}
    flow.update()
    assert flow.tree == {BYTE: f"-> {LATIN}", LATIN: b"1"}
    assert_converged(flow)
    (flow.root / BYTE).unlink()
    flow.update()
    assert os.readlink(flow.root / BYTE) == LATIN


async def _nested(flow: Flow) -> None:
    """Declares the files below a directory target whose name is no text, while there are any."""
    out = await fsmirror.mount_dir_target(flow.root)
    if flow.files:
        sub = await coco.use_mount(coco.component_subpath(b"\xff"), declare_sub, out, LATIN)
        await coco.mount(coco.component_subpath("files"), _fill, sub, list(flow.files.items()))


@coco.fn
async def _fill(out: fsmirror.DirTarget, items: list[tuple[str, bytes]]) -> None:
    for name, content in items:
        out.declare_file(name, content)


def test_nested_target_with_a_byte_name_is_filled_and_closed(make_flow: MakeFlow) -> None:
    flow = make_flow(_nested)
    flow.files = dict(FILES)
    flow.update()
    inside: Tree = {f"{LATIN}/{name}": state for name, state in TREE.items()}
    assert flow.tree == inside | {LATIN: "dir"}
    assert_converged(flow)
    flow.files = {}
    flow.update()
    assert flow.tree == {}


def test_root_with_a_byte_name_is_mirrored_and_dropped(make_flow: MakeFlow, tmp_path: Path) -> None:
    flow = make_flow(_nested)
    flow.root = tmp_path / BYTE / LATIN
    flow.files = dict(FILES)
    flow.update()
    assert (flow.root / LATIN / DEEP).read_bytes() == b"3"
    assert_converged(flow)
    (flow.root / LATIN / BYTE).unlink()
    flow.update()
    assert (flow.root / LATIN / BYTE).read_bytes() == b"2"
    flow.drop()
    assert not (tmp_path / BYTE).exists()


async def _single(flow: Flow) -> None:
    """Declares each file by itself."""
    for name, content in flow.files.items():
        fsmirror.declare_file(flow.root / name, content)


def test_single_file_with_a_byte_name_is_declared_and_removed(make_flow: MakeFlow) -> None:
    flow = make_flow(_single)
    flow.files = dict(FILES)
    flow.update()
    assert {name: (flow.root / name).read_bytes() for name in FILES} == FILES
    (flow.root / LATIN).write_bytes(b"edited")
    flow.update()
    assert (flow.root / LATIN).read_bytes() == b"1"
    flow.files = {"plain": b"5"}
    flow.update()
    assert not (flow.root / LATIN).exists()
    assert not (flow.root / DEEP).exists()


@pytest.mark.skipif(not IS_NEW, reason="this engine can't preview containers")
def test_preview_shows_byte_names_escaped(make_flow: MakeFlow) -> None:
    flow = make_flow()
    flow.files = {LATIN: b"1"}
    flow.update()
    flow.files = {BYTE: b"2"}
    shown = flow.preview()
    assert any(r"write '\udcff' (1 B)" in line for line in shown)
    assert any(r"delete 'caf\udce9'" in line for line in shown)
    assert "\n".join(shown).encode()


def test_failed_path_with_a_byte_name_is_named_escaped(make_flow: MakeFlow) -> None:
    flow = make_flow()
    flow.files = {LATIN: b"1", "plain": b"5"}
    (flow.root / LATIN).mkdir(parents=True)
    (flow.root / LATIN / "theirs").touch()
    told = flow.attempt()
    assert r"caf\udce9" in told
    assert told.encode()
    assert flow.tree == {"plain": b"5", LATIN: "dir", f"{LATIN}/theirs": b""}
