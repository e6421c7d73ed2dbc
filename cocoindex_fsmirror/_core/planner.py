"""Planner: intents, the ledger and the disk become an ordered list of steps. Pure.

The fate of the bytes that are found is decided by the table of :mod:`.ownership`.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from .attributes import UNASKED
from .contradictions import Wanted, coalesce, declares, displaced
from .errors import ConflictError, PathError
from .intents import Intent
from .names import Name, ancestors
from .ownership import Fate, Verdict, fate_of, judge
from .plan import Keep, MakeFolder, Plan, Put, Remove, View, row_of
from .rows import Kind, Row
from .states import ABSENT, Actual, DirState, FileState, Leaf, missing_in, same

__all__ = ["make_plan"]

_NOWHERE = Actual(ABSENT)


def make_plan(intents: Iterable[Intent], view: View) -> Plan:
    """Orders a batch: what clears the way, folders, files, removals, prune."""
    wanted = coalesce(intents, view.rows, view.folding)
    planner = _Planner(view, wanted)
    for intent in wanted.absent.values():
        planner.plan(intent)
    # Those that make folders come first: what makes none may rely on them.
    for intent in sorted(wanted.present.values(), key=lambda intent: not intent.create_parents):
        planner.plan(intent)
    return planner.finish()


class _Planner:
    """The plan in the making."""

    def __init__(self, view: View, wanted: Wanted) -> None:
        self._view = view
        self._wanted = wanted
        self._removes: dict[Name, Remove] = {}
        self._cleared: set[Name] = set()  # Those of them that go first.
        self._clear_folders: dict[Name, Name] = {}
        self._folders: dict[Name, MakeFolder] = {}
        self._files: list[Put] = []
        self._keep: list[Keep] = []
        self._prune: dict[Name, Row] = {}
        self._forget: list[Name] = []
        self._left: list[Name] = []
        self._vacated: set[str] = set()  # Folded names that are cleared and then used.
        folding, used = view.folding, wanted.present if view.folding else ()
        self._twins = {folding(part) for name in used for part in (*ancestors(name), name)}

    def plan(self, intent: Intent) -> None:
        """Plans to bring a path to its desired state."""
        try:
            if intent.desired is ABSENT:
                self._plan_absence(intent)
                return
            self._clear_way(intent)
            if isinstance(intent.desired, DirState):
                self._plan_folder(intent)
            else:
                self._plan_file(intent)
        except PathError as error:
            self._wanted.failures.append(error)

    # Absence

    def _plan_absence(self, intent: Intent) -> None:
        """Plans to remove a path that is no longer declared."""
        row = self._view.rows.get(intent.name)
        if row is not None and not declares(intent, row):
            return  # Another declaration has taken the path over.
        if row is not None and row.kind == Kind.DIR:
            self._leave_folder(row)
        elif row is not None or intent.ours:  # Else nothing of ours was ever here.
            self._plan_removal(intent, row)
        for name in ancestors(intent.name):  # They may be empty now.
            above = self._view.rows.get(name)
            if above is not None and above.kind == Kind.DIR and above.made and not above.declared:
                self._prune.setdefault(name, above)

    def _leave_folder(self, row: Row) -> None:
        """Plans for a directory target that is gone: its folder goes with its last file."""
        if row.made:
            self._prune[row.name] = replace(row, declared=False)
        else:
            self._forget.append(row.name)

    def _plan_removal(self, intent: Intent, row: Row | None) -> None:
        """Plans to remove a file or link, or to forget it."""
        name, actual = intent.name, self._actual(intent.name)
        verdict = judge(intent, row, actual)
        fate = fate_of(verdict, intent.on_conflict)
        if fate is Fate.REFUSE:
            problem = "it is no longer declared, but was edited since we wrote it"
            raise ConflictError(name, "remove", problem, "move it away, or restore it")
        if fate in (Fate.DISCARD, Fate.BACK_UP):
            self._removes[name] = Remove(name, actual, verdict, intent.on_conflict)
            key = self._view.folding(name)
            if key in self._twins:  # Removed last, it would take the new file along.
                self._vacated.add(key)
                self._cleared.add(name)
            return
        if fate is Fate.LEAVE:
            self._left.append(name)
        if row is not None:
            self._forget.append(name)

    # Presence

    def _clear_way(self, intent: Intent) -> None:
        """Plans for every folder above a path to be there."""
        for name in ancestors(intent.name):
            actual = self._actual(name)
            if name in self._folders or self._is_folder(name, actual):
                continue
            if not intent.create_parents:
                problem = f"its folder {name!r} does not exist"
                hint = "declare it, or let create_parent_dirs stand at True"
                raise PathError(intent.name, "write", problem, hint)
            self._make_folder(intent, Row(name, Kind.DIR, intent.owner, "", declared=False))

    def _make_folder(self, intent: Intent, row: Row) -> None:
        """Plans to make a folder, and to remove what stands there."""
        if self._actual(row.name).state is not ABSENT:
            self._clear_file(intent, row.name)
        self._displace(row.name, intent)
        self._folders[row.name] = MakeFolder(row)

    def _is_folder(self, name: Name, actual: Actual) -> bool:
        """True if a folder is at a path, and stays."""
        return isinstance(actual.state, DirState) and name not in self._clear_folders

    def _clear_file(self, intent: Intent, name: Name) -> None:
        """Plans to remove a file first, since a folder, or another kind, should be there."""
        if name not in self._removes:
            actual = self._actual(name)
            verdict = judge(_without(intent, name), self._view.rows.get(name), actual)
            _check_way(intent, name, verdict)
            self._removes[name] = Remove(name, actual, verdict, intent.on_conflict, intent.name)
        self._cleared.add(name)

    def _displace(self, name: Name, intent: Intent) -> None:
        """Notes that a declaration of the same owner gives way, unless it is withdrawn as well."""
        row = self._view.rows.get(name)
        if row is None or not row.declared or row.owner != intent.owner:
            return
        if self._wanted.withdraws(row) or (name == intent.name and declares(intent, row)):
            return
        stays_folder = isinstance(intent.desired, DirState) or intent.name.startswith(f"{name}/")
        if row.kind != Kind.DIR or not stays_folder:
            self._wanted.displaced.append(displaced(row, intent.name))

    def _plan_folder(self, intent: Intent) -> None:
        """Plans for a declared directory."""
        row, actual = self._view.rows.get(intent.name), self._actual(intent.name)
        if not self._is_folder(intent.name, actual):
            self._make_folder(intent, row_of(intent))
            return
        wanted = row_of(intent, made=_made_folder(intent, row))
        known = row is not None and row.declaration == wanted and same(row.state, actual.state)
        if not known or not same(intent.desired, actual.state):
            self._keep.append(Keep(wanted, actual))
        self._displace(intent.name, intent)

    def _plan_file(self, intent: Intent) -> None:
        """Plans for a declared file or link."""
        row, actual = self._view.rows.get(intent.name), self._actual(intent.name)
        verdict, made = judge(intent, row, actual), True
        if verdict is Verdict.RIGHT and row is not None and row.unsynced:
            verdict, made = Verdict.OURS, row.made  # Written anew.
        if verdict is Verdict.FOLDER:
            self._clear_folder(intent)
            actual, verdict = _NOWHERE, Verdict.ABSENT
        if fate_of(verdict, intent.on_conflict) is Fate.KEEP:
            self._keep_file(intent, row, actual)
            return
        _check_way(intent, intent.name, verdict)
        self._displace(intent.name, intent)
        assert isinstance(intent.desired, Leaf)
        attributes = intent.desired.attributes
        if isinstance(actual.state, FileState):
            attributes = attributes.replacing(actual.state.attributes)
        self._files.append(Put(intent, actual, verdict, attributes, made))

    def _keep_file(self, intent: Intent, row: Row | None, actual: Actual) -> None:
        """Plans to record a file that already holds the desired bytes, unless that is known."""
        is_known = row is not None and row.owner == intent.owner and row.digest == actual.digest
        made = row.made if row is not None and is_known else actual.digest in intent.ours
        kept = row_of(intent, made=made)
        missing = missing_in(intent.desired, actual.state)
        if missing != UNASKED or row is None or not _is_recorded(kept, row, actual):
            self._keep.append(Keep(kept, actual, missing, adopts=row is None))
            self._displace(intent.name, intent)

    def _clear_folder(self, intent: Intent) -> None:
        """Plans to remove a folder where a file should be, if all in it is ours."""
        inside = [name for name in self._view.actual if name.startswith(f"{intent.name}/")]
        entries = [name for name in inside if self._actual(name).state is not ABSENT]
        foreign = sorted(n for n in (*entries, intent.name) if not self._may_go(intent, n))
        if foreign:
            listed = ", ".join(repr(name) for name in foreign[:5])
            more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
            problem = f"a directory is in the way, with what is not ours: {listed}{more}"
            raise ConflictError(intent.name, "write", problem, "move it away")
        for name in sorted((*entries, intent.name), reverse=True):
            if isinstance(self._actual(name).state, DirState):
                self._clear_folders[name] = intent.name
            else:
                self._clear_file(intent, name)
            if name != intent.name:
                self._displace(name, intent)

    def _may_go(self, intent: Intent, name: Name) -> bool:
        """True if an entry of a folder in the way goes anyway, or is ours and unchanged."""
        row, actual = self._view.rows.get(name), self._actual(name)
        if isinstance(actual.state, DirState):
            return _made_folder(intent, row)
        return name in self._removes or judge(_without(intent, name), row, actual) is Verdict.OURS

    # The result

    def finish(self) -> Plan:
        """Returns the plan, with folders from the top and removals from the bottom."""
        stays = {*self._clear_folders, *self._wanted.present}
        steps = [*(step.row for step in self._folders.values()), *(k.row for k in self._keep)]
        folders = {r.name: r for r in (*self._view.rows.values(), *steps) if r.kind == Kind.DIR}
        removes = [self._removes[name] for name in sorted(self._removes)]
        return Plan(
            clear=tuple(step for step in removes if step.name in self._cleared),
            clear_folders=tuple(sorted(self._clear_folders.items(), reverse=True)),
            folders=tuple(self._folders[name] for name in sorted(self._folders)),
            files=tuple(self._files),
            keep=tuple(self._keep),
            remove=tuple(step for step in removes if step.name not in self._cleared),
            prune=tuple(
                self._prune[n] for n in sorted(self._prune, reverse=True) if n not in stays
            ),
            dress=tuple(r for r in folders.values() if r.attributes != UNASKED),
            forget=tuple(self._forget),
            left=tuple(self._left),
            displaced=tuple(self._wanted.displaced),
            failures=tuple(self._wanted.failures),
        )

    def _actual(self, name: Name) -> Actual:
        """Returns what was seen at a path."""
        if self._vacated and self._view.folding(name) in self._vacated:
            return _NOWHERE
        return self._view.actual.get(name, _NOWHERE)


def _check_way(intent: Intent, name: Name, verdict: Verdict) -> None:
    """Raises if what is in the way of a declared path may not be moved."""
    if fate_of(verdict, intent.on_conflict).blocks:
        problem = f"foreign bytes are in the way, at {name!r}"
        hint = "move them away, or choose 'backup' instead of 'error'"
        raise ConflictError(intent.name, "write", problem, hint)


def _is_recorded(kept: Row, row: Row, actual: Actual) -> bool:
    """True if the ledger's row tells already all that is known of a file."""
    seen = actual.signature
    return seen is not None and row == kept.with_signature(seen, row.recorded_ns)


def _without(intent: Intent, name: Name) -> Intent:
    """Returns the intent that nothing is at a path, on behalf of a declared one."""
    return replace(intent, desired=ABSENT, ours=intent.ours if name == intent.name else ())


def _made_folder(intent: Intent, row: Row | None) -> bool:
    """True if a folder was made by the owner who asks."""
    return row is not None and row.kind == Kind.DIR and row.owner == intent.owner and row.made
