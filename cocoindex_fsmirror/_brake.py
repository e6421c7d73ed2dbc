"""The brake: an update that would remove too much stops before the first removal.

The engine tells of removals as it comes to them, and of those in components that are
gone last of all, many at a time. So every removal is announced when it is reconciled,
and before the first one is applied we wait until no more are announced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ._errors import TooManyRemovalsError
from ._paths import Name

__all__ = ["Brake", "Limit", "allowance", "check_limit"]

Limit = int | float
"""How many files may be removed: a count, or as a float a fraction of those that are managed."""

_QUIET: Final = 0.3  # seconds in which nothing more is announced
_PATIENCE: Final = 30.0  # seconds; an update that removes for so long is judged by what is known


def check_limit(limit: Limit | None) -> None:
    """Refuses what is no limit.

    Raises:
        TypeError: It is neither a count nor a fraction.
        ValueError: It is out of range.
    """
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"max_delete is an int or a float, not {type(limit).__name__}")
    if limit < 0 or (isinstance(limit, float) and not limit <= 1):
        raise ValueError(f"max_delete={limit!r} is neither a count nor between 0.0 and 1.0")


def allowance(limit: Limit, managed: int) -> int:
    """How many files a limit allows to remove.

    Args:
        limit: A count, or a fraction.
        managed: How many files there are.
    """
    # 0.29 * 100 is a little less than 29.
    return int(round(limit * managed, 6)) if isinstance(limit, float) else limit


class Brake:
    """The removals of one update.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._announced: set[Name] = set()
        self._heard = 0  # How many were announced when it was last waited for.
        self._removed: set[Name] = set()

    def announce(self, name: Name) -> None:
        """A path is no longer declared."""
        with self._lock:
            self._announced.add(name)

    def check(
        self, root: str, planned: set[Name], managed: int, among: Callable[[set[Name]], set[Name]]
    ) -> None:
        """Judges a batch before it is applied.

        Args:
            root: The root, for the message.
            planned: The files that the batch removes.
            managed: How many files are managed now.
            among: Picks those out of some paths that are managed files.

        Raises:
            TooManyRemovalsError: With those that were announced they are too many.
        """
        if not planned:
            return
        allowed = allowance(self._limit, managed + len(self._removed))
        deadline = time.monotonic() + _PATIENCE
        while True:
            with self._lock:
                announced, is_news = set(self._announced), len(self._announced) > self._heard
                self._heard = len(self._announced)
            gone = planned | self._removed | among(announced)
            if len(gone) > allowed:
                figures = (len(gone), managed + len(self._removed), allowed)
                raise TooManyRemovalsError(root, *figures, f"max_delete={self._limit!r}")
            if not is_news or time.monotonic() > deadline:
                break
            time.sleep(_QUIET)
        self._removed |= planned
