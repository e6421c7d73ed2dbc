"""Dry run: what ``fsmirror sync`` would do, found out without the engine and without a change."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from ._errors import SourceError
from ._mirror import Mirror
from ._paths import Name, join, parent, parse_name
from ._plan import Keep, Plan
from ._source import fingerprint
from ._state import ABSENT, Desired, DirState, FileState, Intent, Kind, LinkState, Row
from ._survey import Entry, Listing, Survey, can_be_kept
from ._sync import OWNER, Options, check_removals, is_as_written, places_of

__all__ = ["Change", "dry_run"]

_AT_ONCE: Final = 4096  # paths that are planned together


class Change(NamedTuple):
    """One thing that a run would do.

    Attributes:
        action: ``write``, ``heal``, ``adopt``, ``update`` (mode and time only),
            ``delete``, ``back up``, ``make`` (a folder), or ``fail``.
        path: Relative to the root; of a folder with ``/`` at the end.
        size: Bytes that are written.
        note: More, for people; may be empty.
    """

    action: str
    path: str
    size: int = 0
    note: str = ""


def dry_run(mirror: Mirror, survey: Survey, options: Options) -> Iterator[Change]:
    """Tells what a run would do, in the order of the paths; reads what seems to have changed.

    Raises:
        RootError: The root is there, and can't be read.
        TooManyRemovalsError: The run would stop.
    """
    told: set[tuple[str, str]] = set()
    for change in _all_changes(mirror, survey, options):
        # What makes way for one path may be gone in the source, too.
        if change.action == "fail" or change[:2] not in told:
            told.add(change[:2])
            yield change


def _all_changes(mirror: Mirror, survey: Survey, options: Options) -> Iterator[Change]:
    """The same; a change may come more than once."""
    check_removals(mirror, survey, options.max_delete)
    for error in survey.errors:
        yield Change("fail", "", note=error)
    yield from _root_changes(mirror.root, survey)
    owner = mirror.noted(OWNER) or "new"
    rows = {row.name: row for row in mirror.rows()}
    drifted = mirror.observe(content=options.checksum).names
    finder = _Finder(survey.source, rows, drifted, owner, options)
    swept: set[Name] = set()
    if options.exact and os.path.isdir(mirror.root):
        foreign = mirror.foreign(places_of(survey))
        swept = {Name(path.removesuffix("/")) for path in foreign}
        yield from map(_swept, foreign)
    wanted = finder.intents(survey.listings)
    while chunk := list(islice(wanted, _AT_ONCE)):
        yield from _changes(mirror.preview(chunk, swept), rows, drifted)
    for name, error in finder.unread:
        yield Change("fail", name, note=error)
    gone = (_ending(row) for row in rows.values() if finder.is_gone(row))
    while chunk := list(islice(gone, _AT_ONCE)):
        yield from _changes(mirror.preview(chunk, swept), rows, drifted)


def _root_changes(root: str, survey: Survey) -> Iterator[Change]:
    """What would happen to the root itself."""
    try:
        found = os.stat(root)
    except FileNotFoundError:
        yield Change("make", "./")
        return
    if (stat.S_IMODE(found.st_mode), found.st_mtime_ns) != (survey.mode | 0o700, survey.mtime_ns):
        yield Change("update", "./")


def _swept(path: str) -> Change:
    """What would happen to what is not managed."""
    if path.endswith("/"):
        return Change("delete", path, note="not managed; if it is empty")
    return Change("back up", path, note="not managed")


class _Finder:
    """Makes intents of what a survey found, but for what is known to be right already."""

    def __init__(
        self,
        source: str,
        rows: dict[Name, Row],
        drifted: frozenset[Name],
        owner: str,
        options: Options,
    ) -> None:
        self._source = source
        self._rows = rows
        self._drifted = drifted
        self._owner = owner
        self._options = options
        leaves = (row for row in rows.values() if row.kind != Kind.DIR and row.owner == owner)
        self._sizes = Counter(parent(row.name) for row in leaves)
        self.declared: set[str] = set()
        self.unread: list[tuple[Name, str]] = []

    def intents(self, listings: list[Listing]) -> Iterator[Intent]:
        """What would be asked for."""
        sizes: Counter[Name] = Counter()
        for listing in listings:
            sizes[Name(listing.path)] += sum(1 for _ in listing.entries())
        for listing in listings:
            folder = Name(listing.path)
            if folder and not listing.part:
                yield from self._wanted(folder, DirState(listing.mode | 0o700, listing.mtime_ns))
            # One change in a folder has a run read all that is in it.
            reads = self._options.checksum or sizes[folder] != self._sizes[folder]
            reads = reads or not all(map(partial(self._is_in_order, folder), listing.entries()))
            for entry in listing.entries():
                name = join(folder, parse_name(entry.name))
                self.declared.add(name)
                desired = self._desired(name, entry, reads=reads)
                if desired is not None:
                    yield from self._wanted(name, desired)

    def _is_in_order(self, folder: Name, entry: Entry) -> bool:
        """Whether an entry looks as it did when it was mirrored, and its copy does as well."""
        name = join(folder, Name(entry.name))
        return name not in self._drifted and is_as_written(entry, self._rows.get(name))

    def _wanted(self, name: Name, desired: Desired) -> Iterator[Intent]:
        """The intent for a path, unless it is known to be right."""
        self.declared.add(name)
        row = self._rows.get(name)
        if row is not None and name not in self._drifted and row.owner == self._owner:
            dress = (getattr(desired, "mode", None), getattr(desired, "mtime_ns", None))
            if (row.mode, row.asked_ns) == dress and row.digest == getattr(desired, "digest", None):
                return
        yield Intent(name, desired, self._owner, on_conflict=self._options.on_conflict)

    def _desired(self, name: Name, entry: Entry, *, reads: bool) -> Desired | None:
        """What a path should hold; ``None`` if that can't be told, or not kept."""
        if not can_be_kept(entry.mtime_ns):
            return None  # The survey has named it.
        if entry.kind == "link":
            return LinkState(entry.target, entry.mtime_ns)
        row = self._rows.get(name)
        if row is not None and row.kind == Kind.FILE and not reads:
            return FileState(row.digest, row.size, entry.mode, entry.mtime_ns)
        try:
            found = fingerprint(os.path.join(self._source, name))
        except SourceError as error:
            self.unread.append((name, str(error)))
            return None
        return FileState(found.digest, found.size, found.mode, found.mtime_ns)

    def is_gone(self, row: Row) -> bool:
        """Whether a path is no longer in the source."""
        return row.declared and row.owner == self._owner and row.name not in self.declared


