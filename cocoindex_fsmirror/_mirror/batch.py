"""Batch: bring paths to their desired states, so that neither a crash nor a power cut can hurt.

The steps stand in order in :func:`apply_intents` and :func:`_carry_out`; a comment at each says
what a power cut there would leave. Step 1, recovery, is done whenever a session locks a root.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from .._core.drift_report import DriftReport
from .._core.errors import BarrierError, LedgerError, counted
from .._core.intents import Intent
from .._core.layout import FOLDER
from .._core.names import ROOT, Name, leaf, parent
from .._core.owners import Declarer, Epoch, Owner
from .._core.ownership import NO_COPIES, Policies
from .._core.plan import Plan
from .._core.planner import make_plan
from .._core.rows import Displaced, Row
from .._core.states import ABSENT
from .._disk.homes import find_edge
from .._disk.staging import Staging, reserved
from .._disk.tree import Tree
from .brake import Brake
from .copies import copied, keep_staged, set_policies
from .exact import Known, sweep
from .ledger import Ledger
from .look import entries, is_folder, record, view_of
from .outcome import Failures, Outcome, is_crossing, log_paths
from .owners import admit
from .place import Placement
from .recover import empty_areas
from .shelf import drop_unused, give_up
from .stage import Stage

__all__ = ["apply_intents", "begin", "prepare", "removal"]

_log = logging.getLogger("cocoindex_fsmirror")
_NAMED: Final = 10  # paths that a log line names before it says how many more


def apply_intents(
    tree: Tree,
    ledger: Ledger,
    intents: Iterable[Intent],
    closed: Iterable[tuple[str, str]] = (),
    brake: Brake | None = None,
    *,
    durable: bool = True,
    read: bool = False,
    update: str = "",
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> Outcome:
    """Brings paths to their desired states; the outcome lists failures of single paths.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        intents: Any number of paths, in any order.
        closed: Owner and container of directory targets that are no longer declared: all
            paths declared through them go, and the outcome lists the paths that stay there.
        brake: Stops the batch if it removes too much.
        durable: True if the end of the closed ones has to survive a power cut.
        read: True to read every file, instead of trusting an unchanged ``lstat``.
        update: The identity of the update, with which the epoch of each owner advances.
        on_bytes: Called with the number of bytes staged, as they come. An exception ends
            the batch before anything is in place; recovery cleans up.

    Raises:
        BarrierError: The disk did not confirm; nothing of the batch counts.
        LedgerError: The ledger could not be written.
        TooManyRemovalsError: The brake stopped the batch; nothing of it was applied.
    """
    # Step 2: look and plan. A power cut here leaves at most a note of what was to give way.
    closing = [i for pair in closed for i in _removals(ledger, *pair, durable=durable)]
    batch, looked_ns = [*closing, *intents], tree.abilities.now_ns()
    view = view_of(tree, ledger, batch, read=read)
    plan = make_plan(batch, view)
    if brake is not None and batch:
        removals = (step for step in (*plan.clear, *plan.remove) if step.on_behalf is None)
        brake.check(tree.path, {step.name for step in removals}, ledger, batch[0].owner)
    _note_displaced(ledger, plan, batch)
    outcome = Outcome(left=list(plan.left), failures=list(plan.failures))
    failures = Failures(outcome.failures)
    if not plan.changes_nothing:
        durable = any(intent.durable for intent in batch)
        with contextlib.closing(Staging(tree, uuid.uuid4().hex, on_bytes)) as staging:
            stage = Stage(tree, plan, staging, failures, view.rows)
            place = Placement(tree, ledger, stage, outcome, looked_ns)
            _carry_out(tree, ledger, stage, place, batch, update=update, durable=durable)
    log_paths(tree.path, outcome)
    if outcome.failures:
        # Whoever declared these was told: no wider invalidation is needed.
        ledger.set_seen((Name(f.path) for f in outcome.failures), False)
    if closing:
        outcome.left = _log_what_stays(tree, ledger, closing, outcome)
    again = _beyond_edges(tree, outcome, batch)
    outcome.find_unfitting(batch, {put.name for put in plan.files if put.grows}, failures.waiting)
    if again:
        outcome.add(apply_intents(tree, ledger, again, read=read, on_bytes=on_bytes))
    if outcome.unfitting:
        ledger.save_room()
        if give_up(tree, ledger):
            outcome.unfitting = [each._replace(tried=False) for each in outcome.unfitting]
    return outcome


def _beyond_edges(tree: Tree, outcome: Outcome, intents: list[Intent]) -> list[Intent]:
    """Returns what failed, to be tried again, if that was for an edge that nobody knew of.

    The failures go from the outcome then. The next staging takes place inside of the edge.
    """
    crossing = [Name(f.path) for f in outcome.failures if is_crossing(f)]
    found = [find_edge(tree, folder) for folder in dict.fromkeys(map(parent, crossing))]
    if not any(found):
        return []
    failed = {failure.path for failure in outcome.failures}
    again = [intent for intent in intents if intent.name in failed]
    settled = {*crossing, *(intent.name for intent in again)}
    outcome.failures = [each for each in outcome.failures if each.path not in settled]
    return again


def _note_displaced(ledger: Ledger, plan: Plan, intents: list[Intent]) -> None:
    """Notes what a batch displaces, before it does, and ends the notes of what it is about.

    Were they stored after the batch, an interrupted one would leave a declared path that is
    gone, and that nobody declares again.
    """
    notes = ledger.displaced()
    if plan.displaced or notes:  # As a rule there are none.
        about = {intent.declaration for intent in intents}
        ledger.set_displaced(plan.displaced, [note for note in notes if note[:3] in about])


def _carry_out(
    tree: Tree,
    ledger: Ledger,
    stage: Stage,
    place: Placement,
    intents: list[Intent],
    *,
    update: str,
    durable: bool,
) -> None:
    """Carries out a plan: steps 3 to 8 of a batch."""
    staging = stage.staging

    # Step 3: note what is intended. A power cut here leaves at most these notes. An area
    # outside the root's own can be found again only through its note, so that must be durable.
    notes = stage.notes()
    with _room_for(tree, ledger, stage) as lack:
        elsewhere = any(note.home != ROOT for note in notes)
        ledger.begin(notes, {i.owner for i in intents}, update, durable=durable and elsewhere)

        # Step 4: stage. A cut leaves staging files, perhaps torn, that recovery throws away. The
        # digests of files that were hashed now are noted, to tell later which were placed.
        stage.fill(lack)
        if not (lack or stage.failures.lack()):
            stage.copies = keep_staged(tree, ledger, stage)
    if late := stage.late_notes():
        ledger.begin(late)
        notes += late

    # Step 5: the first barrier. From here on every name that appears points at bytes that
    # are on the disk. A cut leaves whole staging files, which recovery sorts out.
    try:
        if durable:
            tree.sync(staging.descriptors)
        staging.ready()
    except OSError as error:
        # A disk that failed may refuse this too; then recovery does it.
        with contextlib.suppress(OSError, LedgerError):
            if not empty_areas(tree, ledger, staging.areas, notes):
                drop_unused(tree, ledger, {*stage.copies.values()})
                ledger.commit((), (), staging.batch)
        raise _barrier_error(tree, error) from error

    # Step 6: place, then remove. A cut leaves some paths new and the others old, each of
    # them whole; what was being replaced or removed may still lie in its slot.
    plan, attempt = stage.plan, stage.failures.attempt
    attempt("remove", place.remove, plan.clear)
    attempt("write", place.clear_folder, plan.clear_folders)
    attempt("make", place.make_folder, plan.folders, lambda row: row.declared)
    attempt("write", place.put, plan.files)
    place.look_at_renamed()
    attempt("set the mode or time of", place.keep, plan.keep)
    attempt("remove", place.remove, plan.remove)
    place.prune(plan.prune)

    # Step 7: the second barrier. A cut before it leaves what a cut in step 6 leaves; one
    # after it loses only the record, and recovery finds what the notes announced.
    try:
        is_stuck = bool(empty_areas(tree, ledger, staging.areas, notes))
        # Folders come last: an area may be in one of them.
        attempt("set the mode or time of", place.dress, plan.dress)
        if durable:
            tree.sync(staging.descriptors, place.seen, place.changed)
    except OSError as error:
        done = place.done.values()
        copies = copied(ledger, done, stage.copies)
        doubtful = [replace(row, unsynced=True, copied=row.name in copies) for row in done]
        with contextlib.suppress(LedgerError):
            _record(tree, ledger, stage, doubtful, batch=staging.batch)
        raise _barrier_error(tree, error) from error

    # Step 8: record. A cut leaves the whole batch or, as before this step, its notes, which
    # stay also if foreign bytes could not be moved out of the staging area.
    done = place.done.values()
    rows = record(tree, done, place.seen, copied(ledger, done, stage.copies))
    gone = [name for name in place.gone if name not in place.done]
    ended = None if is_stuck else staging.batch
    _record(tree, ledger, stage, rows, gone, batch=ended)


def _record(
    tree: Tree,
    ledger: Ledger,
    stage: Stage,
    rows: list[Row],
    gone: Collection[Name] = (),
    *,
    batch: str | None,
) -> None:
    """Records a batch, and removes the copies that it has left without use."""
    unused = {*stage.copies.values(), *stage.copied_before()}
    unused -= {row.digest for row in rows if row.copied and row.digest}
    ledger.commit(rows, gone, None if unused else batch)
    if unused:  # The notes go last: recovery removes what a cut in between leaves.
        drop_unused(tree, ledger, unused)
        ledger.commit((), (), batch)


@contextlib.contextmanager
def _room_for(tree: Tree, ledger: Ledger, stage: Stage) -> Iterator[OSError | None]:
    """Keeps room on the disk free in which step 8 can record some steps.

    A batch that can't be recorded can't be recovered either, until somebody else makes room.
    One that adds files leaves enough for a later one that removes some.

    Yields:
        The reason why this batch must add nothing to what is on the disk.
    """
    if not (stage.rows or stage.exits):
        yield None
        return
    # Files that are removed make room themselves.
    room, lack = ledger.room_for(len(stage.rows)), None
    with contextlib.ExitStack() as until:
        try:
            try:
                keep = until.enter_context(reserved(tree, 2 * room))
            except OSError:
                ledger.save_room()
                give_up(tree, ledger)
                keep = until.enter_context(reserved(tree, 2 * room))
        except OSError as error:
            problem = f"can't record {counted(len(stage.rows), 'path')}: {error.strerror}"
            hint = "free some space, then update again"
            raise LedgerError(f"{ledger.file}: {problem} ({hint})") from error
        if any(put.grows for put in stage.plan.files):
            try:
                until.enter_context(reserved(tree, 2 * ledger.room_for(1)))
            except OSError as error:
                lack = error
        keep(room)  # The rest is for the notes of step 3.
        yield lack


def _barrier_error(tree: Tree, error: OSError) -> BarrierError:
    """Returns the error for a disk that did not confirm."""
    hint = "check the disk and the kernel's log; the next update writes these files anew"
    return BarrierError(f"{tree.path}: syncing failed: {error.strerror} ({hint})")


def begin(tree: Tree, ledger: Ledger, note: str, by: str, policies: Policies) -> str:
    """Begins an update whose owner is noted in the ledger; returns the owner's identity.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        note: The key of the note.
        by: The owner's name, for people.
        policies: By which what it declares is kept and healed.
    """
    owner = ledger.identity(note)
    declarer = Owner(owner, declarer=Declarer(by))
    prepare(tree, ledger, declarer, DriftReport(), policies=policies)
    return owner


def prepare(
    tree: Tree,
    ledger: Ledger,
    owner: Owner,
    drift: DriftReport,
    *,
    exact: Known | None = None,
    begins: bool = False,
    policies: Policies = NO_COPIES,
) -> Epoch:
    """Records an owner that begins an update, and the drift that a look has found.

    Folders that nobody needs any more go: they could not go with their last file while
    somebody else had a file in them.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        owner: The owner, with the epoch of its update.
        drift: The result of the look.
        exact: Tells what stays when what is not managed is moved to the backup area, if the
            owner is known and not in doubt; by default nothing is moved.
        begins: True if the epoch changes now, and not with the first batch.
        policies: By which what it declares is kept and healed.

    Returns:
        The epoch of the owner now.

    Raises:
        RootError: The declarer uses a copy of the database that the owner belongs to.
    """
    # If the look knew the owner, its ledger was lost since: the next look has to notice.
    known = ledger.owners().get(owner.identity)
    is_lost = owner.identity in drift.owners and known is None
    epoch = owner.epoch if is_lost else admit(tree, ledger, owner, begins=begins)
    if deserted := ledger.deserted(owner.identity):
        removals = [removal(row, durable=False) for row in deserted]
        failures = apply_intents(tree, ledger, removals).failures
        for failure in failures:
            if failure.operation == "remove":  # Others are of folders that are declared.
                _log.warning("%s: %s", tree.path, failure)
    drifted = ledger.rows_named(drift.names).values()
    mine = [row for row in drifted if row.owner == owner.identity and row.declared]
    if unseen := [row.name for row in mine if not row.seen]:
        ledger.set_seen(unseen, True)
    noted = [note for note in ledger.displaced() if note.owner == owner.identity and not note.seen]
    if noted:
        ledger.set_displaced((note._replace(seen=True) for note in noted), ())
    if owner.in_doubt:
        ledger.distrust()
    elif drift.refreshed:
        current = ledger.rows_named(row.name for row in drift.refreshed)
        ledger.commit((row for row in drift.refreshed if _is_current(row, current)), ())
    # Of a new owner, what it may adopt would be moved away, and of one in doubt its own.
    if exact is not None and known is not None and not (known.in_doubt or owner.in_doubt):
        for failure in sweep(tree, ledger, exact).failures:
            _log.warning("%s: %s", tree.path, failure)
    ledger.is_crowded = False  # There may be room again.
    set_policies(tree, ledger, owner.identity, {"": policies})
    return epoch


def _is_current(refreshed: Row, current: dict[Name, Row]) -> bool:
    """True if a row that a look refreshed has not been written since."""
    row = current.get(refreshed.name)
    if row is None or row.recorded_ns > refreshed.recorded_ns:
        return False
    now = row.with_signature(refreshed.signature, refreshed.recorded_ns)
    return replace(now, seen=False) == refreshed


def _removals(ledger: Ledger, owner: str, container: str, *, durable: bool) -> list[Intent]:
    """Makes the intents to remove what a directory target declared, also where it gave way."""
    notes = (note for note in ledger.displaced() if note.owner == owner)
    given_way = [note for note in notes if note.container.startswith(container)]
    rows: list[Row | Displaced] = [*ledger.rows_of(owner, container), *given_way]
    return [removal(row, durable=durable) for row in rows]


def removal(row: Row | Displaced, *, durable: bool = True) -> Intent:
    """Makes the intent to remove a path that is declared no longer, if it is ours."""
    return Intent(row.name, ABSENT, row.owner, row.container, on_conflict="keep", durable=durable)


def _log_what_stays(
    tree: Tree, ledger: Ledger, closing: list[Intent], outcome: Outcome
) -> list[Name]:
    """Lists what stays where directory targets were, and names it in one log line."""
    names = [intent.name for intent in closing]
    folders = {name for name in names if is_folder(tree, name)}
    folders.update(map(parent, names))
    found = {name for folder in folders for name in entries(tree, folder)}
    found = {*outcome.left, *(name for name in found - folders if leaf(name) != FOLDER)}
    # Only folders that may not be removed are in the ledger still, and will be in none.
    ended = set() if outcome.failures else {intent.owner for intent in closing}
    rows = ledger.rows_named(found).values()
    stays = sorted(found - {row.name for row in rows if row.declared or row.owner not in ended})
    if stays:
        shown = ", ".join(repr(str(name)) for name in stays[:_NAMED])
        more = f" and {len(stays) - _NAMED} more" if len(stays) > _NAMED else ""
        _log.warning("%s: left in place, since it is not ours: %s%s", tree.path, shown, more)
    return stays
