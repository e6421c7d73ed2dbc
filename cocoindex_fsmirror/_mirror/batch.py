"""Apply: carry out a plan, so that neither a crash nor a power cut can hurt.

:func:`apply_plan` is the batch, step by step. Nothing is decided here, except, by the
table of :mod:`._core/ownership`, about bytes that appeared after the plan had looked.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from .._core.errors import BarrierError, ConflictError, LedgerError, PathError
from .._core.names import ROOT, Name, ancestors, leaf, parent
from .._core.ownership import Fate, Verdict, fate_of
from .._core.plan import Keep, Plan, Put, Remove, row_of
from .._core.states import (
    ABSENT,
    Actual,
    DirState,
    FileState,
    Intent,
    Kind,
    LinkState,
    OtherState,
    Row,
    Signature,
    is_older,
)
from .._disk.calls import coarse_now_ns, stamp_now
from .._disk.staging import Slot, Staging
from .._disk.tree import Tree, dress, dress_folder
from .ledger import Ledger, Pending
from .look import Seen, record

__all__ = ["Outcome", "apply_plan"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")
_LOOKED_AT_ONCE = 1024  # files; far more than one tick's, so that few are looked at twice
_ATTEMPTS = 8  # at placing a file whose path others keep changing under us

_HINTS = {
    errno.ENOSPC: "free some space, then update again",
    errno.EDQUOT: "free some of the quota, then update again",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EACCES: "grant this user write access",
    errno.EPERM: "is it immutable, or owned by someone else?",
    errno.EROFS: "remount the file system writable",
    errno.ENOTDIR: "a folder was replaced while we worked; update again",
    errno.ELOOP: "a folder was replaced by a link while we worked; update again",
}


class Outcome(msgspec.Struct):
    """What a batch did, by path relative to the root.

    Attributes:
        written: Files that were put in place.
        kept: Paths that were right already, and are recorded now.
        adopted: Those of them, but for folders, of which nothing was known before.
        dressed: Files and links of which only mode or time was set.
        removed: Files that were removed.
        made: Folders that were made.
        pruned: Folders that were removed.
        backed_up: Where foreign bytes went, by the path that they were at.
        left: Paths that stay though nobody declares them, since they are foreign.
        failures: One error for each path that failed.
        size: Bytes in the files that were put in place.
    """

    written: list[Name] = msgspec.field(default_factory=list)
    kept: list[Name] = msgspec.field(default_factory=list)
    adopted: list[Name] = msgspec.field(default_factory=list)
    dressed: list[Name] = msgspec.field(default_factory=list)
    removed: list[Name] = msgspec.field(default_factory=list)
    made: list[Name] = msgspec.field(default_factory=list)
    pruned: list[Name] = msgspec.field(default_factory=list)
    backed_up: dict[Name, Name] = msgspec.field(default_factory=dict)
    left: list[Name] = msgspec.field(default_factory=list)
    failures: list[PathError] = msgspec.field(default_factory=list)
    size: int = 0


def apply_plan(
    tree: Tree,
    ledger: Ledger,
    plan: Plan,
    *,
    batch: str,
    looked_ns: int,
    durable: bool,
    on_bytes: Callable[[int], None],
) -> Outcome:
    """Carries out a plan.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        plan: What to do.
        batch: A name for the batch that was never used before.
        looked_ns: When the plan's view was taken, by the clock that stamps files.
        durable: Whether the barriers are made.
        on_bytes: Is told of bytes that are staged, as they come. What it raises ends the
            batch before anything is in place; recovery cleans up.

    Returns:
        What was done; failures of single paths are in it, not raised.

    Raises:
        BarrierError: The disk did not confirm; nothing of the batch counts.
        LedgerError: The ledger could not be written.
    """
    staging = Staging(tree, batch, on_bytes)
    run = _Batch(tree, ledger, plan, staging, looked_ns=looked_ns, durable=durable)
    if not plan.changes_nothing:
        with contextlib.closing(run):
            _carry_out(run)
    if _log.isEnabledFor(logging.DEBUG):
        _log_paths(tree.path, run.outcome)
    return run.outcome


def _log_paths(root: str, outcome: Outcome) -> None:
    """Logs one line for each path that something was done to."""
    verbs = {
        "kept": outcome.kept,
        "left": outcome.left,
        "backed up": outcome.backed_up,
        "removed": [*outcome.removed, *outcome.pruned],
        "adopted": outcome.adopted,
        "dressed": outcome.dressed,
        "made": outcome.made,
        "wrote": outcome.written,
    }
    # Of a path with several verbs, such as one that was backed up and written, the last tells most.
    done = {name: verb for verb, names in verbs.items() for name in names}
    for name, verb in done.items():
        _log.debug("%s: %s %r", root, verb, name)


def _carry_out(run: _Batch) -> None:
    """The steps 3 to 8 of a batch, in the order in which they happen."""
    # A power cut here leaves at most the note of what was intended.
    run.write_down()
    # Here: staging files, perhaps torn, that recovery throws away.
    run.stage()
    run.first_barrier()
    # From here on every name that appears points at bytes that are on the disk.
    # A cut leaves some paths new and the others old, each of them whole.
    run.clear()
    run.make_folders()
    run.place()
    run.keep()
    run.remove()
    run.prune()
    run.dress()
    run.second_barrier()
    # A cut here loses only the record; recovery finds what the notes announced.
    run.commit()


class _Batch:
    """The state of one batch while it is applied."""

    def __init__(
        self,
        tree: Tree,
        ledger: Ledger,
        plan: Plan,
        staging: Staging,
        *,
        looked_ns: int,
        durable: bool,
    ) -> None:
        self._tree = tree
        self._ledger = ledger
        self._plan = plan
        self._looked_ns = looked_ns
        self._durable = durable
        self._staging = staging
        self._stamp = stamp_now()
        self._homes: dict[Name, tuple[Name, int | None]] = {}
        self._slots: dict[Name, Slot] = {}
        self._fresh: dict[Name, Slot] = {}  # folders that are staged with all in them
        self._unmoved: set[Name] = set()  # those of them that are still there
        self._moved: dict[Name, int] = {}  # those that are in place, and a time before that
        self._rows: dict[Name, Row] = {}  # what the files hold afterwards
        self._staged: dict[Name, Signature] = {}
        self._placed: list[Name] = []  # and not looked at since
        self._done: dict[Name, Row] = {}  # to be recorded with the signature of the disk
        self._seen: dict[Name, Seen] = {}
        self._gone: list[Name] = list(plan.forget)
        self._failed: set[Name] = set()
        self._kept_back = False
        self._backups: list[Name] = []
        self.outcome = Outcome(left=list(plan.left), failures=list(plan.failures))

    def close(self) -> None:
        """Gives the descriptors back."""
        self._staging.close()

    # Before anything is in place

    def write_down(self) -> None:
        """Step 3: the intents go to the ledger."""
        plan = self._plan
        self._rows = {put.intent.name: row_of(put.intent, made=put.made) for put in plan.files}
        folders = self._assign_slots()
        batch = self._staging.batch
        notes = [_note(batch, self._slots[name], row) for name, row in self._rows.items()]
        for gone in (*plan.clear, *plan.remove):
            row = Row(gone.name, Kind.FILE, "", "", digest=gone.expected.digest)
            notes.append(_note(batch, self._slots[gone.name], row, removal=True))
        notes += [_note(batch, slot, row) for slot, row in folders]
        # An area outside the root's own can be found again only through its note.
        elsewhere = any(note.home != ROOT for note in notes)
        self._ledger.begin(notes, durable=self._durable and elsewhere)

    def _assign_slots(self) -> list[tuple[Slot, Row]]:
        """Gives each step a slot; a new folder takes along what is to be in it.

        Returns:
            The slots of the folders, with their rows.
        """
        numbers = map(str, itertools.count())
        folders = []
        for row in (step.row for step in self._plan.folders):  # From the top.
            above = parent(row.name)
            around = self._fresh.get(above)
            home, gid = self._home_of(above)
            slot = around.inside(leaf(row.name)) if around else Slot(home, next(numbers))
            folders.append((slot, row))
            # What is made in a folder with setgid gets its group, and the bit, only in place.
            if gid is None:
                self._fresh[row.name] = slot
        for name in self._rows:
            around = self._fresh.get(parent(name))
            if around is not None:
                self._slots[name] = around.inside(leaf(name))
            else:
                self._slots[name] = Slot(self._home_of(parent(name))[0], next(numbers))
        for step in (*self._plan.clear, *self._plan.remove):
            self._slots[step.name] = Slot(self._home_of(parent(step.name))[0], next(numbers))
        return folders

    def _home_of(self, folder: Name) -> tuple[Name, int | None]:
        """Where to stage for a folder, and the group that its files inherit."""
        known = self._homes.get(folder)
        if known is not None:
            return known
        for there in (folder, *reversed([*ancestors(folder)]), ROOT):
            found = self._homes.get(there)
            if found is None:
                try:
                    result = os.fstat(self._tree.folder(there))
                except OSError:
                    continue  # It is to be made, and will inherit.
                gid = result.st_gid if result.st_mode & stat.S_ISGID else None
                found = (self._tree.home_of(there), gid)
            self._homes[there] = self._homes[folder] = found
            return found
        raise AssertionError("unreachable: the root is there")

    def stage(self) -> None:
        """Step 4: every content is written, away from where it will be."""
        for step in self._plan.folders:
            if step.row.declared and step.row.name in self._fresh:
                self._attempt(step.row.name, "make", self._stage_folder, step.row.name)
        for put in self._plan.files:
            try:
                self._staged[put.intent.name] = self._stage(put)
            except OSError as error:
                self._fail(put.intent.name, "write", error)
        self._write_down_digests()
        empty = self._unmoved - self._needed_folders()  # All that was to be in them failed.
        for name in sorted(empty, reverse=True):
            self._attempt(name, "make", self._staging.remove_folder, self._fresh[name])
        self._unmoved -= empty
        for gone in (*self._plan.clear, *self._plan.remove):
            try:
                self._staging.open(self._slots[gone.name].home)
            except OSError as error:
                self._fail(gone.name, "remove", error)

    def _write_down_digests(self) -> None:
        """Notes the digests of what was hashed now: by them recovery tells what was placed."""
        hashed = (put.intent.name for put in self._plan.files if _is_hashed_late(put.intent))
        staged = [name for name in hashed if name in self._staged]
        if staged:
            batch, rows, slots = self._staging.batch, self._rows, self._slots
            self._ledger.begin([_note(batch, slots[name], rows[name]) for name in staged])

    def _stage(self, put: Put) -> Signature:
        """Stages one file or link; notes the digest of a file that is hashed only now."""
        intent, slot = put.intent, self._slots[put.intent.name]
        self._stage_folder(parent(intent.name))
        if isinstance(intent.desired, LinkState):
            return self._staging.link(slot, intent.desired.target, intent.desired.mtime_ns)
        assert isinstance(intent.desired, FileState)
        gid = self._home_of(parent(intent.name))[1]
        content = intent.content or b""
        mtime_ns = intent.desired.mtime_ns
        signature, digest = self._staging.write(slot, content, put.mode, gid, mtime_ns)
        if _is_hashed_late(intent):
            self._rows[intent.name] = replace(self._rows[intent.name], digest=digest)
        return signature

    def _stage_folder(self, name: Name) -> None:
        """Makes a new folder where it is staged, and those of them that it lies in."""
        if name not in self._fresh or name in self._unmoved:
            return
        for folder in (*ancestors(name), name):
            if folder in self._fresh and folder not in self._unmoved:
                self._staging.make_folder(self._fresh[folder])
                self._unmoved.add(folder)

    def first_barrier(self) -> None:
        """Step 5: all bytes are on the disk before any name points at them."""
        try:
            self._barrier(())
            self._staging.ready()
        except OSError as error:
            # A disk that failed may refuse this too; then recovery does it.
            with contextlib.suppress(OSError, LedgerError):
                self._staging.abandon()
                self._ledger.commit((), (), self._staging.batch)
            raise self._barrier_error(error) from error

    def _barrier(self, files: Iterable[Name]) -> None:
        """Waits for the disk, if the batch is to be durable."""
        if self._durable:
            self._tree.sync(self._staging.descriptors, files, self._touched())

    def _touched(self) -> Iterator[Name]:
        """The folders in which something changed, and those above them."""
        names = (*self._done, *self._gone, *self._seen, *self._backups)
        touched = {parent(name) for name in names}
        above = {folder for name in touched for folder in (*ancestors(name), ROOT)}
        yield from sorted(touched | above)

    def _barrier_error(self, error: OSError) -> BarrierError:
        """The error for a disk that did not confirm."""
        hint = "check the disk and the kernel's log; the next update writes these files anew"
        return BarrierError(f"{self._tree.path}: syncing failed: {error.strerror} ({hint})")

    # Putting in place

    def clear(self) -> None:
        """Step 6a: what stands in the way goes."""
        needed = self._needed_folders() if self._plan.clear else ()
        for step in self._plan.clear:
            if step.on_behalf not in self._failed or step.name in needed:
                self._attempt(step.name, "remove", self._remove, step)
        for name, on_behalf in self._plan.clear_folders:
            if on_behalf in self._failed:
                continue
            if self._tree.remove_folder(name):
                self._gone.append(name)
                self.outcome.pruned.append(name)
            elif on_behalf not in self._failed:
                problem = f"the folder {name!r} is in the way, and something appeared in it"
                self._refuse(ConflictError(on_behalf, "write", problem, "move it away"))

    def _needed_folders(self) -> set[Name]:
        """The folders of what is staged or declared; more than one file may need one."""
        declared = {step.row.name for step in self._plan.folders if step.row.declared}
        holding = {parent(name) for name in self._staged}
        above = {folder for name in holding | declared for folder in ancestors(name)}
        return holding | declared | above

    def make_folders(self) -> None:
        """Step 6b: the folders that hold what follows, or that come with it."""
        needed = self._needed_folders()
        self._move_folders()
        for step in self._plan.folders:
            if step.row.name in needed and step.row.name not in self._failed:
                self._attempt(step.row.name, "make", self._make_folder, step.row)

    def _move_folders(self) -> None:
        """Puts the folders in place that were staged whole; where that fails, not whole."""
        for name in sorted(self._unmoved):  # From the top.
            above = parent(name)
            if above in self._moved:
                self._moved[name] = self._moved[above]
            elif above not in self._fresh and name not in self._failed:
                now_ns = coarse_now_ns()
                with contextlib.suppress(OSError):
                    self._staging.put(self._fresh[name], name)
                    self._moved[name] = now_ns
        self._unmoved -= self._moved.keys()

    def _make_folder(self, row: Row) -> None:
        """Makes one folder, unless it came whole, and remembers that we did."""
        is_new = row.name in self._moved or self._tree.make_folder(row.name)
        if is_new:
            self.outcome.made.append(row.name)
        made = is_new or self._was_made(row.name)
        self._tree.folder(row.name)  # Raises if something else took the name.
        if made or row.declared:
            self._done[row.name] = replace(row, made=made)

    def _was_made(self, name: Name) -> bool:
        """Whether a folder that is there, though it could not be seen before, is one of ours."""
        known = self._ledger.rows_named([name]).get(name)
        return known is not None and known.kind == Kind.DIR and known.made

    def place(self) -> None:
        """Step 6c: the staged files take their names."""
        for put in self._plan.files:
            name = put.intent.name
            if name in self._staged and name not in self._failed:
                since_ns = self._moved.get(parent(name))
                if since_ns is None:
                    self._attempt(name, "write", self._place, put)
                else:
                    self._seen[name] = Seen(self._staged[name], since_ns)
                    self._note_placed(name)
                if len(self._placed) == _LOOKED_AT_ONCE:
                    self._look_at_placed()
        self._look_at_placed()

    def _look_at_placed(self) -> None:
        """Takes the signatures after the renames, whose ctime tells of any later edit."""
        now_ns = coarse_now_ns()
        for name in self._placed:
            staged = self._staged[name]
            self._seen[name] = Seen(staged, 0)  # Proves nothing, if it is another one now.
            with contextlib.suppress(OSError):
                now = self._tree.signature(name)
                if now is not None and now.is_like(staged):
                    self._seen[name] = Seen(now, now_ns)
        self._placed.clear()

    def _place(self, put: Put) -> None:
        """Puts one file in place; whatever is there comes out, and is looked at."""
        name, slot = put.intent.name, self._slots[put.intent.name]
        expected = self._still_expected(name, put.expected)
        for _ in range(_ATTEMPTS):
            try:
                if expected.state is ABSENT:
                    self._staging.put(slot, name)
                else:
                    self._staging.exchange(slot, name)
                    self._receive(put, slot, expected)
            except FileExistsError:
                expected = self._look_again(put)
            except FileNotFoundError:
                if expected.state is ABSENT:
                    raise
                expected = Actual(ABSENT)
            else:
                self._placed.append(name)
                self._note_placed(name)
                return
        problem = "the path kept changing while we tried to write it"
        raise PathError(name, "write", problem, "find out who else writes there")

    def _note_placed(self, name: Name) -> None:
        """Notes that a file is in place."""
        self._done[name] = self._rows[name]
        self.outcome.written.append(name)
        self.outcome.size += self._staged[name].size

    def _still_expected(self, name: Name, planned: Actual) -> Actual:
        """What the plan had seen; if ctime has moved since, its content will be read.

        A rename moves ctime too, so this is the last moment to ask for it. Where nothing
        was, the rename itself refuses if something is.
        """
        is_same = planned.state is ABSENT or self._tree.signature(name) == planned.signature
        return planned if is_same else replace(planned, signature=None)

    def _look_again(self, put: Put) -> Actual:
        """Looks at what appeared where nothing was; raises if it may not be moved."""
        name = put.intent.name
        is_folder = isinstance(self._tree.look(name).state, DirState)
        verdict = Verdict.FOLDER if is_folder else Verdict.FOREIGN
        if fate_of(verdict, put.intent.on_conflict).blocks:
            raise _appeared(name)
        return Actual(OtherState())

    def _receive(self, put: Put, slot: Slot, expected: Actual) -> None:
        """Deals with what an exchange brought out."""
        name = put.intent.name
        found = self._judge_out(slot, put.verdict, expected, put.intent.ours)
        fate = fate_of(found, put.intent.on_conflict)
        if fate is Fate.BACK_UP:
            self._back_up(slot, name)
        elif fate is Fate.DISCARD:
            self._staging.discard(slot)
        else:
            self._give_back(slot, name)

    def _judge_out(
        self, slot: Slot, planned: Verdict, expected: Actual, ours: tuple[bytes, ...]
    ) -> Verdict:
        """Judges what a rename brought out, which need not be what the plan had seen."""
        if planned is not Verdict.FOREIGN and self._is_expected(slot, expected, ours):
            return Verdict.OURS
        is_folder = isinstance(self._staging.look(slot).state, DirState)
        return Verdict.FOLDER if is_folder else Verdict.FOREIGN

    def _give_back(self, slot: Slot, name: Name) -> NoReturn:
        """Undoes an exchange: the path holds again what it held."""
        self._staging.exchange(slot, name)
        out = self._staging.look(slot).signature
        if out is not None and out.inode == self._staged[name].inode:
            self._staging.discard(slot)
        else:
            self._back_up(slot, name)  # Somebody wrote there in between: that is kept too.
        raise _appeared(name)

    def _is_expected(self, slot: Slot, expected: Actual, ours: tuple[bytes, ...]) -> bool:
        """Whether what came out is the version of ours that the plan had seen.

        A rename changes ctime, so mtime has to do; within one tick of the look
        it proves nothing, and the content is read.
        """
        seen, known = self._staging.look(slot).signature, expected.signature
        if (
            (seen is not None and known is not None)
            and seen.is_like(known)
            and is_older(seen.mtime_ns, self._looked_ns)
        ):
            return True
        digest = self._staging.look(slot, digest=True).digest
        return digest is not None and digest in (expected.digest, *ours)

    def keep(self) -> None:
        """Step 6d: what was right already is recorded, with its mode set."""
        for step in self._plan.keep:
            self._attempt(step.row.name, "set the mode of", self._keep, step)

    def _keep(self, step: Keep) -> None:
        """Records one path."""
        name, seen = step.row.name, step.actual.signature
        if step.row.kind != Kind.DIR and seen is not None:
            if (step.mode, step.mtime_ns) != (None, None):
                seen = dress(self._tree, name, step.mode, step.mtime_ns, seen)
            self._seen[name] = Seen(seen, self._looked_ns)
        self._done[name] = step.row
        self.outcome.kept.append(name)
        if step.adopts:
            self.outcome.adopted.append(name)
        elif (step.mode, step.mtime_ns) != (None, None):
            self.outcome.dressed.append(name)

    def remove(self) -> None:
        """Step 6e: what is no longer declared goes."""
        for step in self._plan.remove:
            self._attempt(step.name, "remove", self._remove, step)

    def _remove(self, step: Remove) -> None:
        """Takes one file out of its place, looks at it, and lets it go."""
        name, slot = step.name, self._slots[step.name]
        try:
            expected = self._still_expected(name, step.expected)
            self._staging.take(slot, name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            self._gone.append(name)
            return
        found = self._judge_out(slot, step.verdict, expected, ())
        fate = fate_of(found, step.policy)
        if fate is Fate.BACK_UP:
            self._back_up(slot, name)
        elif fate is Fate.DISCARD:
            self._staging.discard(slot)
            self.outcome.removed.append(name)
        else:
            self._put_back(step, slot, fate)
        self._gone.append(name)

    def _put_back(self, step: Remove, slot: Slot, fate: Fate) -> None:
        """Returns what should not have been taken."""
        try:
            self._staging.put(slot, step.name)
        except FileExistsError:
            self._back_up(slot, step.name)
        if fate is Fate.REFUSE:
            raise _appeared(step.name, "remove")
        self.outcome.left.append(step.name)

    def prune(self) -> None:
        """Step 6f: the folders that we made and that became empty go."""
        if not self._plan.prune:
            return
        holding = {folder for name in self._done for folder in ancestors(name)}
        for row in self._plan.prune:
            if row.name not in holding and self._tree.remove_folder(row.name):
                self._gone.append(row.name)
                self.outcome.pruned.append(row.name)

    def dress(self) -> None:
        """Step 6g: folders get the mode and the time that were asked for, after all changes."""
        for row in self._plan.dress:
            is_there = row.name in self._done or row.name not in self._gone
            if is_there and row.name not in self._failed:
                self._attempt(row.name, "set the mode of", self._dress, row)

    def _dress(self, row: Row) -> None:
        """Dresses one folder, unless it could not be made."""
        try:
            mtime_ns = dress_folder(self._tree, row.name, row.mode, row.asked_ns)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return
        if row.name in self._done and row.asked_ns is not None:
            self._done[row.name] = replace(self._done[row.name], mtime_ns=mtime_ns)

    def _back_up(self, slot: Slot, name: Name) -> None:
        """Keeps foreign bytes, and says where."""
        where = self._staging.back_up(slot, name, self._stamp)
        self._backups.append(where)
        self.outcome.backed_up[name] = where
        _log.warning("%s: foreign %r was moved to %r", self._tree.path, name, where)

    # After everything is in place

    def second_barrier(self) -> None:
        """Step 7: all names are on the disk."""
        try:
            self._discard_unplaced()
            self._kept_back = not self._staging.remove_areas()
            self._barrier(self._seen)
        except OSError as error:
            doubtful = [replace(row, unsynced=True) for row in self._done.values()]
            with contextlib.suppress(LedgerError):
                self._ledger.commit(doubtful, (), self._staging.batch)
            raise self._barrier_error(error) from error

    def _discard_unplaced(self) -> None:
        """What was staged but could not be put in place goes; what is not ours stays."""
        for name, staged in self._staged.items():
            if name not in self._done:
                with contextlib.suppress(OSError):
                    left = self._staging.look(self._slots[name]).signature
                    if left is not None and left.inode == staged.inode:
                        self._staging.discard(self._slots[name])
        for name in sorted(self._unmoved, reverse=True):
            with contextlib.suppress(OSError):
                self._staging.remove_folder(self._fresh[name])

    def commit(self) -> None:
        """Step 8: the ledger says what is so now."""
        plan, known = self._plan, self._ledger.rows_named(row.name for row in self._plan.prune)
        for row in plan.prune:
            if row.name not in self._gone and known.get(row.name) != row:
                self._done.setdefault(row.name, row)
        recorded = record(self._tree, self._done.values(), self._seen)
        gone = [name for name in self._gone if name not in self._done]
        # Foreign bytes that could not be moved on are found through the batch's notes.
        settled = None if self._kept_back else self._staging.batch
        self._ledger.commit(recorded, gone, settled)

    # Failures

    def _attempt(self, name: Name, operation: str, act: Callable[[_T], None], step: _T) -> None:
        """Does one step; a failure stops only this path."""
        try:
            act(step)
        except PathError as error:
            self._refuse(error)
        except OSError as error:
            self._fail(name, operation, error)

    def _fail(self, name: Name, operation: str, error: OSError) -> None:
        """Notes that the system refused a path."""
        problem = error.strerror or str(error)
        self._refuse(PathError(name, operation, problem, _HINTS.get(error.errno or 0, "")), error)

    def _refuse(self, failure: PathError, cause: OSError | None = None) -> None:
        """Notes a failure."""
        failure.__cause__ = cause
        self._failed.add(Name(failure.path))
        self.outcome.failures.append(failure)


def _is_hashed_late(intent: Intent) -> bool:
    """True if the digest of a file is known only once it is staged."""
    return isinstance(intent.desired, FileState) and intent.desired.digest is None


def _note(batch: str, slot: Slot, row: Row, *, removal: bool = False) -> Pending:
    """The note of one step."""
    return Pending(batch, slot.home, slot.entry, removal, row)


def _appeared(name: Name, operation: str = "write") -> ConflictError:
    """The error for bytes that appeared while the batch was applied."""
    problem = "something else appeared there while we worked, and was left alone"
    return ConflictError(name, operation, problem, "update again")
