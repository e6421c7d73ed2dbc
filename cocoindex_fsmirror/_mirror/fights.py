"""Fights: notice another program that changes a path as often as we heal it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Final

__all__ = ["OFTEN", "Fights"]

OFTEN: Final = 5
"""The number of times within a minute that a path is healed before that counts as a fight."""
_MINUTE: Final = 60.0  # seconds


class Fights:
    """The times at which paths were healed."""

    def __init__(self) -> None:
        self._times = defaultdict[str, deque[float]](lambda: deque(maxlen=OFTEN))

    def add(self, healed: Iterable[str]) -> list[str]:
        """Notes paths that were healed just now; returns those that are fought over."""
        now, found = time.monotonic(), list[str]()
        for name in healed:
            times = self._times[name]
            times.append(now)
            if len(times) == OFTEN and now - times[0] < _MINUTE:
                found.append(name)
        return found
