"""Sweep: what is not managed goes to the backup area, so that a mirror is exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeAlias

from .._core.errors import PathError, counted
from .._core.layout import FOLDER, LEDGER, backups_of
from .._core.names import ROOT, Name, join, leaf, parent
from .._core.states import ABSENT, DirState
from .._disk.calls import stamp_now
from .._disk.staging import back_up
from .._disk.tree import Tree
from .apply import dress_above
from .ledger import Ledger
from .look import entries, opened
from .outcome import Outcome
from .reader import LedgerReader, known
from .session import Session

__all__ = ["Known", "foreign", "move_away", "sweep"]

_log = logging.getLogger("cocoindex_fsmirror")


Known: TypeAlias = Callable[[Name, bool], bool]
"""True if a path, or something below it, belongs there; the path, and if it is a folder."""


def _find_foreign(tree: Tree, is_known: Known) -> Iterator[tuple[Name, bool]]:
    """Yields what is not known, and if it is a folder; what is in it comes before it.

    Left out are other mirrors, and what is mounted, with all that is in them. What is in
    a folder that can't be listed is not seen.

    Args:
        tree: The root.
        is_known: Tells if a path belongs there.
    """
    to_do = [(ROOT, True, False)]
    while to_do:
        name, is_folder, is_foreign = to_do.pop()
        if is_foreign:
            yield name, is_folder
            continue
        if name != ROOT:
            is_folder = isinstance(tree.look(name).state, DirState)
            known = is_known(name, is_folder)
            if is_folder and not known and _is_another(tree, name):
                continue
            if not known:
                to_do.append((name, is_folder, True))
        if is_folder:
            inner = (each for each in reversed(entries(tree, name)) if leaf(each) != FOLDER)
            to_do += ((each, False, False) for each in inner)


def _is_another(tree: Tree, folder: Name) -> bool:
    """True if a folder is a mirror of its own, or was mounted by somebody else."""
    return folder in tree.mounts or tree.look(join(folder, LEDGER)).state is not ABSENT


def foreign(root: str, besides: Known = lambda _name, _is_folder: False) -> list[str]:
    """Lists what is in a root and not managed, by path, a folder with ``/`` at its end.

    Args:
        root: The root of the mirror.
        besides: Tells of a path, and if it is a folder, that it is not foreign either.

    Raises:
        RootError: The root can't be read.
    """
    with known(root) as ledger, opened(root) as tree:
        found = _find_foreign(tree, _is_known(ledger, besides))
        return [f"{name}/" if is_folder else str(name) for name, is_folder in found]


def sweep(session: Session, besides: Known = lambda _name, _is_folder: False) -> Outcome:
    """Moves everything that is not managed to the backup area.

    Left alone are other mirrors inside this one, and what others mounted there.

    Args:
        session: That of the root.
        besides: Tells of a path, and if it is a folder, that it is left alone, too.

    Returns:
        Where each file went, by the path that it was at; what could not be moved is
        in it, and not raised.

    Raises:
        RootError: The root can't be used.
    """

    def act(tree: Tree, ledger: Ledger) -> Outcome:
        outcome = move_away(tree, ledger, besides)
        tree.sync((), (), (ROOT, *(parent(name) for name in outcome.backed_up.values())))
        return outcome

    return session.run(act)


def move_away(
    tree: Tree, ledger: Ledger, besides: Known = lambda _name, _is_folder: False
) -> Outcome:
    """Does what :func:`sweep` does, without a barrier; folders that are empty then just go."""
    outcome, stamp = Outcome(), stamp_now()
    for name, is_folder in list(_find_foreign(tree, _is_known(ledger, besides))):
        try:
            if not is_folder:
                outcome.backed_up[name] = back_up(tree, name, stamp)
            elif not tree.remove_folder(name):
                tree.names_in(name)  # Raises if that is why something is left in it.
        except OSError as error:
            hint = "it is not managed, and stays where it is"
            problem = error.strerror or str(error)
            outcome.failures.append(PathError(name, "move away", problem, hint))
            _log.warning("%s: foreign %r can't be moved: %s", tree.path, name, problem)
    if outcome.backed_up:
        where = join(backups_of(ROOT), Name(stamp))
        moved = counted(len(outcome.backed_up), "foreign file was", "foreign files were")
        _log.warning("%s: %s moved to %r", tree.path, moved, where)
    dress_above(tree, ledger, outcome.backed_up)
    return outcome


def _is_known(ledger: LedgerReader, besides: Known) -> Known:
    """Returns what tells if a path is managed, or one of some others."""
    return lambda name, is_folder: (
        besides(name, is_folder) or ledger.is_declared(name, is_folder=is_folder)
    )
