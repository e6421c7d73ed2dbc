"""Looks for drift: paths whose actual state is not the last-written one. Changes nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from .._core.errors import LedgerError
from .._core.names import Name
from .._core.rows import Row
from .._core.states import ABSENT, Actual, Kind, proves, same, same_content
from .._disk.calls import coarse_now_ns
from .look import look_at
from .reader import ALL, LedgerReader, Span
from .suspects import opened_tree, rows, suspects

__all__ = ["Difference", "DriftReport", "differences", "find_drift", "has_drifted", "observe"]

_log = logging.getLogger("cocoindex_fsmirror")


class DriftReport(msgspec.Struct, frozen=True):
    """What a look for drift found.

    Attributes:
        names: Declared paths whose actual state is not the last-written one.
        components: Owner and component of each of them.
        stale: Owners with a path that had drifted at an earlier update already,
            and that nobody has healed since.
        known: Owners that the ledger remembers. One that is missing lost its memory.
        refreshed: Rows of files that were touched, but still hold their content.
    """

    names: frozenset[Name] = frozenset()
    components: frozenset[tuple[str, str]] = frozenset()
    stale: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    refreshed: tuple[Row, ...] = ()


class Difference(NamedTuple):
    """A path that drifted.

    Attributes:
        name: Relative to the root.
        how: ``modified`` (other bytes, or another target), ``missing``, ``mode`` (its
            mode or time only), or ``foreign`` (something of another kind).
    """

    name: str
    how: Literal["modified", "missing", "mode", "foreign"]


def observe(root: str, span: Span = ALL, *, content: bool = False) -> DriftReport:
    """Looks for drift as :func:`find_drift` does; logs why, if the ledger can't be read."""
    try:
        return find_drift(root, span, content=content)
    except LedgerError as error:
        _log.warning("%s: drift can't be looked for: %s", root, error)
        return DriftReport()


def find_drift(root: str, span: Span = ALL, *, content: bool = False) -> DriftReport:
    """Looks for drift.

    Args:
        root: The root of the mirror.
        span: Which paths.
        content: True to read every file, instead of trusting an unchanged ``lstat``.

    Raises:
        LedgerError: The ledger can't be read.
    """
    looked_ns, refreshed = coarse_now_ns(), []
    drifted, names, stale, known = _unfinished(root)
    for row, actual in _looked_at(root, span, content=content):
        if _differs(row, actual):
            drifted.append(row)
        elif row.kind != Kind.DIR and not _is_proven(row, actual):
            now = row.with_signature(actual.signature or row.signature, looked_ns)
            now = replace(now, seen=False)
            if _is_proven(now, actual):  # Else it was touched just now: the next look tells.
                refreshed.append(now)
    return DriftReport(
        names.union(row.name for row in drifted),
        frozenset((row.owner, row.component) for row in drifted),
        stale.union(row.owner for row in drifted if row.seen),
        known,
        tuple(refreshed),
    )


_Unfinished = tuple[list[Row], frozenset[Name], frozenset[str], frozenset[str]]


def _unfinished(root: str) -> _Unfinished:
    """Returns the rows of an unfinished batch and of both sides of a contest.

    All are declared again, if they still are. Beside them: the paths, the owners whose
    contest an earlier update began with, and the owners that are known.
    """
    ledger = LedgerReader.peek(root)
    if ledger is None:
        return [], frozenset(), frozenset(), frozenset()
    with contextlib.closing(ledger):
        notes = ledger.displaced()
        drifted = [note.row for note in ledger.pending()]
        known = frozenset(owner for owner, *_ in ledger.owners()) if ledger.is_believed else ()
        winners = ledger.rows_named(note.by for note in notes).values()
    # Only who declares them counts.
    drifted += [replace(row, seen=False) for row in winners]
    drifted += [Row(n.name, Kind.FILE, n.owner, n.container, n.component) for n in notes]
    stale = frozenset(note.owner for note in notes if note.seen)
    return drifted, frozenset(note.by for note in notes), stale, frozenset(known)


def differences(root: str, span: Span = ALL, *, content: bool = False) -> list[Difference]:
    """Lists the paths that drifted, and how, by name; the arguments are as of find_drift.

    Raises:
        LedgerError: The ledger can't be read.
    """
    found = _looked_at(root, span, content=content)
    return [Difference(str(row.name), _how(row, at)) for row, at in found if _differs(row, at)]


def has_drifted(root: str, name: Name) -> bool:
    """True if a declared path differs from its last-written state, or is not known."""
    only = Span(only=name)
    try:
        is_known = next(rows(root, only), None) is not None
        return not is_known or name in find_drift(root, only).names
    except LedgerError as error:
        _log.warning("%s: drift can't be looked for: %s", root, error)
        return True


def _looked_at(root: str, span: Span, *, content: bool) -> Iterator[tuple[Row, Actual]]:
    """Yields rows with what is at their paths; only of suspects, unless contents are read."""
    with opened_tree(root) as tree:
        for row in rows(root, span) if content else suspects(root, span):
            yield row, look_at(tree, row.name, row, read=content) if tree else Actual(ABSENT)


def _differs(row: Row, actual: Actual) -> bool:
    """True if a path is not as it was written, or that was never synced."""
    return row.unsynced or not same(row.state, actual.state)


def _how(row: Row, actual: Actual) -> Literal["modified", "missing", "mode", "foreign"]:
    """Tells how a path differs from what was last written."""
    if actual.state is ABSENT:
        return "missing"
    if type(actual.state) is not type(row.state):
        return "foreign"
    return "mode" if same_content(row.state, actual.state) else "modified"


def _is_proven(row: Row, actual: Actual) -> bool:
    """True if the next look can trust a row's signature again."""
    signature = actual.signature
    return (
        signature is not None and not row.seen and proves(signature, row.signature, row.recorded_ns)
    )
