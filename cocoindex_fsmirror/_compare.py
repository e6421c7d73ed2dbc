"""Compare what is wanted, what the ledger says and what is on the disk, path by path.

Both sides are walked in the order of the names, so that neither has to be held whole. Only
hints come from here: an intent is planned under the lock, with another look at its path.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias, TypeVar

from msgspec.structs import replace

from ._errors import RootError
from ._fs import Tree, inode_of, open_root
from ._ledger import ALL, Ledger, Recorded, Span
from ._paths import ROOT, Name
from ._state import FileState, Intent, Kind, Row, is_older

__all__ = ["LastWritten", "batches", "compare", "few_suspects", "last_written", "rows", "suspects"]

_T = TypeVar("_T")
_MOST: Final = 4096  # paths in a batch
_FEW: Final = 100_000  # suspects, of some 10 MB
_LARGEST: Final = 1 << 30  # bytes in a batch, which need room beside the old versions


class LastWritten(NamedTuple):
    """A row of the ledger; ``is_untouched`` if one ``lstat`` proves that it still holds."""

    row: Row
    is_untouched: bool


Compared: TypeAlias = tuple[Name, _T | None, LastWritten | None]
"""A path, what is wanted there, and what was last written there."""


def compare(
    wanted: Iterable[tuple[Name, _T]],
    written: Iterable[LastWritten],
    is_settled: Callable[[_T, LastWritten], bool],
) -> Iterator[Compared[_T]]:
    """Yields the paths at which something may have to be done, by name.

    Args:
        wanted: What each path should hold, by name.
        written: What each path held when it was last written, by name.
        is_settled: True if what is wanted is there already.
    """
    found = iter(written)
    last = next(found, None)
    for name, value in wanted:
        while last is not None and last.row.name < name:
            yield last.row.name, None, last
            last = next(found, None)
        if last is None or last.row.name != name:
            yield name, value, None
            continue
        if not is_settled(value, last):
            yield name, value, last
        last = next(found, None)
    while last is not None:
        yield last.row.name, None, last
        last = next(found, None)


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


def batches(intents: Iterable[Intent]) -> Iterator[list[Intent]]:
    """Yields intents some at a time, as many as are applied together."""
    batch: list[Intent] = []
    size = 0
    for intent in intents:
        batch.append(intent)
        size += intent.desired.size if isinstance(intent.desired, FileState) else 0
        if len(batch) == _MOST or size >= _LARGEST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
