"""Copies of files inside one tree, as clones where the file system shares blocks.

A copy appears under its name when it is whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from .._core.names import Name, leaf, parent
from .calls import clone_as, closing, copy, open_file, replace
from .tree import Tree

__all__ = ["clone_file", "copy_file", "read_file", "share_file"]

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL


def read_file(tree: Tree, name: Name, most: int) -> bytes:
    """Returns the first bytes of a file.

    Args:
        tree: The root.
        name: The path.
        most: The number of bytes that are read at most.

    Raises:
        OSError: It can't be read.
    """
    with closing(open_file(leaf(name), tree.folder(parent(name)))) as fd:
        return os.read(fd, most)


def clone_file(tree: Tree, source: Name, target: Name) -> bool:
    """Clones a file; false if the file system can't.

    Raises:
        OSError: The source can't be read, or there is no room for the target.
    """
    return _made(tree, source, target, clone_as)


def copy_file(tree: Tree, source: Name, target: Name, digest: bytes) -> bool:
    """Copies a file; false if its content has another digest.

    Raises:
        OSError: The source can't be read, or there is no room for the target.
    """

    def copy_as(there: int, base: str, above: int) -> bool:
        with closing(os.open(base, _NEW, 0o600, dir_fd=above)) as here:
            return copy(there, here, os.fstat(there).st_size, lambda _count: None) == digest

    return _made(tree, source, target, copy_as)


def _made(tree: Tree, source: Name, target: Name, make: Callable[[int, str, int], bool]) -> bool:
    """Makes a new file from another one; keeps it if that was done."""
    fresh = Name(f"{target}.new")
    tree.remove_all(fresh)  # A crash left it.
    base, above = tree.at(fresh)
    try:
        folder = tree.folder(parent(source), parent(target))
        with closing(open_file(leaf(source), folder)) as there:
            if not make(there, base, above):
                return False
        tree.rename(fresh, target, replace)
    finally:
        tree.remove_file(fresh)
    return True


def share_file(source: Tree, target: Tree, name: Name) -> None:
    """Gives a file a further name in another tree, or copies it there; it may be missing.

    Args:
        source: The tree that holds the file.
        target: The tree that gets it, in which nothing has the name.
        name: The path, in both of them.

    Raises:
        OSError: It can't be copied.
    """
    (base, there), (_, here) = source.at(name), target.at(name)
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(base, base, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:
            with (
                closing(open_file(base, there)) as old,
                closing(os.open(base, _NEW, 0o600, dir_fd=here)) as new,
            ):
                copy(old, new, os.fstat(old).st_size, lambda _count: None)
