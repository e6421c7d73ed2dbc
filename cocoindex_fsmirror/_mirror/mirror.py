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
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Final, Literal, NamedTuple, Self, TypeVar

import msgspec
from msgspec.structs import replace

from .._core.errors import ApplyError, LedgerError, RootError
from .._core.layout import (
    FOLDER,
    GITIGNORE,
    LEDGER,
    LEDGER_FILES,
    LOCK,
    STAGING,
    backups_of,
    corrupt_ledger,
    is_engine,
)
from .._core.names import ROOT, Name, ancestors, leaf, parent, parse_name
from .._core.plan import Plan, View, make_plan
from .._core.states import (
    ABSENT,
    Actual,
    DirState,
    Displaced,
    FileState,
    Intent,
    Kind,
    Row,
    same_content,
)
from .._disk.calls import coarse_now_ns, stamp_now
from .._disk.locks import hold, lock
from .._disk.roots import is_there, open_root, remove_root, sync_above
from .._disk.tree import Tree, dress_folder
from .backups import Backup, list_backups, purge, restore
from .batch import Outcome, apply_plan
from .brake import Brake, Limit, check_limit
from .comparison import Comparison, Wanted, check_removals
from .exact import Known, find_foreign, sweep
from .ledger import ALL, CorruptLedgerError, Ledger, Span
from .look import Drift, Look, entries, read, view_of
from .recover import recover
from .suspects import suspects
from .update import Update, apply_all, is_said, leaves, wanted

