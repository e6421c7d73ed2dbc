"""Steps 2 to 8 of a batch, and what an update begins with."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from .._core.intents import Intent
from .._core.names import Name, ancestors
from .._core.plan import Plan
from .._core.planner import make_plan
from .._core.rows import Displaced, Row
from .._core.states import ABSENT
from .._disk.calls import coarse_now_ns
from .._disk.tree import Tree, dress_folder
from .batch import apply_plan
from .brake import Brake
from .drift import DriftReport
from .ledger import Ledger
from .look import view_of
from .outcome import Outcome
from .session import Session

__all__ = ["apply_intents", "begin", "dress_above", "ending", "ending_of", "prepare"]


def begin(session: Session, note: str, by: str, *, durable: bool) -> str:
    """Begins an update; makes the root if it is missing.

    Args:
        session: That of the root.
        note: The key of the note that keeps the declarer's identity.
        by: Who declares, for people.
        durable: True if a root that was made has to survive a power cut.

    Returns:
        The identity of the declarer.
    """

    def act(tree: Tree, ledger: Ledger) -> str:
        owner = ledger.identity(note)
        prepare(tree, ledger, owner, by, DriftReport())
        return owner

    return session.run(act, create=True, durable=durable)


def prepare(tree: Tree, ledger: Ledger, owner: str, by: str, drift: DriftReport) -> None:
    """Records what a look found, and removes folders that nobody needs any more.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        owner: Whose drift it is that is recorded.
        by: Who that is, for people.
        drift: What the look found.
    """
    if all(owner != known for known, *_ in ledger.owners()):
        ledger.set_meta(f"owner:{owner}", f"{coarse_now_ns()} {by}")
    _prune_deserted(tree, ledger, owner)
    drifted = ledger.rows_named(drift.names).values()
    mine = [row for row in drifted if row.owner == owner and row.declared and not row.seen]
    if mine:
        ledger.set_seen((row.name for row in mine), True)
    noted = [note for note in ledger.displaced() if note.owner == owner and not note.seen]
    if noted:
        ledger.set_displaced((note._replace(seen=True) for note in noted), ())
    if drift.refreshed:
        current = ledger.rows_named(row.name for row in drift.refreshed)
        ledger.commit((row for row in drift.refreshed if _is_current(row, current)), ())


def apply_intents(
    tree: Tree,
    ledger: Ledger,
    intents: list[Intent],
    brake: Brake | None = None,
    *,
    read: bool = False,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> Outcome:
    """Brings paths to their desired states; what failed is in the outcome, and not raised.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        intents: One or more paths, in any order.
        brake: Stops the batch if it removes too much.
        read: True to read every file, instead of trusting an unchanged ``lstat``.
        on_bytes: Is told of bytes that are staged, as they come.
    """
    looked_ns = coarse_now_ns()
    plan = make_plan(intents, view_of(tree, ledger, intents, read=read))
    if brake is not None and intents:
        gives_way = (step for step in plan.clear if step.on_behalf is None)
        planned = {step.name for step in (*plan.remove, *gives_way)}
        brake.check(tree.path, planned, ledger, intents[0].owner)
    _note_displaced(ledger, plan, intents)
    outcome = apply_plan(
        tree,
        ledger,
        plan,
        batch=uuid.uuid4().hex,
        looked_ns=looked_ns,
        durable=any(intent.durable for intent in intents),
        on_bytes=on_bytes,
    )
    if outcome.failures:
        # Whoever declared these was told: no wider invalidation is needed.
        ledger.set_seen((Name(f.path) for f in outcome.failures), False)
    return outcome


def _note_displaced(ledger: Ledger, plan: Plan, intents: Iterable[Intent]) -> None:
    """Notes what a batch displaces, before it does, and ends the notes of what it is about.

    Were they stored after the batch, an interrupted one would leave a declared path that is
    gone, and that nobody declares again.
    """
    notes = ledger.displaced()
    if plan.displaced or notes:  # As a rule there are none.
        about = {intent.declaration for intent in intents}
        ledger.set_displaced(plan.displaced, [note for note in notes if note[:3] in about])


def ending(row: Row | Displaced, *, durable: bool = True) -> Intent:
    """Makes the intent to remove a path because its directory target is gone."""
    return Intent(row.name, ABSENT, row.owner, row.container, on_conflict="keep", durable=durable)


def ending_of(ledger: Ledger, owner: str, container: str) -> list[Intent]:
    """Makes the intents to end a directory target, also of what had to give way."""
    notes = (note for note in ledger.displaced() if note.owner == owner)
    given_way = [note for note in notes if note.container.startswith(container)]
    return [*map(ending, ledger.rows_of(owner, container)), *map(ending, given_way)]


def dress_above(tree: Tree, ledger: Ledger, changed: Iterable[Name]) -> None:
    """Gives the folders above some paths the attributes again that were asked for."""
    folders = {folder for name in changed for folder in ancestors(name)}
    for row in ledger.rows_named(folders).values():
        with contextlib.suppress(OSError):  # It may be gone, too.
            dress_folder(tree, row.name, row.attributes)


def _prune_deserted(tree: Tree, ledger: Ledger, owner: str) -> None:
    """Removes folders that we made and could not remove while somebody had a file in them."""
    gone: list[Name] = []
    for row in ledger.deserted(owner):
        with contextlib.suppress(OSError):  # Then it stays, which hurts nobody.
            if tree.remove_folder(row.name):
                gone.append(row.name)
    if gone:
        ledger.commit((), gone)
        dress_above(tree, ledger, gone)


def _is_current(refreshed: Row, current: dict[Name, Row]) -> bool:
    """True if a row that a look refreshed has not been written since."""
    row = current.get(refreshed.name)
    if row is None or row.recorded_ns > refreshed.recorded_ns:
        return False
    now = row.with_signature(refreshed.signature, refreshed.recorded_ns)
    return replace(now, seen=False) == refreshed
