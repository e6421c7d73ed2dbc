"""Copies of files inside one tree, as clones where the file system shares blocks.

A copy appears under its name when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from .._core.names import Name, leaf, parent
from .calls import clone, closing, copy, open_file, replace
from .tree import Tree

__all__ = ["clone_file", "copy_file", "read_file"]

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
    return _made(tree, source, target, clone)


def copy_file(tree: Tree, source: Name, target: Name, digest: bytes) -> bool:
    """Copies a file; false if its content has another digest.

    Raises:
        OSError: The source can't be read, or there is no room for the target.
    """

    def fill(there: int, here: int) -> bool:
        return copy(there, here, os.fstat(there).st_size, lambda _count: None) == digest

    return _made(tree, source, target, fill)


def _made(tree: Tree, source: Name, target: Name, fill: Callable[[int, int], bool]) -> bool:
    """Fills a new file from another one; keeps it if that was done."""
    fresh = Name(f"{target}.new")
    tree.remove_all(fresh)  # A crash left it.
    base, above = tree.at(fresh)
    try:
        folder = tree.folder(parent(source), parent(target))
        with (
            closing(open_file(leaf(source), folder)) as there,
            closing(os.open(base, _NEW, 0o600, dir_fd=above)) as here,
        ):
            if not fill(there, here):
                return False
        tree.rename(fresh, target, replace)
    finally:
        tree.remove_file(fresh)
    return True
