"""Plan: intents, the ledger and the disk become an ordered list of steps. Pure.

What happens to the bytes that are found is decided by the table of :mod:`._core/ownership`. A
plan is a frozen value that can be printed; applying it decides nothing more, except to look
again, by the same table, at what a rename brings out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from .errors import ConflictError, PathError
from .intents import Intent, OnConflict
from .names import Folding, Name, ancestors, parent
from .ownership import Fate, Verdict, fate_of, judge
from .rows import Displaced, Kind, Row, kind_of
from .states import ABSENT, Absent, Actual, DirState, FileState, Leaf, LinkState, dressed, same

__all__ = ["Keep", "MakeFolder", "Plan", "Put", "Remove", "View", "make_plan"]

_NOWHERE = Actual(ABSENT)


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Take away a file, of which ``verdict`` tells whose it is.

    ``on_behalf`` is the declared path that it gives way to, if that is why it goes;
    without that, it stays.
    """

    name: Name
    expected: Actual
    verdict: Verdict
    policy: OnConflict
    on_behalf: Name | None = None

    @property
    def keep_copy(self) -> bool:
        """True if it goes to the backup area."""
        return fate_of(self.verdict, self.policy) is Fate.BACK_UP


class MakeFolder(msgspec.Struct, frozen=True, gc=False):
    """Make a folder; ``row`` is what the ledger will say of it."""

    row: Row
    on_behalf: Name


class Put(msgspec.Struct, frozen=True, gc=False):
    """Put a file or link in place, with ``mode``.

    ``expected`` is what it replaces, and ``verdict`` tells whose that is.
    """

    intent: Intent
    expected: Actual
    verdict: Verdict
    mode: int | None
    made: bool = True

    @property
    def keep_copy(self) -> bool:
        """True if what it replaces goes to the backup area."""
        return fate_of(self.verdict, self.intent.on_conflict) is Fate.BACK_UP


class Keep(msgspec.Struct, frozen=True, gc=False):
    """Record what is right on the disk; mode and time are to be set, unless ``None``.

    ``adopts`` tells that nothing was known of it before.
    """

    row: Row
    actual: Actual
    mode: int | None = None
    mtime_ns: int | None = None
    adopts: bool = False


class View(msgspec.Struct, frozen=True):
    """What a plan is made from.

    Attributes:
        rows: The ledger's rows of every path that matters.
        actual: The actual states of the same paths; a folder in the way of a
            file comes with everything in it.
        folding: Which names the file system takes for one.
    """

    rows: Mapping[Name, Row]
    actual: Mapping[Name, Actual]
    folding: Folding = msgspec.field(default_factory=Folding)


