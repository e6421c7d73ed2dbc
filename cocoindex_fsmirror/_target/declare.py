"""The functions that flows call to declare directories and single files.

The names, positions and keywords are those of ``cocoindex.connectors.localfs``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from pathlib import Path, PurePath
from typing import Any, TypeAlias, Unpack, cast

import cocoindex as coco
from cocoindex.connectors import localfs
from cocoindex.connectors.localfs import FilePath

from .._core.attributes import checked_attributes, checked_content
from .._core.errors import LedgerError
from .._core.names import parse_name
from .._core.owners import Declarer, Owner
from .._core.states import DirState
from .._mirror.brake import Brake
from .._mirror.drift import has_drifted, observe
from .._mirror.reader import known
from .actions import Conclude
from .dir_target import DirTarget
from .engine import component_in_use, database_in_use, is_live
from .failures import Failures
from .handlers import END, ChildHandler
from .localfs_guard import guard, take_over
from .roots import ROOTS
from .specs import Options, RootKey, RootOptions, RootUpdate, Spec, TargetOptions, state_of

__all__ = [
    "DirTarget",
    "FilePath",
    "declare_dir_target",
    "declare_file",
    "dir_target",
    "mount_dir_target",
]

guard(localfs)

_Where: TypeAlias = FilePath | Path | coco.ContextKey[Path]


def dir_target(
    path: _Where, *, create_parent_dirs: bool = True, **options: Unpack[RootOptions]
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

    Raises:
        RootError: The directory can't be used; the error has a hint.
        TypeError: There is no such option.
        ValueError: An option has an unknown value.
    """
    return _declared(path, create_parent_dirs, options)[0]


@coco.fn(version=1)  # Without a version, each edit of the code would rerun components.
def declare_dir_target(
    path: _Where, *, create_parent_dirs: bool = True, **options: Unpack[RootOptions]
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

    Raises:
        RootError: The directory can't be used; the error has a hint.
        TypeError: There is no such option.
        ValueError: An option has an unknown value.
    """
    state, update = _declared(path, create_parent_dirs, options)
    return DirTarget(coco.declare_target_state_with_child(state), update)


async def mount_dir_target(
    path: _Where, *, create_parent_dirs: bool = True, **options: Unpack[RootOptions]
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
        exact: True to move everything else in the directory to ``.fsmirror/backup/``
            now, except for other mirrors in it and what is mounted there. The first
            update of a new target moves nothing away, so that files which are already
            right can be adopted; from the second on it does. Nor does one that finds the
            ledger or the engine's database put back from another time. Needs a look for drift
            (``verify``).
        max_delete: The number of files that this update may remove, or as a float their
            fraction of those that are managed when it begins. Removals come in
            batches: the one that would exceed the limit is refused as a whole, and
            so is every later one. Up to the limit may be gone by then, and the next
            update may remove as many again. Dropping the directory is not limited.

    Raises:
        RootError: The directory can't be used; the error has a hint.
        TypeError: There is no such option.
        ValueError: An option has an unknown value.
    """
    memory = _memory_of(path)
    state, update = await asyncio.to_thread(_declared, path, create_parent_dirs, options, memory)
    target = DirTarget(await coco.mount_target(state), update)
    if update.recount is not None and memory is not None:
        key = _located(path)[0]
        end = Conclude(key, update.declarations.owner, update)
        coco.declare_target_state(END.target_state(key.stable, end))
    return target


@coco.fn(version=1)  # Without a version, each edit of the code would rerun components.
def declare_file(
    path: _Where,
    content: bytes | str,
    *,
    create_parent_dirs: bool = True,
    mode: int | None = None,
    mtime_ns: int | None = None,
    **options: Unpack[TargetOptions],
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
    verify = Options().changed(options, is_root=False).verify
    data, asked = checked_content(content), checked_attributes(mode, mtime_ns)
    folder, name = os.path.split(resolved or "")
    spec = Spec(
        state_of(data, asked),
        create_parent_dirs,
        str(coco.get_component_context()),
        content=data,
        given=options,
        fresh_owner=uuid.uuid4().hex,
        drifted=bool(resolved) and verify != "none" and has_drifted(folder, parse_name(name)),
    )
    take_over(resolved, str(key))
    coco.declare_target_state(cast("coco.TargetState[None]", ROOTS.target_state(key.stable, spec)))


def _memory_of(path: _Where) -> list[Any] | None:
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
    path: _Where,
    create_parent_dirs: bool,
    options: RootOptions,
    memory: list[Any] | None = None,
) -> tuple[coco.TargetState[ChildHandler], RootUpdate]:
    """Looks for drift; returns the target state of a root, and its update that begins."""
    checked, (key, resolved) = Options().changed(options), _located(path)
    take_over(resolved, str(key))
    drift = None
    if resolved is not None and checked.verify != "none":
        drift = observe(resolved, content=checked.verify == "content")
    brake = None if checked.max_delete is None else Brake(checked.max_delete)
    update = RootUpdate(drift, brake, memory, failures=Failures(at_once=is_live()))
    update.declarations.components.add(component_in_use())
    declarer = Declarer(*database_in_use(), str(key))
    spec = Spec(
        DirState(),
        create_parent_dirs,
        given=options,
        fresh_owner=_owner_at(resolved, declarer) or uuid.uuid4().hex,
        update=update,
        declarer=declarer,
    )
    return ROOTS.target_state(key.stable, spec), update


def _located(path: _Where) -> tuple[RootKey, str | None]:
    """Returns the engine's key of a path, and the absolute path if its context is known here."""
    if not isinstance(path, FilePath):
        path = FilePath(base_dir=path) if isinstance(path, coco.ContextKey) else FilePath(path)
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


def _has_absolute_key(root: str) -> bool:
    """True if this database has a root under its absolute path, as earlier releases had all.

    Another key would have all memoized components run again. So it is changed only where they
    would run again with the old one as well, since the project was moved.
    """
    acting = Declarer(*database_in_use(), root)
    owners = _owners_at(root)
    return any(each.declarer.place == root and each.is_of(acting, root) for each in owners)


def _owner_at(root: str | None, acting: Declarer) -> str:
    """Returns the owner for which a declarer carries on that is new to the engine, if one."""
    owners = _owners_at(root) if root is not None else ()
    found = [each.identity for each in owners if each.passes_to(acting)]
    return found[0] if len(found) == 1 else ""


def _owners_at(root: str) -> list[Owner]:
    """Lists the owners in a mirror; none if its ledger can't be read."""
    with contextlib.suppress(LedgerError), known(root) as ledger:
        return list(ledger.owners().values())
    return []
