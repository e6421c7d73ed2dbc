"""Walks through the ledger by name, and looks which paths are as they were written.

Neither is ever held whole. The ledger is opened anew for each page of rows, since others may
write it meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from msgspec.structs import replace

from .._core.errors import RootError
from .._core.names import ROOT, Name
from .._core.rows import Row
from .._core.states import Kind, is_older
from .._disk.calls import inode_of
from .._disk.roots import open_root
from .._disk.tree import Tree
from .reader import ALL, LedgerReader, Recorded, Span

__all__ = ["LastWritten", "few_suspects", "last_written", "opened_tree", "rows", "suspects"]

_FEW: Final = 100_000  # suspects, of some 10 MB


LastWritten: TypeAlias = tuple[Row, bool]
"""A row of the ledger, and true if one ``lstat`` proved that it still holds."""


def last_written(root: str, names: Iterable[Name] | None = None) -> Iterator[LastWritten]:
    """Yields every declared row of a mirror, by name, with what a look at its path said.

    Args:
        root: The root of the mirror.
        names: Those of the suspects, by name; by default they are looked for.

    Raises:
        LedgerError: The ledger can't be read.
    """
    doubtful = (row.name for row in suspects(root)) if names is None else iter(names)
    suspect = next(doubtful, None)
    for row in rows(root):
        while suspect is not None and suspect < row.name:
            suspect = next(doubtful, None)
        yield row, suspect != row.name


def rows(root: str, span: Span = ALL) -> Iterator[Row]:
    """Yields the rows of declared paths, by name; none where there is no mirror.

    Args:
        root: The root of the mirror.
        span: Which paths.

    Raises:
        LedgerError: The ledger can't be read.
    """
    return _each(root, span, _page)


def suspects(root: str, span: Span = ALL) -> Iterator[Row]:
    """Yields the rows of declared paths of which a single ``lstat`` does not prove that they hold.

    They are few, as a rule. The arguments, and what is raised, are those of :func:`rows`.
    """
    with opened_tree(root) as tree:

        def read(ledger: LedgerReader, some: Span) -> _Page:
            if tree is None or not ledger.is_believed:
                return _page(ledger, some)
            page = ledger.signatures(some)
            found = ledger.rows_named(_suspicious(tree, page)).values()
            return found, page[-1][0] if page else ROOT

        yield from _each(root, span, read)


_Page = tuple[Iterable[Row], Name]
"""Some rows, by name, and the name after which the next page begins; empty after the last."""


def _page(ledger: LedgerReader, span: Span) -> _Page:
    """Reads the first few rows in a span."""
    page = ledger.page(span)
    return page, page[-1].name if page else ROOT


def _each(root: str, span: Span, read: Callable[[LedgerReader, Span], _Page]) -> Iterator[Row]:
    """Yields the rows that are read from the ledger, a page at a time."""
    ledger: LedgerReader | None = None
    try:
        while (ledger := ledger or LedgerReader.peek(root)) is not None:
            page, last = read(ledger, span)
            is_believed = ledger.is_believed
            if not ledger.is_copy:  # To migrate a copy for each page would take long.
                ledger.close()
                ledger = None
            # The rows of a copied ledger are about files with other signatures.
            yield from page if is_believed else (replace(row, recorded_ns=0) for row in page)
            if not last:
                return
            span = span._replace(after=last)
    finally:
        if ledger is not None:
            ledger.close()


@contextlib.contextmanager
def opened_tree(root: str) -> Iterator[Tree | None]:
    """Opens a root to look at it; ``None`` if it is gone, and all that was written with it."""
    try:
        tree = open_root(root)[0]
    except RootError:
        yield None
        return
    with contextlib.closing(tree):
        yield tree


def few_suspects(root: str) -> list[Name] | None:
    """Lists the names of all suspects, unless they are too many to be held."""
    found = [row.name for row in itertools.islice(suspects(root), _FEW + 1)]
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
