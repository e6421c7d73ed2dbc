"""The functions that flows call to declare directories and single files.

The names, positions and keywords are those of ``cocoindex.connectors.localfs``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterable
from operator import methodcaller
from pathlib import Path, PurePath
from typing import Any, Unpack, cast

import cocoindex as coco
from cocoindex.connectors import localfs
from cocoindex.connectors.localfs import FilePath

from .._core.attributes import check_choice, checked_attributes, checked_content
from .._core.errors import LedgerError
from .._core.names import parse_name
from .._core.owners import Declarer, Owner
from .._core.states import DirState
from .._disk.locations import Location, Root
from .._mirror.brake import Brake
from .._mirror.drift import has_drifted, observe
from .._mirror.known import known
from .actions import Conclude
from .dir_target import DirTarget
from .engine import component_in_use, database_in_use, is_live, provider_in_use
from .failures import Failures
from .handlers import END, ChildHandler
from .keys import RootKey, StateKey
from .localfs_guard import guard, take_over
from .roots import ROOTS
from .specs import FileOptions, Options, RootOptions, RootUpdate, Spec, Where, state_of

__all__ = [
    "DirTarget",
    "FilePath",
    "declare_dir_target",
    "declare_file",
    "dir_target",
    "mount_dir_target",
]

guard(localfs)


def dir_target(
    path: Where, *, create_parent_dirs: bool = True, **options: Unpack[RootOptions]
) -> coco.TargetState[ChildHandler]:
    """Returns a target state for a directory, to be given to ``coco.mount_target()``.

    The call looks for drift, so make a new target state for each update;
    :func:`mount_dir_target` does, and looks without blocking the event loop.

    Args:
        path: The path of the directory. A relative one counts from the current working
            directory; a ``ContextKey`` is looked up when the files are written.
        create_parent_dirs: True to make missing folders above it.
        durability: As in :func:`mount_dir_target`.
        verify: As in :func:`mount_dir_target`.
        on_conflict: As in :func:`mount_dir_target`.
        copies: As in :func:`mount_dir_target`.
        exact: As in :func:`mount_dir_target`.
        max_delete: As in :func:`mount_dir_target`.
        keep_backups: As in :func:`mount_dir_target`.
        state: As in :func:`mount_dir_target`.
        state_note: As in :func:`mount_dir_target`.

    Raises:
        RootError: The directory can't be used; the error has a hint.
        TypeError: There is no such option, or ``state`` is no path.
        ValueError: An option has an unknown value.
    """
    return _declared(path, create_parent_dirs, options)[0]


@coco.fn(version=1)  # Without a version, each edit of the code would rerun components.
def declare_dir_target(
    path: Where, *, create_parent_dirs: bool = True, **options: Unpack[RootOptions]
) -> DirTarget[coco.PendingS]:
    """Declares a directory target; for use with ``coco.use_mount()``.

    Args:
        path: As in :func:`dir_target`.
        create_parent_dirs: True to make missing folders above it.
        durability: As in :func:`mount_dir_target`.
        verify: As in :func:`mount_dir_target`; the look blocks the caller.
        on_conflict: As in :func:`mount_dir_target`.
        copies: As in :func:`mount_dir_target`.
        exact: As in :func:`mount_dir_target`.
        max_delete: As in :func:`mount_dir_target`.
        keep_backups: As in :func:`mount_dir_target`.
        state: As in :func:`mount_dir_target`.
        state_note: As in :func:`mount_dir_target`.

    Raises:
        RootError: The directory can't be used; the error has a hint.
        TypeError: There is no such option, or ``state`` is no path.
        ValueError: An option has an unknown value.
    """
    state, update = _declared(path, create_parent_dirs, options)
    return DirTarget(coco.declare_target_state_with_child(state), update)


async def mount_dir_target(
    path: Where, *, create_parent_dirs: bool = True, **options: Unpack[RootOptions]
) -> DirTarget[coco.ResolvedS]:
    """Mounts a directory target and returns it ready to be used.

    Args:
        path: As in :func:`dir_target`.
        create_parent_dirs: True to make missing folders above it.
        durability: ``"batch"`` returns from a batch once that will survive a power
            cut; ``"none"`` leaves that to the system.
        verify: The way in which drift is looked for now: ``"stat"`` compares size, times and
            inode, ``"content"`` reads every file, ``"none"`` looks at nothing.
        on_conflict: The policy for foreign bytes in the way of a declared file:
            ``"backup"`` moves them to ``.fsmirror/backup/``, ``"overwrite"``
            destroys them, ``"error"`` fails that file. A foreign directory in
            the way is an error under each.
        copies: The contents of which copies are kept in ``.fsmirror/``. When the target is
            mounted, what drifted is restored from them, so that no component runs for it:
            ``"auto"`` keeps contents of up to 64 KiB, and larger ones where the file system
            shares blocks; ``"all"`` keeps all; with ``"none"`` what drifted is left to the
            components that declared it.
        exact: True to move everything else in the directory to ``.fsmirror/backup/`` now,
            except for other mirrors in it and what is mounted there; a tuple of patterns as
            in ``.gitignore``, such as ``(".git", "*.log")``, leaves alone what matches, too
            (``"!dir/"`` counts for all that is in ``dir``). The first update of a new
            target moves nothing away, so that files which are already right can be adopted;
            from the second on it does. Nor does one that finds the ledger or the engine's
            database put back from another time. Needs a look for drift (``verify``).
        max_delete: The number of files that this update may remove, or as a float their
            fraction of those that are managed when it begins. Removals come in
            batches: the one that would exceed the limit is refused as a whole, and
            so is every later one. Up to the limit may be gone by then, and the next
            update may remove as many again. Dropping the directory is not limited.
        keep_backups: The age up to which each update keeps backups from now on, such as
            ``"30d"``, ``"12h"`` or ``"2w"``, or ``"all"``. The directory remembers it, so that
            ``None`` is what it was told before.
        state: A directory for ledger and copies, outside of this one: they are kept in a folder
            of it that is named after this one, and move there, or back if it is no longer
            given. By default they are in ``.fsmirror/``. Backups go there too, unless it is on
            another file system.
        state_note: True to leave a note in ``.fsmirror/`` that tells where ``state`` is, by which
            commands find it on file systems without extended attributes.

    Raises:
        RootError: The directory can't be used; the error has a hint.
        TypeError: There is no such option, or ``state`` is no path.
        ValueError: An option has an unknown value.
    """
    memory = _memory_of(path)
    state, update = await asyncio.to_thread(_declared, path, create_parent_dirs, options, memory)
    update.loop = asyncio.get_running_loop() if is_live() else None
    target = DirTarget(await coco.mount_target(state), update)
    if update.recount is not None and memory is not None:
        key = _located(path)[0]
        end = Conclude(key, update.declarations.owner, update)
        coco.declare_target_state(END.target_state(key.stable, end))
    return target


@coco.fn(version=1)  # Without a version, each edit of the code would rerun components.
def declare_file(
    path: Where,
    content: bytes | str,
    *,
    create_parent_dirs: bool = True,
    mode: int | None = None,
    mtime_ns: int | None = None,
    **options: Unpack[FileOptions],
) -> None:
    """Declares a single file, without a directory target.

    The folder that holds it becomes its mirror, with a ``.fsmirror/`` of its own.

    Args:
        path: The path of the file, as in :func:`dir_target`.
        content: Its content; text is stored as UTF-8.
        create_parent_dirs: True to make missing folders above it.
        mode: Its permission bits, as in :meth:`DirTarget.declare_file`.
        mtime_ns: The time of its last change, as in :meth:`DirTarget.declare_file`.
        durability: As in :func:`mount_dir_target`.
        verify: As in :func:`mount_dir_target`; ``"content"`` counts as
            ``"stat"``. A memoized component that is not run does not look.
        on_conflict: As in :func:`mount_dir_target`.
        copies: As in :func:`mount_dir_target`, for :meth:`Mirror.heal`.
        state: As in :func:`mount_dir_target`; files in one folder need the same.
        state_note: As in :func:`mount_dir_target`.

    Raises:
        InvalidNameError: The name is refused.
        RootError: The file can't be used; the error has a hint.
        TypeError: The content, the mode or the time is of a wrong type, or there is no such
            option.
        ValueError: The mode or the time is out of range, the mode is decimal, or an option
            has an unknown value.
    """
    key, resolved = _located(path)
    if key.base_dir_key is None or PurePath(key.path).name:
        parse_name(PurePath(key.path).name)
    place = _place_of(options)
    verify = Options().changed(options, is_root=False).verify
    data, asked = checked_content(content), checked_attributes(mode, mtime_ns)
    folder, name = os.path.split(resolved or "")
    here = _location_of(folder, place, ()) if resolved else None
    spec = Spec(
        state_of(data, asked),
        create_parent_dirs,
        str(coco.get_component_context()),
        content=data,
        given=options,
        fresh_owner=uuid.uuid4().hex,
        drifted=here is not None and verify != "none" and has_drifted(here, parse_name(name)),
        place=place,
    )
    take_over(resolved, str(key), here)
    coco.declare_target_state(cast("coco.TargetState[None]", ROOTS.target_state(key.stable, spec)))


def _memory_of(path: Where) -> list[Any] | None:
    """Returns the epoch at the end of the last update, as the engine stores it.

    The engine stores the value that the list has when the calling component ends, which is after
    all components below it. ``None`` where it can store nothing, as in a memoized function.
    """
    key = _located(path)[0]
    try:
        handle = coco.use_state(("cocoindex_fsmirror", *key.stable), [])
    except RuntimeError:
        return None
    handle.value = memory = list(handle.value)
    return memory


def _declared(
    path: Where,
    create_parent_dirs: bool,
    options: RootOptions,
    memory: list[Any] | None = None,
) -> tuple[coco.TargetState[ChildHandler], RootUpdate]:
    """Looks for drift; returns the target state of a root, and its update that begins."""
    place = _place_of(options)
    checked, (key, resolved) = Options().changed(options), _located(path)
    former, drift, here = {*(memory or ())[2:]} - {b""}, None, None
    if resolved is not None:
        here = _location_of(resolved, place, former)
    take_over(resolved, str(key), here)
    if here is not None and checked.verify != "none":
        drift = observe(here, content=checked.verify == "content")
    brake = None if checked.max_delete is None else Brake(checked.max_delete)
    update = RootUpdate(drift, brake, memory, place, former, failures=Failures(at_once=is_live()))
    update.declarations.components.add(component_in_use())
    declarer = Declarer(*database_in_use(), str(key))
    spec = Spec(
        DirState(),
        create_parent_dirs,
        given=options,
        fresh_owner=_owner_at(here, declarer) or uuid.uuid4().hex,
        update=update,
        declarer=declarer,
        place=place,
    )
    return ROOTS.target_state(key.stable, spec), update


def _located(path: Where) -> tuple[RootKey, str | None]:
    """Returns the engine's key of a path, and the absolute path if its context is known here."""
    path = _as_file_path(path)
    if path.base_dir is None:
        absolute = os.path.abspath(path.path)
        is_kept = path.path.is_absolute() or _has_absolute_key(absolute)
        return RootKey(None, absolute if is_kept else path.path.as_posix()), absolute
    key = RootKey(path.base_dir.key, path.path.as_posix())
    try:
        base = coco.use_context(path.base_dir)
    except (LookupError, RuntimeError):
        return key, None
    return key, os.path.abspath(os.path.join(base, path.path))


