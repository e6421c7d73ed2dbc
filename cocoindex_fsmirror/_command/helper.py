"""Helper: a forked process that calls a function while this one goes on.

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
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn, TypeVar

__all__ = ["collect_less_garbage", "helped"]

_T = TypeVar("_T")


@contextlib.contextmanager
def helped(function: Callable[[], _T]) -> Iterator[Callable[[], _T]]:
    """Calls a function in a fork of this process, which is gone after the ``with`` block.

    If there can be no fork, or it ends without a result, the function is called here when the
    result is asked for.

    Args:
        function: The function; its result can be pickled.

    Yields:
        A function that waits for the result; it raises what the function raises.
    """
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        pid = _fork()
        if pid == 0:
            _send(function, pipe, writing)
        os.close(writing)

        def result() -> _T:
            try:
                return pickle.load(pipe)  # type: ignore[no-any-return]  # noqa: S301  # Our own.
            except (EOFError, pickle.UnpicklingError):
                return function()

        try:
            yield result
        finally:
            if pid is not None:
                # Where SIGCHLD is ignored, the system has removed it already.
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def _fork() -> int | None:
    """Forks this process; returns ``None`` if the system has no room for that.

    Nor is there a fork while other threads are at work: it would have their locks, and nobody
    to release them.
    """
    if sys.platform == "linux" and threading.active_count() == 1:
        with contextlib.suppress(OSError):
            return os.fork()
    return None


def _send(function: Callable[[], object], reading: BinaryIO, writing: int) -> NoReturn:
    """Sends the result of a function, or nothing if it fails, and ends this process."""
    try:
        reading.close()  # Else this process would wait for itself, once its parent was killed.
        # Ctrl-C goes to the whole group; the parent decides what becomes of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(function(), pipe, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)


def collect_less_garbage() -> None:
    """Collects cycles less often: with many objects that live long, it would double the time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
