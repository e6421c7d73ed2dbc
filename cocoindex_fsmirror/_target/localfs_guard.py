"""Moving over from ``localfs`` without losing the directory.

A flow that swaps its import declares our target and drops ``localfs``'s. The
engine then has ``localfs`` delete what it had been told to keep: it removes the
whole directory, after we have adopted the files in it, and with it whatever
else lies there. No ordering prevents that, so the function of ``localfs`` that
deletes is replaced by one that leaves alone what is ours: what this process declares,
what a mirror holds, and a directory that has a mirror in it.

A release in which that function is not found, or is not the only one that deletes, can't be
kept from deleting. With it, no directory that exists becomes a mirror: declaring one raises an
error before anything is done.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from .._core.errors import LedgerError, RootError
from .._core.layout import FOLDER
from .._core.names import Name
from .._disk.locations import Location
from .._mirror.known import exists, known, located

__all__ = ["guard", "take_over"]

_log = logging.getLogger("cocoindex_fsmirror")
_FUNCTION: Final = "_execute_entry_action"  # in 1.0.22 to 1.0.26
_DELETING: Final = {"rmtree", "unlink", "rmdir", "remove", "removedirs"}

_is_guarded = False
_declared: set[str] = set()
"""The real paths of roots and single files that this process has declared."""


def guard(localfs: ModuleType) -> None:
    """Keeps ``localfs`` from deleting what is ours.

    Args:
        localfs: The package ``cocoindex.connectors.localfs``.
    """
    global _is_guarded  # noqa: PLW0603
    target = getattr(localfs, "_target", None)
    original = getattr(target, _FUNCTION, None)
    if hasattr(original, "__wrapped__"):
        return
    if original is not None and [*inspect.signature(original).parameters] == ["path", "action"]:
        names = [*_names_beside(target, original)]
        _is_guarded = any(_FUNCTION in used for used in names) and not any(
            _DELETING & used for used in names
        )
        setattr(target, _FUNCTION, _leaving_ours(original))


def _names_beside(module: Any, function: Any) -> Iterator[set[str]]:
    """Yields the names that each function of a module uses, methods included, but for one."""
    members = [*vars(module).values()]
    members += [each for kind in members if isinstance(kind, type) for each in vars(kind).values()]
    for each in members:
        is_own = isinstance(each, FunctionType) and each.__module__ == module.__name__
        if is_own and each is not function:
            yield {*each.__code__.co_names}


def _leaving_ours(original: Any) -> Any:
    """Wraps the function that deletes, so that it leaves alone what is ours."""

    @functools.wraps(original)
    def guarded(path: os.PathLike[str], action: Any) -> Any:
        if action.content is None and _is_ours(os.fspath(path), action.entry_type):
            _log.warning("%s: stays, though localfs gave it up: it is in a mirror now", path)
            return None
        return original(path, action)

    return guarded


def take_over(path: str | None, shown: str, root: Location | None = None) -> None:
    """Notes a root or a file that is declared; refuses it if ``localfs`` may delete it.

    Args:
        path: The absolute path of a directory or a file; ``None`` if it is not known yet.
        shown: The path, for the message.
        root: The root that is, or holds, what is at the path; ``None`` if it is not known yet.

    Raises:
        RootError: Something is, or may be, at the path that is in no mirror.
    """
    if path is not None:
        _declared.update((os.path.realpath(path), _in_folder(path)))
    if _is_guarded or (path is not None and _is_safe(path, root)):
        return
    problem = "may be deleted by this release of localfs, which we can't prevent"
    hint = "run this update once with cocoindex 1.0.26, or choose another path"
    raise RootError(shown, problem, f"nothing was changed; {hint}")


def _is_safe(path: str, root: Location | None) -> bool:
    """True if nothing is at a path, or if a mirror holds it."""
    if root is not None and root.state and exists(root):
        return True
    if not os.path.lexists(path) or _is_mirrored(path, "file"):
        return True
    return os.path.isdir(path) and (not os.listdir(path) or _is_mirrored(path, "dir"))


def _is_ours(path: str, kind: str) -> bool:
    """True if a path that is to be deleted is ours, or has something of ours in it."""
    if kind != "dir":
        return _in_folder(path) in _declared or _is_mirrored(path, kind)
    real = os.path.realpath(path)
    if real in _declared or _is_mirrored(real, kind):
        return True
    below = os.path.join(real, "")
    has_declared = any(each.startswith(below) for each in _declared)
    return has_declared or any(FOLDER in folders for _, folders, _ in os.walk(real))


def _in_folder(path: str) -> str:
    """Returns the real path of an entry of a folder, which may be a link itself."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _is_mirrored(path: str, kind: str) -> bool:
    """True if a directory is a mirror, or if a mirror above holds a path or something in it."""
    try:
        for folder in (Path(path), *Path(path).parents):
            try:
                os.lstat(folder / FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                continue
            name = os.path.relpath(path, folder)
            with known(located(str(folder))) as ledger:
                if not ledger.inode:
                    continue
                if name == "." or ledger.is_declared(Name(name), is_folder=kind == "dir"):
                    return True
    except (LedgerError, OSError):
        return True
    return False
