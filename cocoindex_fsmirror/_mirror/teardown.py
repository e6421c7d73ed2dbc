"""Teardown: remove what one owner, or all of them, wrote to a mirror, and nothing else."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection

from msgspec.structs import replace

from .._core.errors import ApplyError, CorruptLedgerError
from .._core.layout import BACKUPS_APART, FOLDER, NEW_NOTE, NOTE, STAGING, backups_of
from .._core.names import ROOT, STATE
from .._core.owners import NOBODY, Declarer, Epoch
from .._core.rows import Displaced, Row
from .._core.states import Kind
from .._disk.homes import leave_root
from .._disk.locations import Root
from .._disk.roots import is_there, remove_root, remove_spot, set_mark
from .._disk.tree import Tree
from .batch import apply_intents, removal
from .brake import Brake
from .known import Found, exists, find, known
from .ledger import Ledger
from .outcome import Outcome
from .owners import may_tear_down
from .session import Session
from .state_folder import holds_state, remove_state

__all__ = ["remove_undeclared", "tear_down"]

_log = logging.getLogger("cocoindex_fsmirror")


def tear_down(
    session: Session,
    owner: str | None = None,
    acting: Declarer = NOBODY,
    *,
    durable: bool = True,
) -> Outcome:
    """Removes what one owner, or all of them, wrote, and nothing else.

    Edited and foreign files stay; one log line names them. With the last owner, the ledger
    is removed too, and the root if we made it.

    Args:
        session: The session of the root.
        owner: The identity of the owner; by default all owners.
        acting: The declarer that gives the owner up. One that uses a copy of the engine's
            database removes nothing, and one log line says so.
        durable: True if the removal has to survive a power cut.

    Raises:
        ApplyError: Some paths could not be removed.
        RootError: The root can't be used; one that is gone is no error.
    """
    is_gone = not is_there(session.root)
    if is_gone and not (find(session.location).is_apart and exists(session.location)):
        _log.info("%s: is gone already", session.root)
        return Outcome()
    if owner is not None and not _may_begin(session.location, owner, acting):
        return Outcome()

    def act(tree: Tree, ledger: Ledger) -> Outcome:
        if owner is not None and not may_tear_down(tree.path, ledger, owner, acting):
            return Outcome()
        leaving = {owner} if owner is not None else _all_owners(ledger)
        closed = [(identity, "") for identity in leaving]
        # One that is cut off fits no memory that the owner had before.
        ends = uuid.uuid4().hex
        outcome = apply_intents(tree, ledger, (), closed, durable=durable, update=ends)
        if not outcome.failures:
            _forget(ledger, leaving)
            if ledger.is_empty():
                _remove_our_folder(session, tree, ledger)
            if durable:
                tree.sync()
        return outcome

    outcome = session.run(act, create=is_gone)  # To be locked, and removed again.
    if is_gone:  # Other owners may be left.
        remove_root(session.root, 1)
    if outcome.failures:
        raise ApplyError(session.root, outcome.failures)
    return outcome


def remove_undeclared(
    session: Session,
    owner: str,
    epoch: Epoch,
    besides: Collection[str],
    is_declared: Callable[[Row | Displaced], bool | None],
    *,
    brake: Brake | None = None,
) -> Epoch:
    """Removes paths that the ledger remembers, and that nobody has declared again.

    Args:
        session: The session of the root.
        owner: The identity of the owner that has declared its paths again.
        epoch: Its epoch from now on, if it was in doubt or something is removed.
        besides: Owners that it has come in the place of; those without paths are forgotten.
        is_declared: True if a path of one of them is declared, or what gave way there, False if
            it is not, and ``None`` if that can't be told.
        brake: Stops the removal if it is too much.

    Returns:
        The epoch of the owner now.

    Raises:
        ApplyError: Some paths could not be removed.
        RootError: The root can't be used.
        TooManyRemovalsError: The brake stopped it; nothing was removed.
    """

    def act(tree: Tree, ledger: Ledger) -> tuple[Epoch, Outcome]:
        owners = (owner, *besides)
        rows: list[Row | Displaced] = [note for note in ledger.displaced() if note.owner in owners]
        rows += [row for each in owners for row in ledger.rows_of(each) if row.declared]
        verdicts = [is_declared(row) for row in rows]
        judged = list(zip(rows, verdicts, strict=True))
        gone = [row for row, verdict in judged if verdict is False]
        outcome = apply_intents(tree, ledger, map(removal, gone), brake=brake, update=epoch.update)
        _forget(ledger, {*besides} - {row.owner for row, verdict in judged if verdict is not False})
        in_doubt = None in verdicts or bool(outcome.failures)
        known = ledger.owners().get(owner)
        if known is None:  # The ledger was lost: the next look has to notice.
            return epoch, outcome
        if known.in_doubt or in_doubt or gone:
            known = known._replace(epoch=epoch, in_doubt=in_doubt)
            ledger.set_owner(known)
        return known.epoch, outcome

    settled, outcome = session.run(act)
    if outcome.failures:
        raise ApplyError(session.root, outcome.failures)
    return settled


def _may_begin(root: Root, owner: str, acting: Declarer) -> bool:
    """True if there is something that an owner may remove; changes nothing, not even a ledger."""
    try:
        with known(root) as ledger:
            if not ledger.owners() and ledger.is_empty():  # A teardown that was cut off goes on.
                return holds_state(find(root).spot.path)
            is_known = owner in ledger.owners() or ledger.rows_of(owner) or ledger.pending()
            return bool(is_known) and may_tear_down(str(root), ledger, owner, acting)
    except CorruptLedgerError as error:
        _log.warning("%s: nothing was removed, since the ledger is damaged: %s", root, error)
        return False


def _forget(ledger: Ledger, owners: Collection[str]) -> None:
    """Drops owners; hands the folders in which others have files over to those."""
    ledger.commit(_handed_over(ledger, owners), ())
    for owner in owners:
        ledger.forget(owner)


def _all_owners(ledger: Ledger) -> set[str]:
    """Returns the identities of all owners, also of those that only rows name."""
    return {*ledger.owners(), *(row.owner for row in ledger.rows())}


def _handed_over(ledger: Ledger, leaving: Collection[str]) -> list[Row]:
    """Returns new rows for folders in which only other owners still have files."""
    handed = []
    for row in (row for owner in leaving for row in ledger.rows_of(owner)):
        if row.kind == Kind.DIR:
            heirs = (below.owner for below in ledger.rows_below(row.name))
            heir = next((heir for heir in heirs if heir not in leaving), None)
            if heir is not None:
                handed.append(replace(row, owner=heir, container="", declared=False))
    return handed


def _remove_our_folder(session: Session, tree: Tree, ledger: Ledger) -> None:
    """Removes our folder unless it holds backups, and with our folder a root that we made."""
    made = ledger.get_meta("made")
    session.close()
    try:
        _empty_our_folder(tree, made, session.found)
    except OSError as error:
        problem = "%s: %r can't be removed: %s; remove it yourself"
        _log.warning(problem, tree.path, FOLDER, error.strerror)


def _empty_our_folder(tree: Tree, made: object, found: Found) -> None:
    """Removes what is in our folder, then itself, and then the folders made for the root."""
    for inner in (STAGING, backups_of(ROOT), BACKUPS_APART):
        tree.remove_folder(inner)
    is_empty = remove_state(tree, STATE)
    if found.is_apart:
        if is_empty:
            remove_spot(found.spot)
        for name in (NOTE, NEW_NOTE):
            tree.remove_file(name)
        set_mark(tree, "")
        leave_root(tree)
    elif is_empty:
        tree.remove_folder(FOLDER)
    is_left = tree.stat(FOLDER) is not None
    if is_left or not is_empty:
        stays = FOLDER if is_left else found.spot.path
        _log.info("%s: %s stays, since it holds backups or other files", tree.path, stays)
    if isinstance(made, int) and not is_left:
        remove_root(tree.path, made)