def _as_file_path(path: Where) -> FilePath:
    """Returns a path, or the directory of a context key, as the engine has them."""
    if isinstance(path, FilePath):
        return path
    return FilePath(base_dir=path) if isinstance(path, coco.ContextKey) else FilePath(path)


def _has_absolute_key(root: str) -> bool:
    """True if this database has a root under its absolute path, as earlier releases had all.

    Another key would have all memoized components run again. So it is changed only where they
    would run again with the old one as well, since the project was moved.
    """
    acting = Declarer(*database_in_use(), root)
    owners = _owners_at(root)
    return any(each.declarer.place == root and each.is_of(acting, root) for each in owners)


def _place_of(options: FileOptions) -> StateKey:
    """Takes the options that tell where the state folder is to be out of all options.

    Raises:
        TypeError: The state directory is no path.
    """
    state, is_noted = options.pop("state", None), options.pop("state_note", False)
    check_choice("state_note", is_noted, (False, True))
    if state is None:
        return StateKey(None, is_noted)
    if not isinstance(state, (coco.ContextKey, FilePath, Path, str)):
        raise TypeError(f"state: a path, a FilePath or a ContextKey, not {type(state).__name__}")
    if state == "":  # Path would take it for the current directory.
        raise ValueError("state: the path is empty")
    path = _as_file_path(Path(state) if isinstance(state, str) else state)
    base = path.base_dir.key if path.base_dir is not None else None
    return StateKey(RootKey(base, path.path.as_posix()), is_noted)


def _location_of(root: str, place: StateKey, former: Iterable[bytes]) -> Location | None:
    """Returns the location of a root; ``None`` if a context is not known here."""
    try:
        return place.locate(root, former, methodcaller("resolve", provider_in_use()))
    except AttributeError:
        return None


def _owner_at(root: Location | None, acting: Declarer) -> str:
    """Returns the owner for which a declarer carries on that is new to the engine, if one."""
    owners = _owners_at(root) if root is not None else ()
    found = [each.identity for each in owners if each.passes_to(acting)]
    return found[0] if len(found) == 1 else ""


def _owners_at(root: Root) -> list[Owner]:
    """Lists the owners in a mirror; none if its ledger can't be read."""
    with contextlib.suppress(LedgerError), known(root) as ledger:
        return list(ledger.owners().values())
    return []
