"""Sweep: move what is not managed to the backup area, so that a mirror is exact.

A path that can't be moved stays, and stops no other.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

from .._core.errors import PathError, as_path_error, counted
from .._core.layout import FOLDER, LEDGER, NOTE
from .._core.names import ROOT, Name, folders_above, join, leaf, parent
from .._core.states import ABSENT
from .._disk.dress import dress_folder
from .._disk.homes import back_up, shown, stamp_now
from .._disk.locations import Location, Root, is_state_folder
from .._disk.roots import is_there, read_mark
from .._disk.tree import NOT_THERE, Tree
from .known import has_ledger, known, opened
from .ledger import Ledger
from .look import is_folder as is_a_folder
from .look import spelling
from .outcome import Outcome
from .reader import LedgerReader

__all__ = ["Known", "foreign", "sweep"]

_log = logging.getLogger("cocoindex_fsmirror")


Known: TypeAlias = Callable[[Name, bool], bool]
"""A function of a path, and if it is a folder: true if that, or something below it, is known."""


def _find_foreign(
    tree: Tree, ledger: LedgerReader, besides: Known, unlisted: list[PathError]
) -> Iterator[tuple[Name, bool]]:
    """Yields each foreign path, and if it is a folder; the entries of a folder come before it.

    Skips other mirrors and mounts. Adds an error for each folder that is not foreign and can't
    be listed: nobody knows if something foreign is in it.
    """
    to_do, spelled, is_ours = [(ROOT, True, False)], spelling(tree, ledger.names()), True
    while to_do:
        name, is_folder, is_foreign = to_do.pop()
        if is_foreign:
            yield name, is_folder
            continue
        if name != ROOT:
            is_folder, is_ours = is_a_folder(tree, name), True
            if not (besides(name, is_folder) or ledger.is_declared(name, is_folder=is_folder)):
                if is_folder and _is_another(tree, name):
                    continue
                is_ours = False
                to_do.append((name, is_folder, True))
        if is_folder:
            try:
                listed = tree.names_in(name)
            except OSError as error:
                listed = []
                if is_ours and error.errno not in NOT_THERE:
                    unlisted.append(as_path_error(name or Name("."), "list", error))
            inner = (spelled(each) for each in reversed(listed) if leaf(each) != FOLDER)
            to_do += ((each, False, False) for each in inner)


def _is_another(tree: Tree, folder: Name) -> bool:
    """True if a folder is a mirror of its own, or a mount, or a subvolume."""
    try:
        is_mount = folder in tree.mounts or tree.device(folder) != tree.device(parent(folder))
        signs = [join(folder, name) for name in (LEDGER, NOTE)]
        if is_state_folder(leaf(folder)):
            signs.append(join(folder, Name(leaf(LEDGER))))
        if is_mount or any(tree.look(sign).state is not ABSENT for sign in signs):
            return True
        path, mark = os.path.join(tree.path, folder), read_mark(tree.folder(folder))
        return bool(mark) and has_ledger(Location(path, mark).spot)
    except OSError:
        return False  # The folder can't be removed either, and fails by name.


def foreign(
    root: Root, besides: Known = lambda _name, _is_folder: False
) -> tuple[list[str], list[PathError]]:
    """Lists what is in a root and not managed, by path; the path of a folder ends with ``/``.

    Args:
        root: The root of the mirror.
        besides: True of further paths that are not foreign.

    Returns:
        The paths, and an error for each other folder that can't be listed.

    Raises:
        RootError: The root can't be read.
    """
    unlisted: list[PathError] = []
    if not is_there(str(root)):
        return [], unlisted
    with known(root) as ledger, opened(root) as tree:
        found = _find_foreign(tree, ledger, besides, unlisted)
        return [f"{name}/" if is_folder else str(name) for name, is_folder in found], unlisted


def sweep(tree: Tree, ledger: Ledger, besides: Known = lambda _name, _is_folder: False) -> Outcome:
    """Moves everything that is not managed to the backup area; skips other mirrors and mounts.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        besides: True of further paths that are left alone.

    Returns:
        The new path of each file in ``backed_up``; failures are in it, and not raised.
    """
    outcome, stamp, emptied = Outcome(), stamp_now(), list[Name]()
    for name, is_folder in list(_find_foreign(tree, ledger, besides, outcome.failures)):
        try:
            if not is_folder:
                outcome.backed_up[name] = back_up(tree, name, stamp)
            elif tree.remove_folder(name):
                emptied.append(name)
            else:
                tree.names_in(name)  # Raises if the folder can't be listed, hence not emptied.
        except OSError as error:
            hint = "it is not managed, and stays where it is"
            problem = error.strerror or str(error)
            outcome.failures.append(PathError(name, "move away", problem, hint))
    above = folders_above((*outcome.backed_up, *emptied))
    for row in ledger.rows_named(above).values():
        with contextlib.suppress(OSError):  # The folder may be gone, too.
            dress_folder(tree, row.name, row.attributes)
    if not outcome.backed_up:
        return outcome
    paths = (shown(tree, where) for where in outcome.backed_up.values())
    areas = {path.partition(f"/{stamp}")[0] for path in paths}
    where = ", ".join(repr(f"{area}/{stamp}") for area in sorted(areas))  # Each mount has its own.
    moved = counted(len(outcome.backed_up), "foreign file was", "foreign files were")
    _log.warning("%s: %s moved to %s", tree.path, moved, where)
    tree.sync(changed=outcome.backed_up.values())
    return outcome
