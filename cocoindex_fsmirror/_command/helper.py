"""A helper process, which calls a function while this one goes on.

Threads of one interpreter take turns at everything but waiting. Only the command uses this: a
library does not fork the processes of its users. A helper only reads, sends one result and ends,
so that none is left over, however its parent ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

__all__ = ["Helper", "collect_less_garbage"]

_T = TypeVar("_T")


class Helper(Generic[_T]):
    """A fork of this process that calls a function.

    If it can't be forked, as threads are at work already, or if the fork fails, the function is
    called when the result is asked for.

    Args:
        function: What it calls; its result can be pickled.
    """

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function = function
        self._pid, self._pipe = 0, -1
        if sys.platform == "linux" and threading.active_count() == 1:
            with contextlib.suppress(OSError):
                self._fork()

    def _fork(self) -> None:
        """Forks this process."""
        self._pipe, writing = os.pipe()
        try:
            self._pid = os.fork()
            if self._pid == 0:
                os.close(self._pipe)
                _call(self._function, writing)
        finally:
            os.close(writing)

    def result(self) -> _T:
        """Waits for the result; what the function raises is raised here."""
        try:
            with os.fdopen(self._pipe, "rb") as pipe:
                self._pipe = -1
                return pickle.load(pipe)  # type: ignore[no-any-return]  # noqa: S301  # Our own.
        except (OSError, ValueError, EOFError, pickle.UnpicklingError):
            return self._function()

    def close(self) -> None:
        """Ends the process, whatever it is at."""
        if self._pipe >= 0:
            os.close(self._pipe)
        pid, self._pid, self._pipe = self._pid, 0, -1
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def collect_less_garbage() -> None:
    """Looks for cycles less often: the many objects that live long here double the time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _call(function: Callable[[], object], writing: int) -> NoReturn:
    """Sends what a function returns, or nothing, and ends this process."""
    try:
        # Ctrl-C goes to the whole group; the parent decides what becomes of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(function(), pipe, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)
