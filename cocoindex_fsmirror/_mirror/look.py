"""Looks at a root, and at the paths of a batch before and after it. Changes nothing.

A file is not read if its signature proves its content, as :func:`._core.states.proves` tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from .._core.intents import Intent
from .._core.names import ROOT, Folding, Name, folders_above, parent
from .._core.plan import View
from .._core.rows import Row
from .._core.states import (
    ABSENT,
    Absent,
    Actual,
    DirState,
    FileState,
    Kind,
    OtherState,
    Signature,
    is_older,
    proves,
    signature_of,
)
from .._disk.tree import Tree
from .reader import LedgerReader

__all__ = [
    "Seen",
    "entries",
    "is_folder",
    "is_held",
    "look_at",
    "record",
    "spelling",
    "view_of",
]

_LONGEST_TICK: Final = 10_000_000  # nanoseconds: a kernel with HZ=100


def look_at(tree: Tree, name: Name, row: Row | None, *, read: bool = False) -> Actual:
    """Returns the actual state of a path; reads a content unless the row proves it.

    A path that can't be looked at counts as foreign.
    """
    try:
        return _look_at(tree, name, row, read=read)
    except OSError:
        return Actual(OtherState())


def _look_at(tree: Tree, name: Name, row: Row | None, *, read: bool) -> Actual:
    """Returns the actual state of a path; a content that can't be read has no digest.

    Raises:
        OSError: The path can't be looked at.
    """
    if row is not None and row.kind == Kind.FILE and not read:
        found = tree.stat(name)
        if found is not None and is_held(row, signature_of(found)):
            state = FileState(row.digest, row.size, tree.abilities.attributes(found))
            return Actual(state, row.signature, found.st_nlink > 1)
    try:
        return tree.look(name, digest=True)
    except OSError:
        return tree.look(name)


def is_held(row: Row, signature: Signature) -> bool:
    """True if the signature of a file or link proves that its last-written state still holds."""
    doubtful = row.unsynced or row.seen
    return not doubtful and proves(signature, row.signature, row.recorded_ns)


def view_of(
    tree: Tree,
    ledger: LedgerReader,
    intents: list[Intent],
    gone: Collection[Name] = (),
    *,
    read: bool = False,
) -> View:
    """Returns the rows and actual states of a batch, as if some paths were gone already."""
    asked = {intent.name for intent in intents}
    names = asked | folders_above(asked)
    folding = _folding(tree)
    rows = {row.name: row for row in ledger.rows()} if folding else ledger.rows_named(names)
    actual: dict[Name, Actual] = {}
    unseen: dict[Name, OSError] = {}

    def look(name: Name, *, read: bool) -> bool:
        """Looks at a path; true if it is a folder."""
        try:
            actual[name] = found = _look_at(tree, name, rows.get(name), read=read)
        except OSError as error:
            unseen[name] = error
            return False
        return isinstance(found.state, DirState)

    folders = {ROOT}
    for name in sorted(names):
        above = parent(name)
        if above in unseen:
            unseen[name] = unseen[above]
        elif above not in folders or name in gone:
            actual[name] = Actual(ABSENT)
        elif look(name, read=read):
            folders.add(name)
    files = {i.name for i in intents if not isinstance(i.desired, DirState | Absent)}
    for top in sorted(files & folders):
        rows.update((row.name, row) for row in ledger.rows_below(top))
        inside, spelled = [top], spelling(tree, rows)
        for folder in inside:  # The list grows meanwhile.
            found = (spelled(name) for name in entries(tree, folder) if name not in gone)
            inside += [name for name in found if look(name, read=False)]
    return View(rows, actual, folding, unseen)


def _folding(tree: Tree) -> Folding:
    """Returns the differences between names that the file system ignores."""
    return Folding(tree.abilities.folds_case, tree.abilities.folds_unicode)


def spelling(tree: Tree, names: Iterable[Name]) -> Callable[[Name], Name]:
    """Returns a function of a listed name: the spelling among some names, if there is one."""
    folding = _folding(tree)
    if not folding:
        return lambda listed: listed
    paths = {*names, *folders_above(names)}
    known = {folding(path): path for path in paths}
    return lambda listed: known.get(folding(listed), listed)


def entries(tree: Tree, folder: Name) -> list[Name]:
    """Lists the entries of a folder; none if it is gone or can't be listed."""
    try:
        return tree.names_in(folder)
    except OSError:
        return []


def is_folder(tree: Tree, name: Name) -> bool:
    """True if a path is a folder, as far as it can be looked at."""
    try:
        return isinstance(tree.look(name).state, DirState)
    except OSError:
        return False


class Seen(NamedTuple):
    """A signature, and a time before the look at it, by the clock that stamps files."""

    signature: Signature
    at_ns: int


def record(
    tree: Tree,
    written: Iterable[Row],
    seen: Mapping[Name, Seen],
    copied: Collection[Name] = (),
) -> list[Row]:
    """Returns rows with the signatures that were seen, and which of them have a copy.

    A file that may have been changed again in the tick of the look is looked at once more. If
    it is another one now, its row keeps the signature that was seen, without proof, and the
    next look finds the drift.
    """
    fresh = {
        name for name, look in seen.items() if not is_older(look.signature.ctime_ns, look.at_ns)
    }
    recorded_ns, now = _look_after_tick(tree, fresh)
    proven = dict(seen)
    for name, signature in now.items():
        is_same = signature == seen[name].signature
        proven[name] = seen[name]._replace(at_ns=recorded_ns if is_same else 0)
    return [
        row.with_signature(*proven[row.name], copied=row.name in copied)
        if row.name in proven
        else row
        for row in written
    ]


def _look_after_tick(
    tree: Tree, names: Collection[Name]
) -> tuple[int, dict[Name, Signature | None]]:
    """Returns signatures, and a time before the look that is later than every stamp in them.

    Waiting for the next tick of the clock that stamps files (1 to 10 ms), which
    is rarely needed, saves reading the files at the next look. A stamp in the
    future is not waited for, nor one of a file system that keeps whole seconds.
    """
    for _ in range(3):
        recorded_ns = tree.abilities.now_ns()
        seen = {name: _signature(tree, name) for name in names}
        newest = max((s.ctime_ns for s in seen.values() if s is not None), default=0)
        if not recorded_ns <= newest < recorded_ns + _LONGEST_TICK:
            break
        time.sleep((newest - recorded_ns + _LONGEST_TICK) / 1e9)
    return recorded_ns, seen


def _signature(tree: Tree, name: Name) -> Signature | None:
    """Returns the signature of a path; ``None`` if nothing is there, or it can't be looked at."""
    try:
        return tree.signature(name)
    except OSError:
        return None
