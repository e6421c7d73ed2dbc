"""One root directory that is kept in its desired state. Knows no engine.

:class:`Mirror` locks the root, observes, plans, applies and tears down. Two
threads, or two processes, that work on one root take turns.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Self, TypeVar

import aiofiles
import xxhash

from ._apply import Outcome, apply_plan, recover
from ._errors import ApplyError, LedgerError, RootError
from ._fs import Tree, coarse_now_ns, lock, open_root
from ._ledger import FILE, FOLDER, CorruptLedgerError, Ledger
from ._paths import ROOT, Name, ancestors, join, leaf, parent
from ._plan import View, make_plan
from ._state import (
    ABSENT,
    Actual,
    DirState,
    Displaced,
    Doubt,
    FileState,
    Intent,
    Kind,
    OtherState,
    Row,
    proves,
    same,
)

__all__ = ["Drift", "Mirror", "Status"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")
_PATIENCE: Final = 10.0  # seconds to wait for another writer
_NAMED: Final = 10  # paths that a log line names before it says how many more
_CHUNK: Final = 1 << 20  # bytes


@dataclass(frozen=True)
class Drift:
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
    refreshed: tuple[Row, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Status:
    """Figures about a mirror.

    Attributes:
        root: Its path.
        owners: How many targets (of one or more apps) write to it.
        files: Managed files.
        folders: Folders that we made, or that are declared.
        size: Bytes in the managed files, as last written.
    """

    root: str
    owners: int
    files: int
    folders: int
    size: int


class Mirror:
    """One root directory and its ledger.

    Args:
        root: The directory. It need not exist yet.
        patience: How long to wait for another writer, in seconds.
        on_outcome: Is told what each batch did, also if some of its paths failed.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        patience: float = _PATIENCE,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self._patience = patience
        self._on_outcome = on_outcome
        self._mutex = threading.RLock()
        self._ledger: Ledger | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the ledger. The mirror can be used again afterwards."""
        with self._mutex:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None

    # For people and tools

    def status(self) -> Status:
        """Counts what is managed.

        Raises:
            RootError: The directory is no mirror.
        """
        rows = self._known()
        files = [row for row in rows if row.kind == Kind.FILE]
        size = sum(row.size for row in files)
        owners = len({row.owner for row in rows})
        return Status(self.root, owners, len(files), len(rows) - len(files), size)

    def managed(self) -> list[str]:
        """The files that are ours, by path relative to the root, sorted.

        Raises:
            RootError: The directory is no mirror.
        """
        return [str(row.name) for row in self._known() if row.kind == Kind.FILE]

    def verify(self, *, content: bool = False) -> list[str]:
        """The paths that drifted, sorted; an empty list means that all is well.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.

        Raises:
            RootError: The directory is no mirror.
        """
        self._known()
        return sorted(self.observe(content=content).names)

    def _known(self) -> list[Row]:
        """The rows of the ledger."""
        ledger = Ledger.peek(self.root)
        if ledger is None:
            raise RootError(self.root, "is no mirror", "nothing was ever written to it")
        with contextlib.closing(ledger):
            return ledger.rows()

    # Observe

    def observe(self, *, content: bool = False) -> Drift:
        """Looks for drift; changes nothing at all.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.
        """
        look = _Look(self.root)
        with contextlib.closing(look):
            for row in look.rows:
                look.compare(row, look.seen(row, read=content))
            return look.drift()

    async def observe_content(self) -> Drift:
        """The same with every file read, while the event loop stays free."""
        look = _Look(self.root)
        with contextlib.closing(look):
            for row in look.rows:
                actual = look.seen(row, read=False)
                if isinstance(actual.state, FileState):
                    actual = await _read(look, row.name, actual)
                look.compare(row, actual)
            return look.drift()

    def has_drifted(self, name: Name) -> bool:
        """Whether one declared path differs from its last-written state, or is not known.

        Args:
            name: The path, relative to the root.
        """
        look = _Look(self.root, name)
        with contextlib.closing(look):
            for row in look.rows:
                look.compare(row, look.seen(row, read=False))
            return not look.rows or name in look.drift().names

    # Change

    def create(self) -> None:
        """Makes the root, and what we keep in it, unless they are there.

        Raises:
            RootError: The root can't be used.
        """
        self._run(lambda _tree, _ledger: None, create=True)

    def prepare(
        self, owner: str, drift: Drift, *, parents: bool = True, durable: bool = True
    ) -> None:
        """Makes the root if it is missing, recovers, and records what a look found.

        Args:
            owner: Whose drift it is that is recorded.
            drift: The result of :meth:`observe`.
            parents: Whether to make missing folders above the root.
            durable: Whether a root that was made has to survive a power cut.

        Raises:
            RootError: The root can't be used.
        """

        def act(_tree: Tree, ledger: Ledger) -> None:
            if owner not in ledger.owners():
                ledger.set_meta(f"owner:{owner}", coarse_now_ns())
            drifted = ledger.rows_named(drift.names).values()
            mine = [row for row in drifted if row.owner == owner and row.declared and not row.doubt]
            if mine:
                ledger.set_doubt((row.name for row in mine), Doubt.SEEN)
            noted = [note for note in ledger.displaced() if note.owner == owner and not note.seen]
            if noted:
                ledger.set_displaced((note._replace(seen=True) for note in noted), ())
            if drift.refreshed:
                current = ledger.rows_named(row.name for row in drift.refreshed)
                ledger.commit((r for r in drift.refreshed if _is_current(r, current)), ())

        self._run(act, create=True, parents=parents, durable=durable)

    def apply(self, intents: Iterable[Intent], closed: Iterable[tuple[str, str]] = ()) -> Outcome:
        """Brings paths to their desired states.

        Args:
            intents: One or more paths, in any order.
            closed: Owner and container of directory targets that are no longer
                declared; all that was declared through them goes.

        Returns:
            What was done.

        Raises:
            ApplyError: Some paths failed; all others were applied.
            BarrierError: The disk did not confirm; nothing of the batch counts.
            LedgerError: The ledger could not be read or written.
            RootError: The root can't be used.
        """
        wanted, gone = list(intents), list(closed)

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            ending = [_ending(row) for pair in gone for row in _of(ledger, *pair)]
            outcome = self._apply(tree, ledger, [*ending, *wanted])
            if gone:
                self._say_what_stays(tree, ending, outcome)
            return outcome

        outcome = self._run(act)
        if outcome.failures:
            raise ApplyError(self.root, outcome.failures)
        return outcome

    def tear_down(self, owner: str, *, durable: bool = True) -> Outcome:
        """Removes what an owner made, and nothing else.

        Edited files stay, and so does everything foreign; one log line names it.
        With the last owner go the ledger, and the root if we made it.

        Args:
            owner: The identity whose files go.
            durable: Whether the removal has to survive a power cut.

        Raises:
            ApplyError: Some paths could not be removed.
            RootError: The root can't be used; one that is gone is no error.
        """
        if not os.path.isdir(self.root):
            _log.info("%s: is gone already", self.root)
            return Outcome()

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            ending = [replace(_ending(row), durable=durable) for row in ledger.rows_of(owner)]
            outcome = self._apply(tree, ledger, ending)
            self._say_what_stays(tree, ending, outcome)
            if not outcome.failures:
                ledger.commit(_handed_over(ledger, owner), ())
                ledger.forget(owner)
                self._leave_if_empty(tree, ledger)
                if durable:
                    tree.sync((), (), (ROOT,))
            return outcome

        outcome = self._run(act)
        if outcome.failures:
            raise ApplyError(self.root, outcome.failures)
        return outcome

    def _apply(self, tree: Tree, ledger: Ledger, intents: list[Intent]) -> Outcome:
        """Steps 2 to 8 of a batch."""
        looked_ns = coarse_now_ns()
        plan = make_plan(intents, _view(tree, ledger, intents))
        durable = any(intent.durable for intent in intents)
        outcome = apply_plan(
            tree, ledger, plan, batch=uuid.uuid4().hex, looked_ns=looked_ns, durable=durable
        )
        if self._on_outcome is not None:
            self._on_outcome(outcome)
        if outcome.failures:
            # Whoever declared these was told: no wider invalidation is needed.
            ledger.set_doubt((Name(f.path) for f in outcome.failures), Doubt.NONE)
        return outcome

    # Opening

    def _run(
        self,
        act: Callable[[Tree, Ledger], _T],
        *,
        create: bool = False,
        parents: bool = True,
        durable: bool = True,
    ) -> _T:
        """Does something with the root locked, and the ledger open and recovered."""
        with self._mutex, contextlib.closing(self._lock(create=create, parents=parents)) as locked:
            tree, made = locked.tree, locked.made
            for last in (False, True):
                try:
                    ledger = self._open_ledger(tree)
                    if made:
                        _remember_made(tree, ledger, made, durable=durable)
                    recover(tree, ledger)
                    return act(tree, ledger)
                except CorruptLedgerError as error:
                    self.close()
                    if last:
                        raise
                    _set_aside(tree, error)
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _lock(self, *, create: bool, parents: bool) -> _Locked:
        """The root, locked; opened again if it was replaced while we waited."""
        made = 0
        while True:
            tree, now = open_root(self.root, create=create, parents=parents)
            made += now
            try:
                lock(tree, self._patience)
                if os.path.samestat(os.fstat(tree.fd), os.stat(self.root)):
                    _prepare_folder(tree)
                    return _Locked(tree, made)
            except FileNotFoundError:
                if not create:
                    tree.close()
                    hint = "update again; the root is made anew then"
                    raise RootError(self.root, "vanished while we waited for it", hint) from None
            except BaseException:
                tree.close()
                raise
            tree.close()

    def _open_ledger(self, tree: Tree) -> Ledger:
        """The ledger that is in the root now, which need not be the one of the last batch."""
        there = tree.look(FILE).signature
        if self._ledger is not None and (there is None or there.inode != self._ledger.inode):
            self.close()
        if self._ledger is None:
            tree.make_file(FILE)
            self._ledger = Ledger.open(self.root, tree.folder(FOLDER), network=not tree.can_syncfs)
        return self._ledger

    # Leaving

    def _say_what_stays(self, tree: Tree, ending: list[Intent], outcome: Outcome) -> None:
        """One log line that names what a teardown leaves where it is."""
        folders = {
            intent.name for intent in ending if isinstance(tree.look(intent.name).state, DirState)
        }
        folders |= {parent(intent.name) for intent in ending}
        found = {*outcome.left, *(n for folder in folders for n in _entries(tree, folder))}
        stays = sorted(name for name in found if name != FOLDER and name not in folders)
        if stays:
            shown = ", ".join(repr(str(name)) for name in stays[:_NAMED])
            more = f" and {len(stays) - _NAMED} more" if len(stays) > _NAMED else ""
            _log.warning("%s: left in place, since it is not ours: %s%s", self.root, shown, more)

    def _leave_if_empty(self, tree: Tree, ledger: Ledger) -> None:
        """Removes the ledger, and the root if we made it, once nobody uses them."""
        if not ledger.is_empty():
            return
        made = ledger.get_meta("made")
        self.close()
        _remove_own_folder(tree)
        if not isinstance(made, int) or isinstance(tree.look(FOLDER).state, DirState):
            return
        tree.remove_root(made)


@dataclass
class _Locked:
    """A root that is ours until it is closed."""

    tree: Tree
    made: int

    def close(self) -> None:
        """Lets others have it."""
        self.tree.close()


class _Look:
    """A look at every path that the ledger knows, or at one of them."""

    def __init__(self, root: str, only: Name = ROOT) -> None:
        self._only = only
        self._names: set[Name] = set()
        self._components: set[tuple[str, str]] = set()
        self._stale: set[str] = set()
        self._known: frozenset[str] = frozenset()
        self._refreshed: list[Row] = []
        self._looked_ns = coarse_now_ns()
        self.tree: Tree | None = None
        self.rows: list[Row] = []
        try:
            self._read_ledger(root)
            self.tree = open_root(root)[0]
        except LedgerError as error:
            _log.warning("%s: drift can't be looked for: %s", root, error)
        except RootError:
            self.tree = None  # The whole root is gone, and all in it has drifted.

    def _read_ledger(self, root: str) -> None:
        """Takes what is last-written; an unfinished batch counts as drift."""
        ledger = Ledger.peek(root)
        if ledger is None:
            return
        with contextlib.closing(ledger):
            believed = ledger.is_believed
            self.rows = ledger.rows("declared AND ? IN ('', name)", self._only)
            for note in ledger.pending():
                self._add(note.row)
            for displaced in ledger.displaced():
                self._add_displaced(displaced, ledger)
            self._known = ledger.owners() if believed else frozenset()
        if not believed:
            self.rows = [row._replace(recorded_ns=0) for row in self.rows]

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
        return _look(self.tree, row.name, row, read=read)

    def compare(self, row: Row, actual: Actual) -> None:
        """Notes a path that drifted, or was only touched."""
        if row.doubt == Doubt.UNSYNCED or not same(row.state, actual.state):
            self._add(row)
        elif row.kind == Kind.FILE and not _is_proven(row, actual):
            now = row.seen(actual.signature or row.signature, self._looked_ns)
            now = now._replace(doubt=Doubt.NONE)
            if _is_proven(now, actual):  # Else it was touched just now: the next look tells.
                self._refreshed.append(now)

    def _add(self, row: Row) -> None:
        """Notes a path that drifted."""
        self._names.add(row.name)
        self._components.add((row.owner, row.component))
        if row.doubt == Doubt.SEEN:
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


def _is_proven(row: Row, actual: Actual) -> bool:
    """Whether the next look can trust a row's signature again."""
    signature = actual.signature
    return (
        signature is not None
        and not row.doubt
        and proves(signature, row.signature, row.recorded_ns)
    )


