"""Observe: what is on the disk, beside what the ledger says. Changes nothing.

A file whose signature proves its content is not read; :mod:`._core/states` says when it does.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec
import xxhash
from msgspec.structs import replace

from .._core.errors import LedgerError, RootError
from .._core.layout import FOLDER
from .._core.names import ROOT, Name, ancestors, leaf, parent
from .._core.plan import View
from .._core.states import (
    ABSENT,
    Absent,
    Actual,
    DirState,
    Displaced,
    FileState,
    Intent,
    Kind,
    OtherState,
    Row,
    Signature,
    proves,
    same,
)
from .._disk.calls import coarse_now_ns
from .._disk.copying import buffer
from .._disk.looks import signature_of
from .._disk.roots import open_root
from .._disk.tree import Tree, folding_of
from .ledger import ALL, Ledger, Span
from .suspects import rows, suspects

__all__ = ["Drift", "Look", "Seen", "entries", "look_at", "read", "record", "view_of"]

_log = logging.getLogger("cocoindex_fsmirror")
_AT_ONCE: Final = 4096  # suspects whose rows are read together
_LONGEST_TICK: Final = 10_000_000  # nanoseconds: a kernel with HZ=100


class Drift(msgspec.Struct, frozen=True):
    """What a look at a mirror found.

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


class Look:
    """A look at the paths that the ledger knows.

    Args:
        root: The path of the root.
        span: Which of them.
    """

    def __init__(self, root: str, span: Span = ALL) -> None:
        self._root = root
        self._span = span
        self._names: set[Name] = set()
        self._components: set[tuple[str, str]] = set()
        self._stale: set[str] = set()
        self._known: frozenset[str] = frozenset()
        self._refreshed: list[Row] = []
        self._is_blind = False
        self._looked_ns = coarse_now_ns()
        self.tree: Tree | None = None
        try:
            self._read_ledger()
            self.tree = open_root(root)[0]
        except LedgerError as error:
            self._give_up(error)
        except RootError:
            self.tree = None  # The whole root is gone, and all in it has drifted.

    def _give_up(self, error: LedgerError) -> None:
        """Says, once, that the ledger can't be read."""
        self._is_blind = True
        _log.warning("%s: drift can't be looked for: %s", self._root, error)

    def _read_ledger(self) -> None:
        """Takes what is known beside the rows; an unfinished batch counts as drift."""
        ledger = Ledger.peek(self._root)
        if ledger is None:
            return
        with contextlib.closing(ledger):
            for note in ledger.pending():
                self._add(note.row)
            for displaced in ledger.displaced():
                self._add_displaced(displaced, ledger)
            self._known = ledger.owners() if ledger.is_believed else frozenset()

    def rows(self) -> Iterator[Row]:
        """Yields what is last-written, by name."""
        return self._unless_blind(rows(self._root, self._span))

    def suspects(self) -> Iterator[Row]:
        """Yields those rows that a single ``lstat`` does not prove to hold: few, as a rule."""
        return self._unless_blind(_rows_of_suspects(self._root, self._span))

    def _unless_blind(self, found: Iterator[Row]) -> Iterator[Row]:
        """Yields rows, until the ledger can't be read any more."""
        if self._is_blind:
            return
        try:
            yield from found
        except LedgerError as error:
            self._give_up(error)

    def _add_displaced(self, note: Displaced, ledger: Ledger) -> None:
        """Has both sides of a contest declared again, if they still are."""
        self._names |= {note.name, note.by}
        self._components.add((note.owner, note.component))
        for row in ledger.rows_named([note.by]).values():
            self._components.add((row.owner, row.component))
        if note.seen:
            self._stale.add(note.owner)

    def close(self) -> None:
        """Lets go of the root."""
        if self.tree is not None:
            self.tree.close()

    def seen(self, row: Row, *, read: bool) -> Actual:
        """What is at a path: with the last-written digest if that is proven."""
        if self.tree is None:
            return Actual(ABSENT)
        return look_at(self.tree, row.name, row, read=read)

    def compare(self, row: Row, actual: Actual) -> None:
        """Notes a path that drifted, or was only touched."""
        if row.unsynced or not same(row.state, actual.state):
            self._add(row)
        elif row.kind != Kind.DIR and not _is_proven(row, actual):
            now = row.with_signature(actual.signature or row.signature, self._looked_ns)
            now = replace(now, seen=False)
            if _is_proven(now, actual):  # Else it was touched just now: the next look tells.
                self._refreshed.append(now)

    def has_drifted(self, name: Name) -> bool:
        """Whether a path that was compared has drifted."""
        return name in self._names

    def _add(self, row: Row) -> None:
        """Notes a path that drifted."""
        self._names.add(row.name)
        self._components.add((row.owner, row.component))
        if row.seen:
            self._stale.add(row.owner)

    def drift(self) -> Drift:
        """What was found."""
        return Drift(
            frozenset(self._names),
            frozenset(self._components),
            frozenset(self._stale),
            self._known if self.tree is not None else frozenset(),
            tuple(self._refreshed),
        )


def _rows_of_suspects(root: str, span: Span) -> Iterator[Row]:
    """Yields the rows of what has to be looked at more closely, some at a time."""
    names = suspects(root, span)
    while some := list(itertools.islice(names, _AT_ONCE)):
        ledger = Ledger.peek(root)
        if ledger is None:
            return
        with contextlib.closing(ledger):
            found, is_believed = ledger.rows_named(some).values(), ledger.is_believed
        yield from found if is_believed else (replace(row, recorded_ns=0) for row in found)


