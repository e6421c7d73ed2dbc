"""Sibling: another mirror of the same source, with which contents can be shared."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from .._core.attributes import Attributes
from .._core.names import Name
from .._core.states import Kind, Signature
from .._disk.locations import Root
from .._disk.sources import Source
from .._disk.tree import Tree
from .known import known, opened
from .look import is_held
from .reader import LedgerReader

__all__ = ["Sibling", "opened_sibling"]


class Sibling(NamedTuple):
    """A mirror that is open, to be read only."""

    tree: Tree
    ledger: LedgerReader

    def copy_of(self, name: Name, seen: Signature, attributes: Attributes) -> Source | None:
        """Returns the copy that the sibling has of a file of the source, unless that has changed.

        Whoever takes its content checks the digest.

        Args:
            name: The path of the file, in the source and in both mirrors.
            seen: Its signature in the source.
            attributes: Its attributes there.
        """
        row = self.ledger.rows_named([name]).get(name)
        if row is None or row.kind != Kind.FILE or row.digest is None:
            return None
        if (row.source_inode, row.size, row.source_ctime_ns) != (
            seen.inode,
            seen.size,
            seen.ctime_ns,
        ):
            return None
        with contextlib.suppress(OSError):
            there = self.tree.signature(name)
            if there is not None and is_held(row, there):
                path = os.path.join(self.tree.path, name)
                return Source(path, row.digest, None, attributes, seen, within=self.tree)
        return None


@contextlib.contextmanager
def opened_sibling(root: Root) -> Iterator[Sibling | None]:
    """Opens a sibling; ``None`` without a path.

    Raises:
        LedgerError: Its ledger can't be read.
        RootError: It can't be read.
    """
    if not root:
        yield None
        return
    with opened(root) as tree, known(root) as ledger:
        yield Sibling(tree, ledger)
