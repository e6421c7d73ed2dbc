"""Watch: waits for changes of a mirror, or of its source, and takes a burst of them together.

The system reports changes in a folder, wherever that is moved; we have to follow a path. So each
path is looked at after a quiet second: another folder may be there now, or none.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import stat
import time
import warnings
from collections.abc import Callable
from typing import Final, Self, TypeAlias

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from .._core.errors import RootError
from .._core.names import RESERVED

__all__ = ["Watching"]

# watchdog warns of events that come while it ends, and of folders made while it looks around.
logging.getLogger("watchdog").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")

_QUIET: Final = 0.2  # seconds without a change that end a burst
_LONGEST: Final = 3.0  # seconds; a burst that goes on is not waited for any longer
_LOOK: Final = 1.0  # seconds without a change, after which the paths are looked at
_READ_ONLY: Final = (EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE)

_Identity: TypeAlias = tuple[int, int] | None  # device and inode; None if there is no folder


class _Folder(FileSystemEventHandler):
    """A folder that is watched, as long as it is the same one.

    Args:
        path: Its absolute path.
        changes: Gets an item for each change of anything in it, except in our own folder.
        state: The path of the state folder of a mirror, which has to stay the same one as well;
            empty for a source, whose changes are true items.
    """

    def __init__(self, path: str, changes: queue.SimpleQueue[bool], state: str = "") -> None:
        self._path = path
        self._state = state
        self._ours = os.path.join(path, RESERVED)
        self._changes = changes

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Notes that something changed."""
        if event.event_type in _READ_ONLY:
            return
        paths = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path or b""))
        if not any(f"{path}/".startswith(f"{self._ours}/") for path in paths):
            self._changes.put(not self._state)

    def watch(self) -> None:
        """Watches the folder that is there now; does nothing if it is missing.

        Raises:
            RootError: The system doesn't let us.
        """
        self._observer = Observer()
        self._seen = self._look()  # First: what comes in between is found by the next look.
        self._observer.schedule(self, self._path, recursive=True)
        try:
            if self._seen[0]:
                self._observer.start()
        except FileNotFoundError:
            self._seen = (None, None)  # The folder went while we looked.
        except OSError as error:
            problem = f"can't be watched: {error.strerror or error}"
            raise RootError(self._path, problem, "see fs.inotify in sysctl") from error

    def end(self) -> None:
        """Stops watching."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def is_missing(self) -> bool:
        """True if nothing was there to be watched."""
        return self._seen[0] is None

    def is_replaced(self) -> bool:
        """True if another folder is there now, or none."""
        # A folder may get the inode number of one that was just removed; but the emitter of that
        # one ends by itself.
        has_ended = any(not emitter.is_alive() for emitter in self._observer.emitters)
        return (not self.is_missing() and has_ended) or self._look() != self._seen

    def _look(self) -> tuple[_Identity, _Identity]:
        """Returns the identities of the folder and, of a mirror, of its state folder."""
        return _identity(self._path), _identity(self._state) if self._state else None


def _identity(path: str) -> _Identity:
    """Returns device and inode of a folder, which no other has at the same time."""
    try:
        there = os.stat(path)
    except OSError:
        return None
    return (there.st_dev, there.st_ino) if stat.S_ISDIR(there.st_mode) else None


class Watching:
    """Watches a mirror, and its source if it has one, from now on.

    Args:
        target: The path of the root of the mirror.
        state: The path of its state folder.
        source: The path of the source; by default there is none.

    Raises:
        RootError: The system doesn't let us.
    """

    def __init__(self, target: str, state: str, source: str = "") -> None:
        self._changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._source = _Folder(source, self._changes) if source else None
        self._target = _Folder(target, self._changes, state)

    def __enter__(self) -> Self:
        if self._source is not None:
            self._source.watch()
        self._target.watch()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._source is not None:
            self._source.end()
        self._target.end()

    def is_out_of_date(self) -> bool:
        """True if the mirror was replaced or removed: it has to be opened again."""
        return self._target.is_missing() or self._target.is_replaced()

    def changed(self, longest: float) -> bool:
        """Waits for a burst of changes of a mirror to end; false if none came in some seconds."""
        try:
            self._changes.get(timeout=longest)
        except queue.Empty:
            return self.is_out_of_date()
        self._rest_of_burst()
        return True

    def wait(self, has_drifted: Callable[[], bool], longest: float = math.inf) -> bool:
        """Waits for a burst of changes to end; returns true if there is something to do.

        Args:
            has_drifted: Called if only the mirror changed, as it does by our own work.
            longest: The time after which there is something to do anyway, in seconds.

        Raises:
            RootError: The system doesn't let us watch a source that is new.
        """
        until = time.monotonic() + longest
        in_source = self._first(until)
        in_source |= self._rest_of_burst()
        if self._source is not None and self._source.is_replaced():
            self._source.end()
            self._source.watch()
            return True
        is_due = time.monotonic() >= until
        return in_source or is_due or self.is_out_of_date() or has_drifted()

    def _rest_of_burst(self) -> bool:
        """Takes the changes of a burst that has begun; returns true if one is of the source."""
        deadline, in_source = time.monotonic() + _LONGEST, False
        while (left := deadline - time.monotonic()) > 0:
            try:
                in_source |= self._changes.get(timeout=min(_QUIET, left))
            except queue.Empty:
                break
        return in_source

    def _first(self, until: float) -> bool:
        """Waits for a change; returns true if it is a known one of the source."""
        while (left := until - time.monotonic()) > 0:
            try:
                return self._changes.get(timeout=min(_LOOK, left))
            except queue.Empty:
                is_replaced = self._source is not None and self._source.is_replaced()
                if is_replaced or self.is_out_of_date():
                    return False
        return False
