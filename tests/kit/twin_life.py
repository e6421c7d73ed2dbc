"""A process with a real app, which updates as it is told on its standard input, and dies so.

Each line is a literal of an :class:`Order`. What is said on standard output are the
phases of an update: the last one that was heard tells how far a killed process got.
"""

from __future__ import annotations

import ast
import functools
import gc
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import cocoindex as coco

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._disk import calls, roots, staging, tree
from cocoindex_fsmirror._mirror.writer import Writer
from cocoindex_fsmirror._target import sink
from tests.reopening import reopened

Files: TypeAlias = dict[str, dict[str, bytes | None]]
"""What each component declares, by path; ``None`` stands for a folder."""

_DISK = {module.__file__ for module in (calls, roots, staging, tree)}


class Order(NamedTuple):
    """One update.

    ``at`` is the folder with the root and the database; ``is_fresh`` opens them anew.
    ``death`` is when to die: before or after one call of the mirror (the first
    prepares the root), or at a step: whatever it asks of the operating system inside
    such calls, and each return from a function of the room for that.
    """

    at: str
    declared: Files
    is_fresh: bool = False
    memoized: bool = False
    together: bool = False
    full_reprocess: bool = False
    death: tuple[str, int] | None = None


class Deaths:
    """Counts the calls and steps of an update, and ends this process at one of them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.start(None)

    def start(self, death: tuple[str, int] | None) -> None:
        """Begins to count for an update."""
        self._death = death
        self._calls = 0
        self.steps = 0

    def watched(self, real: Callable[..., object]) -> Callable[..., object]:
        """Wraps a method of the mirror, in which the process may die."""

        @functools.wraps(real)
        def method(*args: Any, **kwargs: Any) -> object:
            number, self._calls = self._calls, self._calls + 1
            self._reach("before", number)
            sys.setprofile(self._on_event)
            try:
                return real(*args, **kwargs)
            finally:
                sys.setprofile(None)
                self._reach("after", number)

        return method

    def end(self) -> None:
        """Ends the count of an update in which the process should have died."""
        if self._death is not None:
            self._die()

    def _reach(self, where: str, number: int, what: str = "") -> None:
        """Reports a phase (a step only if it is the last), and dies if that was the order."""
        is_here = self._death == (where, number)
        if is_here or not what:
            self._say(f"{where} {number} {what}".strip())
        if is_here:
            self._die()

    def _on_event(self, frame: FrameType, event: str, called: Any) -> None:
        """Counts the steps; the profile function."""
        if _is_step(frame, event, called):
            number, self.steps = self.steps, self.steps + 1
            name = called.__name__ if event == "c_call" else frame.f_code.co_name
            self._reach("inside", number, name)

    def _die(self) -> None:
        """Ends the process."""
        os.kill(os.getpid(), signal.SIGKILL)


def _is_step(frame: FrameType, event: str, called: Any) -> bool:
    """True if the disk may have changed since the last step, or is about to."""
    if event == "return":
        return frame.f_code.co_filename in _DISK
    if event != "c_call":
        return False
    owner = getattr(called, "__self__", None)
    return getattr(owner, "__name__", "") == os.name or isinstance(
        owner, sqlite3.Connection | sqlite3.Cursor
    )


# The app

OUT = coco.ContextKey[Path]("tests/kit/twin")


class App:
    """The declarations of the next update, and the errors of the last."""

    def __init__(self, at: str, begin: Callable[[], None]) -> None:
        self.at, self.begin, self.order = at, begin, Order(at, {})
        self.failed: list[str] = []
        env = coco.Environment(
            coco.Settings(db_path=Path(at, "db")),
            exception_handler=lambda error, _: self.failed.append(repr(error)),
        )
        env.context_provider.provide(OUT, Path(at, "root"))
        self._app = coco.App(coco.AppConfig("twin", environment=env), _main, self)

    def update(self, order: Order) -> str:
        """Updates once; returns the errors."""
        self.order = order
        self.failed.clear()
        try:
            self._app.update_blocking(full_reprocess=order.full_reprocess)
        except Exception as error:
            self.failed.append(repr(error))
        return "; ".join(self.failed)


async def _main(app: App) -> None:
    """Mounts the directory and every component."""
    app.begin()
    out = await fsmirror.mount_dir_target(OUT)
    component = _memoized if app.order.memoized else _plain
    handles = []
    for name, files in app.order.declared.items():
        at = coco.component_subpath(name)
        handles.append(await coco.mount(at, component, tuple(files.items()), out))
        if not app.order.together:
            await handles[-1].ready()
    for handle in handles:
        await handle.ready()


def _declare(files: tuple[tuple[str, bytes | None], ...], out: fsmirror.DirTarget) -> None:
    """Declares the files of a component."""
    for path, content in files:
        if content is None:
            out.declare_dir_target(path)
        else:
            out.declare_file(path, content)


_plain = coco.fn(_declare)


@coco.fn(memo=True)
def _memoized(files: tuple[tuple[str, bytes | None], ...], out: fsmirror.DirTarget) -> None:
    """Declares the files of a component, memoized."""
    _declare(files, out)


def main() -> None:
    """Carries out the order of each line."""
    told = os.dup(1)
    os.dup2(2, 1)  # The engine logs to standard output.

    def say(phase: str) -> None:
        os.write(told, f"{phase!a}\n".encode())

    deaths, app = Deaths(say), None
    for name in ("prepare", "apply"):
        setattr(Writer, name, deaths.watched(getattr(Writer, name)))
    say("ready")
    for line in sys.stdin:
        order = Order(*ast.literal_eval(line))
        if app is None or order.is_fresh or app.at != order.at:
            app = None
            gc.collect()  # Closes the database.
            sink.close_all()
            app = reopened(functools.partial(App, order.at, lambda: say("begins")))
        deaths.start(order.death)
        failed = app.update(order)
        deaths.end()
        say(f"failed {failed}" if failed else f"done {deaths.steps}")


if __name__ == "__main__":
    main()
