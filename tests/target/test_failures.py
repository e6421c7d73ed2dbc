"""Failures are told: to the caller where the engine lets us, and always in one log line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._mirror.writer import Writer
from tests.support import contents
from tests.target.conftest import heard
from tests.target.flows import IS_NEW, OUT, Flow, memoized, page, plain, ran

MakeFlow = Callable[..., Flow]
FILES = {f"{number % 3}/{number}": b"%d" % number for number in range(60)}
RETRIED = "tried again by the next update"


async def nested(flow: Flow) -> None:
    """Declares every file in a component below one that is mounted in the background."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    await coco.mount(coco.component_subpath("all"), each, flow, out)


async def each(flow: Flow, out: fsmirror.DirTarget) -> None:
    """Mounts a component for every file."""
    await coco.mount_each(page, [(name, (name, flow.files[name])) for name in flow.files], out)


APART = pytest.mark.parametrize("main", [memoized, nested])


@APART
def test_stopped_update_is_told_in_one_line(
    make_flow: MakeFlow, lines: list[str], main: object
) -> None:
    flow = make_flow(main)
    flow.files, flow.options = FILES, {"max_delete": 3}
    flow.update()
    flow.files = {}
    for _ in range(2):
        flow.attempt()
        kept = len(contents(flow.tree))
        assert kept >= 54
        line = heard(lines)
        assert f"{flow.root}: {len(FILES)} of 60 files would be removed" in line or "of 5" in line
        assert "allow at least" in line
        # Only those below a component that is mounted have a handler, and it hears of one.
        assert len(flow.failed) <= (main is nested)
        lines.clear()
    flow.options = {}
    flow.update()
    assert contents(flow.tree) == {}
    assert lines == []


def test_refused_removals_of_a_running_component_reach_the_caller(
    flow: Flow, lines: list[str]
) -> None:
    flow.files, flow.options = FILES, {"max_delete": 3}
    flow.update()
    flow.files = {}
    with pytest.raises(fsmirror.TooManyRemovalsError, match="60 of 60 files") as caught:
        flow.app.update_blocking()
    line = heard(lines)  # Though somebody keeps the error.
    assert line == str(caught.value)


def test_caller_hears_of_its_own_refusal_after_those_of_others(
    make_flow: MakeFlow,
) -> None:
    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT, max_delete=0)
        if flow.files:
            out.declare_file("own", b"1")
        await coco.mount(coco.component_subpath("all"), each, flow, out)

    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    flow.files = {}
    with pytest.raises(fsmirror.TooManyRemovalsError, match="61 of 61 files"):
        flow.app.update_blocking()


@coco.fn(memo=True)
async def perhaps(item: tuple[str, bool], out: fsmirror.DirTarget) -> None:
    """Declares two files, or one."""
    out.declare_file(f"{item[0]}/always", b"1")
    if item[1]:
        out.declare_file(f"{item[0]}/perhaps", b"1")


def test_every_component_that_still_runs_hears_of_its_refusal(
    make_flow: MakeFlow, lines: list[str]
) -> None:
    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT, max_delete=0)
        names = [f"{number}" for number in range(6)]
        await coco.mount_each(perhaps, [(n, (n, bool(flow.files))) for n in names], out)

    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    flow.files = {}
    assert flow.attempt().count("max_delete=0 allows 0") >= 6
    assert heard(lines)


@APART
def test_failed_removals_are_told_in_one_line_and_tried_again(
    make_flow: MakeFlow, lines: list[str], immovable: set[str], main: object
) -> None:
    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    flow.files = {}
    immovable.add("*")
    for _ in range(2):
        flow.attempt()
        line = heard(lines)
        assert line.startswith(f"{flow.root}: 60 failures, {RETRIED}: remove ")
        assert line.endswith("; and 55 more")
        assert "Operation not permitted (is it immutable, or owned by someone else?)" in line
        assert len(flow.failed) <= (main is nested)
        lines.clear()
    immovable.clear()
    flow.update()
    assert (contents(flow.tree), lines) == ({}, [])


