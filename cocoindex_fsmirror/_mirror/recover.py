"""Recover: settle what an interrupted batch left behind."""

from __future__ import annotations

import contextlib
import logging

from .._core.errors import BarrierError
from .._core.intents import Intent
from .._core.layout import READY, area_of
from .._core.names import ROOT, Name, ancestors, leaf, parent
from .._core.ownership import Verdict
from .._core.plan import judge
from .._core.rows import Row
from .._core.states import ABSENT, DirState, FileState, Kind, same_content
from .._disk.calls import coarse_now_ns, stamp_now
from .._disk.staging import Slot, Staging, remove_area
from .._disk.tree import Tree
from .formats import Pending
from .ledger import Ledger
from .look import Seen, entries, record

__all__ = ["recover"]

_log = logging.getLogger("cocoindex_fsmirror")


def recover(tree: Tree, ledger: Ledger) -> None:
    """Settles what an interrupted batch left: step 1 of the next one.

    Torn staging files are discarded, and of whole ones those that we wrote; anything else
    was on its way to the backup area. Then the content of each path tells if its step had
    been done.

    Raises:
        BarrierError: What was found could not be synced.
    """
    pending = ledger.pending()
    areas = [
        area for home in sorted({ROOT, *(p.home for p in pending)}) for area in _areas(tree, home)
    ]
    if not pending and not areas:
        return
    _log.info("%s: recovering from an interrupted update", tree.path)
    stuck = {
        leaf(area).removesuffix(READY)
        for home, area in areas
        if not _sort_out(tree, ledger, pending, home, area)
    }
    pending = [p for p in pending if p.batch not in stuck]
    _sync_leftovers(tree, pending)
    for batch in sorted({p.batch for p in pending}):
        _settle(tree, ledger, [p for p in pending if p.batch == batch], batch)


def _sync_leftovers(tree: Tree, pending: list[Pending]) -> None:
    """Syncs what a dead process had put in place: it may still be only in memory."""
    names = [p.row.name for p in pending]
    try:
        there = [name for name in names if isinstance(tree.look(name).state, FileState)]
        folders = {folder for name in there for folder in (*ancestors(name), ROOT)}
        homes = {p.home for p in pending if p.home}
        mounts = [home for home in homes if isinstance(tree.look(home).state, DirState)]
        devices = {tree.device(home): home for home in mounts}
        tree.sync([tree.folder(home) for home in devices.values()], there, folders)
    except OSError as error:
        raise BarrierError(f"{tree.path}: syncing failed: {error.strerror}") from error


def _areas(tree: Tree, home: Name) -> list[tuple[Name, Name]]:
    """Returns the staging areas of a folder that were left over."""
    try:
        return [(home, area) for area in tree.names_in(parent(area_of(home, "-")))]
    except OSError:
        return []


def _sort_out(tree: Tree, ledger: Ledger, pending: list[Pending], home: Name, area: Name) -> bool:
    """Discards what is ours in one area, and backs up the rest; returns False if some stays."""
    batch, ready, _ = leaf(area).partition(READY)
    if not isinstance(tree.look(area).state, DirState):
        tree.remove_file(area)  # Never made by us.
        return True
    notes = {p.entry: p for p in pending if p.batch == batch}
    kept, folders = True, [area]
    for folder in folders:  # It grows meanwhile.
        for name in entries(tree, folder):
            slot = Slot(home, name.removeprefix(f"{area}/"))
            note = notes.get(slot.entry, notes.get(slot.entry.removesuffix(".old")))
            try:
                is_folder = isinstance(tree.look(name).state, DirState)
                if is_folder and _was_staged(slot, note, torn=not ready):
                    folders.append(name)
                elif not is_folder and (not ready or (note and _is_ours(tree, ledger, note, name))):
                    tree.remove_file(name)
                else:
                    _keep_leftover(tree, slot, leaf(area), note)
            except OSError as error:
                kept = False
                _log.warning("%s: %r can't be moved on: %s", tree.path, name, error.strerror)
    for folder in reversed(folders[1:]):
        tree.remove_folder(folder)
    remove_area(tree, area)
    return kept


def _was_staged(slot: Slot, note: Pending | None, *, torn: bool) -> bool:
    """True if a folder in a staging area is one of ours.

    Its note tells. A power cut before the first barrier may have taken the note, but all
    that we stage lies in slots with numbers.
    """
    if note is not None and note.row.kind == Kind.DIR:
        return True
    return torn and slot.entry.partition("/")[0].isdecimal()


def _is_ours(tree: Tree, ledger: Ledger, note: Pending, leftover: Name) -> bool:
    """True if a whole file in a staging area holds a version that we wrote."""
    row = ledger.rows_named([note.row.name]).get(note.row.name)
    staged = () if note.removal or note.row.digest is None else (note.row.digest,)
    owner = note.row.owner if row is None else row.owner
    intent = Intent(note.row.name, ABSENT, owner, ours=staged)
    return judge(intent, row, tree.look(leftover, digest=True)) is Verdict.OURS


def _keep_leftover(tree: Tree, slot: Slot, area: str, note: Pending | None) -> None:
    """Moves a foreign leftover to the backup area."""
    name = note.row.name if note is not None else Name(f"unknown/{slot.entry}")
    with contextlib.closing(Staging(tree, area)) as staging:
        where = staging.back_up(slot, name, stamp_now())
    _log.warning("%s: foreign %r, found in staging, was moved to %r", tree.path, name, where)


def _settle(tree: Tree, ledger: Ledger, pending: list[Pending], batch: str) -> None:
    """Records those steps of a batch that had been done."""
    done: list[Row] = []
    gone: list[Name] = []
    seen: dict[Name, Seen] = {}
    now_ns = coarse_now_ns()
    for note in pending:
        row, actual = note.row, tree.look(note.row.name, digest=True)
        if note.removal:
            if actual.state is ABSENT:
                gone.append(row.name)
        elif same_content(row.state, actual.state) and actual.signature:
            done.append(row)
            if row.kind != Kind.DIR:
                seen[row.name] = Seen(actual.signature, now_ns)
    ledger.commit(record(tree, done, seen), gone, batch)
