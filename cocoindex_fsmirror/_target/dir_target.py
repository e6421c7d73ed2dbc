"""The directory target, with whose methods a flow declares files, links and directories.

A declaration is checked at once, and only registered; the sink writes it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePath
from typing import Any, Generic, Literal, Unpack, cast

import cocoindex as coco
from cocoindex.connectors.localfs import FilePath
from cocoindex.resources.file import FileLike

from .._core.attributes import checked_attributes, checked_content, checked_preserve
from .._core.errors import SourceError
from .._core.names import Name, parse_link_target, parse_name
from .._core.states import Content, DirState, Leaf, LinkState
from .._core.text import external
from .._disk.sources import Source, Spooled, look_at_source, spool
from .copies import CopiedSources
from .specs import Options, RootUpdate, Spec, TargetOptions, state_of

__all__ = ["DirTarget"]


class DirTarget(Generic[coco.MaybePendingS], coco.ResolvesTo["DirTarget"]):
    """A local directory whose files a flow declares.

    Given to a memoized component as an argument, it also makes that component
    run again if one of the files that it declared has drifted.
    """

    def __init__(
        self,
        provider: coco.TargetStateProvider[Spec, Any, coco.MaybePendingS],
        _update: RootUpdate | None = None,
        _container: str = "",
    ) -> None:
        self._provider: coco.TargetStateProvider[Spec, Any, coco.MaybePendingS] = provider
        self._update = _update or RootUpdate()
        self._container = _container  # those between the root and this one, each with ``//``

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
            create_parent_dirs: True to make missing folders above it: the default,
                unlike in ``localfs``.
            mode: Its permission bits, such as ``0o640``; by default a new file
                gets what the umask leaves, and an existing one keeps its own.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by
                default that of the write.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the content, the mode or the time is of a wrong type.
            ValueError: The mode or the time is out of range, or the mode is decimal.
        """
        name, data = parse_name(filename), checked_content(content)
        state = state_of(data, checked_attributes(mode, mtime_ns))
        self._declare(name, state, create_parent_dirs, data)

    async def declare_copy(
        self: DirTarget,
        filename: str | PurePath,
        source: Path | FilePath | FileLike[Any],
        *,
        create_parent_dirs: bool = True,
        preserve: tuple[Literal["mode", "mtime"], ...] = ("mode",),
        mode: int | None = None,
    ) -> None:
        """Declares a file with the content of another one, without holding it in memory.

        The source is hashed now, without blocking the event loop, and copied when
        the file is written: as a clone where the file system shares blocks, else
        in chunks. If the source changes in between, this file fails, and no other.

        Args:
            filename: Its path relative to the directory.
            source: A file of this machine, whose links are followed; or a file of
                another connector, which is read into memory, because the engine
                cannot stream it, and kept in a temporary file until then.
            create_parent_dirs: True to make missing folders above it.
            preserve: The attributes of the source that the copy takes over; a file
                of another connector has none. Its set-user-ID and set-group-ID bits
                are left out unless it belongs to this user, and to this group. If
                they change, a memoized component that takes this target runs again.
            mode: Its permission bits, instead of those of the source.

        Raises:
            InvalidNameError: The name is refused.
            SourceError: The source can't be read, or is no regular file.
            TypeError: The name, the source, ``preserve`` or the mode is of a wrong type.
            ValueError: The mode, or a time that is preserved, is out of range, the mode
                is decimal, or ``preserve`` has an unknown value.
        """
        name, attributes = parse_name(filename), checked_attributes(mode)
        checked_preserve(preserve)
        content = await _content_of(source)
        if isinstance(content, Source):
            attributes = attributes.of_copy(content.attributes, preserve)
            followed = preserve if mode is None else {*preserve} - {"mode"}
            self._update.copies.add(source, content.attributes, followed)
        self._declare(name, state_of(content, attributes), create_parent_dirs, content)

    def declare_symlink(
        self: DirTarget,
        filename: str | PurePath,
        target: str | PurePath,
        *,
        create_parent_dirs: bool = True,
        allow_escape: bool = False,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a symbolic link in this directory; its target need not exist.

        Args:
            filename: Its path relative to the directory.
            target: The path that it points to, stored as it is.
            create_parent_dirs: True to make missing folders above it.
            allow_escape: True if the target may lead out of the root: be absolute, climb
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
        link = LinkState(pointed, checked_attributes(None, mtime_ns))
        self._declare(name, link, create_parent_dirs)

    def _declare(
        self: DirTarget,
        name: Name,
        state: Leaf,
        create_parent_dirs: bool,
        content: bytes | Content | None = None,
    ) -> None:
        """Declares a file or a link."""
        spec = Spec(state, create_parent_dirs, *self._add(name, is_file=True), content)
        target_state = self._provider.target_state(external(name), spec)
        coco.declare_target_state(cast("coco.TargetState[None]", target_state))

    def declare_dir_target(
        self: DirTarget,
        path: str | PurePath,
        *,
        create_parent_dirs: bool = True,
        mode: int | None = None,
        mtime_ns: int | None = None,
        **options: Unpack[TargetOptions],
    ) -> DirTarget[coco.PendingS]:
        """Declares a directory target inside this one; it may stay empty.

        Args:
            path: Its path relative to this directory.
            create_parent_dirs: True to make missing folders above it.
            mode: Its permission bits; it stays accessible for its owner (``0o700``).
            mtime_ns: The time of its last change, in nanoseconds since 1970, also
                after files in it have changed.
            durability: As in :func:`mount_dir_target`; inherited if ``None``.
            verify: Inherited if ``None``. Drift is looked for when the root is
                mounted, so only the root's value has an effect.
            on_conflict: As in :func:`mount_dir_target`; inherited if ``None``. The root is healed
                before this is declared, hence by the value that the last update gave.
            copies: As in :func:`mount_dir_target`; inherited if ``None``.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the mode or the time is of a wrong type.
            ValueError: An option has an unknown value, or is out of range, or the mode is
                decimal.
        """
        name = parse_name(path)
        Options().changed(options, is_root=False)
        state = DirState(checked_attributes(mode, mtime_ns).of_folder())
        spec = Spec(state, create_parent_dirs, *self._add(name, is_file=False), given=options)
        provider = coco.declare_target_state_with_child(
            self._provider.target_state(external(name), spec)
        )
        return DirTarget(provider, self._update, f"{self._container}{name}//")

    def _add(self, name: Name, *, is_file: bool) -> tuple[str, Name]:
        """Registers a declaration; returns its component, and a path that contradicts it."""
        component, path = str(coco.get_component_context()), self._path(name)
        add = self._update.declarations.add
        return component, add(path, self._container, component, is_file=is_file)

    def _path(self, name: Name) -> Name:
        """Returns the path of a declared name below the root."""
        return Name(self._container.replace("//", "/") + name)

    def __coco_memo_key__(self) -> object:
        return self._provider.memo_key

    def __coco_memo_state__(
        self, prev_state: CopiedSources | int | coco.NonExistenceType
    ) -> coco.MemoStateOutcome:
        drift, component = self._update.drift, str(coco.get_component_context())
        sources, is_current = self._update.copies.look(component, prev_state)
        owned = (self._update.declarations.owner, component)
        has_drifted = drift is not None and owned in drift.components
        return coco.MemoStateOutcome(state=sources, memo_valid=is_current and not has_drifted)


async def _content_of(source: Path | FilePath | FileLike[Any]) -> bytes | Source | Spooled:
    """Reads and hashes a source.

    Files from remote connectors are read into memory, because the engine cannot stream
    them; unless a size is asked for, the engine would keep them there.
    """
    path = source.file_path if isinstance(source, FileLike) else source
    if isinstance(path, FilePath):
        try:
            path = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise SourceError(str(path), f"can't be found: {error}") from error
    if isinstance(path, Path):
        return await asyncio.to_thread(look_at_source, os.path.abspath(path))
    if not isinstance(source, FileLike):
        kind = type(source).__name__
        raise TypeError(f"a source is a Path, a FilePath or a FileLike, not {kind}")
    size = await source.size()
    content = await source.read(size + 1)
    if len(content) > size:  # The source has grown since its size was asked for.
        content = await source.read()
    return await asyncio.to_thread(spool, str(source.file_path.path), content)
