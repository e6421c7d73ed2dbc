"""Ctrl-C: the first one stops a run before the next file, a second one ends the process."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

__all__ = ["Interrupts"]


class Interrupts:
    """Holds Ctrl-C back while it is entered, until the run can stop without a torn batch.

    Attributes:
        is_pressed: True once Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.is_pressed = False
        self._is_listening = False

    def __enter__(self) -> Self:
        # Only the main thread may listen, and a job in the background ignores Ctrl-C.
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
            self._is_listening = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._is_listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_listening = False
        if exc_info[0] is None:
            self.check()  # It came after the last file; a script has to stop all the same.

    def _press(self, _signal: int, _frame: FrameType | None) -> None:
        """Remembers the first Ctrl-C; the second one ends the process at once."""
        self.is_pressed = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def check(self) -> None:
        """Raises KeyboardInterrupt once Ctrl-C was pressed."""
        if self.is_pressed:
            raise KeyboardInterrupt
