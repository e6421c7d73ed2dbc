"""Contradicting declarations are an error that names both, until one of them goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._target.actions import Change, Place
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.sink import apply_actions, mirror_at
from cocoindex_fsmirror._target.specs import Options, RootUpdate
from tests.support import contents, delete, exact_state
from tests.target.declaring import declare_sub
from tests.target.flows import OUT, Flow, memoized, page

MakeFlow = Callable[..., Flow]


def test_file_and_file_below_it_in_one_component_fail_with_both_names(
    flow: Flow,
) -> None:
    flow.files = {"a": b"1", "a/b": b"2", "good": b"3"}
    said = flow.attempt()
    assert "'a'" in said
    assert "'a/b'" in said
    assert flow.tree == {"good": b"3"}


def test_file_and_file_below_it_in_two_components_fail_with_both_names(
    make_flow: MakeFlow,
) -> None:
    flow = make_flow(memoized)
    flow.files = {"a": b"1", "a/b": b"2", "good": b"3"}
    said = [flow.attempt(), flow.attempt()]
    assert "'a'" in said[1]
    assert "'a/b'" in said[1]
    for _ in range(4):
        # Never silently, whichever of the two is in place.
        assert flow.attempt()
        standing = contents(flow.tree)
        assert standing in ({"a": b"1", "good": b"3"}, {"a/b": b"2", "good": b"3"})
    del flow.files["a" if "a" in standing else "a/b"]
    flow.attempt()
    flow.update()
    assert contents(flow.tree) == flow.files


@pytest.mark.parametrize("goes", ["main", "component"])
def test_conflict_of_main_and_a_component_ends_when_either_is_gone(
    make_flow: MakeFlow, goes: str
) -> None:
    in_main, in_component = True, False

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        if in_main:
            out.declare_file("a", b"of main")
        if in_component:
            await coco.mount(page, ("a/b", b"of the component"), out)

    flow = make_flow(main)
    flow.update()
    in_component = True
    said = flow.attempt() + flow.attempt()
    assert "'a'" in said
    assert "'a/b'" in said
    in_main, in_component = goes != "main", goes != "component"
    flow.attempt()
    flow.update()
    left = {"a": b"of main"} if in_main else {"a/b": b"of the component"}
    assert contents(flow.tree) == left


def test_conflict_ends_when_the_losing_sub_directory_is_undeclared(
    make_flow: MakeFlow,
) -> None:
    declared = False

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        out.declare_file("sub/f", b"of the root")
        if declared:
            sub = await coco.use_mount(declare_sub, out, "sub")
            await coco.mount(coco.component_subpath("f"), page, ("f", b"of the sub"), sub)

    flow = make_flow(main)
    flow.update()
    declared = True
    assert "sub/f" in flow.attempt() + flow.attempt()
    declared = False
    flow.attempt()
    flow.update()
    assert flow.tree == {"sub": "dir", "sub/f": b"of the root"}
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before
    assert fsmirror.Mirror(flow.root).verify() == []


def test_applied_removal_withdraws_the_declaration(tmp_path: Path) -> None:
    update = RootUpdate()
    place = Place(RootKey(None, str(tmp_path)), "owner", Options(), update)
    intent = delete("a", container="sub//")
    assert update.declarations.add(intent.name, "sub//", "/one", is_file=True) == ROOT
    apply_actions(None, [Change(place, intent)])
    assert update.declarations.add(Name("a/b"), "", "/two", is_file=True) == ROOT
    mirror_at(str(tmp_path)).close()