class Plan(msgspec.Struct, frozen=True):
    """The steps of a batch, in the order in which they are applied."""

    clear: tuple[Remove, ...] = ()
    clear_folders: tuple[tuple[Name, Name], ...] = ()
    """Folder, and the declared path that it gives way to; the deepest first."""
    folders: tuple[MakeFolder, ...] = ()
    files: tuple[Put, ...] = ()
    keep: tuple[Keep, ...] = ()
    remove: tuple[Remove, ...] = ()
    prune: tuple[Row, ...] = ()
    """Folders that we made and that may be empty afterwards; the deepest first."""
    dress: tuple[Row, ...] = ()
    """Folders with a mode or time of their own in which something changes."""
    forget: tuple[Name, ...] = ()
    left: tuple[Name, ...] = ()
    """Paths that were ours once, hold foreign bytes now, and stay."""
    displaced: tuple[Displaced, ...] = ()
    """Declarations that give way, or are refused because of another one."""
    failures: tuple[PathError, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """True if no step would change the disk, or what the ledger says of it."""
        untouched = {"left", "failures", "dress", "displaced"}
        steps = (field for field in self.__struct_fields__ if field not in untouched)
        return not any(getattr(self, field) for field in steps)


def make_plan(intents: Iterable[Intent], view: View) -> Plan:
    """Orders a batch: what clears the way, folders, files, removals, prune."""
    planner = _Planner(view)
    wanted = planner.coalesce(intents)
    for intent in wanted:
        if intent.desired is ABSENT:
            planner.plan_absence(intent)
    # Those that make folders come first: what makes none may rely on them.
    for intent in sorted(wanted, key=lambda intent: not intent.create_parents):
        if intent.desired is not ABSENT:
            planner.plan_presence(intent)
    return planner.finish()


class _Planner:
    """The plan in the making."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._absent: dict[Name, Intent] = {}
        self._present: dict[Name, Intent] = {}
        self._removes: dict[Name, Remove] = {}
        self._clears: dict[Name, Remove] = {}
        self._clear_folders: dict[Name, Name] = {}
        self._folders: dict[Name, MakeFolder] = {}
        self._ways: set[Name] = set()  # Folders that are there, or planned for, with those above.
        self._files: list[Put] = []
        self._keep: list[Keep] = []
        self._prune: dict[Name, Row] = {}
        self._pruned: set[Name] = set()  # Folders of which that is known, with those above.
        self._forget: list[Name] = []
        self._left: list[Name] = []
        self._displaced: list[Displaced] = []
        self._failures: list[PathError] = []
        self._given_up: set[tuple[Name, str, str]] = set()
        self._twins: set[str] = set()  # Folded names that are about to be used.
        self._vacated: set[str] = set()  # Those of them that are cleared first.

    # What is asked for

    def coalesce(self, intents: Iterable[Intent]) -> list[Intent]:
        """One intent a path, in the order of the names; contradictions fail."""
        by_name: dict[Name, list[Intent]] = {}
        for intent in intents:
            asked = by_name.get(intent.name)
            if asked is None:
                by_name[intent.name] = [intent]
            else:
                _add(intent, asked)
            if intent.desired is ABSENT:
                self._given_up.add((intent.name, intent.owner, intent.container))
        wanted = [self._one_of(by_name[name]) for name in sorted(by_name)]
        kept = [intent for intent in wanted if intent is not None]
        self._absent = {i.name: i for i in kept if i.desired is ABSENT}
        self._present = {i.name: i for i in kept if i.desired is not ABSENT}
        self._refuse_below_files()
        self._refuse_folded()
        return [*self._absent.values(), *self._present.values()]

    def _one_of(self, intents: list[Intent]) -> Intent | None:
        """The one intent that stands for those of several declarers."""
        if len(intents) == 1:
            return intents[0]
        present = [intent for intent in intents if intent.desired is not ABSENT]
        if any(not isinstance(i.desired, DirState) for i in present) and len(present) > 1:
            places = " and ".join(sorted({_place(intent) for intent in present}))
            self._fail_conflict(present[0], f"it is declared in {places}")
            return None
        if present:
            ours = tuple(digest for intent in intents for digest in intent.ours)
            return replace(present[0], ours=ours)
        row = self._view.rows.get(intents[0].name)
        return next((i for i in intents if row and _declares(i, row)), intents[0])

    def _refuse_below_files(self) -> None:
        """``a`` as a file and ``a/b`` together are an error that names both."""
        holding = {parent(name) for name in self._present}
        holding = holding.union(*map(ancestors, holding))
        if all(isinstance(self._present[n].desired, DirState) for n in holding & {*self._present}):
            return
        for name in list(self._present):
            for above in ancestors(name):
                other = self._present.get(above)
                if other is not None and not isinstance(other.desired, DirState):
                    self._fail_pair(self._present.get(name), other)
                    break
        for failure in self._failures:
            self._present.pop(Name(failure.path), None)

    def _fail_pair(self, below: Intent | None, above: Intent) -> None:
        """Fails both; the upper one only once."""
        if below is not None:
            self._fail_conflict(below, f"{above.name!r} is declared as a file")
            if not any(failure.path == above.name for failure in self._failures):
                self._fail_conflict(above, f"{below.name!r} is declared below it")

    def _refuse_folded(self) -> None:
        """Two names that this file system takes for one are an error that names both."""
        folding = self._view.folding
        if not folding:
            return
        rows = self._view.rows.values()
        staying = (row.name for row in rows if row.declared and not self._is_given_up(row))
        meeting: defaultdict[str, set[Name]] = defaultdict(set)
        for name in {*staying, *self._present}:
            for part in (*ancestors(name), name):
                meeting[folding(part)].add(part)
        for name in list(self._present):
            for part in (*ancestors(name), name):
                twins = sorted(meeting[folding(part)] - {part})
                if twins:
                    problem = f"this file system takes {part!r} and {twins[0]!r} for one name"
                    self._fail_conflict(self._present.pop(name), problem)
                    break
        parts = (part for name in self._present for part in (*ancestors(name), name))
        self._twins = {folding(part) for part in parts}

    # Absence

    def plan_absence(self, intent: Intent) -> None:
        """Plans to remove a path that is no longer declared."""
        row = self._view.rows.get(intent.name)
        if row is not None and not _declares(intent, row):
            return  # Another declaration has taken the path over.
        if row is not None and row.kind == Kind.DIR:
            self._leave_folder(row)
        elif row is not None or intent.ours:  # Else nothing of ours was ever here.
            self._plan_removal(intent, row)
        self._prune_above(intent)

    def _plan_removal(self, intent: Intent, row: Row | None) -> None:
        """Plans to remove a file or link, or to forget it."""
        actual = self._actual(intent.name)
        verdict = judge(intent, row, actual)
        fate = fate_of(verdict, intent.on_conflict)
        if fate is Fate.REFUSE:
            problem = "it is no longer declared, but was edited since we wrote it"
            self._fail_conflict(intent, problem, "move it away, or restore it")
        elif fate in (Fate.DISCARD, Fate.BACK_UP):
            self._take(Remove(intent.name, actual, verdict, intent.on_conflict))
        else:
            if fate is Fate.LEAVE:
                self._left.append(intent.name)
            if row is not None:
                self._forget.append(intent.name)

    def _take(self, step: Remove) -> None:
        """Plans a removal: last, unless this disk takes the name for one that is to be used."""
        key = self._view.folding(step.name)
        if key in self._twins:
            self._vacated.add(key)
            self._clears[step.name] = step
        else:
            self._removes[step.name] = step

    def _leave_folder(self, row: Row) -> None:
        """A directory target is gone: its folder goes with its last file."""
        if row.made:
            self._prune[row.name] = replace(row, declared=False)
        else:
            self._forget.append(row.name)

    def _prune_above(self, intent: Intent) -> None:
        """The folders above a removed path may be empty now."""
        above = parent(intent.name)
        if above in self._pruned:
            return
        self._pruned.add(above)
        for name in ancestors(intent.name):
            row = self._view.rows.get(name)
            if row is not None and row.kind == Kind.DIR and row.made and not row.declared:
                self._prune.setdefault(name, row)

    # Presence

    def plan_presence(self, intent: Intent) -> None:
        """Plans to bring a path to its desired state."""
        if intent.rival:
            self._refuse_rival(intent)
            return
        try:
            self._clear_way(intent)
            if isinstance(intent.desired, DirState):
                self._plan_folder(intent)
            else:
                self._plan_file(intent)
        except PathError as error:
            self._failures.append(error)

    def _refuse_rival(self, intent: Intent) -> None:
        """Fails a contested path, and has both sides declared again at the next update."""
        self._displaced.append(_note(intent, intent.rival))
        self._fail_conflict(intent, f"{intent.rival!r} is declared too, and both can't be there")

    def _clear_way(self, intent: Intent) -> None:
        """Plans for every folder above a path to be there."""
        if parent(intent.name) in self._ways:
            return
        for name in ancestors(intent.name):
            actual = self._actual(name)
            is_folder = isinstance(actual.state, DirState) and name not in self._clear_folders
            if is_folder or name in self._folders:
                continue
            if not intent.create_parents:
                problem = f"its folder {name!r} does not exist"
                hint = "declare it, or let create_parent_dirs stand at True"
                raise PathError(intent.name, "write", problem, hint)
            if actual.state is not ABSENT:
                self._clear_file(intent, name)
            self._displace(name, intent)
            row = Row(name, Kind.DIR, intent.owner, "", declared=False)
            self._folders[name] = MakeFolder(row, intent.name)
        self._ways.add(parent(intent.name))

    def _clear_file(self, intent: Intent, name: Name) -> None:
        """Plans to take away a file that stands where a folder, or another kind, should be."""
        row, actual = self._view.rows.get(name), self._actual(name)
        planned = self._removes.pop(name, None)
        if planned is not None or name in self._clears:
            if planned is not None:
                self._clears[name] = planned
            return
        verdict = judge(_without(intent, name), row, actual)
        self._check_way(intent, name, verdict)
        self._clears[name] = Remove(name, actual, verdict, intent.on_conflict, intent.name)

    def _check_way(self, intent: Intent, name: Name, verdict: Verdict) -> None:
        """Raises if what is in the way of a declared path may not be moved."""
        if fate_of(verdict, intent.on_conflict).blocks:
            problem = f"foreign bytes are in the way, at {name!r}"
            hint = "move them away, or choose on_conflict='backup'"
            raise ConflictError(intent.name, "write", problem, hint)

    def _is_given_up(self, row: Row) -> bool:
        """True if the declaration of a row is withdrawn in this batch."""
        return (row.name, row.owner, row.container) in self._given_up

    def _displace(self, name: Name, intent: Intent) -> None:
        """Notes that what is declared at a path gives way, unless it is withdrawn as well."""
        row = self._view.rows.get(name)
        if row is None or not row.declared or row.owner != intent.owner:
            return
        if self._is_given_up(row) or (name == intent.name and _declares(intent, row)):
            return
        stays_folder = isinstance(intent.desired, DirState) or intent.name.startswith(f"{name}/")
        if row.kind != Kind.DIR or not stays_folder:
            self._displaced.append(_note(row, intent.name))

    def _plan_folder(self, intent: Intent) -> None:
        """Plans for a declared directory."""
        row, actual = self._view.rows.get(intent.name), self._actual(intent.name)
        made = _made_folder(intent, row)
        wanted = row_of(intent, made=made)
        if isinstance(actual.state, DirState) and intent.name not in self._clear_folders:
            known = row is not None and row.declaration == wanted and same(row.state, actual.state)
            if not known or not same(intent.desired, actual.state):
                self._keep.append(Keep(wanted, actual))
        else:
            if actual.state is not ABSENT:
                self._clear_file(intent, intent.name)
            self._folders[intent.name] = MakeFolder(replace(wanted, made=True), intent.name)
        self._displace(intent.name, intent)

    def _plan_file(self, intent: Intent) -> None:
        """Plans for a declared file or link."""
        row, actual = self._view.rows.get(intent.name), self._actual(intent.name)
        verdict = judge(intent, row, actual)
        made = True
        if verdict is Verdict.RIGHT and row is not None and row.unsynced:
            verdict, made = Verdict.OURS, row.made  # Written anew.
        if verdict is Verdict.FOLDER:
            self._clear_folder(intent)
            actual, verdict = _NOWHERE, Verdict.ABSENT
        if fate_of(verdict, intent.on_conflict) is Fate.KEEP:
            self._keep_file(intent, row, actual)
            return
        self._check_way(intent, intent.name, verdict)
        self._displace(intent.name, intent)
        assert isinstance(intent.desired, Leaf)
        mode = intent.desired.mode
        if mode is None and isinstance(actual.state, FileState):
            mode = (actual.state.mode or 0) & 0o777  # A privilege was given to other bytes.
        self._files.append(Put(intent, actual, verdict, mode, made))

    def _keep_file(self, intent: Intent, row: Row | None, actual: Actual) -> None:
        """Adopts a file that already holds the desired bytes."""
        digest = actual.digest
        if row is not None and row.owner == intent.owner and row.digest == digest:
            made = row.made
        else:
            made = digest in intent.ours
        kept = row_of(intent, made=made)
        mode, mtime_ns = dressed(intent.desired, actual.state)
        if (mode, mtime_ns) == (None, None) and row is not None and _says(row, kept, actual):
            return
        self._keep.append(Keep(kept, actual, mode, mtime_ns, adopts=row is None))
        self._displace(intent.name, intent)

    def _clear_folder(self, intent: Intent) -> None:
        """Plans to take away a folder where a file should be, if all in it is ours."""
        inside = f"{intent.name}/"
        names = [name for name in self._view.actual if name.startswith(inside)]
        entries = [name for name in names if self._actual(name).state is not ABSENT]
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
        if name in self._removes or name in self._clears:
            return True
        return judge(_without(intent, name), row, actual) is Verdict.OURS

    # The result

    def finish(self) -> Plan:
        """The plan, with folders from the top and removals from the bottom."""
        stays = {*self._clear_folders, *self._present}
        steps = [*(step.row for step in self._folders.values()), *(k.row for k in self._keep)]
        folders = {r.name: r for r in (*self._view.rows.values(), *steps) if r.kind == Kind.DIR}
        dress = [r for r in folders.values() if (r.mode, r.asked_ns) != (None, None)]
        prune = {name: row for name, row in self._prune.items() if name not in stays}
        return Plan(
            clear=tuple(self._clears[name] for name in sorted(self._clears)),
            clear_folders=tuple(sorted(self._clear_folders.items(), reverse=True)),
            folders=tuple(self._folders[name] for name in sorted(self._folders)),
            files=tuple(self._files),
            keep=tuple(self._keep),
            remove=tuple(self._removes[name] for name in sorted(self._removes)),
            prune=tuple(prune[name] for name in sorted(prune, reverse=True)),
            dress=tuple(dress),
            forget=tuple(self._forget),
            left=tuple(self._left),
            displaced=tuple(self._displaced),
            failures=tuple(self._failures),
        )

    def _actual(self, name: Name) -> Actual:
        """What was seen at a path."""
        if self._vacated and self._view.folding(name) in self._vacated:
            return _NOWHERE
        return self._view.actual.get(name, _NOWHERE)

    def _fail_conflict(self, intent: Intent, problem: str, hint: str = "undeclare one") -> None:
        """Adds a failure for a path that is contested."""
        operation = "remove" if intent.desired is ABSENT else "write"
        self._failures.append(ConflictError(intent.name, operation, problem, hint))


def row_of(intent: Intent, *, made: bool = True) -> Row:
    """The row of what is declared, still without a signature."""
    desired = intent.desired
    assert not isinstance(desired, Absent)
    return Row(
        intent.name,
        kind_of(desired),
        intent.owner,
        intent.container,
        intent.component,
        desired.digest,
        desired.size,
        desired.mode,
        made=made,
        target=desired.target if isinstance(desired, LinkState) else "",
        asked_ns=desired.mtime_ns,
        source_inode=intent.source.inode if intent.source is not None else 0,
        source_ctime_ns=intent.source.ctime_ns if intent.source is not None else 0,
    )


def _says(row: Row, kept: Row, actual: Actual) -> bool:
    """True if a row tells already what is known of a file that is right."""
    return (
        not row.seen
        and row.declaration == kept.declaration
        and row.signature == actual.signature
        and (row.source_inode, row.source_ctime_ns) == (kept.source_inode, kept.source_ctime_ns)
    )


def _without(intent: Intent, name: Name) -> Intent:
    """Returns the intent that nothing is at a path, on behalf of a declared one."""
    return replace(intent, desired=ABSENT, ours=intent.ours if name == intent.name else ())


def _note(declared: Intent | Row, by: Name) -> Displaced:
    """Returns the note that a declaration has to give way."""
    return Displaced(declared.name, declared.owner, declared.container, declared.component, by)


def _made_folder(intent: Intent, row: Row | None) -> bool:
    """Whether a folder was made by the owner who asks."""
    if row is None or row.kind != Kind.DIR:
        return False
    return row.owner == intent.owner and row.made


def _add(intent: Intent, asked: list[Intent]) -> None:
    """Adds an intent to those for the same path; one from the same place is replaced."""
    known = next((other for other in asked if _is_from_same(intent, other)), None)
    if known is None:
        asked.append(intent)
    else:
        asked[asked.index(known)] = replace(intent, ours=intent.ours + known.ours)


def _is_from_same(intent: Intent, other: Intent) -> bool:
    """Whether two intents stem from one directory target."""
    return (intent.owner, intent.container) == (other.owner, other.container)


def _declares(intent: Intent, row: Row) -> bool:
    """Whether a row stems from the same declaration as an intent."""
    return (row.owner, row.container) == (intent.owner, intent.container)


def _place(declared: Intent | Row) -> str:
    """The directory target that declared a path, for messages."""
    return repr(declared.container.removesuffix("//")) if declared.container else "the root"
