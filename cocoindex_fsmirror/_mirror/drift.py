"""Looks for drift: paths whose actual state is not the last-written one. Changes nothing.

The ledger is walked in the order of the names, and never held whole: it is opened anew for each
page of rows, since others may write it meanwhile. As a rule one ``lstat`` of a path proves that
it holds its last-written state. Any other path is a *suspect*, and is looked at again.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec.structs import replace

from .._core.drift_report import DriftReport
from .._core.errors import CorruptLedgerError
from .._core.names import ROOT, Name
from .._core.owners import Owner
from .._core.rows import Pending, Row
from .._core.states import ABSENT, Actual, FileState, Kind, inode_of, is_older, same, same_content
from .._core.text import precedes
from .._disk.locations import Root
from .._disk.roots import is_there, open_root
from .._disk.tree import Tree
from .known import find, known
from .look import is_held, look_at
from .reader import ALL, LedgerReader, Recorded, Span, after

__all__ = [
    "Difference",
    "LastWritten",
    "differences",
    "few_suspects",
    "find_drift",
    "has_drifted",
    "is_healable",
    "last_written",
    "observe",
    "row_of",
    "rows",
    "suspects",
]

_log = logging.getLogger("cocoindex_fsmirror")
_FEW: Final = 100_000  # suspects, of some 10 MB
_How: TypeAlias = Literal["modified", "missing", "mode", "foreign", "unread"]


class Difference(NamedTuple):
    """A path that drifted.

    Attributes:
        name: Relative to the root.
        how: ``modified`` (other bytes, or another target), ``missing``, ``mode`` (its
            mode or time only), ``foreign`` (something of another kind), or ``unread`` (it can't
            be looked at, or read).
    """

    name: str
    how: _How


LastWritten: TypeAlias = tuple[Row, bool]
"""A row of the ledger, and true if one ``lstat`` proved that it still holds."""


def rows(root: Root, span: Span = ALL, tree: Tree | None = None) -> Iterator[Row]:
    """Yields the rows of declared paths, by name; none where there is no mirror.

    Args:
        root: The root of the mirror.
        span: Which paths.
        tree: The opened root, to yield only the suspects; by default all rows are yielded.

    Raises:
        LedgerError: The ledger can't be read.
    """
    ledger: LedgerReader | None = None
    try:
        while True:
            ledger = ledger or LedgerReader.peek(find(root).spot)
            is_believed = ledger.is_believed
            found: Iterable[Row]
            if tree is not None and is_believed:
                page = ledger.signatures(span)
                found = ledger.rows_named(_suspicious(tree, page)).values()
                last = page[-1][0] if page else ROOT
            else:
                found = whole = ledger.page(span)
                last = whole[-1].name if whole else ROOT
            if not ledger.is_copy:  # A copy would have to be migrated again for each page.
                ledger.close()
                ledger = None
            # The rows of a copied ledger are about files with other signatures.
            yield from found if is_believed else (replace(row, recorded_ns=0) for row in found)
            if not last:
                return
            span = span._replace(first=after(last))
    finally:
        if ledger is not None:
            ledger.close()


def row_of(root: Root, name: Name) -> Row | None:
    """Returns the row of a declared path; ``None`` if it is not managed.

    Raises:
        LedgerError: The ledger can't be read.
    """
    return next(rows(root, Span(name, name)), None)


def suspects(root: Root, span: Span = ALL) -> Iterator[Row]:
    """Yields the rows of the suspects, by name. They are few, as a rule.

    Raises:
        LedgerError: The ledger can't be read.
    """
    with _opened(root) as tree:
        yield from rows(root, span, tree)


def few_suspects(root: Root) -> list[Name] | None:
    """Lists the names of all suspects; returns ``None`` if they are too many to be held."""
    found = [row.name for row in itertools.islice(suspects(root), _FEW + 1)]
    return found if len(found) <= _FEW else None


def last_written(root: Root, names: Iterable[Name] | None = None) -> Iterator[LastWritten]:
    """Yields the row of each declared path, by name, and true if it is no suspect.

    Args:
        root: The root of the mirror.
        names: The suspects, by name; by default they are looked for.

    Raises:
        LedgerError: The ledger can't be read.
    """
    doubtful = (row.name for row in suspects(root)) if names is None else iter(names)
    suspect = next(doubtful, None)
    for row in rows(root):
        while suspect is not None and suspect != row.name and precedes(suspect, row.name):
            suspect = next(doubtful, None)
        yield row, suspect != row.name


def _suspicious(tree: Tree, page: Iterable[Recorded]) -> Iterator[Name]:
    """Yields the suspects of a page.

    A look at a whole mirror spends most of its time here. With rows and signatures for
    :func:`is_held` it took a quarter more (0.47 to 0.50 s for 100,000 files instead of 0.37 to
    0.39), so the columns are compared one by one.
    """
    folder, fd = ROOT, tree.fd
    keeps_modes, keeps_times = tree.abilities.modes, bool(tree.abilities.grain_ns)
    for name, kind, is_sure, mode, asked_ns, recorded_ns, inode, size, mtime_ns, ctime_ns in page:
        above, _, base = name.rpartition("/")
        try:
            if above != folder:
                folder, fd = ROOT, tree.fd  # In case the next line fails.
                folder, fd = Name(above), tree.folder(Name(above))
            found = os.stat(base, dir_fd=fd, follow_symlinks=False)
        except OSError:
            yield name
            continue
        if kind == Kind.DIR:
            is_same = stat.S_ISDIR(found.st_mode) and (
                asked_ns is None or not keeps_times or found.st_mtime_ns == mtime_ns
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
        is_dressed = mode is None or not keeps_modes or stat.S_IMODE(found.st_mode) == mode
        if not (is_same and is_dressed):
            yield name


@contextlib.contextmanager
def _opened(root: Root) -> Iterator[Tree | None]:
    """Opens a root to look at it; ``None`` if it is gone, and all that was written with it.

    Raises:
        RootError: The root can't be read.
    """
    with contextlib.ExitStack() as stack:
        tree = None
        if is_there(str(root)):
            opened = open_root(str(root), find(root).spot)[0]
            tree = stack.enter_context(contextlib.closing(opened))
        yield tree


def observe(root: Root, span: Span = ALL, *, content: bool = False) -> DriftReport:
    """Looks for drift; if the ledger is damaged, logs why, and reports no owner as known.

    Raises:
        LedgerError: The ledger can't be read, but may be sound.
    """
    try:
        return find_drift(root, span, content=content)
    except CorruptLedgerError as error:
        _log.warning("%s: drift can't be looked for: %s", root, error)
        return DriftReport()


def find_drift(root: Root, span: Span = ALL, *, content: bool = False) -> DriftReport:
    """Looks for drift.

    Args:
        root: The root of the mirror.
        span: Which paths.
        content: True to read every file, instead of trusting an unchanged ``lstat``.

    Raises:
        LedgerError: The ledger can't be read.
    """
    refreshed, healable = [], dict[Name, tuple[str, str]]()
    drifted, names, stale, owners = _unfinished(root, whole=span == ALL)
    with known(root) as ledger:
        policies = ledger.policies()
    with _opened(root) as tree:
        looked_ns = tree.abilities.now_ns() if tree else 0
        for row, actual in _looked_at(root, tree, span, content=content):
            if _differs(row, actual):
                is_kept = policies.copies(row.owner, row.container) != "none"
                if is_kept and is_healable(row, actual):
                    healable[row.name] = row.owner, row.component
                else:
                    drifted.append(row)
            elif row.kind != Kind.DIR and actual.signature and not is_held(row, actual.signature):
                now = replace(row.with_signature(actual.signature, looked_ns), seen=False)
                if is_held(now, actual.signature):  # Else it changed just now: the next look tells.
                    refreshed.append(now)
    return DriftReport(
        names.union(healable, (row.name for row in drifted)),
        frozenset((row.owner, row.component) for row in drifted),
        healable,
        stale.union(row.owner for row in drifted if row.seen),
        owners,
        tuple(refreshed),
    )


_Unfinished = tuple[list[Row], frozenset[Name], frozenset[str], dict[str, Owner]]


def _unfinished(root: Root, *, whole: bool) -> _Unfinished:
    """Returns the rows that an unfinished batch changes, and those of contested paths.

    Their components run again, and declare them if they still do. Further values: the contested
    paths, the owners whose contest an earlier update saw, and the known owners.
    """
    with known(root) as ledger:
        if whole:
            ledger.check()  # Before an owner is called known.
        notes = ledger.displaced()
        pending = ledger.pending()
        recorded = ledger.rows_named(note.row.name for note in pending)
        owners = ledger.owners()
        winners = ledger.rows_named(note.by for note in notes).values()
    # Only the owner and the component of these rows count.
    drifted = [each.row for each in pending if not _restores(each, recorded.get(each.row.name))]
    drifted += [replace(row, seen=False) for row in winners]
    drifted += [Row(n.name, Kind.FILE, n.owner, n.container, n.component) for n in notes]
    stale = frozenset(note.owner for note in notes if note.seen)
    return drifted, frozenset(note.by for note in notes), stale, owners


def _restores(note: Pending, row: Row | None) -> bool:
    """True if an unfinished step restores the last-written state: the look tells if it is done."""
    if note.removal or row is None or row.declaration != note.row.declaration:
        return False
    is_same = same_content(row.state, note.row.state) and row.attributes == note.row.attributes
    return is_same and row.component == note.row.component


def differences(root: Root, span: Span = ALL, *, content: bool = False) -> list[Difference]:
    """Lists the paths that drifted, and how, by name; takes the arguments of find_drift.

    Raises:
        LedgerError: The ledger can't be read.
    """
    with _opened(root) as tree:
        found = _looked_at(root, tree, span, content=content)
        return [Difference(str(row.name), _how(row, at)) for row, at in found if _differs(row, at)]


def has_drifted(root: Root, name: Name) -> bool:
    """True if a declared path differs from its last-written state, or is not known."""
    try:
        return row_of(root, name) is None or name in find_drift(root, Span(name, name)).names
    except CorruptLedgerError as error:
        _log.warning("%s: drift can't be looked for: %s", root, error)
        return True


def _looked_at(
    root: Root, tree: Tree | None, span: Span, *, content: bool
) -> Iterator[tuple[Row, Actual]]:
    """Yields rows with actual states; only those of suspects, unless contents are read."""
    for row in rows(root, span, None if content else tree):
        yield row, look_at(tree, row.name, row, read=content) if tree else Actual(ABSENT)


def _differs(row: Row, actual: Actual) -> bool:
    """True if a path is not in its last-written state, or that was never synced."""
    return row.unsynced or not same(row.state, actual.state)


def is_healable(row: Row, actual: Actual) -> bool:
    """True if the last-written state of a path can be restored without its owner."""
    is_whole = same_content(row.state, actual.state) and not (row.unsynced or actual.is_linked)
    return row.copied or row.kind != Kind.FILE or is_whole


def _how(row: Row, actual: Actual) -> _How:
    """Returns how a path differs from its last-written state."""
    state = actual.state
    if state is ABSENT:
        return "missing"
    is_unread = isinstance(state, FileState) and state.digest is None and state.size == row.size
    if actual.signature is None or (is_unread and row.kind == Kind.FILE):
        return "unread"
    if type(state) is not type(row.state):
        return "foreign"
    return "mode" if same_content(row.state, state) else "modified"
