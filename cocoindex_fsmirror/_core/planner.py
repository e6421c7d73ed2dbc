"""Planner: turns intents, rows and actual states into the ordered steps of a batch. Pure.

Paths are planned one by one: first those that are no longer declared, then the declared ones.
The table in :mod:`.ownership` gives the fate of the bytes that are found at a path. A path that
can't be planned fails alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from .attributes import UNASKED
from .contradictions import Wanted, coalesce
from .errors import ConflictError, PathError, as_path_error
from .intents import Intent
from .names import Name, ancestors
from .ownership import Fate, Verdict, fate_of
from .plan import ClearFolder, Keep, Plan, Put, Remove, View, judge, row_of
from .rows import Row
from .states import ABSENT, Actual, DirState, Kind, same, same_content

__all__ = ["make_plan"]

_NOTHING_THERE = Actual(ABSENT)


def make_plan(intents: Iterable[Intent], view: View) -> Plan:
    """Plans a batch.

    Args:
        intents: The desired states, in any order.
        view: The rows and the actual states of their paths.
    """
    wanted = coalesce(intents, view.rows, view.folding)
    planner = _Planner(view, wanted)
    for intent in wanted.absent.values():
        planner.plan(intent)
    # Intents that may make folders come first: the others may rely on these folders.
    for intent in sorted(wanted.present.values(), key=lambda intent: not intent.create_parents):
        planner.plan(intent)
    return planner.finish()


class _Planner:
    """The plan in the making."""

    def __init__(self, view: View, wanted: Wanted) -> None:
        self._view = view
        self._wanted = wanted
        self._clear: dict[Name, Remove] = {}
        self._clear_folders: dict[Name, Name] = {}
        self._folders: dict[Name, Row] = {}
        self._files: list[Put] = []
        self._keep: list[Keep] = []
        self._remove: dict[Name, Remove] = {}
        self._prune: dict[Name, Row] = {}
        self._forget: list[Name] = []
        self._left: list[Name] = []
        self._vacated: set[str] = set()  # folded names
        rows = view.rows.values() if view.folding else ()
        stays = [r.name for r in rows if r.declared and r.declaration not in wanted.asked]
        self._staying = self._spellings(stays)

    def plan(self, intent: Intent) -> None:
        """Plans to bring a path to its desired state."""
        try:
            if intent.desired is ABSENT:
                self._plan_absence(intent)
            else:
                self._plan_presence(intent)
        except (PathError, OSError) as error:
            verb = "remove" if intent.desired is ABSENT else "write"
            self._wanted.failures.append(as_path_error(intent.name, verb, error))

    # Absence

    def _plan_absence(self, intent: Intent) -> None:
        """Plans for a path that is no longer declared, and for folders that become empty."""
        row = self._view.rows.get(intent.name)
        if row is not None and row.declaration != intent.declaration:
            return  # Another declaration has taken the path over.
        if row is not None and row.kind == Kind.DIR:
            if not row.made:
                self._forget.append(row.name)
        # A record alone does not tell that its bytes were ever written; equal ones are ours.
        elif row or (intent.ours and self._judge(intent, intent.name) is Verdict.OURS):
            self._plan_removal(intent, row)
        for name in (*ancestors(intent.name), intent.name):
            above = self._view.rows.get(name)
            if above is None or above.kind != Kind.DIR or not above.made:
                continue
            if name == intent.name or not above.declared:
                seen = above.seen and not above.declared  # Of that folder we told already.
                self._prune[name] = replace(above, declared=False, seen=seen)

    def _plan_removal(self, intent: Intent, row: Row | None) -> None:
        """Plans to remove a file or link, or to forget it."""
        name, verdict = intent.name, self._judge(intent, intent.name)
        fate = fate_of(verdict, intent.on_conflict)
        if fate is Fate.REFUSE:
            problem = "it is no longer declared, but was edited since we wrote it"
            raise ConflictError(name, "remove", problem, "move it away, or restore it")
        if self._is_respelled(name, self._staying):
            self._forget.append(name)  # Another spelling of the same file stays declared.
            return
        if fate in (Fate.DISCARD, Fate.BACK_UP):
            step = Remove(name, self._actual(name), verdict, intent.on_conflict)
            # Where names fold, a removal at the end could hit the new file with a twin of the name.
            if self._view.folding:
                self._clear[name] = step
                self._vacated.add(self._view.folding(name))
            else:
                self._remove[name] = step
            return
        if fate is Fate.LEAVE:
            self._left.append(name)
        if row is not None:
            self._forget.append(name)

    # Presence

    def _plan_presence(self, intent: Intent) -> None:
        """Plans for a declared path, and for every folder above it."""
        path = (*ancestors(intent.name), intent.name)
        for name in path[:-1]:
            if name in self._folders or self._is_folder(name):
                continue
            if not intent.create_parents:
                problem = f"its folder {name!r} does not exist"
                hint = "declare it, or leave create_parent_dirs at True"
                raise PathError(intent.name, "write", problem, hint)
            self._make_folder(intent, Row(name, Kind.DIR, intent.owner, "", declared=False))
        if not isinstance(intent.desired, DirState):
            self._plan_leaf(intent)
        elif self._is_folder(intent.name):
            self._plan_kept(intent, self._actual(intent.name))
        else:
            self._make_folder(intent, row_of(intent))
        for name in path if self._view.rows else ():
            self._displace(name, intent)

    def _make_folder(self, intent: Intent, row: Row) -> None:
        """Plans to make a folder, and to remove what stands there."""
        if self._actual(row.name).state is not ABSENT:
            self._clear_file(intent, row.name)
        self._folders[row.name] = row

    def _is_folder(self, name: Name) -> bool:
        """True if there is a folder at a path."""
        return isinstance(self._actual(name).state, DirState)

    def _plan_leaf(self, intent: Intent) -> None:
        """Plans for a declared file or link."""
        row, actual = self._view.rows.get(intent.name), self._actual(intent.name)
        verdict, made = self._judge(intent, intent.name), True
        if verdict is Verdict.FOLDER:
            self._clear_folder(intent)
            actual, verdict = _NOTHING_THERE, Verdict.ABSENT
        elif verdict is Verdict.RIGHT and row is not None and row.unsynced:  # Written anew.
            verdict, made = Verdict.OURS, row.made
        fate = fate_of(verdict, intent.on_conflict)
        if fate is Fate.KEEP:
            self._plan_kept(intent, actual)
            return
        _check_not_blocked(intent, intent.name, fate)
        attributes = intent.desired.attributes.replacing(actual.state.attributes)
        self._files.append(Put(intent, actual, verdict, attributes, made))

    def _plan_kept(self, intent: Intent, actual: Actual) -> None:
        """Plans to record a path whose bytes are right, and to set attributes that it lacks."""
        row, state = self._view.rows.get(intent.name), actual.state
        is_ours = (state.digest or b"") in intent.ours  # A folder has no digest.
        is_known = row is not None and row.owner == intent.owner and same_content(row.state, state)
        copied = row is not None and row.copied and same_content(row.state, state)
        kept = row_of(intent, made=row.made if row and is_known else is_ours, copied=copied)
        asked = intent.desired.attributes
        if row is not None and row.attributes == asked:
            asked = row.state.attributes  # As the file system stored them.
        missing = asked.missing_in(state.attributes)
        if missing != UNASKED and actual.is_linked:  # A fresh copy leaves the other names alone.
            attributes = intent.desired.attributes.replacing(state.attributes)
            self._files.append(Put(intent, actual, Verdict.RIGHT, attributes, kept.made))
        elif missing != UNASKED or row is None or not _is_recorded(kept, row, actual):
            adopts = row is None and kept.kind != Kind.DIR
            self._keep.append(Keep(kept, actual, missing, adopts))

    # Paths in the way

    def _clear_file(self, intent: Intent, name: Name) -> None:
        """Plans to remove a file before others are placed: its path, or its folder's, is needed."""
        step = self._remove.pop(name, None) or self._clear.get(name)
        if step is None:
            verdict, policy = self._judge(intent, name), intent.on_conflict
            _check_not_blocked(intent, name, fate_of(verdict, policy))
            step = Remove(name, self._actual(name), verdict, policy, intent.name)
        self._clear[name] = step

    def _clear_folder(self, intent: Intent) -> None:
        """Plans to remove a folder where a file should be, if all in it is ours."""
        seen = (*self._view.actual, *self._view.unseen)
        inside = [name for name in seen if name.startswith(f"{intent.name}/")]
        entries = [name for name in inside if self._actual(name).state is not ABSENT]
        foreign = sorted(n for n in (*entries, intent.name) if not self._may_go(intent, n))
        if foreign:
            listed = ", ".join(repr(name) for name in foreign[:5])
            more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
            problem = f"a directory is in the way, with foreign entries: {listed}{more}"
            raise ConflictError(intent.name, "write", problem, "move it away")
        for name in sorted((*entries, intent.name), reverse=True):
            if self._is_folder(name):
                self._clear_folders[name] = intent.name
            else:
                self._clear_file(intent, name)
            self._displace(name, intent)

    def _may_go(self, intent: Intent, name: Name) -> bool:
        """True if an entry of a folder in the way is removed anyway, or ours and unchanged."""
        row = self._view.rows.get(name)
        if self._is_folder(name):
            if row is None or row.owner != intent.owner:
                return False
            return row.made and row.kind == Kind.DIR
        return name in self._remove or self._judge(intent, name) is Verdict.OURS

    def _judge(self, intent: Intent, name: Name) -> Verdict:
        """Tells whose bytes are at the path of an intent, or at another one in its way."""
        asked = intent if name == intent.name else replace(intent, desired=ABSENT, ours=())
        return judge(asked, self._view.rows.get(name), self._actual(name))

    def _displace(self, name: Name, intent: Intent) -> None:
        """Notes that a declaration of the same owner gives way, unless it is part of the batch."""
        row = self._view.rows.get(name)
        if row is None or not row.declared or row.owner != intent.owner:
            return
        is_folder = isinstance(intent.desired, DirState) or intent.name.startswith(f"{name}/")
        stays = row.kind == Kind.DIR and is_folder
        if not stays and row.declaration not in self._wanted.asked:
            self._wanted.displace(row, intent.name)

    # The result

    def finish(self) -> Plan:
        """Returns the plan, with folders from the top and removals from the bottom."""
        stays = {*self._clear_folders, *self._wanted.present}
        steps = [*self._folders.values(), *(keep.row for keep in self._keep)]
        folders = {r.name: r for r in (*self._view.rows.values(), *steps) if r.kind == Kind.DIR}
        present = self._spellings(self._wanted.present)
        twins = [name for name in self._prune if self._is_respelled(name, self._staying, present)]
        self._forget += twins
        stays.update(twins)
        prune = sorted(self._prune.keys() - stays, reverse=True)
        return Plan(
            clear=tuple(self._clear[name] for name in sorted(self._clear)),
            clear_folders=tuple(
                map(ClearFolder._make, sorted(self._clear_folders.items(), reverse=True))
            ),
            folders=tuple(self._folders[name] for name in sorted(self._folders)),
            files=tuple(self._files),
            keep=tuple(self._keep),
            remove=tuple(self._remove[name] for name in sorted(self._remove)),
            prune=tuple(self._prune[name] for name in prune),
            dress=tuple(row for row in folders.values() if row.attributes != UNASKED),
            forget=tuple(self._forget),
            left=tuple(self._left),
            displaced=tuple(self._wanted.displaced.values()),
            failures=tuple(self._wanted.failures),
        )

    def _spellings(self, names: Iterable[Name]) -> dict[str, set[Name]]:
        """Returns paths and the folders above them by folded name; none where names don't fold."""
        found = defaultdict[str, set[Name]](set)
        for name in names if self._view.folding else ():
            for path in (*ancestors(name), name):
                found[self._view.folding(path)].add(path)
        return found

    def _is_respelled(self, name: Name, *staying: Mapping[str, set[Name]]) -> bool:
        """True if a path that goes is one that stays, under another spelling."""
        key = self._view.folding(name) if self._view.folding else ""
        found = {path for spellings in staying for path in spellings.get(key, ())}
        return bool(found) and name not in found

    def _actual(self, name: Name) -> Actual:
        """Returns the state that a path has once the removals so far are done.

        Raises:
            OSError: The path can't be looked at.
        """
        if self._vacated and self._view.folding(name) in self._vacated:
            return _NOTHING_THERE
        if name in self._view.unseen:
            raise self._view.unseen[name]
        return self._view.actual.get(name, _NOTHING_THERE)


def _check_not_blocked(intent: Intent, name: Name, fate: Fate) -> None:
    """Raises if the bytes that are in the way of a declared path stay."""
    if fate.blocks:
        problem = f"foreign bytes are in the way, at {name!r}"
        hint = "move them away, or choose 'backup' instead of 'error'"
        raise ConflictError(intent.name, "write", problem, hint)


def _is_recorded(kept: Row, row: Row, actual: Actual) -> bool:
    """True if the row of the ledger already holds all that is known of a path."""
    # A folder's signature is not recorded, except for a time that was asked for.
    seen = None if kept.kind == Kind.DIR else actual.signature
    is_row = row == kept.with_signature(seen or row.signature, row.recorded_ns)
    is_proven = row.recorded_ns > 0 or kept.kind == Kind.DIR
    return is_row and is_proven and same(row.state, actual.state)