__all__ = ["Difference", "Drift", "Mirror", "Outcome", "Owner", "Status", "Update"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")
_PATIENCE: Final = 10.0  # seconds to wait for another writer
_NAMED: Final = 10  # paths that a log line names before it says how many more


def _nothing_known(_name: Name, _is_folder: bool) -> bool:
    """True of no path."""
    return False


class Status(msgspec.Struct, frozen=True, gc=False):
    """Figures about a mirror.

    Attributes:
        root: Its path.
        owners: How many targets (of one or more apps) write to it.
        files: Managed files and links.
        folders: Folders that we made, or that are declared.
        size: Bytes in the managed files, as last written.
        updated_ns: When something was last recorded, in nanoseconds since 1970; 0 if
            nothing was.
    """

    root: str
    owners: int
    files: int
    folders: int
    size: int
    updated_ns: int = 0


class Owner(msgspec.Struct, frozen=True, gc=False):
    """A target that writes to a mirror.

    Attributes:
        identity: Its UUID.
        by: Who it is: the engine's database, and the key of the directory in it.
        since_ns: When it came, in nanoseconds since 1970.
        files: How many files and links it has.
        is_lost: Whether a younger one has come in its place, since the engine's
            database was lost: nobody declares its files any more.
    """

    identity: str
    by: str
    since_ns: int
    files: int
    is_lost: bool


class Difference(NamedTuple):
    """A path that drifted.

    Attributes:
        name: Relative to the root.
        how: ``modified`` (other bytes, or another target), ``missing``, ``mode`` (its
            mode or time only), or ``foreign`` (something of another kind).
    """

    name: str
    how: Literal["modified", "missing", "mode", "foreign"]


class Mirror:
    """One root directory and its ledger.

    Args:
        root: The directory. It need not exist yet.
        patience: How long to wait for another writer, in seconds.
        on_outcome: Is told what each batch did, also if some of its paths failed.
        on_bytes: Is told of bytes that are staged, as they come; first of none, when a
            batch begins. What it raises stops the batch: nothing of it is applied.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        patience: float = _PATIENCE,
        on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
        on_bytes: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.root = os.path.abspath(root)
        self._patience = patience
        self._on_outcome = on_outcome
        self._on_bytes = on_bytes
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
        with contextlib.closing(self._peeked()) as ledger:
            owners, files, folders, size, updated_ns = ledger.figures()
        return Status(self.root, owners, files, folders, size, updated_ns)

    def count(self) -> int:
        """How many files and links are managed; :meth:`status` takes longer.

        Raises:
            RootError: The directory is no mirror.
        """
        with contextlib.closing(self._peeked()) as ledger:
            return ledger.count()

    def owners(self) -> list[Owner]:
        """Who writes here, in the order in which they came.

        Raises:
            RootError: The directory is no mirror.
        """
        with contextlib.closing(self._peeked()) as ledger:
            known = sorted(ledger.known_owners(), key=lambda owner: owner[2])
            youngest = {by: identity for identity, by, _ in known if by}
            return [
                Owner(
                    identity,
                    by,
                    since,
                    ledger.count(identity),
                    youngest.get(by, identity) != identity,
                )
                for identity, by, since in known
            ]

    def managed(self, owner: str = "") -> list[str]:
        """The files and links that are ours, by path relative to the root, sorted.

        Args:
            owner: Whose; by default all.

        Raises:
            RootError: The directory is no mirror.
        """
        with contextlib.closing(self._peeked()) as ledger:
            return list(ledger.names("kind <> ? AND ? IN ('', owner)", Kind.DIR, owner))

    def verify(self, *, content: bool = False) -> list[str]:
        """The paths that drifted, sorted; an empty list means that all is well.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.

        Raises:
            RootError: The directory is no mirror.
        """
        self._peeked().close()
        return sorted(self.observe(content=content).names)

    def _peeked(self) -> Ledger:
        """The ledger, for reading."""
        ledger = Ledger.peek(self.root)
        if ledger is None:
            raise RootError(self.root, "is no mirror", "nothing was ever written to it")
        return ledger

    # Observe

    def exists(self) -> bool:
        """True if anything was ever written here, and not given up; also if the ledger is damaged.

        Raises:
            LedgerError: A newer release wrote it, or this user may not look.
        """
        try:
            ledger = Ledger.peek(self.root)
        except CorruptLedgerError:
            return True
        if ledger is not None:
            ledger.close()
        return ledger is not None

    def row(self, name: str) -> Row | None:
        """What is last-written at one declared path; ``None`` if it is not managed.

        Args:
            name: The path, relative to the root.
        """
        ledger = Ledger.peek(self.root)
        if ledger is None:
            return None
        with contextlib.closing(ledger):
            row = ledger.rows_named([Name(name)]).get(Name(name))
        return row if row is not None and row.declared else None

    def differences(self, *, content: bool = False, span: Span = ALL) -> list[Difference]:
        """Lists the paths that drifted, and how, by name.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.
            span: Which paths; all by default.
        """
        look, found = Look(self.root, span), []
        with contextlib.closing(look):
            for row in look.rows() if content else look.suspects():
                actual = look.seen(row, read=content)
                look.compare(row, actual)
                if look.has_drifted(row.name):
                    found.append(Difference(str(row.name), _how(row, actual)))
        return found

    def middle(self) -> Name:
        """Returns the path that about one half of all paths follow; empty if there is none."""
        try:
            with contextlib.closing(Ledger.peek(self.root) or Ledger.empty()) as ledger:
                return ledger.middle()
        except LedgerError:
            return ROOT  # Whoever reads on will be told.

    # Backups

    def backups(self) -> list[Backup]:
        """What others had put in the way, and is kept, the oldest first.

        Raises:
            RootError: The root can't be read.
        """
        with self._opened() as tree:
            return list_backups(tree, self._homes(tree))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Tree]:
        """The root, to be looked at only."""
        with contextlib.closing(open_root(self.root)[0]) as tree:
            try:
                yield tree
            except OSError as error:
                problem = f"can't be looked at: {error.strerror or error}"
                raise RootError(self.root, problem, "see the cause") from error

    def _homes(self, tree: Tree) -> set[Name]:
        """The folders that may have a backup area of their own."""
        with contextlib.closing(Ledger.peek(self.root) or Ledger.empty()) as ledger:
            return {*tree.mounts, *(above for name in ledger.names() for above in ancestors(name))}

    def restore(self, backup: Backup, to: str | None = None) -> str:
        """Moves a backup to where it was, or to another path; replaces nothing.

        Args:
            backup: One of :meth:`backups`.
            to: Where to, relative to the root.

        Returns:
            Where it is now, relative to the root.

        Raises:
            InvalidNameError: That is no path for a file.
            PathError: It could not be moved.
            RootError: The root can't be used.
        """
        name = backup.name if to is None else parse_name(to)
        self._run(lambda tree, _ledger: restore(tree, backup, name))
        return str(name)

    def purge_backups(self, before_ns: int) -> tuple[int, int]:
        """Removes the backups from before a time for good.

        Args:
            before_ns: In nanoseconds since 1970.

        Returns:
            How many, and how many bytes.

        Raises:
            ApplyError: Some could not be removed.
            RootError: The root can't be used.
        """
        old = [backup for backup in self.backups() if backup.time_ns < before_ns]
        return self._run(lambda tree, _ledger: purge(tree, old))

    def observe(self, *, content: bool = False) -> Drift:
        """Looks for drift; changes nothing at all.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.
        """
        look = Look(self.root)
        with contextlib.closing(look):
            for row in look.rows() if content else look.suspects():
                look.compare(row, look.seen(row, read=content))
            return look.drift()

    async def observe_content(self) -> Drift:
        """The same with every file read, while the event loop stays free."""
        look = Look(self.root)
        with contextlib.closing(look):
            for row in look.rows():
                actual = look.seen(row, read=False)
                if isinstance(actual.state, FileState):
                    actual = await read(look, row.name, actual)
                look.compare(row, actual)
            return look.drift()

    def has_drifted(self, name: Name) -> bool:
        """Whether one declared path differs from its last-written state, or is not known.

        Args:
            name: The path, relative to the root.
        """
        look = Look(self.root, Span(only=name))
        with contextlib.closing(look):
            row = next(look.rows(), None)
            if row is not None:
                look.compare(row, look.seen(row, read=False))
            return row is None or look.has_drifted(name)

    # Change

    def create(self) -> None:
        """Makes the root, and what we keep in it, unless they are there.

        Raises:
            RootError: The root can't be used.
        """
        self._run(lambda _tree, _ledger: None, create=True)

    def prepare(
        self,
        owner: str,
        drift: Drift,
        *,
        parents: bool = True,
        durable: bool = True,
        exact: bool = False,
        by: str = "",
    ) -> None:
        """Makes the root if it is missing, recovers, and records what a look found.

        Args:
            owner: Whose drift it is that is recorded.
            drift: The result of :meth:`observe`.
            parents: Whether to make missing folders above the root.
            durable: Whether a root that was made has to survive a power cut.
            exact: Whether to sweep, if the owner is known from an earlier update; see
                :meth:`sweep`.
            by: Who it is, for people: by what it is found again if the identity is lost.

        Raises:
            RootError: The root can't be used.
        """

        def act(tree: Tree, ledger: Ledger) -> None:
            is_known = owner in ledger.owners()
            if exact and is_known:  # Else what it is about to adopt would be moved away.
                self._sweep(tree, ledger, _nothing_known)
            _prune_deserted(tree, ledger, owner)
            if not is_known:
                ledger.add_owner(owner, by, coarse_now_ns())
            drifted = ledger.rows_named(drift.names).values()
            mine = [row for row in drifted if row.owner == owner and row.declared and not row.seen]
            if mine:
                ledger.set_seen((row.name for row in mine), True)
            noted = [note for note in ledger.displaced() if note.owner == owner and not note.seen]
            if noted:
                ledger.set_displaced((note._replace(seen=True) for note in noted), ())
            if drift.refreshed:
                current = ledger.rows_named(row.name for row in drift.refreshed)
                ledger.commit((r for r in drift.refreshed if _is_current(r, current)), ())

        self._run(act, create=True, parents=parents, durable=durable)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps others that ask for the same out, for longer than a batch.

        Raises:
            LockedError: Another process holds it; the message says which.
        """
        fd = self._run(lambda tree, _ledger: hold(tree, LOCK))
        try:
            yield
        finally:
            os.close(fd)

    def remove_engine(self) -> None:
        """Removes the database that ``fsmirror sync`` of an earlier release kept here.

        Raises:
            RootError: The root can't be used.
        """

        def act(tree: Tree, _ledger: Ledger) -> None:
            for name in entries(tree, FOLDER):
                if is_engine(name):
                    tree.remove_all(name)

        self._run(act)

    def dress(self, mode: int, mtime_ns: int) -> None:
        """Gives the root itself a mode and a time.

        Args:
            mode: Permission bits; it stays accessible for its owner.
            mtime_ns: When it was last changed, in nanoseconds since 1970.

        Raises:
            RootError: The root can't be used.
        """

        def act(tree: Tree, _ledger: Ledger) -> None:
            dress_folder(tree, ROOT, mode | 0o700, mtime_ns)

        self._run(act)

    def note(self, key: str, value: str) -> None:
        """Remembers a text for whoever keeps this mirror.

        Args:
            key: What it is found by.
            value: The text.

        Raises:
            RootError: The root can't be used.
        """
        self._run(lambda _tree, ledger: ledger.set_meta(f"note:{key}", value))

    def identity(self, key: str) -> str:
        """Returns the identity that is noted for a declarer; makes one at its first use.

        Args:
            key: As for :meth:`note`.

        Raises:
            RootError: The root can't be used.
        """

        def act(_tree: Tree, ledger: Ledger) -> str:
            noted = str(ledger.get_meta(f"note:{key}") or "")
            if not noted:
                noted = uuid.uuid4().hex
                ledger.set_meta(f"note:{key}", noted)
            return noted

        return self._run(act, create=True)

    def noted(self, key: str) -> str:
        """A text that was remembered; empty if there is none.

        Args:
            key: As for :meth:`note`.
        """
        ledger = Ledger.peek(self.root)
        if ledger is None:
            return ""
        with contextlib.closing(ledger):
            return str(ledger.get_meta(f"note:{key}") or "")

    def rows(self) -> list[Row]:
        """What is last-written, by name; nothing if the directory is no mirror."""
        ledger = Ledger.peek(self.root)
        if ledger is None:
            return []
        with contextlib.closing(ledger):
            return ledger.rows()

    def preview(
        self, intents: Iterable[Intent], swept: Collection[Name] = (), *, read: bool = False
    ) -> Plan:
        """Plans what :meth:`apply` would do; changes nothing at all.

        Args:
            intents: One or more paths, in any order.
            swept: What would be moved away before.
            read: True to read every file, instead of trusting an unchanged ``lstat``.

        Raises:
            RootError: The root is there, and can't be read.
        """
        wanted = list(intents)
        ledger = Ledger.peek(self.root) or Ledger.empty()
        with contextlib.closing(ledger):
            if not os.path.isdir(self.root):
                return make_plan(wanted, View({}, {}))
            with self._opened() as tree:
                return make_plan(wanted, view_of(tree, ledger, wanted, swept, read=read))

    def foreign(self, besides: Known = _nothing_known) -> list[str]:
        """What is in the root and not managed, by path, a folder with ``/`` at its end.

        Changes nothing.

        Args:
            besides: Tells of a path, and if it is a folder, that it is not foreign either.

        Raises:
            RootError: The root can't be read.
        """
        ledger = Ledger.peek(self.root) or Ledger.empty()
        with contextlib.closing(ledger), self._opened() as tree:
            found = find_foreign(tree, _knows(ledger, besides))
            return [f"{name}/" if is_folder else str(name) for name, is_folder in found]

    def sweep(self, besides: Known = _nothing_known) -> Outcome:
        """Moves everything that is not managed to the backup area.

        Left alone are other mirrors inside this one, and what others mounted there.

        Args:
            besides: Tells of a path, and if it is a folder, that it is left alone, too.

        Returns:
            Where each file went, by the path that it was at; what could not be moved is
            in it, and not raised.

        Raises:
            RootError: The root can't be used.
        """

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            outcome = self._sweep(tree, ledger, besides)
            tree.sync((), (), (ROOT, *(parent(name) for name in outcome.backed_up.values())))
            return outcome

        outcome = self._run(act)
        self._on_outcome(outcome)
        return outcome

    def _sweep(self, tree: Tree, ledger: Ledger, besides: Known) -> Outcome:
        """The same, without a barrier."""
        outcome = sweep(tree, _knows(ledger, besides))
        _dress_above(tree, ledger, outcome.backed_up)
        return outcome

    def apply(
        self,
        intents: Iterable[Intent],
        closed: Iterable[tuple[str, str]] = (),
        brake: Brake | None = None,
        *,
        read: bool = False,
    ) -> Outcome:
        """Brings paths to their desired states.

        Args:
            intents: One or more paths, in any order.
            closed: Owner and container of directory targets that are no longer
                declared; all that was declared through them goes.
            brake: Stops the batch if it removes too much.
            read: True to read every file, instead of trusting an unchanged ``lstat``.

        Returns:
            What was done.

        Raises:
            ApplyError: Some paths failed; all others were applied.
            BarrierError: The disk did not confirm; nothing of the batch counts.
            LedgerError: The ledger could not be read or written.
            RootError: The root can't be used.
            TooManyRemovalsError: The brake stopped it; nothing of it was applied.
        """
        wanted, gone = list(intents), list(closed)

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            ending = [_ending(row) for pair in gone for row in _of(ledger, *pair)]
            outcome = self._apply(tree, ledger, [*ending, *wanted], brake, read=read)
            if gone:
                self._say_what_stays(tree, ending, outcome)
            return outcome

        outcome = self._run(act)
        if outcome.failures:
            raise ApplyError(self.root, outcome.failures)
        return outcome

    @contextlib.contextmanager
    def update(
        self,
        *,
        by: str = "update",
        on_conflict: Literal["backup", "overwrite", "error"] = "backup",
        durability: Literal["batch", "none"] = "batch",
        max_delete: Limit | None = None,
    ) -> Iterator[Update]:
        """Brings the files that are declared inside a ``with`` block to the disk, at its end.

        What was declared in the update before and is not declared in this one goes. An
        exception inside the block changes nothing.

        Args:
            by: Who declares. Several programs that share a mirror each have a name of their
                own; what one declares is not removed by another.
            on_conflict: What happens to foreign bytes in the way of a declared file:
                ``"backup"`` moves them to ``.fsmirror/backup/``, ``"overwrite"`` destroys
                them, ``"error"`` fails that file.
            durability: ``"batch"`` returns when a power cut can take nothing of the update
                any more; ``"none"`` leaves that to the system.
            max_delete: How many files the update may remove: a count, or as a float a
                fraction of those that are managed.

        Yields:
            What takes the declarations.

        Raises:
            ApplyError: Some paths failed; all others were applied.
            BarrierError: The disk did not confirm; nothing of that batch counts.
            LedgerError: The ledger could not be read or written.
            RootError: The root can't be used.
            TooManyRemovalsError: Too many files would be removed; nothing was done.
        """
        check_limit(max_delete)
        files = Update()
        yield files
        note, durable = f"update: {by}", durability != "none"
        declared = files.declared()
        check_removals(self.root, self.noted(note), leaves(declared), max_delete, "max_delete")
        owner = self.identity(note)
        self.prepare(owner, Drift(), durable=durable, by=by)
        comparison = Comparison[Wanted](
            self.root,
            owner,
            is_said=is_said,
            wanted=partial(wanted, self.root),
            on_conflict=on_conflict,
            durable=durable,
        )
        failures = apply_all(self.apply, comparison.batches(declared, suspects(self.root)))
        failures += comparison.unread.values()
        if failures:
            raise ApplyError(self.root, failures)

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
        return self._tear_down(owner, durable=durable, tells=True)

    def _tear_down(self, owner: str, *, durable: bool, tells: bool) -> Outcome:
        """The same; tells what stays, unless that is not known yet."""
        if not is_there(self.root):
            _log.info("%s: is gone already", self.root)
            return Outcome()

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            ending = [replace(_ending(row), durable=durable) for row in ledger.rows_of(owner)]
            outcome = self._apply(tree, ledger, ending)
            if tells:
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

    def give_up(self) -> Outcome:
        """Tears everything down, whoever made it, and what ``fsmirror sync`` knew of it.

        Raises:
            ApplyError: Some paths could not be removed.
            RootError: The root can't be used.
        """
        rows = self.rows()
        owners = {*(owner.identity for owner in self.owners()), *(row.owner for row in rows)}
        self.remove_engine()
        together = Outcome()
        for identity in sorted(owners):
            outcome = self._tear_down(identity, durable=True, tells=False)
            together.removed += outcome.removed
            together.left += outcome.left
        if os.path.isdir(self.root):
            with self._opened() as tree:
                self._say_what_stays(tree, [_ending(row) for row in rows], together)
        return together

    def _apply(
        self,
        tree: Tree,
        ledger: Ledger,
        intents: list[Intent],
        brake: Brake | None = None,
        *,
        read: bool = False,
    ) -> Outcome:
        """Steps 2 to 8 of a batch."""
        self._on_bytes(0)
        looked_ns = coarse_now_ns()
        plan = make_plan(intents, view_of(tree, ledger, intents, read=read))
        if brake is not None and intents:
            self._check(brake, ledger, plan, intents[0].owner)
        _note_displaced(ledger, plan, intents)
        durable = any(intent.durable for intent in intents)
        outcome = apply_plan(
            tree,
            ledger,
            plan,
            batch=uuid.uuid4().hex,
            looked_ns=looked_ns,
            durable=durable,
            on_bytes=self._on_bytes,
        )
        self._on_outcome(outcome)
        if outcome.failures:
            # Whoever declared these was told: no wider invalidation is needed.
            ledger.set_seen((Name(f.path) for f in outcome.failures), False)
        return outcome

    def _check(self, brake: Brake, ledger: Ledger, plan: Plan, owner: str) -> None:
        """Lets the brake judge a plan."""

        def managed(names: set[Name]) -> set[Name]:
            return {row.name for row in ledger.rows_named(names).values() if row.kind != Kind.DIR}

        gives_way = (step for step in plan.clear if step.on_behalf is None)
        planned = {step.name for step in (*plan.remove, *gives_way)}
        brake.check(self.root, planned, partial(ledger.count, owner), managed)

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
        try:
            with (
                self._mutex,
                contextlib.closing(self._lock(create=create, parents=parents)) as locked,
            ):
                return self._run_locked(act, locked, durable=durable)
        except OSError as error:
            problem = f"can't be worked on: {error.strerror or error}"
            raise RootError(self.root, problem, "see the cause, then update again") from error

    def _run_locked(
        self, act: Callable[[Tree, Ledger], _T], locked: _Locked, *, durable: bool
    ) -> _T:
        """The same, once the root is ours; a corrupt ledger is set aside, once."""
        tree = locked.tree
        for last in (False, True):
            try:
                ledger = self._open_ledger(tree)
                if locked.made:
                    _remember_made(tree, ledger, locked.made, durable=durable)
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
        there = tree.look(LEDGER).signature
        if self._ledger is not None and (there is None or there.inode != self._ledger.inode):
            self.close()
        if self._ledger is not None:
            self._ledger.check_format()
        else:
            tree.make_file(LEDGER)
            self._ledger = Ledger.open(self.root, tree.folder(FOLDER), network=not tree.can_syncfs)
        return self._ledger

    # Leaving

    def _say_what_stays(self, tree: Tree, ending: list[Intent], outcome: Outcome) -> None:
        """One log line that names what a teardown leaves where it is."""
        folders = {
            intent.name for intent in ending if isinstance(tree.look(intent.name).state, DirState)
        }
        folders |= {parent(intent.name) for intent in ending}
        found = {*outcome.left, *(n for folder in folders for n in entries(tree, folder))}
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
        remove_root(tree.path, made)


def _how(row: Row, actual: Actual) -> Literal["modified", "missing", "mode", "foreign"]:
    """How a path differs from what is last-written."""
    if actual.state is ABSENT:
        return "missing"
    if type(actual.state) is not type(row.state):
        return "foreign"
    return "mode" if same_content(row.state, actual.state) else "modified"


class _Locked(msgspec.Struct):
    """A root that is ours until it is closed."""

    tree: Tree
    made: int

    def close(self) -> None:
        """Lets others have it."""
        self.tree.close()


def _knows(ledger: Ledger, besides: Known) -> Known:
    """Returns what tells if a path is managed, or one of some others."""

    def knows(name: Name, is_folder: bool) -> bool:
        return besides(name, is_folder) or ledger.is_declared(name, is_folder=is_folder)

    return knows


def _prune_deserted(tree: Tree, ledger: Ledger, owner: str) -> None:
    """Removes folders that we made and could not remove while somebody had a file in them."""
    gone: list[Name] = []
    for row in ledger.deserted(owner):
        with contextlib.suppress(OSError):  # Then it stays, which hurts nobody.
            if tree.remove_folder(row.name):
                gone.append(row.name)
    if gone:
        ledger.commit((), gone)
        _dress_above(tree, ledger, gone)


def _dress_above(tree: Tree, ledger: Ledger, changed: Iterable[Name]) -> None:
    """Gives the folders above some paths the modes and times again that were asked for."""
    folders = {folder for name in changed for folder in ancestors(name)}
    for row in ledger.rows_named(folders).values():
        with contextlib.suppress(OSError):  # It may be gone, too.
            dress_folder(tree, row.name, row.mode, row.asked_ns)


def _of(ledger: Ledger, owner: str, container: str) -> list[Row | Displaced]:
    """What was declared through a directory target, also if it had to give way."""
    notes = (note for note in ledger.displaced() if note.owner == owner)
    given_way = [note for note in notes if note.container.startswith(container)]
    return [*ledger.rows_of(owner, container), *given_way]


def _note_displaced(ledger: Ledger, plan: Plan, intents: Iterable[Intent]) -> None:
    """Notes what a batch displaces, before it does, and ends the notes of what it is about.

    Were they stored after the batch, an interrupted one would leave a declared path that is
    gone, and that nobody declares again.
    """
    notes = ledger.displaced()
    if plan.displaced or notes:  # As a rule there are none.
        about = {(intent.name, intent.owner, intent.container) for intent in intents}
        ledger.set_displaced(plan.displaced, [note for note in notes if note[:3] in about])


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
            handed.append(replace(row, owner=heir, container="", declared=False))
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
        if tree.look(LEDGER).state is ABSENT:  # The ledger is made last.
            tree.remove_file(GITIGNORE)  # It may be torn.
            tree.make_file(GITIGNORE, b"*\n")
        tree.folder(FOLDER)
    except OSError as error:
        raise RootError(tree.path, f"can't be written: {error.strerror}", hint) from error


def _remember_made(tree: Tree, ledger: Ledger, made: int, *, durable: bool) -> None:
    """Records how many folders we made: the root, and those above it."""
    ledger.set_meta("made", made)
    if durable:
        tree.sync((), (), (ROOT,))
        if not tree.can_syncfs:
            sync_above(tree.path, made)


def _set_aside(tree: Tree, error: CorruptLedgerError) -> None:
    """Moves a corrupt ledger out of the way; an empty one takes its place."""
    stamp = stamp_now()
    for attempt in itertools.count():
        aside = corrupt_ledger(stamp, attempt)
        if tree.look(aside).state is ABSENT:
            break
    for name in LEDGER_FILES:
        with contextlib.suppress(FileNotFoundError):
            tree.move(name, Name(aside + name.removeprefix(LEDGER)))
    _log.warning(
        "%s: the ledger was corrupt (%s) and was set aside as %s; identical files are adopted",
        tree.path,
        error,
        leaf(aside),
    )


def _remove_own_folder(tree: Tree) -> None:
    """Removes our folder, unless it holds backups or what else is to be kept."""
    for inner in (STAGING, backups_of(ROOT)):
        tree.remove_folder(inner)
    ledger = {*LEDGER_FILES, LOCK}
    rest = set(tree.names_in(FOLDER)) - ledger - {GITIGNORE}
    for name in ledger if rest else (*ledger, GITIGNORE):
        tree.remove_file(name)
    if rest:
        _log.info("%s: %s stays, since it holds what is to be kept", tree.path, FOLDER)
    else:
        tree.remove_folder(FOLDER)
