"""Roots: opened, made with the folders above them, synced and removed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from .._core.errors import RootError
from .calls import closing
from .tree import Tree

_NO_FOLDER: Final = ("is not a directory", "move away what is there, or name another")
_NO_ACCESS: Final = ("may not be opened", "grant this user read and write access")
_PROBLEMS: Final = {
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ELOOP: _NO_FOLDER,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: ("is on a read-only file system", "remount it writable"),
    errno.ENOENT: (
        "is missing, or the folder above it is",
        "make it, or let create_parent_dirs stand at True",
    ),
}


def open_root(path: str, *, create: bool = False, parents: bool = True) -> tuple[Tree, int]:
    """Opens a root directory.

    Args:
        path: Its path. A link is followed here, and nowhere below.
        create: True to make it if it is missing.
        parents: True to make missing folders above it too.

    Returns:
        The tree, and how many folders were made (the root and those above it).

    Raises:
        RootError: It can't be used, with what to do about it.
    """
    made = 0
    try:
        for folder in _missing(path, parents=parents) if create else ():
            with contextlib.suppress(FileExistsError):  # Another process was faster.
                os.mkdir(folder)
                made += 1
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _root_error(path, error) from error
    return Tree(fd, path), made


def is_there(path: str) -> bool:
    """True if a root is there.

    Raises:
        RootError: That can't be told, which does not mean that it is gone.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _root_error(path, error) from error


def sync_above(path: str, levels: int) -> None:
    """Syncs the folders above the root, one by one, in which folders were made."""
    for _ in range(levels):
        path = os.path.dirname(path)
        with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as fd:
            os.fsync(fd)


def remove_root(path: str, levels: int) -> None:
    """Removes the root and the folders above it, as far as they are empty."""
    with contextlib.suppress(OSError):
        for _ in range(levels):
            os.rmdir(path)
            path = os.path.dirname(path)


def _missing(path: str, *, parents: bool) -> Iterator[str]:
    """Yields the folders to be made, from the top."""
    missing = [path] if not os.path.isdir(path) else []
    while missing and parents and not os.path.lexists(os.path.dirname(missing[-1])):
        missing.append(os.path.dirname(missing[-1]))
    return reversed(missing)


def _root_error(path: str, error: OSError) -> RootError:
    """Returns the error for a root that can't be opened, with its cure."""
    unknown = (f"can't be opened: {error.strerror}", "see the cause")
    return RootError(path, *_PROBLEMS.get(error.errno or 0, unknown))
