"""Dry run: plans the intents of ``fsmirror sync``, and lists what would be done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from .._core.attributes import UNASKED
from .._core.names import Name
from .._core.plan import Keep, Plan
from .._core.states import FileState, Kind
from .._disk.calls import attributes_of
from .._mirror.comparison import Comparison, check_removals
from .._mirror.exact import foreign
from .._mirror.reading import noted, preview
from .survey import OWNER, Options, known_in, survey

__all__ = ["Change", "dry_run"]


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


def dry_run(options: Options) -> Iterator[Change]:
    """Yields what a run would do, in the order of the paths; reads what seems to have changed.

    Raises:
        RootError: The root is there, and can't be read; or the source can't be listed whole.
        TooManyRemovalsError: The run would stop.
    """
    told: set[tuple[str, str]] = set()
    for change in _all_changes(options):
        # What makes way for one path may be gone in the source, too.
        if change.action == "fail" or change[:2] not in told:
            told.add(change[:2])
            yield change


def _all_changes(options: Options) -> Iterator[Change]:
    """Yields what a run would do; a change may come more than once."""
    root, found = options.root, survey(options)
    owner = noted(root, OWNER) or "new"
    check_removals(root, owner, found.declared(), options.max_delete, "--max-delete")
    yield from (Change("fail", "", note=error) for error in found.errors)
    if not os.path.isdir(root):
        yield Change("make", "./")
    elif attributes_of(os.stat(root)) != found.attributes:
        yield Change("update", "./")
    swept: set[Name] = set()
    if options.exact and os.path.isdir(root):
        moved = foreign(root, known_in(found))
        swept = {Name(path.removesuffix("/")) for path in moved}
        yield from map(_swept, moved)
    compared = Comparison(root, owner, options.on_conflict, read=options.checksum)
    for batch in compared.batches(found.declared()):
        plan = preview(root, batch, swept, read=options.checksum)
        yield from _changes(plan, compared.drifted)
    for name, error in compared.unread.items():
        yield Change("fail", name, note=str(error))


def _swept(path: str) -> Change:
    """Tells what would happen to what is not managed."""
    if path.endswith("/"):
        return Change("delete", path, note="not managed; if it is empty")
    return Change("back up", path, note="not managed")


def _changes(plan: Plan, drifted: set[Name]) -> list[Change]:
    """Lists the steps of a plan, by path."""
    found = [Change("make", f"{row.name}/") for row in plan.folders]
    for put in plan.files:
        name = put.intent.name
        action = "heal" if name in drifted else "write"
        note = "what is there goes to the backup area" if put.keep_copy else ""
        size = put.intent.desired.size if isinstance(put.intent.desired, FileState) else 0
        found.append(Change(action, name, size, note))
    found += [_kept(step) for step in plan.keep if step.adopts or step.missing != UNASKED]
    for gone in (*plan.clear, *plan.remove):
        found.append(Change("back up" if gone.keep_copy else "delete", gone.name))
    emptied = (name for name, on_behalf in plan.clear_folders if name != on_behalf)
    found += [Change("delete", f"{name}/") for name in emptied]
    found += [Change("delete", f"{row.name}/", note="if it is empty") for row in plan.prune]
    found += [Change("fail", failure.path, note=str(failure)) for failure in plan.failures]
    return sorted(found, key=lambda change: change.path)


def _kept(step: Keep) -> Change:
    """Tells of a path that holds the right bytes already."""
    slash = "/" if step.row.kind == Kind.DIR else ""
    return Change("adopt" if step.adopts else "update", step.row.name + slash)
