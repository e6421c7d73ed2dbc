"""Backups: foreign bytes that had to make way, listed, put back or removed for good.

They lie at ``.fsmirror/backup/<UTC time>/<the path that they had>``, in the root or at the top of
another mount below it, or else at ``backup/...`` in a state folder elsewhere. Anybody may have made
what lies there: no link is followed, and a path that has changed since it was listed is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from .._core.errors import ApplyError, BarrierError, ConflictError, PathError, as_path_error
from .._core.layout import BACKUPS_APART, FOLDER, backups_of, parse_stamp
from .._core.names import (
    RESERVED,
    ROOT,
    Name,
    ancestors,
    folders_above,
    join,
    leaf,
    parent,
    parse_name,
)
from .._core.states import ABSENT, Absent, DirState, FileState, LinkState, OtherState, State
from .._disk.homes import mount_of, shown
from .._disk.locations import Root
from .._disk.roots import is_there, open_spot
from .._disk.tree import Tree
from .known import find as find_state
from .known import opened

__all__ = [
    "Backup",
    "BackupKind",
    "find",
    "find_backups",
    "inner",
    "list_backups",
    "older_backups",
    "purge",
    "restore",
]

BackupKind: TypeAlias = Literal["file", "link", "dir", "other"]
"""The kind of a backup; ``"other"`` is a FIFO, a socket or a device."""

_NS: Final = 1_000_000_000
_NOT_A_FOLDER: Final = (errno.ENOTDIR, errno.ELOOP)
_CLOSED: Final = (errno.ENOENT, errno.EACCES, *_NOT_A_FOLDER)
_KINDS: Final[dict[type, BackupKind]] = {FileState: "file", LinkState: "link", DirState: "dir"}


class Backup(msgspec.Struct, frozen=True, gc=False):
    """One file, link or empty directory in a backup area.

    Attributes:
        where: Its path now, relative to the root; absolute if it is in a state folder elsewhere.
        name: The path that it had, relative to the root.
        stamp: The time at which it was moved, as the name of the folder that holds it.
        time_ns: That time in nanoseconds since 1970, in whole seconds.
        kind: Its kind. A ``"dir"`` is empty, or can't be listed; an interrupted move may have
            left it.
        size: In bytes; of a link, the length of its target.
    """

    where: str
    name: Name
    stamp: str
    time_ns: int
    kind: BackupKind
    size: int


def list_backups(root: Root) -> list[Backup]:
    """Lists the backups of a mirror: the oldest first, then by name.

    Raises:
        RootError: The root can't be read.
    """
    if is_there(str(root)):
        with opened(root) as tree:
            return find_backups(tree)
    spot = find_state(root).spot
    if spot.name == RESERVED or not is_there(spot.path):
        return []
    with contextlib.closing(Tree(open_spot(spot), spot.path)) as tree:
        tree.take_state(os.dup(tree.fd), spot.path)
        return sorted(_backups_in(tree, BACKUPS_APART, ROOT), key=_age_and_name)


def find_backups(tree: Tree) -> list[Backup]:
    """Lists everything in the backup areas: the oldest first, then by name.

    A whole directory shows as the entries in it; a mount point in it is not entered.
    """
    areas = [(backups_of(home), home) for home in _homes(tree)]
    areas += [(BACKUPS_APART, ROOT)] if tree.is_apart else []
    found = [backup for area, home in areas for backup in _backups_in(tree, area, home)]
    return sorted(found, key=_age_and_name)


def older_backups(tree: Tree, before: float) -> list[Backup]:
    """Lists the backups in the root and in its state folder from before a time.

    A root that is a mount point may hold those of a mirror around it, under the path that it has
    there: what may be one is left out.

    Args:
        tree: The root.
        before: In seconds since 1970.
    """
    around = os.path.basename(os.path.realpath(tree.path))
    here = _backups_in(tree, backups_of(ROOT), ROOT, before)
    found = [each for each in here if around not in each.name.split("/")[:-1]]
    return found + [*_backups_in(tree, BACKUPS_APART, ROOT, before)] * tree.is_apart


def _homes(tree: Tree) -> Iterator[Name]:
    """Yields the root, and each folder on another mount that holds a folder of ours.

    The ledger does not tell them all: rows go, and so does the ledger of a dropped mirror.
    """
    yield ROOT
    to_do = [ROOT]
    for folder in to_do:  # The list grows meanwhile.
        for inner in _entries(tree.folders_in, folder):
            if leaf(inner) != FOLDER:
                to_do.append(inner)
            elif folder != ROOT and _is_elsewhere(tree, folder):
                yield folder


def _is_elsewhere(tree: Tree, folder: Name) -> bool:
    """True if a folder is on another mount; elsewhere, a backup area in it is not ours."""
    try:
        return mount_of(tree, folder) != ROOT
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        return False


def _backups_in(tree: Tree, area: Name, home: Name, before: float = math.inf) -> Iterator[Backup]:
    """Yields the backups of a home in an area, from before a time in seconds since 1970.

    A folder whose name is no time is not ours.
    """
    for moment in _entries(tree.names_in, area):
        stamp = leaf(moment)
        seconds = parse_stamp(stamp)
        if seconds is not None and seconds < before:
            # A home may be a mirror itself, whose own backups have shorter names.
            for where, state in _leaves(tree, join(moment, home) if home else moment):
                name = Name(where[len(moment) + 1 :])
                yield Backup(shown(tree, where), name, stamp, seconds * _NS, *_kind_and_size(state))


def _leaves(tree: Tree, top: Name) -> Iterator[tuple[Name, State]]:
    """Yields the files, links and empty folders below a folder."""
    to_do = _entries(tree.names_in, top)
    while to_do:
        name = to_do.pop()
        state = _look(tree, name)
        is_closed = not isinstance(state, DirState) or name in tree.mounts
        inner = [] if is_closed else _entries(tree.names_in, name)
        to_do += inner
        if not inner and not isinstance(state, Absent):
            yield name, state


def _entries(listing: Callable[[Name], list[Name]], folder: Name) -> list[Name]:
    """Lists a folder; returns nothing if it is gone, closed to us, or no folder."""
    try:
        return listing(folder)
    except OSError as error:
        if error.errno not in _CLOSED:
            raise
        return []


def _look(tree: Tree, name: Name) -> State:
    """Looks at a path; one that we may not look at is of an unknown kind."""
    try:
        return tree.look(name).state
    except PermissionError:
        return OtherState()


def _kind_and_size(state: State) -> tuple[BackupKind, int]:
    """Returns kind and size of a state, as a list shows them."""
    return _KINDS.get(type(state), "other"), getattr(state, "size", 0)


def inner(backup: Backup) -> Name:
    """Returns the path of a backup as a :class:`Tree` knows it."""
    is_apart = backup.where.startswith("/")
    return Name(f"{BACKUPS_APART}/{backup.stamp}/{backup.name}" if is_apart else backup.where)


def _age_and_name(backup: Backup) -> tuple[int, int, Name, str]:
    """Returns a key to sort by: within a second the number of the stamp tells which is older."""
    number = int(backup.stamp.partition(".")[2] or 0)
    return backup.time_ns, number, backup.name, backup.where


def find(backups: Iterable[Backup], asked: str) -> list[Backup]:
    """Lists the backups that somebody may mean, the newest last.

    Args:
        backups: All backups.
        asked: The path of a backup, its ``<stamp>/<name>``, or the path that it had, which
            may stand for several. The first of these that fits counts.
    """
    known = sorted(backups, key=_age_and_name)
    return (
        [backup for backup in known if backup.where == asked]
        or [backup for backup in known if f"{backup.stamp}/{backup.name}" == asked]
        or [backup for backup in known if backup.name == asked]
    )


def restore(tree: Tree, backup: Backup, to: Name) -> None:
    """Moves a backup to a path where nothing is; missing folders above it are made.

    The move is one rename: a crash leaves the backup at one of the two paths, whole,
    and at worst some empty folders. When this returns, the disk has confirmed it.

    Args:
        tree: The locked root.
        backup: As it was listed.
        to: Its new path, relative to the root; as a rule ``backup.name``.

    Raises:
        BarrierError: The backup was moved, but the disk did not confirm.
        ConflictError: Something is there already, or where a folder above it should be.
        InvalidNameError: The path is in our own folder, or is none.
        PathError: The backup can't be moved there, and stays.
    """
    parse_name(to)
    where = inner(backup)
    if tree.look(where).state is ABSENT:
        problem = f"its backup {backup.where!r} is gone"
        raise PathError(to, "restore", problem, "list the backups again")
    made: list[Name] = []
    try:
        for folder in ancestors(to):
            if tree.make_folder(folder):
                made.append(folder)  # noqa: PERF401  # Of a part, if one of them fails.
        tree.move(where, to)
    except OSError as error:
        for folder in reversed(made):
            _remove_if_empty(tree, folder)
        raise _refusal(tree, backup, to, error) from error
    _remove_emptied(tree, [where])
    _barrier(tree, backup, to)


def _remove_if_empty(tree: Tree, folder: Name) -> None:
    """Removes a folder that we made, if it is empty."""
    with contextlib.suppress(OSError):  # Then the empty folder stays, which hurts nobody.
        tree.remove_folder(folder)


def _refusal(tree: Tree, backup: Backup, to: Name, error: OSError) -> PathError:
    """Returns the error for a backup that could not be moved, with its cure."""
    elsewhere = "move that away, or restore it to another path"
    if error.errno == errno.EEXIST:
        return ConflictError(to, "restore", "something is there already", elsewhere)
    if error.errno == errno.EXDEV:
        hint = f"copy {backup.where!r} there by hand, then purge it"
        return PathError(to, "restore", "it lies on another mount than its backup", hint)
    not_folders = (n for n in ancestors(to) if not isinstance(_look(tree, n), DirState | Absent))
    in_the_way = next(not_folders, None)
    if error.errno in _NOT_A_FOLDER and in_the_way is not None:
        return ConflictError(to, "restore", f"{in_the_way!r} is not a folder", elsewhere)
    hint = f"nothing was moved; the backup is {backup.where!r}"
    return PathError(to, "restore", error.strerror or str(error), hint)


def _barrier(tree: Tree, backup: Backup, to: Name) -> None:
    """Waits for the disk; where it is synced folder by folder, the new name is first."""
    try:
        # The bytes were not written by us, and lie where they lay.
        tree.sync([tree.folder(parent(to))], changed=(to, inner(backup)))
    except OSError as error:
        problem = f"{to!r} was restored, but syncing failed: {error.strerror}"
        hint = "check the disk and the kernel's log"
        raise BarrierError(f"{tree.path}: {problem} ({hint})") from error


def purge(tree: Tree, backups: Iterable[Backup]) -> tuple[int, int]:
    """Removes backups for good, and the folders of the backup area that become empty.

    Backups that are gone already are not counted. There is no barrier: a power cut may bring some
    back.

    Args:
        tree: The locked root.
        backups: As they were listed.

    Returns:
        The number of removed backups, and their size in bytes.

    Raises:
        ApplyError: Some could not be removed, or changed since they were listed; all
            others were removed.
    """
    gone: list[Backup] = []
    errors: list[PathError] = []
    for backup in backups:
        try:
            if _purge_one(tree, backup):
                gone.append(backup)
        except (PathError, OSError) as error:
            errors.append(as_path_error(backup.where, "purge", error))
    _remove_emptied(tree, map(inner, gone))
    if errors:
        raise ApplyError(tree.path, errors)
    return len(gone), sum(backup.size for backup in gone)


def _purge_one(tree: Tree, backup: Backup) -> bool:
    """Removes one backup; returns False if it is gone already."""
    where = inner(backup)
    state = tree.look(where).state
    if state is ABSENT:
        return False
    if _kind_and_size(state) != (backup.kind, backup.size):
        problem = "it changed since it was listed"
        raise PathError(backup.where, "purge", problem, "list the backups again")
    if backup.kind != "dir":
        tree.remove_file(where)
    elif not tree.remove_folder(where):
        hint = "is it a mount point, or closed to this user?"
        raise PathError(backup.where, "purge", "there is something in it", hint)
    return True


def _remove_emptied(tree: Tree, removed: Iterable[Name]) -> None:
    """Removes the folders above paths, up to our own, as far as they are empty."""
    for folder in sorted(folders_above(removed), key=lambda name: name.count("/"), reverse=True):
        if FOLDER in folder.split("/"):
            _remove_if_empty(tree, folder)
