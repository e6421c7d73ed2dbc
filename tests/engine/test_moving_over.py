"""A flow that swaps its import moves over: nothing is lost, and nothing is written."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from cocoindex.connectors import localfs

from cocoindex_fsmirror._moving import guard
from tests.support import contents, snapshot

FLOW = """
    import pathlib, sys
    import cocoindex as coco
    from cocoindex.connectors import localfs as source_of_other_files
    from {package} as target

    top = pathlib.Path({top!r})

    async def main():
        out = await target.mount_dir_target(top / "out")
        out.declare_file("a.txt", "A")
        out.declare_file("sub/b.txt", "B", create_parent_dirs=True)
        target.declare_file(top / "single" / "c.txt", "C", create_parent_dirs=True)
        if {with_old}:
            out.declare_file("old.txt", "old")

    environment = coco.Environment(coco.Settings(db_path=top / "db"))
    coco.App(coco.AppConfig(name="moving", environment=environment), main).update_blocking()
"""


def _update(top: Path, package: str, *, with_old: bool = False) -> str:
    """Runs the flow in a process of its own; returns what it logged."""
    script = FLOW.format(package=package, top=str(top), with_old=with_old)
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return ran.stderr


LOCALFS = "cocoindex.connectors import localfs"
OURS = "cocoindex_fsmirror import _target"


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A place where the flow ran with localfs, beside a user's own file."""
    _update(tmp_path, LOCALFS, with_old=True)
    (tmp_path / "out" / "user.txt").write_text("mine")
    return tmp_path


def _move(top: Path) -> str:
    """The same flow with the import swapped."""
    return _update(top, OURS)


def test_moving_over_keeps_every_file(moved: Path) -> None:
    before = contents(snapshot(moved / "out"))
    log = _move(moved)
    assert contents(snapshot(moved / "out")) == before
    assert contents(snapshot(moved / "single")) == {"c.txt": b"C"}
    assert "localfs gave it up" in log


def test_moving_over_writes_nothing(moved: Path) -> None:
    seen = (moved / "out" / "a.txt").stat()
    _move(moved)
    now = (moved / "out" / "a.txt").stat()
    assert (now.st_ino, now.st_ctime_ns) == (seen.st_ino, seen.st_ctime_ns)


def test_localfs_still_deletes_what_is_in_no_mirror(tmp_path: Path) -> None:
    _update(tmp_path, LOCALFS, with_old=True)
    assert (tmp_path / "out" / "old.txt").exists()
    _update(tmp_path, LOCALFS)
    assert not (tmp_path / "out" / "old.txt").exists()


def test_the_function_that_deletes_is_known_in_this_release() -> None:
    assert guard(localfs)
    assert guard(localfs), "a second time it is guarded already"


def test_a_release_that_deletes_in_another_way_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cocoindex_fsmirror")
    assert not guard(ModuleType("localfs"))
    assert "not guarded" in caplog.text
