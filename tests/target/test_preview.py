"""Preview: one short line for each planned action, and nothing changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.support import exact_state
from tests.target.declaring import declare_sub
from tests.target.flows import IS_NEW, OUT, Flow, memoized, plain

MakeFlow = Callable[..., Flow]
MAINS = pytest.mark.parametrize("main", [plain, memoized])
needs_preview = pytest.mark.skipif(not IS_NEW, reason="this engine can't preview containers")
FILES = {"index.html": b"x" * 4200, "guide/a b": b"1", "deep/er/c": b"3", "kept": b"4"}


def lines(flow: Flow) -> list[str]:
    """Returns the preview without the line of the root."""
    return [line for line in flow.preview() if not line.startswith("mirror ")]


@needs_preview
@MAINS
def test_preview_of_a_first_update_makes_no_root(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = FILES
    assert lines(flow) == [
        "write deep/er/c (1 B)",
        "write guide/a b (1 B)",
        "write index.html (4.1 KiB)",
        "write kept (1 B)",
    ]
    assert not flow.root.exists()
    flow.update()
    assert lines(flow) == []


@needs_preview
@MAINS
def test_preview_prints_the_actions_of_the_next_update(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = dict(FILES)
    flow.update()
    before = exact_state(flow.root)
    flow.files = {"index.html": b"secret" * 1000, "kept": b"4", "new": b""}
    # The engine does not preview removals of a whole component (see test_engine_facts).
    planned = [] if main is memoized else ["delete deep/er/c", "delete guide/a b"]
    planned += ["write index.html (5.9 KiB)", "write new (0 B)"]
    assert lines(flow) == planned
    assert lines(flow) == planned
    assert exact_state(flow.root) == before
    flow.update()
    assert lines(flow) == []


@needs_preview
@MAINS
@pytest.mark.usefixtures("without_copies")
def test_drift_is_listed_and_not_healed(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.files = dict(FILES)
    flow.update()
    (flow.root / "kept").write_bytes(b"edited")
    (flow.root / "deep/er/c").unlink()
    before = exact_state(flow.root)
    assert lines(flow) == ["write deep/er/c (1 B)", "write kept (1 B)"]
    assert exact_state(flow.root) == before
    flow.update()
    assert lines(flow) == []


@needs_preview
def test_contents_are_never_shown(flow: Flow) -> None:
    flow.files = {"a": b"secret content", "line\nbreak": b"secret content"}
    shown = "".join(flow.preview())
    assert "secret" not in shown
    assert "\n" not in shown
    assert "line\\nbreak" in shown


@needs_preview
def test_undeclared_root_stays_during_a_preview(make_flow: MakeFlow) -> None:
    declared = True

    async def main(flow: Flow) -> None:
        if declared:
            await plain(flow)

    flow = make_flow(main)
    flow.files = dict(FILES)
    flow.update()
    before = exact_state(flow.root)
    declared = False
    assert "write" not in "".join(flow.preview())
    assert exact_state(flow.root) == before


@needs_preview
def test_a_folder_is_listed_as_made_only_while_it_is_missing(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        (await coco.use_mount(declare_sub, out, "s/u/b")).declare_file("a", b"1")

    flow = make_flow(main)
    assert lines(flow) == ["make s/u/b/", "write s/u/b/a (1 B)"]
    assert not flow.root.exists()
    flow.update()
    assert [line for line in lines(flow) if line.startswith(("make", "write"))] == []


@pytest.mark.skipif(IS_NEW, reason="this engine previews containers")
def test_older_engine_refuses_a_preview_and_changes_nothing(flow: Flow) -> None:
    flow.files = {"a": b"1"}
    with pytest.raises(ValueError, match="preview"):
        flow.preview()
    assert not flow.root.exists()
    flow.update()
    before = exact_state(flow.root)
    flow.files = {"a": b"2"}
    with pytest.raises(ValueError, match="preview"):
        flow.preview()
    assert exact_state(flow.root) == before


# The command line

MAIN = """
import pathlib
import cocoindex as coco
import cocoindex_fsmirror as fsmirror

async def main(files):
    out = await fsmirror.mount_dir_target(pathlib.Path("site"))
    for name in files:
        out.declare_file(name, "content of " + name)

app = coco.App("site", main, files=["index.html", "guide/start.html"])
"""


def cocoindex(at: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs the engine's command in a folder."""
    quiet = {"COCOINDEX_DISABLE_USAGE_TRACKING": "1", "COCOINDEX_DB": str(at / "db")}
    return subprocess.run(
        [sys.executable, "-c", "from cocoindex.cli import cli; cli()", *args],
        cwd=at, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_the_command_line_previews(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    shown = cocoindex(tmp_path, "update", "--preview", "main.py")
    assert not (tmp_path / "site").exists()
    if IS_NEW:
        assert shown.returncode == 0, shown.stderr
        assert "write index.html (21 B)" in shown.stdout
        assert "write guide/start.html (27 B)" in shown.stdout
        assert "content of" not in shown.stdout
    else:
        assert shown.returncode != 0
        assert "preview" in shown.stderr
    done = cocoindex(tmp_path, "update", "main.py")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/guide/start.html").read_text() == "content of guide/start.html"
