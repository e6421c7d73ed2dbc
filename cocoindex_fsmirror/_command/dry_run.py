"""Dry run: plans the intents of ``fsmirror sync``, and lists the steps. Changes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from .._core.attributes import UNASKED, Attributes
from .._core.intents import Intent
from .._core.names import Name
from .._core.owners import SYNC_OWNER
from .._core.ownership import Verdict
from .._core.plan import Plan, View
from .._core.planner import make_plan
from .._core.states import FileState, Kind
from .._core.text import encoded
from .._disk.locations import Root
from .._mirror.comparison import Comparison, check_removals
from .._mirror.exact import foreign
from .._mirror.known import known, opened
from .._mirror.look import view_of
from .options import Options
from .survey import Survey, known_in, protected_by, survey

__all__ = ["Change", "dry_run"]


class Change(NamedTuple):
    """A change that a run would make.

    Attributes:
        action: ``write``, ``heal``, ``adopt``, ``update`` (mode and time only),
            ``delete``, ``back up``, ``make`` (a folder), or ``fail``.
        path: Relative to the root; of a folder with ``/`` at the end.
        size: Bytes that are written.
        note: Details for people; may be empty.
    """

    action: str
    path: str
    size: int = 0
    note: str = ""


def dry_run(options: Options) -> list[Change]:
    """Lists the changes that a run would make; reads the files that seem to have changed.

    Raises:
        RootError: The root is there, and can't be read; or the source can't.
        TooManyRemovalsError: The run would stop.
    """
    told: dict[tuple[str, str], Change] = {}
    with contextlib.closing(survey(options)) as found:
        for change in _all_changes(options, found):
            # A path that makes way for another one may be gone in the source, too.
            told.setdefault((change.action, change.path or change.note), change)
    return [*told.values()]


def _all_changes(options: Options, found: Survey) -> Iterator[Change]:
    """Yields the changes that a run would make; one may come more than once."""
    root = options.root
    with known(root) as ledger:
        ledger.check()
        owner = ledger.noted(SYNC_OWNER) or "new"
    protects, limit = protected_by(found), options.max_delete
    check_removals(root, owner, found.declared(), limit, "--max-delete", protects=protects)
    yield from (Change("fail", "", note=error.message) for error in found.errors)
    if not os.path.isdir(root):
        yield Change("make", "./")
    elif _lacks(root, found.attributes):
        yield Change("update", "./")
    swept: set[Name] = set()
    if options.exact and os.path.isdir(root):
        listed, unlisted = foreign(root, known_in(found))
        yield from (Change("fail", each.path, note=str(each)) for each in unlisted)
        for path in listed:
            swept.add(Name(path.removesuffix("/")))
            is_folder = path.endswith("/")
            action, note = ("delete", "; if it is empty") if is_folder else ("back up", "")
            yield Change(action, path, note=f"not managed{note}")
    compared = Comparison(
        root,
        owner,
        options.on_conflict,
        read=options.checksum,
        source=found.tree,
        protects=protects,
        on_removal="save" if options.backup_deleted else None,
    )
    for batch in compared.batches(found.declared()):
        plan = _planned(root, batch, swept, read=options.checksum)
        yield from sorted(_changes(plan, compared.drifted), key=lambda change: encoded(change.path))
    yield from (Change("fail", name, note=str(each)) for name, each in compared.unread.items())


def _lacks(root: Root, wanted: Attributes) -> bool:
    """True if the root does not have some attributes, as far as its file system keeps them."""
    with opened(root) as tree:
        found = tree.abilities.attributes(os.fstat(tree.fd))
        return tree.abilities.kept(wanted).missing_in(found) != UNASKED


def _planned(root: Root, batch: list[Intent], swept: set[Name], *, read: bool) -> Plan:
    """Plans a batch as if some paths were swept away already."""
    if not os.path.isdir(root):
        return make_plan(batch, View({}, {}))
    with known(root) as ledger, opened(root) as tree:
        return make_plan(batch, view_of(tree, ledger, batch, swept, read=read))


def _changes(plan: Plan, drifted: set[Name]) -> Iterator[Change]:
    """Yields the steps of a plan."""
    for put in plan.files:
        name, desired = put.intent.name, put.intent.desired
        note = "what is there goes to the backup area" if put.keep_copy else ""
        size = desired.size if isinstance(desired, FileState) else 0
        yield Change("heal" if name in drifted else "write", name, size, note)
    for step in plan.keep:
        if step.adopts or step.missing != UNASKED:
            slash = "/" if step.row.kind == Kind.DIR else ""
            yield Change("adopt" if step.adopts else "update", step.row.name + slash)
        # Else only the ledger would change.
    for gone in (*plan.clear, *plan.remove):
        if gone.keep_copy:
            yield Change("back up", gone.name)
        if not gone.keep_copy or gone.verdict is Verdict.OURS:
            yield Change("delete", gone.name)
    for name, on_behalf in plan.clear_folders:
        if name != on_behalf:
            yield Change("delete", f"{name}/")
    yield from (Change("make", f"{row.name}/") for row in plan.folders)
    yield from (Change("delete", f"{row.name}/", note="if it is empty") for row in plan.prune)
    yield from (Change("fail", failure.path, note=str(failure)) for failure in plan.failures)
