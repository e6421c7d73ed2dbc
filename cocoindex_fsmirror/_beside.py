"""Beside: a second process, for what need not wait until this one gets to it.

Threads of one interpreter take turns at everything but waiting. Only the command uses this:
a library does not fork the processes of its users.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO, Final, TypeVar

__all__ = ["Beside"]

_T = TypeVar("_T")
_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL


class Beside:
    """A fork of this process that calls functions when it is asked.

    It ends with the process that asks, however that comes about. Where there is none, since
    the system has no fork, threads are at work already, or it died, calls are made here.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._calls: BinaryIO | None = None
        self._results: BinaryIO | None = None
        self._turn = threading.Lock()
        if sys.platform == "linux" and threading.active_count() == 1:
            with contextlib.suppress(OSError):
                self._fork()

    def _fork(self) -> None:
        """Makes the other process."""
        calls, results = os.pipe(), os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            for fd in (*calls, *results):
                os.close(fd)
            raise
        if self._pid == 0:
            os.close(calls[1])
            os.close(results[0])
            _serve(os.fdopen(calls[0], "rb"), os.fdopen(results[1], "wb"))
        os.close(calls[0])
        os.close(results[1])
        self._calls, self._results = os.fdopen(calls[1], "wb"), os.fdopen(results[0], "rb")

    @property
    def is_there(self) -> bool:
        """Whether calls are made by another process."""
        return self._calls is not None

    def begin(self, function: Callable[..., _T], *arguments: object) -> Callable[[], _T]:
        """Has a function of a module called, with arguments that can be pickled.

        Returns:
            What waits for its result, and is to be called before anything else is begun.
            What the function raised there it raises here, since it is called again.
        """
        if self._calls is not None:
            call = pickle.dumps((function, arguments), _PROTOCOL)
            try:
                self._calls.write(call)
                self._calls.flush()
            except (OSError, ValueError):  # The last if it was closed meanwhile.
                self.close()

        def result() -> _T:
            if self._results is not None:
                try:
                    is_done, found = pickle.load(self._results)  # noqa: S301  # From ourselves.
                except (OSError, ValueError, EOFError, pickle.UnpicklingError):
                    self.close()
                else:
                    if is_done:
                        return found  # type: ignore[no-any-return]
            return function(*arguments)

        return result

    def ask(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Has a function called, and waits for its result; from any thread."""
        with self._turn:
            return self.begin(function, *arguments)()

    def close(self) -> None:
        """Ends the other process, whatever it is at: it only reads."""
        for pipe in (self._calls, self._results):
            if pipe is not None:
                with contextlib.suppress(OSError):  # What is buffered can't be sent any more.
                    pipe.close()
        self._calls = self._results = None
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _serve(calls: BinaryIO, results: BinaryIO) -> None:
    """What the other process does, until nobody can ask any more."""
    # Ctrl-C goes to the whole group; whoever asks decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            function, arguments = pickle.load(calls)  # noqa: S301  # From ourselves.
            try:
                answer = True, function(*arguments)
            except Exception:  # It is called again, where it can be told.
                answer = False, None
            pickle.dump(answer, results, _PROTOCOL)
            results.flush()
    except BaseException:  # As a rule the end of the pipe.
        os._exit(0)
