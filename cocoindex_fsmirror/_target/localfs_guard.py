"""Moving over from ``localfs`` without losing the directory.

A flow that swaps its import declares our target and drops ``localfs``'s. The
engine then has ``localfs`` delete what it had been told to keep: it removes the
whole directory, after we have adopted the files in it, and with it whatever
else lies there. No ordering prevents that, so the function of ``localfs`` that
deletes is replaced by one that leaves alone what a mirror holds.

A release in which that function is not found can't be kept from deleting. With it, no
directory that exists becomes a mirror: declaring one raises an error before anything is done.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from types import ModuleType
from typing import Any, Final

from .._core.errors import LedgerError, RootError
from .._core.names import Name
from .._mirror.reader import known

__all__ = ["guard", "refuse_to_adopt"]

_log = logging.getLogger("cocoindex_fsmirror")
_FUNCTION: Final = "_execute_entry_action"  # in 1.0.22 to 1.0.26

_is_guarded = False


def guard(localfs: ModuleType) -> None:
    """Keeps ``localfs`` from deleting what is in a mirror.

    Args:
        localfs: The package ``cocoindex.connectors.localfs``.
    """
    global _is_guarded  # noqa: PLW0603
    target = getattr(localfs, "_target", None)
    original = getattr(target, _FUNCTION, None)
    if original is not None and [*inspect.signature(original).parameters] == ["path", "action"]:
        if not hasattr(original, "__wrapped__"):
            setattr(target, _FUNCTION, _leaving_mirrors(original))
        _is_guarded = True


def _leaving_mirrors(original: Any) -> Any:
    """Wraps the function that deletes, so that it leaves alone what is in a mirror."""

    @functools.wraps(original)
    def guarded(path: os.PathLike[str], action: Any) -> Any:
        if action.content is None and _is_mirrored(os.fspath(path), action.entry_type):
            _log.warning("%s: stays, though localfs gave it up: it is in a mirror now", path)
            return None
        return original(path, action)

    return guarded


def refuse_to_adopt(path: str | None, shown: str) -> None:
    """Refuses a root that ``localfs`` may be about to delete, if that can't be prevented.

    Args:
        path: The absolute path of a directory or a file; ``None`` if it is not known yet.
        shown: The path, for the message.

    Raises:
        RootError: Something is, or may be, at the path that is in no mirror.
    """
    if _is_guarded or (path is not None and _is_safe(path)):
        return
    problem = "may be deleted by this release of localfs, which we can't prevent"
    hint = "run this update once with cocoindex 1.0.26, or choose another path"
    raise RootError(shown, problem, f"nothing was changed; {hint}")


def _is_safe(path: str) -> bool:
    """True if nothing is at a path, or if a mirror holds it."""
    if not os.path.lexists(path) or _is_mirrored(path, "file"):
        return True
    return os.path.isdir(path) and (not os.listdir(path) or _is_mirrored(path, "dir"))


def _is_mirrored(path: str, kind: str) -> bool:
    """True if a directory is a mirror, or a file is managed by the mirror it lies in."""
    folder, name = (path, "") if kind == "dir" else os.path.split(path)
    try:
        with known(folder) as ledger:
            return bool(ledger.inode if kind == "dir" else ledger.rows_named([Name(name)]))
    except LedgerError:
        return True
