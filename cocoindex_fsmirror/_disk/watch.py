"""Watch: waits for changes of a mirror, or of its source, and takes a burst of them together.

Nothing is missed for good. The system's events only say when to look. What they can't tell is
found by the look that comes after some time anyway; where they tell nothing, or not all, that time
is short. They follow a folder, wherever it is moved, while we have to follow a path. So each path
is looked at every second: another folder may be there now, or none.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple, Self, TypeAlias

from .calls import DIRECTORY, closing, say_once
from .inotify import Inotify
from .mounts import has_events, mounts_below

__all__ = ["POLL", "RESCAN", "SETTLE", "Timing", "Watching"]

SETTLE: Final = 0.2
"""The quiet time that ends a burst, in seconds."""
RESCAN: Final = 180.0
"""The time after which all is looked at anyway, in seconds."""
POLL: Final = 10.0
"""The same where not all changes are heard of."""
_LOOK: Final = 1.0  # seconds without a change, after which the paths are looked at
_LONGEST: Final = 3.0  # seconds that a burst is waited for,
_TIMES: Final = 10  # or the quiet time as many times
_LIMITS: Final = {
    errno.ENOSPC: "the system watches no more folders, see fs.inotify.max_user_watches in sysctl",
    errno.EMFILE: "too many programs watch folders, see fs.inotify.max_user_instances in sysctl",
    errno.ENOSYS: "this system has no inotify",
}

_Identity: TypeAlias = tuple[int, int] | None  # device and inode; None if there is no folder
Cause: TypeAlias = Literal["change", "time"]
"""Why there is something to do: a change, or the time that has passed."""


class Timing(NamedTuple):
    """The times of watching, in seconds.

    Attributes:
        settle: The quiet time that ends a burst of changes. One that goes on is waited for ten
            times as long at most, or three seconds.
        rescan: The time after which everything is looked at anyway.
        poll: The same instead of listening for changes; ``None`` to listen, where that is possible.
    """

    settle: float = SETTLE
    rescan: float = RESCAN
    poll: float | None = None


_USUAL: Final = Timing()


class Watching:
    """Watches a mirror, and its source if it has one, from now on.

    Args:
        target: The path of the root of the mirror.
        state: The path of its state folder.
        source: The path of the source; by default there is none.
        link: The path that the target was found by; by default the same.
        timing: The times.

    Attributes:
        interval: The time after which everything has to be looked at anyway, in seconds.
    """

    def __init__(
        self,
        target: str,
        state: str,
        source: str = "",
        *,
        link: str = "",
        timing: Timing = _USUAL,
    ) -> None:
        self._target, self._link = target, link or target
        self._state = state
        self._source = source
        self._timing = timing
        self._inotify: Inotify | None = None
        self.interval = timing.rescan if timing.poll is None else timing.poll

    def __enter__(self) -> Self:
        # First: what comes in between is found by the next look at the paths.
        self._there = self._look(self._target), self._look(self._state)
        self._source_there = self._look(self._source)
        if self._timing.poll is None:
            self._listen()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _listen(self) -> None:
        """Listens for changes, as far as the system tells of them."""
        tops = [each for each in (self._source, self._target) if each]
        for top in tops:
            kind = _kind_of(top)
            if not has_events(kind):
                self._look_often(f"{top}: changes from elsewhere are not told on {kind}")
        with self._limited():
            self._inotify = Inotify()
            for top in tops:
                self._inotify.cover(top)

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Goes on where the system does not tell of all changes, and looks more often there."""
        try:
            yield
        except OSError as error:
            why = _LIMITS.get(error.errno or 0, error.strerror or str(error))
            self._look_often(f"{self._source or self._target}: can't be watched whole: {why}")

    def _look_often(self, why: str) -> None:
        """Looks at everything more often, and says so."""
        self.interval = min(self.interval, POLL)
        say_once(f"{why}; all is looked at every {self.interval:g} s")

    @staticmethod
    def _look(path: str) -> _Identity:
        """Returns device and inode of a folder, which no other has at the same time."""
        try:
            there = os.stat(path)
        except OSError:
            return None
        return (there.st_dev, there.st_ino) if stat.S_ISDIR(there.st_mode) else None

    def is_out_of_date(self) -> bool:
        """True if the mirror was replaced or removed: it has to be opened again."""
        there = self._look(self._target), self._look(self._state)
        # A folder may get the inode number of one that was just removed.
        has_ended = self._inotify is not None and self._target in self._inotify.ended
        is_elsewhere = self._link != self._target and os.path.realpath(self._link) != self._target
        return there[0] is None or there != self._there or has_ended or is_elsewhere

    def _is_source_new(self) -> bool:
        """True if another source is there now, or none; that is watched from now on."""
        there, ended = self._look(self._source), self._inotify is not None and self._inotify.ended
        if there == self._source_there and not (ended and self._source in ended):
            return False
        self._source_there = there
        if self._inotify is not None:
            self._inotify.ended.discard(self._source)
            with self._limited():
                self._inotify.cover(self._source)
        return True

    def changed(self, longest: float) -> bool:
        """Waits for a burst of changes of a mirror to end; false if none came in some seconds."""
        if not self._heard(longest):
            return self.is_out_of_date()
        self._burst()
        return True

    def wait(
        self,
        has_drifted: Callable[[], bool],
        longest: float = math.inf,
        *,
        is_mended: Callable[[], bool] | None = None,
    ) -> Cause:
        """Waits until there is something to do, and for the end of the burst of changes.

        Args:
            has_drifted: Called if only the mirror changed, as it does by our own work.
            longest: The time after which there is something to do anyway, in seconds.
            is_mended: Given if something failed: called every second, true if that may succeed now.
                Any change of the mirror that comes from now on may be the reason, too.
        """
        until = time.monotonic() + min(longest, self.interval)
        # What is heard at once came during our own work, and as a rule by it.
        if (heard := self._heard(0)) and self._is_change(heard, has_drifted):
            return "change"
        while True:
            is_replaced = bool(self._source) and self._is_source_new()
            if is_replaced or self.is_out_of_date() or (is_mended is not None and is_mended()):
                return "change"
            if (left := until - time.monotonic()) <= 0:
                return "time"
            heard = self._heard(min(_LOOK, left))
            if heard and (self._is_change(heard, has_drifted) or is_mended is not None):
                return "change"

    def _is_change(self, heard: set[str], has_drifted: Callable[[], bool]) -> bool:
        """Waits for the end of a burst; true if it changed more than our own work does."""
        return self._source in heard | self._burst() or has_drifted()

    def _burst(self) -> set[str]:
        """Waits for the end of a burst of changes; returns the trees that changed in it."""
        changed, settle = set[str](), self._timing.settle
        until = time.monotonic() + max(_LONGEST, _TIMES * settle)
        while (left := until - time.monotonic()) > 0 and (heard := self._heard(min(settle, left))):
            changed |= heard
        return changed

    def _heard(self, longest: float) -> set[str]:
        """Waits for changes; returns the trees that changed."""
        listener = self._inotify
        if listener is None:
            time.sleep(longest)
            return set()
        heard = {self._target, self._source}  # In case that not all can be told.
        with self._limited():
            heard = listener.wait(longest)
        if listener.has_overflown:
            listener.has_overflown = False
            hint = "see fs.inotify.max_queued_events in sysctl"
            say_once(f"changes came faster than they were read ({hint}); all is looked at again")
        return heard


def _kind_of(path: str) -> str:
    """Returns the type of the file system that a folder is on; empty if that is not known."""
    with contextlib.suppress(OSError), closing(os.open(path, DIRECTORY & ~os.O_NOFOLLOW)) as fd:
        return mounts_below(fd)[0]
    return ""