def test_one_failed_removal_stops_only_itself(
    make_flow: MakeFlow,
    lines: list[str],
    immovable: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = make_flow(nested)
    flow.files = FILES
    flow.update()
    flow.files = {"0/0": b"0"}
    immovable.add("1/1")
    flow.attempt()
    assert contents(flow.tree) == {"0/0": b"0", "1/1": b"1"}
    assert f"1 failure, {RETRIED}: remove '1/1': Operation not permitted" in heard(lines)
    asked: list[str] = []
    real = Writer.apply

    def apply(mirror: fsmirror.Mirror, intents: list[Intent], *more: Any, **options: Any) -> object:
        asked.extend(intent.name for intent in intents)
        return real(mirror, intents, *more, **options)

    monkeypatch.setattr(Writer, "apply", apply)
    flow.attempt()
    assert "1/1" in asked
    assert len(asked) == 1 or not IS_NEW  # Newer engines told it from the others.
    immovable.clear()
    flow.update()
    assert contents(flow.tree) == flow.files


def test_failed_writes_of_components_are_told_in_one_line_too(
    make_flow: MakeFlow, lines: list[str]
) -> None:
    flow = make_flow(memoized)
    flow.root.mkdir()
    for number in range(9):
        (flow.root / f"{number}").mkdir()
        (flow.root / f"{number}" / "theirs").touch()
    flow.files = {f"{number}": b"1" for number in range(12)}
    said = flow.attempt()
    assert len(contents(flow.tree)) == 12
    flow.close()
    line = heard(lines)
    assert f"9 failures, {RETRIED}: write " in line
    assert said.count("foreign entries") >= 9  # Each component that failed hears of it.


def test_files_of_one_component_that_is_gone_are_told_together(
    make_flow: MakeFlow, lines: list[str], immovable: set[str]
) -> None:
    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        if flow.files:
            await coco.mount(coco.component_subpath("one"), several, flow, out)

    async def several(flow: Flow, out: fsmirror.DirTarget) -> None:
        for name, content in flow.files.items():
            out.declare_file(name, content)

    flow = make_flow(main)
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    flow.files = {}
    immovable.add("a")
    flow.attempt()
    assert contents(flow.tree) == {"a": b"1"}
    assert heard(lines)
    immovable.clear()
    flow.update()
    assert contents(flow.tree) == {}


@pytest.mark.parametrize("count", [1, 8])
def test_single_files_that_fail_are_told_in_a_line_a_batch(
    make_flow: MakeFlow, tmp_path: Path, lines: list[str], immovable: set[str], count: int
) -> None:
    async def alone(name: str) -> None:
        fsmirror.declare_file(tmp_path / "alone" / name, b"1")

    async def main(flow: Flow) -> None:
        await coco.mount_each(alone, [(name, name) for name in flow.files])

    flow = make_flow(main)
    flow.files = {f"{number}": b"1" for number in range(count)}
    flow.update()
    flow.files = {}
    immovable.add("*")
    for _ in range(2):
        flow.attempt()
        assert 1 <= len(lines) <= 3  # The engine makes a batch of what comes during another.
        assert all(line.startswith(f"{tmp_path}/alone: ") for line in lines)
        assert sum(int(line.split()[1]) for line in lines) == count
        lines.clear()
    immovable.clear()
    flow.update()
    assert not (tmp_path / "alone").exists()


def test_error_of_single_files_names_their_folder_once(
    make_flow: MakeFlow, tmp_path: Path, immovable: set[str]
) -> None:
    async def main(flow: Flow) -> None:
        for name, content in flow.files.items():
            fsmirror.declare_file(tmp_path / "alone" / name, content)

    flow = make_flow(main)
    flow.files = {"a": b"1", "b": b"1"}
    flow.update()
    flow.files = {}
    immovable.add("*")
    said = flow.attempt()
    assert f"ApplyError: {tmp_path}/alone: 2 failed: " in said
    assert "remove 'a'" in said
    assert "remove 'b'" in said
    immovable.clear()
    flow.update()


async def gone_whole(flow: Flow) -> None:
    """Declares files in components below one that is not mounted if there are no files."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    out.declare_file("own", b"own")
    if flow.files:
        await coco.mount(coco.component_subpath("all"), each, flow, out)


def test_refused_removals_below_a_component_that_is_gone_are_made_up_for(
    make_flow: MakeFlow, lines: list[str]
) -> None:
    """The engine itself forgets them."""
    flow = make_flow(gone_whole)
    flow.files, flow.options = FILES, {"max_delete": 3}
    flow.update()
    flow.files = {}
    for _ in range(3):
        assert flow.attempt() == ""
        assert len(contents(flow.tree)) >= 58
        assert "files would be removed" in heard(lines)
        lines.clear()
    flow.files = {"0/0": b"0"}
    flow.options = {"max_delete": 60}
    flow.update()
    assert contents(flow.tree) == {"own": b"own", "0/0": b"0"}
    for _ in range(2):  # The engine runs a component that came back once more.
        flow.update()
    assert (ran, lines) == ([], [])
    assert contents(flow.tree) == {"own": b"own", "0/0": b"0"}


def test_failed_removals_below_a_component_that_is_gone_are_tried_again(
    make_flow: MakeFlow, lines: list[str], immovable: set[str]
) -> None:
    flow = make_flow(gone_whole)
    flow.files = FILES
    flow.update()
    flow.files = {}
    immovable.add("1/1")
    for _ in range(3):
        assert flow.attempt() == ""
        assert contents(flow.tree) == {"own": b"own", "1/1": b"1"}
        line = heard(lines)
        assert f"1 failure, {RETRIED}: remove '1/1'" in line
        lines.clear()
    immovable.clear()
    flow.update()
    assert contents(flow.tree) == {"own": b"own"}


@pytest.mark.parametrize("is_below", [False, True])
def test_root_whose_removal_fails_is_told(
    make_flow: MakeFlow, lines: list[str], immovable: set[str], is_below: bool
) -> None:
    async def main(flow: Flow) -> None:
        if flow.files and is_below:
            await coco.mount(coco.component_subpath("one"), plain, flow)
        elif flow.files:
            await plain(flow)

    flow = make_flow(main)
    flow.files = FILES
    flow.update()
    flow.files = {}
    immovable.add("1/1")
    flow.attempt()
    assert contents(flow.tree) == {"1/1": b"1"}
    line = heard(lines)
    assert line.startswith(f"{flow.root}: 1 failure, {RETRIED} or by fsmirror drop: remove '1/1'")
    immovable.clear()
    flow.update()
    # The engine forgets what fails below a component that is gone; hence the second half.
    assert flow.root.exists() is is_below


def test_mount_that_fails_in_the_background_is_told(make_flow: MakeFlow, lines: list[str]) -> None:
    async def main(flow: Flow) -> None:
        await coco.mount(coco.component_subpath("one"), plain, flow)

    flow = make_flow(main)
    flow.root.mkdir()
    (flow.root / ".fsmirror").write_text("in the way")
    assert "can't be written" in flow.attempt()
    assert heard(lines).startswith(f"{flow.root}: can't be written")


SCRIPT = """
    import os, pathlib, sys
    import cocoindex as coco
    import cocoindex_fsmirror as fsmirror

    top = pathlib.Path(sys.argv[1])
    names = [str(number) for number in range(300)]

    @coco.fn(memo=True)
    async def page(name: str, out: fsmirror.DirTarget) -> None:
        out.declare_file(name, name)

    async def main() -> None:
        out = await fsmirror.mount_dir_target(top / "out", max_delete=0.1)
        await coco.mount_each(page, [(name, name) for name in names], out)

    environment = coco.Environment(coco.Settings(db_path=top / "db"))
    app = coco.App(coco.AppConfig(name="app", environment=environment), main)
    app.update_blocking()
    names.clear()
    app.update_blocking()
    assert len(os.listdir(top / "out")) > 270
"""


def test_engine_prints_one_traceback_for_300_refused_removals(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"RUST_LOG": "warn", "COCOINDEX_DISABLE_USAGE_TRACKING": "1"},
    )
    printed = ran.stdout + ran.stderr
    assert printed.count("Traceback") <= 1
    # One that the engine prints, and ours.
    assert 1 <= printed.count("files would be removed") <= 2
    assert f"{tmp_path}/out: 300 of 300 files would be removed" in ran.stderr
