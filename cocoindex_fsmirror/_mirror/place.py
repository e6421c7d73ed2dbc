"""Place: give staged files their names, and remove what is no longer declared.

A rename may bring other bytes out of a path than the plan had seen there. So they are judged once
more, by the table of :mod:`._core.ownership`, before they are discarded. A step that
fails stops only its own path.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Collection
from typing import Final

from msgspec.structs import replace

from .._core.attributes import UNASKED
from .._core.errors import ConflictError, PathError, as_path_error
from .._core.names import Name, folders_above, parent
from .._core.ownership import Fate, Policy, Verdict, fate_of
from .._core.plan import ClearFolder, Keep, Put, Remove, judge_bytes
from .._core.rows import Row
from .._core.states import ABSENT, Actual, Kind, OtherState, is_older
from .._disk.dress import dress, dress_folder
from .._disk.homes import back_up, shown, stamp_now
from .._disk.staging import Slot, Staging
from .._disk.tree import NOT_THERE, Tree
from .ledger import Ledger
from .look import Seen
from .outcome import Outcome
from .stage import Stage

__all__ = ["Exits", "Placement"]

_log = logging.getLogger("cocoindex_fsmirror")
_ATTEMPTS: Final = 8  # at placing a file while others keep changing its path


class Placement:
    """The steps of a batch that change the tree, and their results.

    Attributes:
        done: The future rows in the ledger of the paths that are as they should be.
        seen: The signatures of the files among them.
        gone: The paths that are no longer ours.
        moved: The folders that were placed whole, each with a time before that.
    """

    def __init__(
        self, tree: Tree, ledger: Ledger, stage: Stage, outcome: Outcome, looked_ns: int
    ) -> None:
        self._tree = tree
        self._ledger = ledger
        self._stage = stage
        self._staging = stage.staging
        self._failures = stage.failures
        self._outcome = outcome
        self._looked_ns = looked_ns
        self._exits = Exits(tree, stage.staging, outcome, looked_ns)
        self.moved: dict[Name, int] = {}
        self.done: dict[Name, Row] = {}
        self.seen: dict[Name, Seen] = {}
        self.gone: list[Name] = list(stage.plan.forget)

    @property
    def changed(self) -> tuple[Name, ...]:
        """The paths that were made, changed or removed."""
        return *self.done, *self.gone, *self._outcome.backed_up.values()

    def clear_folder(self, step: ClearFolder) -> None:
        """Removes an empty folder that gives way to a declared path."""
        if not self._tree.remove_folder(step.folder):
            problem = f"the folder {step.folder!r} is in the way, and something appeared in it"
            raise ConflictError(step.name, "write", problem, "move it away")
        self.gone.append(step.folder)
        self._outcome.pruned.append(step.folder)

    def make_folder(self, row: Row) -> None:
        """Places a folder whole, or makes it where that fails; skips one that nothing needs."""
        name = row.name
        if name not in self._stage.needed:
            return
        since_ns = self.moved.get(parent(name))
        since_ns = self._move_folder(name) if since_ns is None else since_ns
        is_new = self._tree.make_folder(name)
        if since_ns is not None:
            self.moved[name], is_new = since_ns, True
        if is_new:
            self._outcome.made.append(name)
        self._tree.folder(name)  # Raises if something else took the name.
        # A folder that was there after all may be one that we made.
        known = self._ledger.rows_named([name]).get(name) if not is_new else row
        made = known is not None and known.kind == Kind.DIR and known.made
        if made or row.declared:
            self.done[name] = replace(row, made=made)

    def _move_folder(self, name: Name) -> int | None:
        """Places a folder that is staged whole; returns a time before that, or ``None``."""
        now_ns = self._tree.abilities.now_ns()
        if name in self._stage.whole:
            with contextlib.suppress(OSError):
                self._staging.put(self._stage.slots[name], name)
                return now_ns
        return None

    def put(self, put: Put) -> None:
        """Places a staged file, unless it was placed with its folder."""
        name = put.name
        staged, since_ns = self._stage.written[name], self.moved.get(parent(name))
        if since_ns is None:
            self._rename(put)
        self.seen[name] = Seen(staged, since_ns or 0)
        self.done[name] = self._stage.rows[name]
        self._outcome.written.append(name)
        self._outcome.size += staged.size

    def look_at_renamed(self) -> None:
        """Looks at the renamed files, because later edits show only in their new ctime."""
        now_ns = self._tree.abilities.now_ns()
        for name, staged in self._stage.written.items():
            if name in self.seen and parent(name) not in self.moved:
                with contextlib.suppress(OSError):
                    now = self._tree.signature(name)
                    if now is not None and now.is_like(staged):
                        self.seen[name] = Seen(now, now_ns)

    def _rename(self, put: Put) -> None:
        """Renames one file to its path, and judges what comes out."""
        name, slot = put.name, self._stage.slots[put.name]
        expected = self._exits.still_expected(name, put.expected)
        for _ in range(_ATTEMPTS):
            try:
                if expected.state is ABSENT:
                    self._staging.put(slot, name)
                elif self._staging.exchange(slot, name):
                    self._receive(put, slot, expected)
                else:
                    self._replace(put, slot, expected)
            except FileExistsError:
                appeared = judge_bytes(self._tree.look(name), ())
                if fate_of(appeared, put.intent.on_conflict).blocks:
                    raise _appeared(name, "write") from None
                expected = Actual(OtherState())  # Of unknown content, so it will be read.
            except FileNotFoundError:
                if expected.state is ABSENT:
                    raise
                expected = Actual(ABSENT)
            else:
                return
        problem = "the path kept changing while we tried to write it"
        raise PathError(name, "write", problem, "find out who else writes there")

    def _replace(self, put: Put, slot: Slot, expected: Actual) -> None:
        """Replaces a file where it can't be looked at afterwards: looks just before."""
        name, intent = put.name, put.intent
        found = self._exits.judge(name, put.verdict, expected, intent.ours)
        fate = fate_of(found, intent.on_conflict)
        if found is Verdict.ABSENT:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if fate.blocks:
            raise _appeared(name, "write")
        if fate is Fate.BACK_UP:
            self._staging.take(slot.aside, name)
            self._exits.back_up(slot.aside, name)
            self._staging.put(slot, name)
        else:
            self._staging.replace(slot, name)

    def _receive(self, put: Put, slot: Slot, expected: Actual) -> None:
        """Disposes of what an exchange brought out; exchanges again if it has to stay."""
        name, intent = put.name, put.intent
        found = self._exits.judge(self._staging.path(slot), put.verdict, expected, intent.ours)
        if not self._exits.let_go(slot, name, found, intent.on_conflict).blocks:
            return
        self._staging.exchange(slot, name)
        out = self._tree.signature(self._staging.path(slot))
        if out is not None and out.inode == self._stage.written[name].inode:
            self._staging.discard(slot)
        else:  # Somebody wrote to the path in between.
            self._exits.back_up(slot, name)
        raise _appeared(name, "write")

    def keep(self, step: Keep) -> None:
        """Records a path that was right already, and sets the attributes that are missing."""
        name, seen = step.name, step.actual.signature
        is_dressed = step.missing != UNASKED and step.row.kind != Kind.DIR  # Folders come last.
        if step.row.kind != Kind.DIR and seen is not None:
            if is_dressed:
                seen = dress(self._tree, name, step.missing, seen)
            self.seen[name] = Seen(seen, self._looked_ns)
        self.done[name] = step.row
        self._outcome.kept.append(name)
        if step.adopts:
            self._outcome.adopted.append(name)
        elif is_dressed:
            self._outcome.dressed.append(name)
        elif step.missing != UNASKED:
            self._outcome.dressed_folders.append(name)

    def remove(self, step: Remove) -> None:
        """Takes a file out of its path, judges it, and disposes of it or puts it back.

        A file in the way stays if everything that needs its path has failed.
        """
        if step.on_behalf in self._failures.causes and step.name not in self._stage.needed:
            return
        name, slot = step.name, self._stage.exits[step.name]
        self._staging.open(slot.home)  # Its failure must not pass for a file that is gone.
        try:
            expected = self._exits.still_expected(name, step.expected)
            self._staging.take(slot, name)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
        else:
            found = self._exits.judge(self._staging.path(slot), step.verdict, expected)
            fate = self._exits.let_go(slot, name, found, step.policy)
            if fate.blocks:
                self._put_back(slot, name, fate)
            elif fate is Fate.DISCARD or found is Verdict.OURS:
                self._outcome.removed.append(name)
        self.gone.append(name)

    def _put_back(self, slot: Slot, name: Name, fate: Fate) -> None:
        """Puts a file back that has to stay, or backs it up if its path is taken."""
        try:
            self._staging.put(slot, name)
        except FileExistsError:
            self._exits.back_up(slot, name)
        if fate is Fate.REFUSE:
            raise _appeared(name, "remove")
        self._outcome.left.append(name)

    def prune(self, folders: Collection[Row]) -> None:
        """Removes folders that we made and that are empty now; takes the deepest first."""
        known = self._ledger.rows_named(row.name for row in folders)
        holding = folders_above(self.done)
        for row in folders:
            if known.get(row.name) != row:  # The folder is no longer declared.
                self.done.setdefault(row.name, row)
        emptied = [row for row in folders if row.name not in holding]
        self._failures.attempt("remove", self._prune, emptied)

    def _prune(self, row: Row) -> None:
        """Removes a folder if it is empty; one that may not be removed fails once."""
        try:
            is_gone = self._tree.remove_folder(row.name)
        except OSError:
            self.done[row.name] = replace(row, seen=True)  # Later batches try again.
            if not row.seen:
                raise
            self._outcome.left.append(row.name)
        else:
            if is_gone:
                self.done.pop(row.name, None)
                self.gone.append(row.name)
                self._outcome.pruned.append(row.name)

    def dress(self, row: Row) -> None:
        """Sets the attributes of a folder, after all changes in it."""
        if row.name in self.gone and row.name not in self.done:
            return
        try:
            mtime_ns = dress_folder(self._tree, row.name, row.attributes)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return
        if row.name in self.done and row.asked_ns is not None:
            self.done[row.name] = replace(self.done[row.name], mtime_ns=mtime_ns)


