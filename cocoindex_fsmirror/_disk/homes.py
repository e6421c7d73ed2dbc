"""Homes: the folders whose staging and backup areas can be reached by renames.

As a rule the root is the only one. Where a rename does not get from it to a folder, that folder
has areas of its own: on another mount, and beyond an *edge* inside of one device, such as that of
an encrypted folder, of a project quota, or of what a union of several disks keeps on one of them.
Only a rename that fails (``EXDEV``) tells of an edge.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import uuid

import msgspec
from msgspec.structs import replace

from .._core.layout import (
    ABILITIES,
    BACKUPS_APART,
    FOLDER,
    IGNORED,
    STAGING,
    area_of,
    backup_of,
    backups_of,
    stamp_of,
)
from .._core.names import ROOT, STATE, Name, ancestors, join, parent
from .._core.states import DirState
from .abilities import Abilities, try_out
from .calls import closing, move
from .tree import Tree

__all__ = [
    "back_up",
    "enter_root",
    "find_edge",
    "home_of",
    "keep_entry",
    "leave_root",
    "mount_of",
    "remove_area",
    "shown",
    "stamp_now",
    "try_abilities",
]


def try_abilities(tree: Tree) -> None:
    """Tries the abilities of the root's file system, unless that was done on this device."""
    device = tree.device(ROOT)
    if tree.abilities.device == device:  # Those of another kind of file system were not read.
        return
    area = area_of(ROOT, uuid.uuid4().hex)  # Recovery removes it after a crash.
    with contextlib.suppress(OSError):  # A full disk must not keep us from removals.
        try:
            tree.make_folders(area, FOLDER)
            found = try_out(tree.folder(area))
        finally:
            tree.remove_all(area)
        _record(tree, replace(found, path=tree.path, kind=tree.kind, device=device))


def _record(tree: Tree, abilities: Abilities) -> None:
    """Records the abilities of the root's file system in our folder."""
    tree.abilities = abilities
    tree.remove_file(ABILITIES)
    # As msgspec has it, JSON holds no name that is not UTF-8.
    tree.make_file(
        ABILITIES, json.dumps(msgspec.to_builtins(abilities), separators=(",", ":")).encode()
    )


def leave_root(tree: Tree) -> None:
    """Removes our folder in a root whose state folder is elsewhere, if nothing else is in it."""
    if not tree.is_apart:
        return
    with contextlib.suppress(OSError):
        tree.remove_folder(STAGING)
        if {*tree.names_in(FOLDER)} <= {IGNORED}:
            tree.remove_file(IGNORED)
            tree.remove_folder(FOLDER)


def enter_root(tree: Tree) -> None:
    """Makes our folder in a root, for what lasts there though the state folder is elsewhere."""
    tree.make_folders(FOLDER, FOLDER)
    tree.make_file(IGNORED, b"*\n")


def find_edge(tree: Tree, folder: Name) -> bool:
    """Looks for an edge between a folder and the top of its mount; records it.

    Returns:
        True if there is one that was not known. A search that fails finds none: the path that
        it is for has failed already.
    """
    with contextlib.suppress(OSError):
        while folder and not isinstance(tree.look(folder).state, DirState):
            folder = parent(folder)
        top, known, batch = mount_of(tree, folder), tree.abilities, uuid.uuid4().hex
        searched = frozenset((*ancestors(folder), folder))  # Recovery looks there.
        _record(tree, replace(known, searched=searched))
        while folder != top and _can_rename(tree, folder, parent(folder), batch):
            folder = parent(folder)
        _record(tree, replace(known, edges=known.edges | ({folder} - {top})))
        return folder != top
    return False


def _can_rename(tree: Tree, folder: Name, other: Name, batch: str) -> bool:
    """True if what was made in one folder can be renamed to another, and the reverse."""
    areas = {home: area_of(home, batch) for home in (folder, other)}
    try:
        for home, area in areas.items():
            tree.make_folders(area, join(home, FOLDER))
        for area, target in zip(areas.values(), reversed(areas.values()), strict=True):
            made = join(area, Name("made"))
            tree.make_file(made)
            tree.move(made, join(target, Name("moved")))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    finally:
        for area in areas.values():
            tree.remove_all(area)
            remove_area(tree, area)
    return True


