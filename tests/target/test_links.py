"""Symbolic links: made, changed, replaced by other kinds, and kept inside the root."""

from __future__ import annotations

import itertools
import os
from pathlib import Path, PurePath

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.target.declaring import (
    MakeFlow,
    Out,
    Wanted,
    assert_converged,
    copy,
    declare_sub,
    displaced,
    file,
    folder,
    link,
)
from tests.target.flows import OUT, Declare, Flow
from tests.target.sources import LARGE, fill


def test_links_are_made_changed_and_removed(flow: Flow, wanted: Wanted, source: Path) -> None:
    steps: list[dict[str, str | PurePath]] = [
        {"l": "a", "deep/m": PurePath("../a"), "gone": "no such"},
        {"l": Path("b"), "deep/m": "../a", "new/er": "no such"},
        {"l": "../source"},
        {},
    ]
    for links in steps:
        wanted.clear()
        wanted.update({name: link(to, allow_escape=True) for name, to in links.items()})
        flow.update()
        folders = {name.split("/")[0]: "dir" for name in links if "/" in name}
        assert flow.tree == {name: f"-> {to}" for name, to in links.items()} | folders
        assert_converged(flow)
    assert source.read_bytes() == b"12345"
    assert displaced(flow) == []


def test_path_becomes_each_kind_after_each_other_kind(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    content = fill(source, LARGE)
    kinds: dict[str, tuple[Declare, bytes | str]] = {
        "link": (link("../source", allow_escape=True), "-> ../source"),
        "copy": (copy(source), content),
        "other": (link("elsewhere"), "-> elsewhere"),
        "file": (file(b"1"), b"1"),
        "folder": (folder(), "dir"),
    }
    for kind in itertools.chain(*itertools.permutations(kinds, 2)):
        wanted["x"], shown = kinds[kind]
        flow.update()
        assert flow.tree == {"x": shown}
    assert_converged(flow)
    assert source.read_bytes() == content
    assert displaced(flow) == []


@pytest.mark.parametrize("name", ["l", "d/l"])
@pytest.mark.parametrize(
    ("chain", "depth"), [((), 0), (("sub",), 1), (("s", "u/b"), 3)], ids=["root", "sub", "nested"]
)
def test_link_may_climb_to_the_root_but_not_above_it(
    make_flow: MakeFlow, chain: tuple[str, ...], depth: int, name: str
) -> None:
    climb = "../" * (depth + name.count("/"))
    target, options = f"{climb}x", {"allow_escape": False}

    async def main(_: Flow) -> None:
        out: Out = await fsmirror.mount_dir_target(OUT)
        for part in chain:
            out = await coco.use_mount(coco.component_subpath(part), declare_sub, out, part)
        out.declare_symlink(name, target, **options)

    flow = make_flow(main)
    path = flow.root.joinpath(*chain, name)
    flow.update()
    assert os.readlink(path) == target
    assert path.resolve() == flow.root.resolve() / "x"
    for target in (f"{climb}../x", f"{climb}a/../x", "/etc/passwd"):
        before, options = os.readlink(path), {"allow_escape": False}
        said = flow.attempt()
        assert f"InvalidNameError: invalid name {target!r}: " in said
        assert "allow_escape=True" in said
        assert os.readlink(path) == before
        options = {"allow_escape": True}
        flow.update()
        assert os.readlink(path) == target
