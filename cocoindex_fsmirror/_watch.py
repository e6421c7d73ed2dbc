"""Watch: tells when a source or a mirror has changed, a burst of changes taken together."""

from __future__ import annotations

import logging
import os
import queue
import time
import warnings
from collections.abc import Callable
from typing import Final, Self

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from ._paths import RESERVED

__all__ = ["Watching"]

# It warns of events that come while it ends, and of folders that are made while it looks around.
logging.getLogger("watchdog").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")

_QUIET: Final = 0.2  # seconds without a change that end a burst
_LONGEST: Final = 3.0  # seconds; a burst that goes on is not waited for any longer
_READ_ONLY: Final = (EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE)


class _Handler(FileSystemEventHandler):
    """Notes that something changed."""

    def __init__(self, changes: queue.SimpleQueue[bool], *, is_source: bool, ours: str) -> None:
        self._changes = changes
        self._is_source = is_source
        self._ours = ours

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Hears of everything below a folder; our own is left out."""
        if event.event_type in _READ_ONLY:
            return
        paths = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path or b""))
        if not any(f"{path}/".startswith(self._ours) for path in paths):
            self._changes.put(self._is_source)


class Watching:
    """Watches a source and a mirror from now on.

    Args:
        source: An absolute path.
        target: Another one.
    """

    def __init__(self, source: str, target: str) -> None:
        self._changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._observer = Observer()
        for path in (source, target):
            ours = os.path.join(path, RESERVED, "")
            handler = _Handler(self._changes, is_source=path == source, ours=ours)
            self._observer.schedule(handler, path, recursive=True)

    def __enter__(self) -> Self:
        self._observer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._observer.stop()
        self._observer.join()

    def wait(self, has_drifted: Callable[[], bool]) -> bool:
        """Waits for changes, and for their end; tells whether there is something to do.

        Args:
            has_drifted: Asked if only the mirror changed, as it does by our own work.
        """
        in_source = self._changes.get()
        deadline = time.monotonic() + _LONGEST
        while (left := deadline - time.monotonic()) > 0:
            try:
                in_source |= self._changes.get(timeout=min(_QUIET, left))
            except queue.Empty:
                break
        return in_source or has_drifted()
