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

from ._fs import Tree, inode_of
from ._ledger import Ledger
from ._paths import ROOT, Name
from ._state import FileState, Intent, Kind, Row, is_older

__all__ = ["LastWritten", "batches", "compare", "last_written"]

_T = TypeVar("_T")
_MOST: Final = 4096  # paths in a batch
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
    rows = iter(written)
    last = next(rows, None)
    for name, value in wanted:
        while last is not None and last.row.name < name:
            yield last.row.name, None, last
            last = next(rows, None)
        if last is None or last.row.name != name:
            yield name, value, None
            continue
        if not is_settled(value, last):
            yield name, value, last
        last = next(rows, None)
    while last is not None:
        yield last.row.name, None, last
        last = next(rows, None)


def last_written(
    root: str, tree: Tree | None, *, after: Name = ROOT, only: Name = ROOT
) -> Iterator[LastWritten]:
    """Yields the declared rows of a mirror, by name, with what a look at their paths says.

    Nothing is yielded where there is no mirror. The ledger is read some rows at a time, and
    others may write it meanwhile.

    Args:
        root: The root of the mirror.
        tree: The same, open; ``None`` to look at nothing, so that no row is proven.
        after: The path after which to begin.
        only: One path; all by default.

    Raises:
        LedgerError: The ledger can't be read.
    """
    while True:
        ledger = Ledger.peek(root)
        if ledger is None:
            return
        with contextlib.closing(ledger):
            rows, is_believed = ledger.page(after, only), ledger.is_believed
        if not is_believed:  # It is a copy, of files with other signatures.
            rows = [replace(row, recorded_ns=0) for row in rows]
        proofs = itertools.repeat(False) if tree is None else _are_untouched(tree, rows)
        yield from map(LastWritten, rows, proofs)
        if not rows:
            return
        after = rows[-1].name


def _are_untouched(tree: Tree, rows: Iterable[Row]) -> Iterator[bool]:
    """Tells of each row whether a single ``lstat`` proves that it still holds.

    Most of the time of a comparison is spent here, so values are compared one by one: to make
    a signature of each file would take longer than the ``lstat``.
    """
    folder, fd = ROOT, tree.fd
    for row in rows:
        above, _, base = row.name.rpartition("/")
        try:
            if above != folder:
                folder, fd = ROOT, tree.fd  # Should the next line fail.
                folder, fd = Name(above), tree.folder(Name(above))
            found = os.stat(base, dir_fd=fd, follow_symlinks=False)
        except OSError:
            yield False
            continue
        if row.mode is not None and stat.S_IMODE(found.st_mode) != row.mode:
            yield False
        elif row.kind == Kind.DIR:
            is_in_time = row.asked_ns is None or found.st_mtime_ns == row.mtime_ns
            yield is_in_time and stat.S_ISDIR(found.st_mode)
        else:
            yield (
                not (row.unsynced or row.seen)
                and found.st_ctime_ns == row.ctime_ns
                and found.st_mtime_ns == row.mtime_ns
                and found.st_size == row.size
                and inode_of(found) == row.inode
                and is_older(row.ctime_ns, row.recorded_ns)
            )


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