def _ending(row: Row) -> Intent:
    """The intent that a path is given up."""
    return Intent(row.name, ABSENT, row.owner, row.container, row.component)


def _changes(plan: Plan, rows: dict[Name, Row], drifted: frozenset[Name]) -> Iterator[Change]:
    """The steps of a plan, by path."""
    found = [Change("make", f"{step.row.name}/") for step in plan.folders]
    for put in plan.files:
        name = put.intent.name
        action = "heal" if name in drifted and name in rows else "write"
        note = "what is there goes to the backup area" if put.keep_copy else ""
        size = put.intent.desired.size if isinstance(put.intent.desired, FileState) else 0
        found.append(Change(action, name, size, note))
    found += [_kept(step) for step in plan.keep]
    for gone in (*plan.clear, *plan.remove):
        found.append(Change("back up" if gone.keep_copy else "delete", gone.name))
    found += [Change("delete", f"{row.name}/", note="if it is empty") for row in plan.prune]
    found += [Change("fail", failure.path, note=str(failure)) for failure in plan.failures]
    return iter(sorted(found, key=lambda change: change.path))


def _kept(step: Keep) -> Change:
    """A path that holds the right bytes already."""
    slash = "/" if step.row.kind == Kind.DIR else ""
    return Change("adopt" if step.adopts else "update", step.row.name + slash)
