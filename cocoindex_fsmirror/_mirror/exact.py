"""Sweep: what is not managed goes to the backup area, so that a mirror is exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeAlias

from .._core.errors import PathError, counted
from .._core.layout import FOLDER, LEDGER, backups_of
from .._core.names import ROOT, Name, join, leaf
from .._core.states import ABSENT, DirState
from .._disk.calls import stamp_now
from .._disk.tree import Tree
from .look import entries
from .outcome import Outcome

__all__ = ["Known", "find_foreign", "sweep"]

_log = logging.getLogger("cocoindex_fsmirror")


Known: TypeAlias = Callable[[Name, bool], bool]
"""Tells whether a path, or something below it, belongs there; the path, and if it is a folder."""


def find_foreign(tree: Tree, is_known: Known, folder: Name = ROOT) -> Iterator[tuple[Name, bool]]:
    """Everything that is not known, and whether it is a folder; what is in it comes before it.

    Left out are other mirrors, and what is mounted, with all that is in them. What is in
    a folder that can't be listed is not seen.

    Args:
        tree: The root.
        is_known: Whether a path belongs there.
        folder: Where to look.
    """
    to_do = [(folder, True, False)]
    while to_do:
        name, is_folder, is_foreign = to_do.pop()
        if is_foreign:
            yield name, is_folder
            continue
        if name != folder:
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
    """Whether a folder is a mirror of its own, or something that was mounted by somebody else."""
    return folder in tree.mounts or tree.look(join(folder, LEDGER)).state is not ABSENT


def sweep(tree: Tree, is_known: Known) -> Outcome:
    """Moves what is not known to the backup area; folders that are empty then just go.

    Args:
        tree: The root.
        is_known: As for :func:`find_foreign`.

    Returns:
        Where each file went, and what could not be moved.
    """
    outcome, stamp = Outcome(), stamp_now()
    for name, is_folder in list(find_foreign(tree, is_known)):
        try:
            if not is_folder:
                outcome.backed_up[name] = tree.back_up(name, stamp)
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
    return outcome
