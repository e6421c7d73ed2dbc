"""The public face: the functions that flows call.

The names, positions and keywords are those of ``cocoindex.connectors.localfs``.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path, PurePath
from typing import Any, Generic, Literal, TypeAlias, cast

import cocoindex as coco
from cocoindex.connectors import localfs
from cocoindex.connectors.localfs import FilePath
from cocoindex.resources.file import FileLike

from .._core.attributes import checked_content, checked_mode, checked_preserve, checked_time
from .._core.errors import SourceError
from .._core.names import ROOT, Name, parse_link_target, parse_name
from .._core.states import Content, DirState, LinkState
from .._disk.sources import Source, Spooled, fingerprint, spool
from .._mirror.drift import has_drifted, observe
from .engine import database_in_use
from .handlers import ChildHandler
from .localfs_guard import declare, guard
from .roots import ROOTS
from .specs import (
    DirSpec,
    Durability,
    FileSpec,
    OnConflict,
    Options,
    RootKey,
    Spec,
    Verify,
    Watch,
)

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


class DirTarget(Generic[coco.MaybePendingS], coco.ResolvesTo["DirTarget"]):
    """A local directory whose files a flow declares.

    Given to a memoized component as an argument, it also makes that component
    run again if one of the files that it declared has drifted.
    """

    def __init__(
        self,
        provider: coco.TargetStateProvider[Spec, ChildHandler, coco.MaybePendingS],
        _watch: Watch | None = None,
        _chain: tuple[Name, ...] = (),
    ) -> None:
        self._provider: coco.TargetStateProvider[Spec, ChildHandler, coco.MaybePendingS] = provider
        self._watch = _watch or Watch()
        self._chain = _chain  # the directory targets between the root and this one
        self._place = "".join(f"{part}//" for part in _chain)
        self._prefix = "".join(f"{part}/" for part in _chain)

    def declare_file(
        self: DirTarget,
        filename: str | PurePath,
        content: bytes | str,
        *,
        create_parent_dirs: bool = True,
        mode: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a file in this directory.

        Args:
            filename: Its path relative to the directory.
            content: Its content; text is stored as UTF-8.
            create_parent_dirs: Whether to make missing folders above it. Unlike
                in ``localfs``, they are made unless this is false.
            mode: Its permission bits, such as ``0o640``; by default a new file
                gets what the umask leaves, and an existing one keeps its own.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by
                default that of the write.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the content, the mode or the time is of a wrong type.
            ValueError: The mode or the time is out of range, or the mode is decimal.
        """
        checked = checked_mode(mode), checked_time(mtime_ns)
        self._declare(parse_name(filename), checked_content(content), *checked, create_parent_dirs)

    async def declare_copy(
        self: DirTarget,
        filename: str | PurePath,
        source: Path | FilePath | FileLike[Any],
        *,
        create_parent_dirs: bool = True,
        preserve: tuple[Literal["mode", "mtime"], ...] = ("mode",),
        mode: int | None = None,
    ) -> None:
        """Declares a file with the content of another one, which is not held in memory.

        The source is read now, to be fingerprinted, while the event loop stays
        free; and copied when the file is written: as a clone where the file
        system can, else within the kernel, else in chunks. A source that changed
        in between fails this file, and nothing else.

        Args:
            filename: Its path relative to the directory.
            source: A file of this machine, whose links are followed; or a file of
                another connector, which is read whole, as the engine's interface
                has it, and kept in a temporary file until then.
            create_parent_dirs: Whether to make missing folders above it.
            preserve: What follows the source, beside the content; a file of
                another connector has neither. The mode comes with all its bits,
                setuid among them.
            mode: Its permission bits, instead of those of the source.

        Raises:
            InvalidNameError: The name is refused.
            SourceError: The source can't be read, or is no regular file.
            TypeError: The name, the source, ``preserve`` or the mode is of a wrong type.
            ValueError: The mode, or a time that is preserved, is out of range, the mode
                is decimal, or ``preserve`` has an unknown value.
        """
        name, mode = parse_name(filename), checked_mode(mode)
        checked_preserve(preserve)
        content = await _content_of(source)
        mtime_ns = None
        if isinstance(content, Source):
            mode = content.mode if mode is None and "mode" in preserve else mode
            mtime_ns = checked_time(content.mtime_ns) if "mtime" in preserve else None
        self._declare(name, content, mode, mtime_ns, create_parent_dirs)

    def declare_symlink(
        self: DirTarget,
        filename: str | PurePath,
        target: str | PurePath,
        *,
        create_parent_dirs: bool = True,
        allow_escape: bool = False,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a symbolic link in this directory; what it points at need not exist.

        Args:
            filename: Its path relative to the directory.
            target: What it points at, as it is to be stored.
            create_parent_dirs: Whether to make missing folders above it.
            allow_escape: Whether it may lead out of the root: be absolute, climb
                above the root, or climb (``..``) after a name, which may be a link.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by
                default that of the write.

        Raises:
            InvalidNameError: The name is refused, or the target may lead out of the root.
            TypeError: The name or the target is of a wrong type.
            ValueError: The time is out of range.
        """
        name = parse_name(filename)
        pointed = parse_link_target(target, self._path(name) if not allow_escape else None)
        link = LinkState(pointed, checked_time(mtime_ns))
        self._declare(name, link, None, None, create_parent_dirs)

    def _declare(
        self: DirTarget,
        name: Name,
        content: bytes | Content | LinkState,
        mode: int | None,
        mtime_ns: int | None,
        create_parent_dirs: bool,
    ) -> None:
        """Declares a file or a link."""
        component = str(coco.get_component_context())
        rival = self._note(name, component, is_file=True)
        spec = FileSpec(content, mode, create_parent_dirs, component, rival, mtime_ns=mtime_ns)
        state = self._provider.target_state(name, spec)
        coco.declare_target_state(cast("coco.TargetState[None]", state))

    def declare_dir_target(
        self: DirTarget,
        path: str | PurePath,
        *,
        create_parent_dirs: bool = True,
        durability: Durability | None = None,
        verify: Verify | None = None,
        on_conflict: OnConflict | None = None,
        mode: int | None = None,
        mtime_ns: int | None = None,
    ) -> DirTarget[coco.PendingS]:
        """Declares a directory target inside this one; it may stay empty.

        Args:
            path: Its path relative to this directory.
            create_parent_dirs: Whether to make missing folders above it.
            durability: As in :func:`mount_dir_target`; inherited if ``None``.
            verify: Inherited if ``None``. DriftReport is looked for when the root is
                mounted, so only the root's value has an effect.
            on_conflict: As in :func:`mount_dir_target`; inherited if ``None``.
            mode: Its permission bits; it stays accessible for its owner (``0o700``).
            mtime_ns: The time of its last change, in nanoseconds since 1970, also
                after files in it have changed.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the mode or the time is of a wrong type.
            ValueError: An option has an unknown value, or is out of range, or the mode is
                decimal.
        """
        name = parse_name(path)
        component = str(coco.get_component_context())
        Options(durability or "batch", verify or "stat", on_conflict or "backup")
        mode = checked_mode(mode)
        state = DirState(None if mode is None else mode | 0o700, checked_time(mtime_ns))
        rival = self._note(name, component, is_file=False)
        spec = DirSpec(
            create_parent_dirs, component, rival, durability, verify, on_conflict, state=state
        )
        provider = coco.declare_target_state_with_child(self._provider.target_state(name, spec))
        return DirTarget(provider, self._watch, (*self._chain, name))

    def _note(self, name: Name, component: str, *, is_file: bool) -> Name:
        """What contradicts a declaration, among those of this update."""
        return self._watch.declare(self._path(name), self._place, component, is_file=is_file)

    def _path(self, name: Name) -> Name:
        """The path of a declared name below the root."""
        return Name(self._prefix + name)

    def __coco_memo_key__(self) -> object:
        return self._provider.memo_key

    def __coco_memo_state__(self, prev_state: int | coco.NonExistenceType) -> coco.MemoStateOutcome:
        owned = (self._watch.owner, str(coco.get_component_context()))
        return coco.MemoStateOutcome(state=1, memo_valid=owned not in self._watch.drift.components)


def dir_target(
    path: _Where,
    *,
    create_parent_dirs: bool = True,
    durability: Durability = "batch",
    verify: Verify = "stat",
    on_conflict: OnConflict = "backup",
    exact: bool = False,
    max_delete: float | None = None,
) -> coco.TargetState[ChildHandler]:
    """A target state for a directory, to be given to ``coco.mount_target()``.

    DriftReport is looked for here and now, so make it anew for each update;
    :func:`mount_dir_target` does, and looks without blocking the event loop.

    Args:
        path: Where it is. A relative path counts from the working directory of
            now; a ``ContextKey`` is looked up when the files are written.
        create_parent_dirs: Whether to make missing folders above it.
        durability: As in :func:`mount_dir_target`.
        verify: As in :func:`mount_dir_target`.
        on_conflict: As in :func:`mount_dir_target`.
        exact: As in :func:`mount_dir_target`.
        max_delete: As in :func:`mount_dir_target`.

    Raises:
        ValueError: An option has an unknown value.
    """
    options = Options(durability, verify, on_conflict, exact, max_delete)
    return _dir_state(path, create_parent_dirs, options, _look(path, options))


@coco.fn(version=1)  # Of what it does: to edit it makes nobody's components run again.
def declare_dir_target(
    path: _Where,
    *,
    create_parent_dirs: bool = True,
    durability: Durability = "batch",
    verify: Verify = "stat",
    on_conflict: OnConflict = "backup",
    exact: bool = False,
    max_delete: float | None = None,
) -> DirTarget[coco.PendingS]:
    """Declares a directory target; for use with ``coco.use_mount()``.

    Args:
        path: As in :func:`dir_target`.
        create_parent_dirs: Whether to make missing folders above it.
        durability: As in :func:`mount_dir_target`.
        verify: As in :func:`mount_dir_target`; the look blocks the caller.
        on_conflict: As in :func:`mount_dir_target`.
        exact: As in :func:`mount_dir_target`.
        max_delete: As in :func:`mount_dir_target`.

    Raises:
        ValueError: An option has an unknown value.
    """
    options = Options(durability, verify, on_conflict, exact, max_delete)
    watch = _look(path, options)
    state = _dir_state(path, create_parent_dirs, options, watch)
    return DirTarget(coco.declare_target_state_with_child(state), watch)


async def mount_dir_target(
    path: _Where,
    *,
    create_parent_dirs: bool = True,
    durability: Durability = "batch",
    verify: Verify = "stat",
    on_conflict: OnConflict = "backup",
    exact: bool = False,
    max_delete: float | None = None,
) -> DirTarget[coco.ResolvedS]:
    """Mounts a directory target and returns it ready to be used.

    Args:
        path: As in :func:`dir_target`.
        create_parent_dirs: Whether to make missing folders above it.
        durability: ``"batch"`` returns from a batch when a power cut can take
            nothing of it any more; ``"none"`` leaves that to the system.
        verify: How drift is looked for now: ``"stat"`` compares size, times and
            inode, ``"content"`` reads every file, ``"none"`` looks at nothing.
        on_conflict: What happens to foreign bytes in the way of a declared file:
            ``"backup"`` moves them to ``.fsmirror/backup/``, ``"overwrite"``
            destroys them, ``"error"`` fails that file. A foreign directory in
            the way is an error under each.
        exact: Whether everything else in the directory is moved to
            ``.fsmirror/backup/`` now; left alone are other mirrors in it, and what
            is mounted there. The first update of a new target moves nothing away,
            so that files which are already right can be adopted; from the second
            on it does. Needs a look for drift (``verify``).
        max_delete: How many files this update may remove: a count, or as a float a
            fraction of those that are managed when it begins. Removals come in
            batches: the one that would exceed the limit is refused as a whole, and
            so is every later one. Up to the limit may be gone by then, and the next
            update may remove as many again. Dropping the directory is not limited.

    Raises:
        RootError: The directory can't be used, with what to do about it.
        ValueError: An option has an unknown value.
    """
    options = Options(durability, verify, on_conflict, exact, max_delete)
    watch = await asyncio.to_thread(_look, path, options)
    provider = await coco.mount_target(_dir_state(path, create_parent_dirs, options, watch))
    return DirTarget(provider, watch)


@coco.fn(version=1)  # Of what it does: to edit it makes nobody's components run again.
def declare_file(
    path: _Where,
    content: bytes | str,
    *,
    create_parent_dirs: bool = True,
    mode: int | None = None,
    durability: Durability = "batch",
    verify: Verify = "stat",
    on_conflict: OnConflict = "backup",
) -> None:
    """Declares a single file, without a directory target.

    The folder that holds it becomes its mirror, with a ``.fsmirror/`` of its own.

    Args:
        path: Where it is, as in :func:`dir_target`.
        content: Its content; text is stored as UTF-8.
        create_parent_dirs: Whether to make missing folders above it.
        mode: Its permission bits, as in :meth:`DirTarget.declare_file`.
        durability: As in :func:`mount_dir_target`.
        verify: As in :func:`mount_dir_target`; ``"content"`` counts as
            ``"stat"``. A memoized component that is not run does not look.
        on_conflict: As in :func:`mount_dir_target`.

    Raises:
        InvalidNameError: The name is refused.
        TypeError: The content or the mode is of a wrong type.
        ValueError: The mode is out of range or decimal, or an option has an unknown value.
    """
    key = _root_key(path)
    if key.base_dir_key is None or PurePath(key.path).name:
        parse_name(PurePath(key.path).name)
    resolved = _resolved_now(path)
    folder, name = os.path.split(resolved or "")
    spec = FileSpec(
        checked_content(content),
        checked_mode(mode),
        create_parent_dirs,
        str(coco.get_component_context()),
        ROOT,
        Options(durability, verify, on_conflict),
        uuid.uuid4().hex,
        bool(resolved and verify != "none" and has_drifted(folder, parse_name(name))),
    )
    coco.declare_target_state(cast("coco.TargetState[None]", ROOTS.target_state(key, spec)))


def _dir_state(
    path: _Where, create_parent_dirs: bool, options: Options, watch: Watch
) -> coco.TargetState[ChildHandler]:
    """The target state of a root."""
    spec = DirSpec(
        create_parent_dirs,
        "",
        ROOT,
        options.durability,
        options.verify,
        options.on_conflict,
        uuid.uuid4().hex,
        watch,
        exact=options.exact,
        by=database_in_use(),
    )
    return ROOTS.target_state(_root_key(path), spec)


def _root_key(path: _Where) -> RootKey:
    """The engine's key of a root.

    A path that counts from the working directory is made absolute: from another
    directory the same words mean another target.
    """
    where = _file_path(path)
    if where.base_dir is not None:
        key = RootKey(where.base_dir.key, where.path.as_posix())
    else:
        key = RootKey(None, os.path.abspath(where.path))
    declare(key)
    return key


def _file_path(path: _Where) -> FilePath:
    """A path in the one form that the engine has for all."""
    if isinstance(path, FilePath):
        return path
    return FilePath(base_dir=path) if isinstance(path, coco.ContextKey) else FilePath(path)


def _resolved_now(path: _Where) -> str | None:
    """The absolute path of a root, or ``None`` if its context is not known here."""
    where = _file_path(path)
    if where.base_dir is None:
        return os.path.abspath(where.path)
    try:
        base = coco.use_context(where.base_dir)
    except (KeyError, LookupError, RuntimeError):
        return None
    return os.path.abspath(os.path.join(base, where.path))


def _look(path: _Where, options: Options) -> Watch:
    """Looks for drift, if it is to be looked for."""
    resolved = None if options.verify == "none" else _resolved_now(path)
    if resolved is None:
        return Watch(None, options.max_delete)
    drift = observe(resolved, content=options.verify == "content")
    return Watch(drift, options.max_delete)


async def _content_of(source: Path | FilePath | FileLike[Any]) -> bytes | Source | Spooled:
    """Reads and hashes a source.

    The engine has no way to read a file piece by piece: what it reads from elsewhere
    is whole, and the engine would keep it, too, unless a size is asked for.
    """
    path = source.file_path if isinstance(source, FileLike) else source
    if isinstance(path, FilePath):
        try:
            path = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise SourceError(str(path), f"can't be found: {error}") from error
    if isinstance(path, Path):
        return await asyncio.to_thread(fingerprint, os.path.abspath(path))
    if not isinstance(source, FileLike):
        kind = type(source).__name__
        raise TypeError(f"a source is a Path, a FilePath or a FileLike, not {kind}")
    size = await source.size()
    content = await source.read(size + 1)
    if len(content) > size:  # It has grown since its size was asked for.
        content = await source.read()
    return await asyncio.to_thread(spool, str(source.file_path.path), content)
