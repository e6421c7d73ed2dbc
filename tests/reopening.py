"""Opens the engine's database again in the same process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_PATIENCE = 10.0  # Seconds.


def reopened(make: Callable[[], _T]) -> _T:
    """Opens a database that this process had open before.

    The engine closes it when nothing refers to it any more, which its own threads
    may still do for a moment after an update.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        gc.collect()
        try:
            return make()
        except RuntimeError as error:
            if "already open" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
