"""The sink of one simulated process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Sequence
from typing import Any, NoReturn

from ._adapter import Target
from ._steps import Death, is_injected

__all__ = ["Sink", "refuse_in_loop"]


class Sink:
    """Calls an adapter's ``apply``; coroutines of one process share one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._runner = asyncio.Runner()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_dead = False

    def __call__(self, actions: Sequence[Any]) -> None:
        result = self._target.apply(actions)
        if inspect.isawaitable(result):
            # Made late: of a process that is forked, each has its own.
            self._loop = self._runner.get_loop()
            self._loop.set_exception_handler(self._on_error)
            self._runner.run(_awaited(result))

    def close(self) -> None:
        """Ends the process in good order: cancels its tasks, and waits for its threads."""
        self._runner.close()

    def stop(self) -> None:
        """Stops the loop, because the process died at a step."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(_raise_death)

    def die(self) -> None:
        """Kills the process: all that its tasks and threads still try fails."""
        self._is_dead = True
        while self._loop is not None and (tasks := asyncio.all_tasks(self._loop)):
            for task in tasks:
                task.cancel()
            with contextlib.suppress(Death):
                self._loop.run_until_complete(asyncio.wait(tasks))
        with contextlib.suppress(Death):
            self.close()

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Reports an error that nobody waited for, unless it was injected."""
        if not self._is_dead and not is_injected(context.get("exception")):
            loop.default_exception_handler(context)


def _raise_death() -> NoReturn:
    """Raises the death of the process outside the event loop."""
    raise Death


async def _awaited(result: Awaitable[object]) -> None:
    """Waits for a coroutine, or for anything like one."""
    await result


def refuse_in_loop() -> None:
    """Says so where no coroutine could be waited for.

    Raises:
        RuntimeError: An event loop is running in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "an event loop is running here, as in an async test or a notebook, and connectors are "
        "checked in loops of their own: call this from a plain function, or in another thread "
        "(await asyncio.to_thread(check_target, ...))"
    )