async def _read(look: _Look, name: Name, actual: Actual) -> Actual:
    """A file with its digest, read in other threads."""
    assert look.tree is not None
    assert isinstance(actual.state, FileState)
    try:
        folder = look.tree.folder(parent(name))
        fd = os.open(leaf(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return actual._replace(state=replace(actual.state, digest=None))
    hasher = xxhash.xxh3_128()
    async with aiofiles.open(fd, "rb") as file:
        while chunk := await file.read(_CHUNK):
            hasher.update(chunk)
    return actual._replace(state=replace(actual.state, digest=hasher.digest()))


def _look(tree: Tree, name: Name, row: Row | None, *, read: bool = False) -> Actual:
    """What is at a path; a content is read unless the row proves it.

    What can't be looked at counts as foreign: touching it will fail, by name.
    """
    try:
        return _look_closely(tree, name, row, read=read)
    except OSError:
        return Actual(OtherState())


def _look_closely(tree: Tree, name: Name, row: Row | None, *, read: bool) -> Actual:
    """The same, with what the system refuses raised."""
    actual = tree.look(name)
    if not isinstance(actual.state, FileState) or actual.signature is None:
        return actual
    if row is not None and not read and _is_proven(row, actual):
        return actual._replace(state=replace(actual.state, digest=row.digest))
    return tree.look(name, digest=True)


def _view(tree: Tree, ledger: Ledger, intents: list[Intent]) -> View:
    """What the ledger and the disk say about a batch."""
    displaced = ledger.displaced()
    asked = {intent.name for intent in intents}
    names = {*asked, *(above for name in asked for above in ancestors(name))}
    folding = tree.folding()
    rows = {row.name: row for row in ledger.rows()} if folding else ledger.rows_named(names)
    actual = {name: _look(tree, name, rows.get(name)) for name in sorted(names)}
    files = (intent.name for intent in intents if isinstance(intent.desired, FileState))
    for name in [name for name in files if isinstance(actual[name].state, DirState)]:
        rows.update((row.name, row) for row in ledger.rows_below(name))
        actual.update((inner, _look(tree, inner, rows.get(inner))) for inner in _walk(tree, name))
    return View(rows, actual, displaced, folding)


def _walk(tree: Tree, folder: Name) -> Iterator[Name]:
    """Everything in a folder, from the top; our own folder is left out."""
    for name in _entries(tree, folder):
        if name == FOLDER:
            continue
        yield name
        if isinstance(tree.look(name).state, DirState):
            yield from _walk(tree, name)


def _entries(tree: Tree, folder: Name) -> list[Name]:
    """The entries of a folder that may be gone."""
    try:
        return tree.names_in(folder)
    except OSError:
        return []


def _of(ledger: Ledger, owner: str, container: str) -> list[Row | Displaced]:
    """What was declared through a directory target, also if it had to give way."""
    notes = (note for note in ledger.displaced() if note.owner == owner)
    given_way = [note for note in notes if note.container.startswith(container)]
    return [*ledger.rows_of(owner, container), *given_way]


def _ending(row: Row | Displaced) -> Intent:
    """The intent to remove a path because its directory target is gone."""
    return Intent(row.name, ABSENT, row.owner, row.container, on_conflict="keep")


def _handed_over(ledger: Ledger, owner: str) -> list[Row]:
    """The folders that an owner made and that now hold only another owner's files."""
    handed = []
    for row in ledger.rows_of(owner):
        heirs = (below.owner for below in ledger.rows_below(row.name) if below.owner != owner)
        heir = next(heirs, None)
        if row.kind == Kind.DIR and row.made and heir is not None:
            handed.append(row._replace(owner=heir, container="", declared=False))
    return handed


def _is_current(refreshed: Row, current: dict[Name, Row]) -> bool:
    """Whether a row that a look refreshed has not been written since."""
    row = current.get(refreshed.name)
    if row is None or row.recorded_ns > refreshed.recorded_ns:
        return False
    return row.declaration == refreshed.declaration


def _prepare_folder(tree: Tree) -> None:
    """Makes sure that the root can be written, and that our folder is there."""
    hint = "choose another root, or give this user write access"
    if os.fstatvfs(tree.fd).f_flag & os.ST_RDONLY:
        raise RootError(tree.path, "is on a read-only file system", "remount it writable")
    try:
        tree.make_folder(FOLDER, 0o700)
        if tree.look(FILE).state is ABSENT:  # The ledger is made last.
            tree.write_file(join(FOLDER, Name(".gitignore")), b"*\n")
        tree.folder(FOLDER)
    except OSError as error:
        raise RootError(tree.path, f"can't be written: {error.strerror}", hint) from error


def _remember_made(tree: Tree, ledger: Ledger, made: int, *, durable: bool) -> None:
    """Records how many folders we made: the root, and those above it."""
    ledger.set_meta("made", made)
    if durable:
        tree.sync((), (), (ROOT,))
        if not tree.can_syncfs:
            tree.sync_above(made)


def _set_aside(tree: Tree, error: CorruptLedgerError) -> None:
    """Moves a corrupt ledger out of the way; an empty one takes its place."""
    stamp = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    for attempt in itertools.count():
        aside = f"{leaf(FILE)}.corrupt-{stamp}" + (f".{attempt}" if attempt else "")
        if tree.look(join(FOLDER, Name(aside))).state is ABSENT:
            break
    for suffix in ("", "-wal", "-shm"):
        tree.rename(Name(FILE + suffix), aside + suffix)
    _log.warning(
        "%s: the ledger was corrupt (%s) and was set aside as %s; identical files are adopted",
        tree.path,
        error,
        aside,
    )


def _remove_own_folder(tree: Tree) -> None:
    """Removes our folder, unless it holds backups or what else is to be kept."""
    for inner in ("tmp", "backup"):
        tree.remove_folder(join(FOLDER, Name(inner)))
    ledger = {FILE, Name(f"{FILE}-wal"), Name(f"{FILE}-shm")}
    note = join(FOLDER, Name(".gitignore"))
    rest = set(tree.names_in(FOLDER)) - ledger - {note}
    for name in ledger if rest else (*ledger, note):
        tree.remove_file(name)
    if rest:
        _log.info("%s: %s stays, since it holds what is to be kept", tree.path, FOLDER)
    else:
        tree.remove_folder(FOLDER)
