"""Reads the ledger row by row, and looks which paths are as they were written.

Neither is ever held whole. The ledger is opened anew for each page of rows, since others may
write it meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from .._core.errors import RootError
from .._core.names import ROOT, Name
from .._core.rows import Kind, Row
from .._core.signatures import is_older
from .._disk.looks import inode_of
from .._disk.roots import open_root
from .._disk.tree import Tree
from .ledger import ALL, Ledger, Recorded, Span

__all__ = ["LastWritten", "few_suspects", "last_written", "rows", "suspects"]

_FEW: Final = 100_000  # suspects, of some 10 MB


class LastWritten(NamedTuple):
    """A row of the ledger; ``is_untouched`` if one ``lstat`` proved that it still holds."""

    row: Row
    is_untouched: bool


def last_written(root: str, suspects: Iterable[Name] | None) -> Iterator[LastWritten]:
    """Yields every declared row of a mirror, by name, with what a look at its path said.

    Args:
        root: The root of the mirror.
        suspects: What :func:`suspects` yields of it; ``None`` if there was no look.

    Raises:
        LedgerError: The ledger can't be read.
    """
    if suspects is None:
        yield from (LastWritten(row, False) for row in rows(root))
        return
    doubtful = iter(suspects)
    suspect = next(doubtful, None)
    for row in rows(root):
        while suspect is not None and suspect < row.name:
            suspect = next(doubtful, None)
        yield LastWritten(row, suspect != row.name)


def rows(root: str, span: Span = ALL) -> Iterator[Row]:
    """Yields the rows of declared paths, by name; none where there is no mirror.

    The ledger is read some rows at a time, and others may write it meanwhile.

    Args:
        root: The root of the mirror.
        span: Which paths.

    Raises:
        LedgerError: The ledger can't be read.
    """
    while True:
        ledger = Ledger.peek(root)
        if ledger is None:
            return
        with contextlib.closing(ledger):
            page, is_believed = ledger.page(span), ledger.is_believed
        # The rows of a copied ledger are about files with other signatures.
        yield from page if is_believed else (replace(row, recorded_ns=0) for row in page)
        if not page:
            return
        span = span._replace(after=page[-1].name)


def suspects(root: str, span: Span = ALL) -> Iterator[Name]:
    """Yields the declared paths of which a single ``lstat`` does not prove that they hold.

    Args:
        root: The root of the mirror.
        span: Which paths.

    Raises:
        LedgerError: The ledger can't be read.
    """
    with contextlib.ExitStack() as stack:
        tree: Tree | None = None
        with contextlib.suppress(RootError):  # Then nothing that was written is there.
            tree = stack.enter_context(contextlib.closing(open_root(root)[0]))
        while True:
            ledger = Ledger.peek(root)
            if ledger is None:
                return
            with contextlib.closing(ledger):
                page, is_believed = ledger.signatures(span), ledger.is_believed
            if tree is None or not is_believed:
                yield from (recorded[0] for recorded in page)
            else:
                yield from _suspicious(tree, page)
            if not page:
                return
            span = span._replace(after=page[-1][0])


def few_suspects(root: str) -> list[Name] | None:
    """Lists the suspects of a whole mirror, unless they are too many to be held."""
    found = list(itertools.islice(suspects(root), _FEW + 1))
    return found if len(found) <= _FEW else None


def _suspicious(tree: Tree, page: Iterable[Recorded]) -> Iterator[Name]:
    """Yields the suspects of a page.

    Most of the time of a look is spent here, so values are compared one by one: to make a
    signature of each file would take longer than the ``lstat``.
    """
    folder, fd = ROOT, tree.fd
    for name, kind, is_sure, mode, asked_ns, recorded_ns, inode, size, mtime_ns, ctime_ns in page:
        above, _, base = name.rpartition("/")
        try:
            if above != folder:
                folder, fd = ROOT, tree.fd  # Should the next line fail.
                folder, fd = Name(above), tree.folder(Name(above))
            found = os.stat(base, dir_fd=fd, follow_symlinks=False)
        except OSError:
            yield name
            continue
        if kind == Kind.DIR:
            is_same = stat.S_ISDIR(found.st_mode) and (
                asked_ns is None or found.st_mtime_ns == mtime_ns
            )
        else:
            is_same = (
                is_sure
                and found.st_ctime_ns == ctime_ns
                and found.st_mtime_ns == mtime_ns
                and found.st_size == size
                and inode_of(found) == inode
                and is_older(ctime_ns, recorded_ns)
            )
        if not is_same or (mode is not None and stat.S_IMODE(found.st_mode) != mode):
            yield name
