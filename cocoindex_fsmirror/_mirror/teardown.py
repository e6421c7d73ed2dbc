"""Takes back what an owner, or everybody, wrote to a mirror, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from msgspec.structs import replace

from .._core.errors import ApplyError
from .._core.intents import Intent
from .._core.layout import FOLDER, GITIGNORE, LEDGER_FILES, LOCK, STAGING, backups_of, is_engine
from .._core.names import ROOT, Name, parent
from .._core.rows import Row
from .._core.states import DirState, Kind
from .._disk.roots import is_there, remove_root
from .._disk.tree import Tree
from .apply import apply_intents, ending
from .ledger import Ledger
from .look import entries
from .outcome import Outcome
from .session import Session

__all__ = ["log_what_stays", "remove_engine", "tear_down"]

_log = logging.getLogger("cocoindex_fsmirror")
_NAMED: Final = 10  # paths that a log line names before it says how many more


def tear_down(session: Session, owner: str | None = None, *, durable: bool = True) -> Outcome:
    """Removes what an owner, or everybody, made, and nothing else.

    Edited files stay, and so does everything foreign; one log line names it.
    With the last owner go the ledger, and the root if we made it.

    Args:
        session: That of the root.
        owner: The identity whose files go; by default everybody's, and what ``fsmirror sync``
            of an earlier release kept.
        durable: True if the removal has to survive a power cut.

    Raises:
        ApplyError: Some paths could not be removed.
        RootError: The root can't be used; one that is gone is no error.
    """
    if not is_there(session.root):
        _log.info("%s: is gone already", session.root)
        return Outcome()

    def act(tree: Tree, ledger: Ledger) -> Outcome:
        rows = ledger.rows() if owner is None else ledger.rows_of(owner)
        gone = [ending(row, durable=durable) for row in rows]
        outcome = apply_intents(tree, ledger, gone)
        outcome.left = log_what_stays(tree, gone, outcome)
        if not outcome.failures:
            known = {identity for identity, *_ in ledger.owners()}
            leaving = {owner} if owner is not None else known.union(row.owner for row in rows)
            ledger.commit(_handed_over(ledger, leaving), ())
            for identity in leaving:
                ledger.forget(identity)
            if ledger.is_empty():
                _leave(session, tree, ledger)
            if durable:
                tree.sync((), (), (ROOT,))
        return outcome

    if owner is None:
        remove_engine(session)
    outcome = session.run(act)
    if outcome.failures:
        raise ApplyError(session.root, outcome.failures)
    return outcome


def remove_engine(session: Session) -> None:
    """Removes the database that ``fsmirror sync`` of an earlier release kept here.

    Raises:
        RootError: The root can't be used.
    """

    def act(tree: Tree, _ledger: Ledger) -> None:
        for name in entries(tree, FOLDER):
            if is_engine(name):
                tree.remove_all(name)

    session.run(act)


def log_what_stays(tree: Tree, gone: list[Intent], outcome: Outcome) -> list[Name]:
    """Lists what a teardown leaves where it is, and names it in one log line."""
    folders = {intent.name for intent in gone if isinstance(tree.look(intent.name).state, DirState)}
    folders |= {parent(intent.name) for intent in gone}
    found = {*outcome.left, *(name for folder in folders for name in entries(tree, folder))}
    stays = sorted(name for name in found if name != FOLDER and name not in folders)
    if stays:
        shown = ", ".join(repr(str(name)) for name in stays[:_NAMED])
        more = f" and {len(stays) - _NAMED} more" if len(stays) > _NAMED else ""
        _log.warning("%s: left in place, since it is not ours: %s%s", tree.path, shown, more)
    return stays


def _handed_over(ledger: Ledger, leaving: Collection[str]) -> list[Row]:
    """Lists the folders of those who leave that now hold only others' files, as the others'."""
    handed = []
    for row in (row for owner in leaving for row in ledger.rows_of(owner)):
        if row.kind == Kind.DIR and row.made:
            heirs = (below.owner for below in ledger.rows_below(row.name))
            heir = next((heir for heir in heirs if heir not in leaving), None)
            if heir is not None:
                handed.append(replace(row, owner=heir, container="", declared=False))
    return handed


def _leave(session: Session, tree: Tree, ledger: Ledger) -> None:
    """Removes the ledger, and the root if we made it."""
    made = ledger.get_meta("made")
    session.close()
    _remove_own_folder(tree)
    if isinstance(made, int) and not isinstance(tree.look(FOLDER).state, DirState):
        remove_root(tree.path, made)


def _remove_own_folder(tree: Tree) -> None:
    """Removes our folder, unless it holds backups or what else is to be kept."""
    for inner in (STAGING, backups_of(ROOT)):
        tree.remove_folder(inner)
    ledger = {*LEDGER_FILES, LOCK}
    rest = set(tree.names_in(FOLDER)) - ledger - {GITIGNORE}
    for name in ledger if rest else (*ledger, GITIGNORE):
        tree.remove_file(name)
    if rest:
        _log.info("%s: %s stays, since it holds what is to be kept", tree.path, FOLDER)
    else:
        tree.remove_folder(FOLDER)
