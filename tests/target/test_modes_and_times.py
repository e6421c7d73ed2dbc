"""Modes and times that are asked for are kept, of folders also while their contents change."""

from __future__ import annotations

import os
from pathlib import Path

import cocoindex as coco

import cocoindex_fsmirror as fsmirror
from tests.support import contents, exact_state
from tests.target.declaring import (
    MakeFlow,
    Wanted,
    assert_converged,
    copy,
    declare_sub,
    dress,
    file,
    folder,
    link,
)
from tests.target.flows import OUT, Flow, page, ran
from tests.target.sources import LARGE, THEN, fill


def test_modes_and_times_are_healed_and_changed_without_a_write(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    def want(mode: int, then: int) -> None:
        wanted["copy"] = copy(source, preserve=("mtime",), mode=mode)
        wanted["file"] = file(b"1", mode=mode, mtime_ns=then)
        wanted["link"] = link("x", mtime_ns=then)
        wanted["folder"] = folder(mode=mode, mtime_ns=then)
        os.utime(source, ns=(then, then))

    def inodes() -> dict[str, int]:
        return {name: (flow.root / name).lstat().st_ino for name in wanted}

    fill(source, LARGE)
    want(0o750, THEN)
    flow.update()
    before = inodes()
    for mode, then in ((0o750, THEN), (0o750, THEN + 1), (0o701, THEN + 1), (0o700, 5)):
        for name in wanted:
            (flow.root / name).chmod(0o777) if name != "link" else None
            os.utime(flow.root / name, ns=(7, 7), follow_symlinks=False)
        want(mode, then)
        flow.update()
        found = {name: dress(flow.root / name) for name in wanted}
        assert found == dict.fromkeys(wanted, (mode, then)) | {"link": (0o777, then)}
        assert inodes() == before
        assert_converged(flow)


STEPS: list[tuple[dict[str, str], list[str]]] = [
    ({}, []),
    ({"s/ub|a": "1", "s/ub/inner|b": "1", "|s/ub/c": "1"}, ["a", "b", "s/ub/c"]),
    ({"s/ub|a": "2", "s/ub/inner|b": "1", "|s/ub/c": "1"}, ["a"]),
    ({"s/ub|a": "2", "s/ub/inner|b": "1", "s/ub/inner|n/e/w": "1"}, ["n/e/w"]),
    ({"s/ub|a": "2", "|s/ub/d": "1"}, ["s/ub/d"]),
    ({"s/ub|a": "2"}, []),
    ({}, []),
]
"""What is declared, by directory target and name, and which components run for it."""


def test_folders_keep_mode_and_time_while_their_contents_change(
    make_flow: MakeFlow,
) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        sub = await coco.use_mount(declare_sub, out, "s/ub", 0o750, THEN)
        at = coco.component_subpath("inner")
        inner = await coco.use_mount(at, declare_sub, sub, "inner", 0o711, THEN + 1)
        for where, target in (("", out), ("s/ub", sub), ("s/ub/inner", inner)):
            split = [(key.split("|"), text) for key, text in texts.items()]
            items = [(n, (n, text.encode())) for (place, n), text in split if place == where]
            await coco.mount_each(coco.component_subpath(f"in {where}"), page, items, target)

    flow = make_flow(main)
    for texts, ran_now in STEPS:
        flow.update()
        assert sorted(ran) == ran_now
        found = {key.replace("|", "/").lstrip("/"): text.encode() for key, text in texts.items()}
        assert contents(flow.tree) == found
        for _ in range(2):
            before = exact_state(flow.root)
            assert dress(flow.root / "s/ub") == (0o750, THEN)
            assert dress(flow.root / "s/ub/inner") == (0o711, THEN + 1)
            flow.update()
            assert ran == []
            assert exact_state(flow.root) == before


def test_mode_and_time_of_a_folder_follow_the_declaration(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        sub = await coco.use_mount(declare_sub, out, "sub", *asked)
        sub.declare_file("a", b"1")

    flow = make_flow(main)
    for asked in ((0o750, THEN), (0o050, THEN + 1), (0o711, None), (None, THEN), (None, None)):
        flow.update()
        mode, then = dress(flow.root / "sub")
        assert asked[0] is None or mode == asked[0] | 0o700
        assert asked[1] is None or then == asked[1]
        assert_converged(flow)
    (flow.root / "sub").chmod(0o777)
    os.utime(flow.root / "sub", ns=(7, 7))
    flow.update()
    assert dress(flow.root / "sub") == (0o777, 7)
