"""Moving over from ``localfs`` without losing the directory.

A flow that swaps its import declares our target and drops ``localfs``'s. The
engine then has ``localfs`` delete what it had been told to keep: it removes the
whole directory, after we have adopted the files in it, and with it whatever
else lies there. No ordering prevents that, so we intervene in ``localfs``:

- The function that deletes is replaced by one that leaves alone what a mirror holds.
- Where a release has no such function, the handlers are replaced by ones that refuse to
  give up a directory that may be ours. Handlers, their ``reconcile`` and the keys of roots
  are the engine's public interface.
- Where there are no handlers either, a mirror is not put into a directory that holds
  something already.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from contextlib import closing
from pathlib import PurePath
from types import ModuleType
from typing import Any, Final

import cocoindex as coco

from .._core.errors import LedgerError, RootError
from .._core.names import Name
from .._mirror.reader import LedgerReader
from .specs import RootKey

__all__ = ["declare", "guard", "refuse_to_fill"]

_log = logging.getLogger("cocoindex_fsmirror")
_FUNCTION: Final = "_execute_entry_action"  # in 1.0.22 to 1.0.26
_HINT: Final = (
    "nothing was deleted; run this update once with cocoindex 1.0.26, or choose another directory"
)

_ours: set[RootKey] = set()  # What this process has declared through us.
_is_blind = False


def declare(key: RootKey) -> None:
    """Notes that a root, or a file by itself, is declared through us."""
    _ours.add(key)


def guard(localfs: ModuleType) -> None:
    """Keeps ``localfs`` from deleting what is in a mirror.

    Args:
        localfs: The package ``cocoindex.connectors.localfs``.
    """
    global _is_blind  # noqa: PLW0603
    target = getattr(localfs, "_target", None)
    original = getattr(target, _FUNCTION, None)
    if original is not None and [*inspect.signature(original).parameters] == ["path", "action"]:
        if not hasattr(original, "__wrapped__"):
            setattr(target, _FUNCTION, _leaving_mirrors(original))
        return
    handlers = _handlers_of(localfs)
    _is_blind = not handlers
    for handler in handlers:
        handler.reconcile = _refusing(handler.reconcile)


def refuse_to_fill(root: str) -> None:
    """Refuses a new mirror in a directory that ``localfs`` could be about to delete.

    Raises:
        RootError: The directory is no mirror and not empty, and ``localfs`` can't be guarded.
    """
    if _is_blind and os.path.isdir(root) and os.listdir(root) and not _is_mirrored(root, "dir"):
        problem = "holds something, which this release of localfs may be about to delete"
        raise RootError(root, problem, _HINT)


def _handlers_of(localfs: ModuleType) -> set[Any]:
    """Finds the classes of a package that reconcile."""
    name = localfs.__name__
    modules = [sys.modules[key] for key in sys.modules if key == name or key.startswith(f"{name}.")]
    found = (value for module in modules for value in vars(module).values())
    classes = {value for value in found if isinstance(value, type) and hasattr(value, "reconcile")}
    return {kind for kind in classes if kind.__module__.startswith(name)}


def _leaving_mirrors(original: Any) -> Any:
    """Wraps the function that deletes."""

    @functools.wraps(original)
    def guarded(path: os.PathLike[str], action: Any) -> Any:
        if action.content is None and _is_mirrored(os.fspath(path), action.entry_type):
            _log.warning("%s: localfs gave it up, and it stays: it is in a mirror now", path)
            return None
        return original(path, action)

    return guarded


def _refusing(original: Any) -> Any:
    """Wraps the ``reconcile`` of a handler, in a release that deletes in an unknown way."""

    @functools.wraps(original)
    def reconcile(handler: Any, key: Any, desired: Any, *more: Any) -> Any:
        if coco.is_non_existence(desired) and isinstance(key, tuple) and _may_be_ours(*key):
            problem = "localfs would delete it, and this release of localfs can't be stopped"
            error = RootError(str(RootKey(*key)), problem, _HINT)
            _log.error("%s", error)  # The engine raises nothing where a component is gone.
            raise error
        return original(handler, key, desired, *more)

    return reconcile


def _may_be_ours(base: str | None, path: str) -> bool:
    """True if a root of ``localfs`` may be one of ours, whatever context keys stand for."""
    if base is None and any(_is_mirrored(os.path.abspath(path), kind) for kind in ("dir", "file")):
        return True
    theirs = _parts(base, path)
    for key in _ours:
        short, long = sorted((theirs, _parts(*key)), key=len)
        if long[len(long) - len(short) :] == short and (base != key.base_dir_key or short == long):
            return True
    return False


def _parts(base: str | None, path: str) -> tuple[str, ...]:
    """The parts of a root's path, as far as it is known."""
    return PurePath(os.path.normpath(path) if base else os.path.realpath(path)).parts


def _is_mirrored(path: str, kind: str) -> bool:
    """True if a directory is a mirror, or a file is managed by the mirror it lies in."""
    folder, name = (path, "") if kind == "dir" else os.path.split(path)
    try:
        ledger = LedgerReader.peek(folder)
        if ledger is None:
            return False
        with closing(ledger):
            return kind == "dir" or bool(ledger.rows_named([Name(name)]))
    except LedgerError:
        return True
