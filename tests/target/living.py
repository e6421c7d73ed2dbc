"""A flow that follows a folder, and what happens to its outputs meanwhile.

Each scenario runs in a process of its own: the engine leaves coroutines behind where a live
update is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import cocoindex as coco
from cocoindex.connectors import localfs

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._disk import watch as _watch
from cocoindex_fsmirror._target import guard as _guard
from tests.support import backups, contents
from tests.target.flows import OUT, Flow, ran

PATIENCE: Final = 60.0  # Seconds, on a busy machine.
FILES: Final = {f"{n}": b"content %d" % n for n in range(5)}
told: Final[list[str]] = []
"""The log."""


@coco.fn(memo=True)
async def page(file: localfs.File, out: fsmirror.DirTarget) -> None:
    """Declares a copy of a file, in a memoized component."""
    ran.append(file.file_path.path.name)
    out.declare_file(file.file_path.path.name, await file.read())


class Following(Flow):
    """A flow that follows a folder with some files."""

    def __init__(self, at: Path) -> None:
        self.source = at / "source"
        self.source.mkdir()
        for name, content in FILES.items():
            (self.source / name).write_bytes(content)
        super().__init__(at, self._follow)

    async def _follow(self, _flow: Flow) -> None:
        """Declares a copy of each file, and goes on."""
        out = await fsmirror.mount_dir_target(OUT, **self.options)
        walk = localfs.walk_dir(self.source, recursive=True, live=True)
        await coco.mount_each(page, walk.items(), out)

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Runs a live update for the time of a block."""
        update = asyncio.ensure_future(self.app.update(live=True).result())
        await until(lambda: contents(self.tree) == FILES)
        assert sorted(ran) == sorted(FILES)
        ran.clear()
        yield
        update.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await update


async def until(is_so: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.05)


def guards() -> list[threading.Thread]:
    """Lists the threads that heal."""
    return [each for each in threading.enumerate() if "guard of" in each.name]


def said(text: str) -> int:
    """Counts the log lines with a text."""
    return sum(text in line for line in told)


# Scenarios


async def outputs_come_back(flow: Following) -> None:
    """Edits an output, and deletes another one."""
    async with flow.living():
        (flow.root / "1").write_bytes(b"edited")
        (flow.root / "2").unlink()
        await until(lambda: contents(flow.tree) == FILES)
        assert ran == []
    assert backups(flow.root) == [b"edited"]


async def folder_comes_back(flow: Following) -> None:
    """Removes the whole folder of outputs."""
    flow.options["state"] = flow.root.with_name("state")
    async with flow.living():
        shutil.rmtree(flow.root)
        await until(lambda: contents(flow.tree) == FILES)
        assert ran == []


async def source_is_followed_still(flow: Following) -> None:
    """Changes a source each time that another output was edited."""
    async with flow.living():
        for number in range(3):
            wanted = FILES | {"2": b"new %d" % number}
            (flow.root / "1").write_bytes(b"edited")
            (flow.source / "2").write_bytes(wanted["2"])
            await until(lambda wanted=wanted: contents(flow.tree) == wanted)  # type: ignore[misc]
        assert {*ran} == {"2"}


async def path_without_a_copy_is_told_once(flow: Following) -> None:
    """Edits outputs of which no copies are kept."""
    flow.options["copies"] = "none"
    async with flow.living():
        for name in ("1", "2"):
            (flow.root / name).write_bytes(b"edited")
            line = f"changed, and left to the next update: {name!r}"
            await until(lambda line=line: said(line) == 1)  # type: ignore[misc]
    assert said("left to the next update") == 2, told


async def fight_ends_by_name(flow: Following) -> None:
    """Writes one output again and again."""
    async with flow.living():

        def is_told() -> bool:
            (flow.root / "1").write_bytes(b"theirs")
            return said("'1' was changed 5 times within a minute") == 1

        await until(is_told)
        (flow.root / "2").unlink()
        await until((flow.root / "2").exists)
        assert (flow.root / "1").read_bytes() == b"theirs"


async def missed_event_is_made_good(flow: Following) -> None:
    """Edits an output while no event arrives."""
    setattr(_guard, "_TIMING", _watch.Timing(poll=1.0))  # noqa: B010
    async with flow.living():
        (flow.root / "1").write_bytes(b"edited")
        await until(lambda: contents(flow.tree) == FILES)


async def look_at_nothing_has_no_guard(flow: Following) -> None:
    """Looks for no drift."""
    flow.options["verify"] = "none"
    async with flow.living():
        assert guards() == []


SCENARIOS: Final = {
    each.__name__: each
    for each in (
        outputs_come_back,
        folder_comes_back,
        source_is_followed_still,
        path_without_a_copy_is_told_once,
        fight_ends_by_name,
        missed_event_is_made_good,
        look_at_nothing_has_no_guard,
    )
}


class _Log(logging.Handler):
    """Keeps the lines of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line."""
        told.append(record.getMessage())


def main(scenario: str, at: Path) -> None:
    """Runs a scenario; no guard outlives its event loop, and a drop removes everything."""
    logging.getLogger("cocoindex_fsmirror").addHandler(_Log())
    flow = Following(at)
    asyncio.run(SCENARIOS[scenario](flow))
    deadline = time.monotonic() + PATIENCE
    while guards():
        assert time.monotonic() < deadline, guards()
        time.sleep(0.05)
    flow.close()
    if scenario != "fight_ends_by_name":
        while error := flow.attempt():  # The engine ends a live update a moment after its loop.
            assert time.monotonic() < deadline, error
            flow.close()
            time.sleep(0.05)
        assert guards() == []
        assert contents(flow.tree).keys() == FILES.keys()
    flow.drop()
    print("done")  # noqa: T201  # For the test.


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