def _is_proven(row: Row, actual: Actual) -> bool:
    """Whether the next look can trust a row's signature again."""
    signature = actual.signature
    return (
        signature is not None and not row.seen and proves(signature, row.signature, row.recorded_ns)
    )


async def read(look: Look, name: Name, actual: Actual) -> Actual:
    """A file with its digest, read in other threads."""
    import aiofiles  # noqa: PLC0415  # With asyncio, which most looks don't need.

    assert look.tree is not None
    assert isinstance(actual.state, FileState)
    try:
        folder = look.tree.folder(parent(name))
        fd = os.open(leaf(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return replace(actual, state=replace(actual.state, digest=None))
    hasher, chunk = xxhash.xxh3_128(), buffer()
    async with aiofiles.open(fd, "rb", buffering=0) as file:
        while count := await file.readinto(chunk):
            hasher.update(memoryview(chunk)[:count])
    return replace(actual, state=replace(actual.state, digest=hasher.digest()))


_NOWHERE: Final = Actual(ABSENT)


def look_at(tree: Tree, name: Name, row: Row | None, *, read: bool = False) -> Actual:
    """What is at a path; a content is read unless the row proves it.

    What can't be looked at counts as foreign: touching it will fail, by name.
    """
    try:
        if row is not None and row.kind == Kind.FILE and not (read or row.unsynced or row.seen):
            found, known = tree.stat(name), row.signature  # Proves most.
            if found is not None and proves(signature_of(found), known, row.recorded_ns):
                mode = stat.S_IMODE(found.st_mode)
                return Actual(FileState(row.digest, row.size, mode, row.mtime_ns), known)
        return tree.look(name, digest=True)
    except OSError:
        return Actual(OtherState())


def view_of(
    tree: Tree,
    ledger: Ledger,
    intents: list[Intent],
    gone: Collection[Name] = (),
    *,
    read: bool = False,
) -> View:
    """What the ledger and the disk say about a batch; some paths may be as good as gone."""
    asked = {intent.name for intent in intents}
    holding = {parent(name) for name in asked} - {ROOT}
    names = asked | holding | {above for name in holding for above in ancestors(name)}
    folding = folding_of(tree)
    rows = {row.name: row for row in ledger.rows()} if folding else ledger.rows_named(names)
    actual: dict[Name, Actual] = {}
    for name in sorted(names):
        above = parent(name)
        is_reachable = not above or isinstance(actual[above].state, DirState)
        if is_reachable and name not in gone:
            actual[name] = look_at(tree, name, rows.get(name), read=read)
        else:
            actual[name] = _NOWHERE
    files = (i.name for i in intents if not isinstance(i.desired, DirState | Absent))
    for name in [name for name in files if isinstance(actual[name].state, DirState)]:
        rows.update((row.name, row) for row in ledger.rows_below(name))
        inside = (inner for inner in _walk(tree, name) if inner not in gone)
        actual.update((inner, look_at(tree, inner, rows.get(inner))) for inner in inside)
    return View(rows, actual, folding)


def _walk(tree: Tree, folder: Name) -> Iterator[Name]:
    """Everything in a folder, from the top; our own folder is left out."""
    for name in entries(tree, folder):
        if name == FOLDER:
            continue
        yield name
        if isinstance(tree.look(name).state, DirState):
            yield from _walk(tree, name)


def entries(tree: Tree, folder: Name) -> list[Name]:
    """The entries of a folder that may be gone."""
    try:
        return tree.names_in(folder)
    except OSError:
        return []


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A signature, and a time before the look at it, by the clock that stamps files."""

    signature: Signature
    at_ns: int

    @property
    def is_proof(self) -> bool:
        """Whether any later change would show: it came in a later tick of that clock."""
        return proves(self.signature, self.signature, self.at_ns)


def record(tree: Tree, written: Iterable[Row], seen: Mapping[Name, Seen]) -> list[Row]:
    """Rows with the signatures that were seen.

    A file whose stamp is not older than the look at it is looked at again. If it is
    another one now (it was edited meanwhile), its row keeps what was seen, without
    proof, and the next look finds the drift.
    """
    fresh = {name for name, look in seen.items() if not look.is_proof}
    recorded_ns, now = _look_after_tick(tree, fresh)
    recorded = []
    for row in written:
        look = seen.get(row.name)
        if look is None:
            recorded.append(row)
        elif row.name not in fresh:
            recorded.append(row.with_signature(look.signature, look.at_ns))
        else:
            is_same = now[row.name] == look.signature
            recorded.append(row.with_signature(look.signature, recorded_ns if is_same else 0))
    return recorded


def _look_after_tick(
    tree: Tree, names: Collection[Name]
) -> tuple[int, dict[Name, Signature | None]]:
    """Signatures, and a time before the look that is later than every stamp in them.

    Waiting for the next tick of the clock that stamps files (1 to 10 ms), which
    is rarely needed, saves reading the files at the next look. A stamp in the
    future is not waited for, nor one of a file system that keeps whole seconds.
    """
    for _ in range(3):
        recorded_ns = coarse_now_ns()
        seen = {name: tree.signature(name) for name in names}
        newest = max((s.ctime_ns for s in seen.values() if s is not None), default=0)
        if not recorded_ns <= newest < recorded_ns + _LONGEST_TICK:
            break
        time.sleep((newest - recorded_ns + _LONGEST_TICK) / 1e9)
    return recorded_ns, seen
