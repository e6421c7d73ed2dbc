"""Place: staged files take their names, and what is no longer declared goes."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterable

from msgspec.structs import replace

from .._core.attributes import UNASKED
from .._core.errors import ConflictError, PathError
from .._core.names import ROOT, Name, ancestors, parent
from .._core.ownership import Fate, fate_of
from .._core.plan import Keep, Put, Remove, judge_bytes
from .._core.rows import Row
from .._core.states import ABSENT, Actual, Kind, OtherState
from .._disk.calls import coarse_now_ns
from .._disk.staging import Slot
from .._disk.tree import Tree, dress, dress_folder
from .exits import Exits
from .ledger import Ledger
from .look import Seen
from .outcome import Outcome
from .stage import Stage

__all__ = ["Placement"]

_log = logging.getLogger("cocoindex_fsmirror")
_ATTEMPTS = 8  # at placing a file whose path others keep changing under us
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Placement:
    """The changes that a batch makes to the tree.

    Attributes:
        done: The ledger's future rows of the paths that are as they should be.
        seen: Their signatures, if they are files.
        gone: The paths that are no longer ours.
        moved: Folders that were placed whole, and a time before that.
    """

    def __init__(
        self, tree: Tree, ledger: Ledger, stage: Stage, outcome: Outcome, looked_ns: int
    ) -> None:
        self._tree = tree
        self._ledger = ledger
        self._stage = stage
        self._staging = stage.staging
        self._plan = stage.plan
        self._failures = stage.failures
        self._outcome = outcome
        self._looked_ns = looked_ns
        self._exits = Exits(tree, stage.staging, outcome, looked_ns)
        self.moved: dict[Name, int] = {}
        self.done: dict[Name, Row] = {}
        self.seen: dict[Name, Seen] = {}
        self.gone: list[Name] = list(self._plan.forget)

    def touched(self) -> Iterable[Name]:
        """Returns the folders in which something changed, and those above them."""
        names = (*self.done, *self.gone, *self._outcome.backed_up.values())
        holding = {parent(name) for name in names}
        return sorted({ROOT, *holding}.union(*map(ancestors, holding)))

    def clear(self) -> None:
        """Removes what stands in the way, unless all that needs its place has failed."""
        for step in self._plan.clear:
            if step.on_behalf not in self._failures.names or step.name in self._stage.needed:
                self._failures.attempt(step.name, "remove", self._remove, step)
        for folder in self._plan.clear_folders:
            if folder[1] not in self._failures.names:
                self._failures.attempt(folder[1], "write", self._clear_folder, folder)

    def _clear_folder(self, folder: tuple[Name, Name]) -> None:
        """Removes a folder that gives way to a declared path."""
        name, on_behalf = folder
        if not self._tree.remove_folder(name):
            problem = f"the folder {name!r} is in the way, and something appeared in it"
            raise ConflictError(on_behalf, "write", problem, "move it away")
        self.gone.append(name)
        self._outcome.pruned.append(name)

    def make_folders(self) -> None:
        """Makes the folders that are needed, from the top."""
        for row in self._plan.folders:
            if row.name in self._stage.needed and row.name not in self._failures.names:
                self._failures.attempt(row.name, "make", self._make_folder, row)

    def _make_folder(self, row: Row) -> None:
        """Places a folder whole, or makes it where that fails, and remembers that we did."""
        name = row.name
        since_ns = self.moved.get(parent(name)) or self._move_folder(name)
        is_new = self._tree.make_folder(name)
        if since_ns is not None:
            self.moved[name], is_new = since_ns, True
        if is_new:
            self._outcome.made.append(name)
        made = is_new or self._was_made(name)
        self._tree.folder(name)  # Raises if something else took the name.
        if made or row.declared:
            self.done[name] = replace(row, made=made)

    def _move_folder(self, name: Name) -> int | None:
        """Places a folder that is staged whole; returns a time before that, if it succeeds."""
        now_ns = coarse_now_ns()
        if name in self._stage.whole:
            with contextlib.suppress(OSError):
                self._staging.put(self._stage.slots[name], name)
                return now_ns
        return None

    def _was_made(self, name: Name) -> bool:
        """True if a folder that is there, though it could not be seen before, is one of ours."""
        known = self._ledger.rows_named([name]).get(name)
        return known is not None and known.kind == Kind.DIR and known.made

    def put_files(self) -> None:
        """Gives the staged files their names."""
        for put in self._plan.files:
            name = put.intent.name
            if name in self._stage.written and name not in self._failures.names:
                self._failures.attempt(name, "write", self._put, put)
        self._look_at_renamed()

    def _put(self, put: Put) -> None:
        """Places one file, unless it came with its folder."""
        name = put.intent.name
        staged, since_ns = self._stage.written[name], self.moved.get(parent(name))
        if since_ns is None:
            self._rename(put)
        self.seen[name] = Seen(staged, since_ns or 0)
        self.done[name] = self._stage.rows[name]
        self._outcome.written.append(name)
        self._outcome.size += staged.size

    def _look_at_renamed(self) -> None:
        """Takes the signatures after the renames, whose ctime tells of any later edit."""
        now_ns = coarse_now_ns()
        for name, staged in self._stage.written.items():
            if name in self.seen and parent(name) not in self.moved:
                with contextlib.suppress(OSError):
                    now = self._tree.signature(name)
                    if now is not None and now.is_like(staged):
                        self.seen[name] = Seen(now, now_ns)

    def _rename(self, put: Put) -> None:
        """Renames one file to its path; what is there comes out, and is judged."""
        name, slot = put.intent.name, self._stage.slots[put.intent.name]
        expected = self._exits.still_expected(name, put.expected)
        for _ in range(_ATTEMPTS):
            try:
                if expected.state is ABSENT:
                    self._staging.put(slot, name)
                else:
                    self._staging.exchange(slot, name)
                    self._receive(put, slot, expected)
            except FileExistsError:
                appeared = judge_bytes(self._tree.look(name), ())
                if fate_of(appeared, put.intent.on_conflict).blocks:
                    raise _appeared(name, "write") from None
                expected = Actual(OtherState())
            except FileNotFoundError:
                if expected.state is ABSENT:
                    raise
                expected = Actual(ABSENT)
            else:
                return
        problem = "the path kept changing while we tried to write it"
        raise PathError(name, "write", problem, "find out who else writes there")

    def _receive(self, put: Put, slot: Slot, expected: Actual) -> None:
        """Deals with what an exchange brought out; gives it back if it may not go."""
        name, intent = put.intent.name, put.intent
        found = self._exits.judge(slot, put.verdict, expected, intent.ours)
        if not self._exits.let_go(slot, name, fate_of(found, intent.on_conflict)):
            self._staging.exchange(slot, name)
            out = self._staging.look(slot).signature
            if out is not None and out.inode == self._stage.written[name].inode:
                self._staging.discard(slot)
            else:
                self._exits.back_up(
                    slot, name
                )  # Somebody wrote there in between: that is kept too.
            raise _appeared(name, "write")

    def keep(self) -> None:
        """Records what was right already, and sets the attributes that are missing."""
        for step in self._plan.keep:
            self._failures.attempt(step.row.name, "set the mode of", self._keep, step)

    def _keep(self, step: Keep) -> None:
        """Records one path."""
        name, seen = step.row.name, step.actual.signature
        is_dressed = step.missing != UNASKED and step.row.kind != Kind.DIR  # That comes last.
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

    def remove(self) -> None:
        """Removes what is no longer declared."""
        for step in self._plan.remove:
            self._failures.attempt(step.name, "remove", self._remove, step)

    def _remove(self, step: Remove) -> None:
        """Takes one file out of its place, judges it, and lets it go."""
        name, slot = step.name, self._stage.exits[step.name]
        try:
            expected = self._exits.still_expected(name, step.expected)
            self._staging.take(slot, name)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
        else:
            fate = fate_of(self._exits.judge(slot, step.verdict, expected), step.policy)
            if not self._exits.let_go(slot, name, fate):
                self._put_back(slot, name, fate)
            elif fate is Fate.DISCARD:
                self._outcome.removed.append(name)
        self.gone.append(name)

    def _put_back(self, slot: Slot, name: Name, fate: Fate) -> None:
        """Returns what should not have been taken."""
        try:
            self._staging.put(slot, name)
        except FileExistsError:
            self._exits.back_up(slot, name)
        if fate is Fate.REFUSE:
            raise _appeared(name, "remove")
        self._outcome.left.append(name)

    def prune(self) -> None:
        """Removes the folders that we made and that became empty."""
        known = self._ledger.rows_named(row.name for row in self._plan.prune)
        holding = {folder for name in self.done for folder in ancestors(name)}
        for row in self._plan.prune:
            if row.name not in holding and self._tree.remove_folder(row.name):
                self.gone.append(row.name)
                self._outcome.pruned.append(row.name)
            elif known.get(row.name) != row:  # It is no longer declared.
                self.done.setdefault(row.name, row)

    def dress(self) -> None:
        """Sets the attributes of folders, after all changes in them."""
        for row in self._plan.dress:
            is_there = row.name in self.done or row.name not in self.gone
            if is_there and row.name not in self._failures.names:
                self._failures.attempt(row.name, "set the mode of", self._dress, row)

    def _dress(self, row: Row) -> None:
        """Sets the attributes of one folder, unless it could not be made."""
        try:
            mtime_ns = dress_folder(self._tree, row.name, row.attributes)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return
        if row.name in self.done and row.asked_ns is not None:
            self.done[row.name] = replace(self.done[row.name], mtime_ns=mtime_ns)


def _appeared(name: Name, operation: str) -> ConflictError:
    """Returns the error for bytes that appeared while the batch was applied."""
    problem = "something else appeared there while we worked, and was left alone"
    return ConflictError(name, operation, problem, "update again")
