"""Batch: carry out a plan, so that neither a crash nor a power cut can hurt.

Recovery (step 1) and the plan (step 2) come before; :func:`_carry_out` is steps 3 to 8.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from msgspec.structs import replace

from .._core.errors import BarrierError, LedgerError
from .._core.names import ROOT
from .._core.plan import Plan
from .._disk.staging import Staging
from .._disk.tree import Tree
from .ledger import Ledger
from .look import record
from .outcome import Failures, Outcome, log_paths
from .place import Placement
from .stage import Stage

__all__ = ["apply_plan"]

_log = logging.getLogger("cocoindex_fsmirror")


def apply_plan(
    tree: Tree,
    ledger: Ledger,
    plan: Plan,
    *,
    batch: str,
    looked_ns: int,
    durable: bool,
    on_bytes: Callable[[int], None],
) -> Outcome:
    """Carries out a plan.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        plan: What to do.
        batch: A name for the batch that was never used before.
        looked_ns: When the plan's view was taken, by the clock that stamps files.
        durable: True to wait for the disk at the two barriers.
        on_bytes: Called with the number of bytes staged, as they come. An exception ends
            the batch before anything is in place; recovery cleans up.

    Returns:
        The paths that something was done to. Failures of single paths are in it, not raised.

    Raises:
        BarrierError: The disk did not confirm; nothing of the batch counts.
        LedgerError: The ledger could not be written.
    """
    outcome = Outcome(left=list(plan.left), failures=list(plan.failures))
    if not plan.changes_nothing:
        with contextlib.closing(Staging(tree, batch, on_bytes)) as staging:
            stage = Stage(tree, plan, staging, Failures(outcome.failures))
            place = Placement(tree, ledger, stage, outcome, looked_ns)
            _carry_out(tree, ledger, stage, place, durable=durable)
    if _log.isEnabledFor(logging.DEBUG):
        log_paths(tree.path, outcome)
    return outcome


def _carry_out(
    tree: Tree, ledger: Ledger, stage: Stage, place: Placement, *, durable: bool
) -> None:
    """Carries out steps 3 to 8 of a batch."""
    staging = stage.staging

    # Step 3: note what is intended. A power cut here leaves at most these notes. An area
    # outside the root's own can be found again only through its note, so that must be durable.
    notes = stage.notes()
    elsewhere = any(note.home != ROOT for note in notes)
    ledger.begin(notes, durable=durable and elsewhere)

    # Step 4: stage. A cut leaves staging files, perhaps torn, that recovery throws away. The
    # digests of files that were hashed now are noted, to tell later which were placed.
    stage.fill()
    if late := stage.late_notes():
        ledger.begin(late)

    # Step 5: the first barrier. From here on every name that appears points at bytes that
    # are on the disk. A cut leaves whole staging files, which recovery sorts out.
    try:
        if durable:
            tree.sync(staging.descriptors, (), ())
        staging.ready()
    except OSError as error:
        # A disk that failed may refuse this too; then recovery does it.
        with contextlib.suppress(OSError, LedgerError):
            staging.abandon()
            ledger.commit((), (), staging.batch)
        raise _barrier_error(tree, error) from error

    # Step 6: place, then remove. A cut leaves some paths new and the others old, each of
    # them whole; what was being replaced or removed may still lie in its slot.
    place.clear()
    place.make_folders()
    place.put_files()
    place.keep()
    place.remove()
    place.prune()
    place.dress()

    # Step 7: the second barrier. A cut before it leaves what a cut in step 6 leaves; one
    # after it loses only the record, and recovery finds what the notes announced.
    try:
        stage.discard(place.seen.keys() | place.moved.keys())
        is_empty = staging.remove_areas()
        if durable:
            tree.sync(staging.descriptors, place.seen, place.touched())
    except OSError as error:
        doubtful = [replace(row, unsynced=True) for row in place.done.values()]
        with contextlib.suppress(LedgerError):
            ledger.commit(doubtful, (), staging.batch)
        raise _barrier_error(tree, error) from error

    # Step 8: record. A cut leaves the whole batch or, as before this step, its notes, which
    # stay also if foreign bytes could not be moved out of the staging area.
    rows = record(tree, place.done.values(), place.seen)
    gone = [name for name in place.gone if name not in place.done]
    ledger.commit(rows, gone, staging.batch if is_empty else None)


def _barrier_error(tree: Tree, error: OSError) -> BarrierError:
    """Returns the error for a disk that did not confirm."""
    hint = "check the disk and the kernel's log; the next update writes these files anew"
    return BarrierError(f"{tree.path}: syncing failed: {error.strerror} ({hint})")
