"""Moving over from ``localfs`` without losing the directory.

A flow that swaps its import declares our target and drops ``localfs``'s. The
engine then has ``localfs`` delete what it had been told to keep: it removes the
whole directory, after we have adopted the files in it, and with it whatever
else lies there. No ordering prevents that, so the one function that deletes
is asked to leave alone what a mirror of ours holds.
"""

from __future__ import annotations

import functools
import logging
import os
from contextlib import closing
from types import ModuleType
from typing import Any, Final

from ._errors import LedgerError
from ._ledger import Ledger
from ._paths import Name

__all__ = ["guard"]

_log = logging.getLogger("cocoindex_fsmirror")
_FUNCTION: Final = "_execute_entry_action"  # in 1.0.22 to 1.0.26


def guard(localfs: ModuleType) -> bool:
    """Keeps ``localfs`` from deleting what is in a mirror.

    Args:
        localfs: The package ``cocoindex.connectors.localfs``.

    Returns:
        Whether the function that deletes was found, and is guarded now.
    """
    target = getattr(localfs, "_target", None)
    original = getattr(target, _FUNCTION, None)
    if original is None:
        _log.info("localfs is not guarded: this release deletes in a way that is not known here")
        return False
    if hasattr(original, "__wrapped__"):
        return True

    @functools.wraps(original)
    def guarded(path: os.PathLike[str], action: Any) -> Any:
        if action.content is None and _is_mirrored(os.fspath(path), action.entry_type):
            _log.warning("%s: localfs gave it up, and it stays: it is in a mirror now", path)
            return None
        return original(path, action)

    setattr(target, _FUNCTION, guarded)
    return True


def _is_mirrored(path: str, kind: str) -> bool:
    """Whether a directory is a mirror, or a file is managed by the mirror it lies in."""
    folder, name = (path, "") if kind == "dir" else os.path.split(path)
    try:
        ledger = Ledger.peek(folder)
        if ledger is None:
            return False
        with closing(ledger):
            return kind == "dir" or bool(ledger.rows_named([Name(name)]))
    except LedgerError:
        return True
