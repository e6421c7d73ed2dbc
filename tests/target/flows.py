"""Small real apps, whose declared files are a dict that a test changes."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._disk.staging import Staging
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import place
from cocoindex_fsmirror._mirror.writer import Writer
from tests.reopening import reopened
from tests.support import Tree as Snapshot
from tests.support import snapshot, told_by

OUT = coco.ContextKey[Path]("tests/target/out")
"""Where the files of a flow go: each flow provides its own root for it."""

ran: list[str] = []
"""The names for which the body of a memoized component ran in the last update."""

IS_NEW = tuple(int(part) for part in coco.__version__.split(".")[:3]) >= (1, 0, 23)
"""Releases from 1.0.23 on preview containers, and retry a failed batch in smaller parts."""

Main: TypeAlias = Callable[["Flow"], Awaitable[None]]
Declare: TypeAlias = Callable[[fsmirror.DirTarget[Any], str], Awaitable[None]]
Item: TypeAlias = tuple[str, bytes]


class BoomError(RuntimeError):
    """An injected failure."""


class Flow:
    """An app with a database of its own.

    Declares the contents in ``files``, and anything else through the functions in ``wanted``.
    ``options`` are given to ``mount_dir_target``. ``failed`` holds the errors of components that
    run in the background, as text: the errors themselves would keep the database open.
    """

    def __init__(self, at: Path, main: Main | None = None, *, name: str = "app") -> None:
        self.root = at / "root"
        self.database = at / f"{name}.db"
        self.files: dict[str, bytes] = {}
        self.wanted: dict[str, Declare] = {}
        self.options: dict[str, Any] = {}
        self.failed: list[str] = []
        self._main = main or plain
        self._app: coco.App[[Flow], None] | None = None

    @property
    def app(self) -> coco.App[[Flow], None]:
        """The app, opened when it is first needed."""
        if self._app is None:
            env = reopened(
                lambda: coco.Environment(
                    coco.Settings(db_path=self.database),
                    exception_handler=lambda error, _: self.failed.append(told_by(error)),
                )
            )
            env.context_provider.provide(OUT, self.root)
            self._app = coco.App(coco.AppConfig("app", environment=env), _run, self)
        return self._app

    def close(self) -> None:
        """Closes the database, as the end of a process does."""
        self._app = None
        gc.collect()

    def update(self, *, reprocess: bool = False) -> None:
        """Runs one update, in which nothing may fail."""
        assert self.attempt(reprocess=reprocess) == ""

    def attempt(self, *, reprocess: bool = False) -> str:
        """Runs one update; returns its errors, as text."""
        ran.clear()
        self.failed.clear()
        try:
            self.app.update_blocking(full_reprocess=reprocess)
        except Exception as error:
            self.failed.append(told_by(error))
        return "\n".join(self.failed)

    def drop(self) -> None:
        """Drops the app."""
        self.app.drop_blocking()
        self.close()

    def preview(self) -> list[str]:
        """Returns the lines that a preview prints, sorted."""
        return sorted(repr(action) for action in self.app.update_blocking(preview=True) or ())

    @property
    def tree(self) -> Snapshot:
        """The actual state of the root."""
        return snapshot(self.root)


async def _run(flow: Flow) -> None:
    """Runs the flow; the main function of every app."""
    await flow._main(flow)


# The flows


async def plain(flow: Flow) -> None:
    """Declares everything in the main component."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    for name, content in flow.files.items():
        out.declare_file(name, content)
    for name, declare in flow.wanted.items():
        await declare(out, name)


async def memoized(flow: Flow) -> None:
    """Declares every file in a memoized component of its own, which takes the target."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    await coco.mount_each(page, [(name, (name, flow.files[name])) for name in flow.files], out)


@coco.fn(memo=True)
async def page(item: Item, out: fsmirror.DirTarget) -> None:
    """Declares one file, in a memoized component."""
    ran.append(item[0])
    out.declare_file(*item)


# Failures


@contextlib.contextmanager
def failing_sink(*, after: bool, names: Collection[str] = ()) -> Iterator[None]:
    """Makes every batch (or each with one of ``names``) fail, before or after it is applied."""
    real = Writer.apply

    def apply(mirror: fsmirror.Mirror, intents: list[Intent], *more: Any, **options: Any) -> object:
        concerned = not names or any(intent.name in names for intent in intents)
        if concerned and not after:
            raise BoomError("before the sink")
        outcome = real(mirror, intents, *more, **options)
        if concerned:
            raise BoomError("after the sink")
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "apply", apply)
        yield


_STEPS: tuple[tuple[object, tuple[str, ...]], ...] = (
    (Staging, ("write", "link", "ready", "put", "exchange", "take", "discard")),
    (Tree, ("make_folder", "remove_file", "remove_folder", "sync")),
    (place, ("dress", "dress_folder")),
)


@contextlib.contextmanager
def failing_step(number: int) -> Iterator[None]:
    """Makes everything from the given change of the disk on fail, as if the process had died."""
    left = number

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(real)
        def step(*args: Any, **kwargs: Any) -> object:
            nonlocal left
            left -= 1
            return real(*args, **kwargs) if left >= 0 else _die()

        return step

    with pytest.MonkeyPatch.context() as patch:
        for owner, methods in _STEPS:
            for method in methods:
                patch.setattr(owner, method, counted(getattr(owner, method)))
        yield


def _die() -> NoReturn:
    """Raises an error that stands for the death of the process."""
    raise BoomError("inside the sink")


class Interruption(NamedTuple):
    """A failure of an update: before or after the sink, or at the k-th change of the disk."""

    where: str = "nowhere"
    step: int = 0

    def injected(self) -> contextlib.AbstractContextManager[None]:
        """Injects the failure."""
        if self.where == "inside":
            return failing_step(self.step)
        if self.where == "nowhere":
            return contextlib.nullcontext()
        return failing_sink(after=self.where == "after")
