"""Sweep: what is not managed goes to the backup area, so that a mirror is exact."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator

from ._fs import Tree, stamp_now
from ._ledger import FILE, FOLDER
from ._paths import RESERVED, ROOT, Name, join, leaf, parent
from ._state import ABSENT, DirState

__all__ = ["find_foreign", "put_back", "sweep"]

_log = logging.getLogger("cocoindex_fsmirror")


def find_foreign(tree: Tree, known: Collection[Name], folder: Name = ROOT) -> Iterator[Name]:
    """Everything that is not managed, the contents of a folder before the folder.

    Left out are other mirrors, and what is mounted, with all that is in them.

    Args:
        tree: The root.
        known: The paths that are managed, also the folders above them.
        folder: Where to look.
    """
    to_do = [(folder, False)]
    while to_do:
        name, is_done = to_do.pop()
        if is_done:
            yield name
            continue
        is_folder = name == folder or isinstance(tree.look(name).state, DirState)
        if name != folder:
            if is_folder and _is_another(tree, name, known):
                continue
            if name not in known:
                to_do.append((name, True))
        if is_folder:
            inner = (each for each in reversed(tree.names_in(name)) if leaf(each) != RESERVED)
            to_do += ((each, False) for each in inner)


def _is_another(tree: Tree, folder: Name, known: Collection[Name]) -> bool:
    """Whether a folder is a mirror of its own, or something that was mounted by somebody else."""
    is_mirror = tree.look(join(folder, FILE)).state is not ABSENT
    return folder not in known and (is_mirror or folder in tree.mounts)


def sweep(tree: Tree, known: Collection[Name]) -> dict[Name, Name]:
    """Moves what is not managed to the backup area; folders that are empty then just go.

    Returns:
        Where each file went, by the path that it was at.
    """
    moved: dict[Name, Name] = {}
    stamp = stamp_now()
    for name in list(find_foreign(tree, known)):
        try:
            if isinstance(tree.look(name).state, DirState):
                tree.remove_folder(name)
            else:
                moved[name] = tree.back_up(name, stamp)
        except OSError as error:
            _log.warning("%s: foreign %r can't be moved: %s", tree.path, name, error.strerror)
    if moved:
        where = join(join(FOLDER, Name("backup")), Name(stamp))
        _log.warning("%s: %d foreign files were moved to %r", tree.path, len(moved), where)
    return moved


def put_back(tree: Tree, name: Name, where: Name, digest: bytes | None) -> None:
    """Returns what was swept away and is declared after all, if it holds what is declared."""
    if tree.look(where, digest=True).digest != digest or tree.look(name).state is not ABSENT:
        return
    with contextlib.suppress(OSError):
        tree.make_folders(parent(name))
        tree.move(where, name)
