"""The mirrors of this process: their ledgers stay open between batches."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Final

from .._mirror.mirror import Mirror

__all__ = ["MOST", "close_all", "mirror_at"]

MOST: Final = 32
"""How many ledgers stay open."""

_mirrors: dict[str, Mirror] = {}
_lock = threading.Lock()
_abandoned: list[Mirror] = []


def mirror_at(root: str) -> Mirror:
    """The mirror of a root; its ledger stays open between batches."""
    with _lock:
        mirror = _mirrors.pop(root, None) or Mirror(root)
        _mirrors[root] = mirror
        if len(_mirrors) > MOST:
            _mirrors.pop(next(iter(_mirrors))).close()
        return mirror


@atexit.register
def close_all() -> None:
    """Folds each ledger's log into its file."""
    with _lock:
        for mirror in _mirrors.values():
            mirror.close()
        _mirrors.clear()


def _forget() -> None:
    """In a forked child: SQLite forbids to use, or even to close, a parent's connection."""
    global _lock  # noqa: PLW0603  # The old one may be held by a thread that is not here.
    _lock = threading.Lock()
    _abandoned.extend(_mirrors.values())
    _mirrors.clear()


os.register_at_fork(after_in_child=_forget)
