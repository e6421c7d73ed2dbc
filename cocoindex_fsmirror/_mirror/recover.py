"""Recover: settle what an interrupted batch left behind.

The notes of the batch tell which steps were intended, and the content of each path tells if
its step was done. Staging areas are emptied by the same rule after a batch that was not
interrupted. Recovery can be interrupted too: its notes go last, so the next one begins again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from .._core.errors import BarrierError
from .._core.intents import Intent
from .._core.layout import READY, area_of
from .._core.names import ROOT, Name, leaf, parent
from .._core.ownership import Verdict
from .._core.plan import judge
from .._core.rows import Pending, Row
from .._core.states import ABSENT, DirState, Kind, same_content
from .._disk.homes import back_up, remove_area, shown, stamp_now
from .._disk.tree import Tree
from .ledger import Ledger
from .look import Seen, entries, look_at, record

__all__ = ["empty_areas", "recover"]

_log = logging.getLogger("cocoindex_fsmirror")


def recover(tree: Tree, ledger: Ledger) -> bool:
    """Settles what interrupted batches left behind: step 1 of the next batch.

    Returns:
        True if there was something.

    Raises:
        BarrierError: The steps that had been done could not be synced.
    """
    pending = ledger.pending()
    edges = map(Name, tree.abilities.edges | tree.abilities.searched)
    homes = {*edges, *(note.home for note in pending)} - {ROOT}
    areas = [area for home in (ROOT, *sorted(homes)) for area in _areas_in(tree, home)]
    if not pending and not areas:
        return False
    _log.info("%s: recovering from an interrupted update", tree.path)
    stuck = empty_areas(tree, ledger, areas, pending)
    pending = [note for note in pending if note.batch not in stuck]
    for batch in sorted({note.batch for note in pending}):
        _settle(tree, ledger, [note for note in pending if note.batch == batch], batch)
    return True


def _areas_in(tree: Tree, home: Name) -> list[Name]:
    """Lists the staging areas in a home; removes our folder there if it is empty."""
    tmp = parent(area_of(home, "-"))
    if home != ROOT:
        with contextlib.suppress(OSError):
            tree.remove_folders(tmp, parent(tmp))
    return entries(tree, tmp)


def empty_areas(
    tree: Tree, ledger: Ledger, areas: Iterable[Name], notes: list[Pending]
) -> set[str]:
    """Removes staging areas; discards our files in them, and backs up all others.

    Args:
        tree: The locked root.
        ledger: The ledger of the root.
        areas: The areas. Without ``.ready`` at its end, one holds only our files, perhaps torn.
        notes: The notes of their batches; may hold those of others, too.

    Returns:
        The batches of which something could not be moved.
    """
    stuck = set()
    for area in areas:
        try:
            is_done = _empty_area(tree, ledger, area, notes)
        except OSError as error:
            is_done = False
            _log_stuck(tree, area, error)
        if not is_done:
            stuck.add(leaf(area).removesuffix(READY))
    return stuck


def _log_stuck(tree: Tree, name: Name, error: OSError) -> None:
    """Warns that something stays in a staging area."""
    _log.warning("%s: %r can't be removed from staging: %s", tree.path, name, error.strerror)


def _empty_area(tree: Tree, ledger: Ledger, area: Name, pending: list[Pending]) -> bool:
    """Removes a staging area; returns False if something in it could not be moved."""
    batch, ready, _ = leaf(area).partition(READY)
    if not isinstance(tree.look(area).state, DirState):
        tree.remove_file(area)  # We make none but folders here.
        return True
    notes = {note.entry: note for note in pending if note.batch == batch}
    is_done, folders = True, [area]
    for folder in folders:  # The list grows meanwhile.
        for name in entries(tree, folder):
            entry = name.removeprefix(f"{area}/")
            note = notes.get(entry, notes.get(entry.removesuffix(".old")))
            try:
                is_folder = isinstance(tree.look(name).state, DirState)
                if is_folder and _was_staged(entry, note, torn=not ready):
                    folders.append(name)
                elif not is_folder and (not ready or (note and _is_ours(tree, ledger, note, name))):
                    tree.remove_file(name)
                else:
                    origin = note.row.name if note is not None else Name(f"unknown/{entry}")
                    where = back_up(tree, origin, stamp_now(), name)
                    found = "%s: foreign %r, found in staging, was moved to %r"
                    _log.warning(found, tree.path, origin, shown(tree, where))
            except OSError as error:
                is_done = False
                _log_stuck(tree, name, error)
    for folder in reversed(folders[1:]):
        tree.remove_folder(folder)
    remove_area(tree, area)
    return is_done


def _was_staged(entry: str, note: Pending | None, *, torn: bool) -> bool:
    """True if a folder in a staging area is one that we staged.

    Its note tells. A power cut before the first barrier may have lost the note, but what
    we stage lies in slots with numbers.
    """
    if note is not None and note.row.kind == Kind.DIR:
        return True
    return torn and entry.partition("/")[0].isdecimal()


def _is_ours(tree: Tree, ledger: Ledger, note: Pending, leftover: Name) -> bool:
    """True if a whole file in a staging area holds a version that we wrote."""
    name, staged = note.row.name, note.row.digest  # A removal has no digest.
    row = ledger.rows_named([name]).get(name)
    intent = Intent(name, ABSENT, row.owner if row else "", ours=(staged,) if staged else ())
    return judge(intent, row, tree.look(leftover, digest=True)) is Verdict.OURS


def _settle(tree: Tree, ledger: Ledger, pending: list[Pending], batch: str) -> None:
    """Syncs and records the steps of a batch that had been done."""
    done: list[Row] = []
    gone: list[Name] = []
    seen: dict[Name, Seen] = {}
    now_ns = tree.abilities.now_ns()
    for note in pending:
        row, actual = note.row, look_at(tree, note.row.name, None)
        if note.removal:
            if actual.state is ABSENT:
                gone.append(row.name)
        elif same_content(row.state, actual.state) and actual.signature:
            done.append(row)
            if row.kind != Kind.DIR:
                seen[row.name] = Seen(actual.signature, now_ns)
    try:  # The process may have died before the second barrier.
        homes = {note.home for note in pending if note.home}
        mounts = [home for home in homes if isinstance(tree.look(home).state, DirState)]
        devices = {tree.device(home): home for home in mounts}
        changed = (*gone, *(row.name for row in done))
        tree.sync([tree.folder(home) for home in devices.values()], seen, changed)
    except OSError as error:
        hint = "check the disk and the kernel's log, then update again"
        raise BarrierError(f"{tree.path}: syncing failed: {error.strerror} ({hint})") from error
    ledger.commit(record(tree, done, seen), gone, batch)