def remove_area(tree: Tree, area: Name) -> bool:
    """Removes an empty area; in a home other than the root, our own folder too, if empty.

    Returns:
        False if the area is not empty.
    """
    is_gone = tree.remove_folder(area)
    tmp = parent(area)
    if tmp != STAGING:
        tree.remove_folders(tmp, parent(tmp))
    return is_gone


def stamp_now() -> str:
    """Returns the name of the folder of the backup area for files that are moved there now."""
    return stamp_of(time.time())


def back_up(tree: Tree, name: Name, stamp: str, taken: Name | None = None) -> Name:
    """Moves the file at a path to the backup area, where it replaces nothing.

    Args:
        tree: The root.
        name: The path.
        stamp: The folder of the backup area, as from :func:`stamp_now`.
        taken: The path that it is at now, if it was taken from its own.

    Returns:
        The path that it is at then, relative to the root.
    """
    origin = name if taken is None else taken
    base, above = tree.at(origin)
    with closing(os.dup(above)) as source:
        return keep_entry(tree, (base, source), mount_of(tree, parent(origin)), stamp, name)


def keep_entry(tree: Tree, source: tuple[str, int], home: Name, stamp: str, name: Name) -> Name:
    """Moves an entry of an open folder to the backup area of a home, as :func:`back_up` does.

    That of the root is in its state folder, unless that is on another mount, or has something
    else in its place.
    """
    if home == ROOT and tree.is_apart:
        try:
            return _keep_in(tree, source, BACKUPS_APART, stamp, name)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOTDIR, errno.ELOOP):
                raise
    return _keep_in(tree, source, backups_of(home), stamp, name)


def _keep_in(tree: Tree, source: tuple[str, int], area: Name, stamp: str, name: Name) -> Name:
    """Moves an entry of an open folder to an area, which is made."""
    top = area if area == BACKUPS_APART else parent(area)
    tree.make_folders(area, top)
    if tree.is_apart and area == backups_of(ROOT):
        enter_root(tree)
    for attempt in range(10_000):
        target = backup_of(area, stamp, attempt, name)
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            try:
                tree.make_folders(parent(target), top)
                move(*source, *tree.at(target))
            except OSError:
                tree.remove_folders(parent(target), top)
                raise
            return target
    raise FileExistsError(errno.EEXIST, "no free name in the backup area", name)


def shown(tree: Tree, name: Name) -> str:
    """Returns a path as users need it: relative to the root, or absolute if it is elsewhere."""
    is_elsewhere = tree.is_apart and name.startswith(f"{STATE}/")
    return f"{tree.state_path}{name[len(STATE) :]}" if is_elsewhere else name


def mount_of(tree: Tree, folder: Name) -> Name:
    """Returns the topmost folder that can be reached from another by renames: as a rule the root.

    No rename crosses a mount point (also of a bind mount, which shares the device number),
    or the edge of a btrfs subvolume, which is a device of its own, or another known edge.
    """
    top, device = ROOT, tree.device(ROOT)
    edges = tree.mounts | tree.abilities.edges
    for name in (*ancestors(folder), folder):  # Upwards, all would be reopened.
        if name in edges or tree.device(name) != device:
            top, device = name, tree.device(name)
    return top


def home_of(tree: Tree, folder: Name) -> Name:
    """Returns the home of an existing folder: the folder with the staging area that serves it.

    A default ACL is inherited only where a file is created, so it has to be that of the folder.
    """
    top, acl = mount_of(tree, folder), _default_acl(tree, folder)
    while folder != top and _default_acl(tree, parent(folder)) == acl:
        folder = parent(folder)
    return folder


def _default_acl(tree: Tree, folder: Name) -> bytes:
    """Returns the ACL that new files in a folder inherit; empty if there is none."""
    try:
        return os.getxattr(tree.folder(folder), "system.posix_acl_default")
    except (OSError, AttributeError):
        return b""
