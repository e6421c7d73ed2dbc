"""Failures: collects what failed in an update of a root, and tells it in one log line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from .._core.errors import ApplyError, FsMirrorError, PathError, counted

__all__ = ["RETRIED", "Failures"]

_log = logging.getLogger("cocoindex_fsmirror")
RETRIED: Final = "tried again by the next update"
_NAMED: Final = 5  # failures that the line describes before it counts the others


class Failures:
    """The failures of one update of a root.

    Threads of the engine add to it. It keeps text: an error could keep the update from ending.

    Args:
        at_once: True to tell after each batch, since the update goes on for good.
        then: What is done about them, for the line.

    Attributes:
        was_raised: True once the engine was given an error of a component that is gone.
    """

    def __init__(self, *, at_once: bool = False, then: str = RETRIED) -> None:
        self.was_raised = False
        self._then = then
        self._at_once = at_once
        self._lock = threading.Lock()
        self._root = ""
        self._found: dict[str, tuple[str, set[str]]] = {}  # messages, with the paths they are about

    def add(self, root: str, names: Iterable[str], error: FsMirrorError) -> None:
        """Adds what failed in a step, which was about some paths."""
        parts: Sequence[object] = error.exceptions if isinstance(error, ApplyError) else (error,)
        with self._lock:
            self._root = root
            for part in parts:
                if isinstance(part, PathError):
                    self._found[part.path] = (str(part), {part.path})
                else:
                    key = type(part).__name__
                    _, before = self._found.get(key, ("", set[str]()))
                    self._found[key] = (str(part), {*before, *names})
        if self._at_once:
            self.tell()

    def settle(self, names: Iterable[str]) -> None:
        """Takes out paths that have been applied after all: newer engines try again at once."""
        if not self._found:
            return
        with self._lock:
            applied = set(names)
            for key, (_, about) in list(self._found.items()):
                about.difference_update(applied)
                if not about:
                    del self._found[key]

    def tell(self) -> None:
        """Logs what was not told yet, in one line."""
        with self._lock:
            found, self._found = [message for message, _ in self._found.values()], {}
        if not found:
            return
        shown = "; ".join(found[:_NAMED])
        more = f"; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        if len(found) > 1 or not shown.startswith(self._root):
            count = counted(len(found), "failure")
            shown = f"{self._root}: {count}, {self._then}: {shown}"
        _log.warning("%s%s", shown, more)