def _appeared(name: Name, operation: str) -> ConflictError:
    """Returns the error for bytes that appeared while the batch was applied."""
    problem = "something else appeared there while we worked, and was left alone"
    return ConflictError(name, operation, problem, "update again")


class Exits:
    """Judges and disposes of files that were moved out of their paths into the staging area.

    Args:
        tree: The root.
        staging: The staging area.
        outcome: Gets the backups.
        looked_ns: The time of the plan's view, by the clock that stamps files.
    """

    def __init__(self, tree: Tree, staging: Staging, outcome: Outcome, looked_ns: int) -> None:
        self._tree = tree
        self._staging = staging
        self._outcome = outcome
        self._looked_ns = looked_ns
        self._stamp = stamp_now()

    def still_expected(self, name: Name, planned: Actual) -> Actual:
        """Returns what the plan had seen; without its signature if that has changed since.

        Without a signature the content is read. A rename changes ctime, so this is the last
        moment to compare it. Where nothing was, the rename itself refuses to replace.
        """
        is_same = planned.state is ABSENT or self._tree.signature(name) == planned.signature
        return planned if is_same else replace(planned, signature=None)

    def judge(
        self, where: Name, planned: Verdict, expected: Actual, ours: tuple[bytes, ...] = ()
    ) -> Verdict:
        """Judges the file that a rename brought out; reads it unless it is provably expected."""
        found = self._tree.look(where)
        if planned is Verdict.FOREIGN:
            return judge_bytes(found, ())
        # The rename has changed ctime. A mtime within one tick of the look proves nothing.
        now, known = found.signature, expected.signature
        if now and known and now.is_like(known) and is_older(now.mtime_ns, self._looked_ns):
            return Verdict.OURS
        return judge_bytes(self._tree.look(where, digest=True), (expected.state.digest, *ours))

    def let_go(self, slot: Slot, name: Name, found: Verdict, policy: Policy) -> Fate:
        """Discards or backs up the bytes in a slot, unless they have to stay; returns their fate.

        Args:
            slot: The slot.
            name: The path that they had.
            found: Whose they are.
            policy: The policy for foreign bytes.
        """
        fate = fate_of(found, policy)
        if fate is Fate.BACK_UP:
            self.back_up(slot, name, is_foreign=found is not Verdict.OURS)
        elif fate is Fate.DISCARD:
            self._staging.discard(slot)
        return fate

    def back_up(self, slot: Slot, name: Name, *, is_foreign: bool = True) -> None:
        """Moves bytes to the backup area, and logs their new path."""
        try:
            where = back_up(self._tree, name, self._stamp, self._staging.path(slot))
        except OSError as error:
            raise as_path_error(name, "back up", error) from error
        self._outcome.backed_up[name] = where
        level, whose = (logging.WARNING, "foreign ") if is_foreign else (logging.DEBUG, "")
        place = shown(self._tree, where)
        _log.log(level, "%s: %s%r was moved to %r", self._tree.path, whose, name, place)
