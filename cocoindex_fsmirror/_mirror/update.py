"""Update: the files that a program declares, compared and applied when it has declared all.

An argument that is refused raises at once, and declares nothing.
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Literal

from .._core.attributes import checked_attributes, checked_content, checked_preserve
from .._core.declaration import Declaration
from .._core.names import Name, parse_link_target, parse_name
from .._core.states import DirState, FileState, LinkState, digest_of
from .._core.text import encoded
from .._disk.sources import look_at_source, spool

__all__ = ["Update"]

Preserved = tuple[Literal["mode", "mtime"], ...]


class Update:
    """The files that a program declares for a mirror, until its ``with`` block ends.

    Nothing is written before. A path that is declared twice holds what was declared last.
    Contents of more than 64 KiB wait in temporary files, smaller ones in memory.
    """

    def __init__(self) -> None:
        self._declared: dict[Name, Declaration] = {}

    def write(
        self,
        name: str | PurePath,
        content: bytes | str,
        *,
        mode: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a file.

        Args:
            name: Its path relative to the root; missing folders are made.
            content: Its content; text is stored as UTF-8.
            mode: Its permission bits, such as ``0o640``; by default a new file gets what the
                umask leaves, and an existing one keeps its own.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by default that
                of the write.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the content, the mode or the time is of a wrong type.
            ValueError: The mode or the time is out of range, or the mode is decimal.
        """
        checked = checked_content(content)
        state = FileState(digest_of(checked), len(checked), checked_attributes(mode, mtime_ns))
        self._declared[parse_name(name)] = Declaration(state, spool(str(name), checked))

    def copy(
        self,
        name: str | PurePath,
        source: str | os.PathLike[str],
        *,
        preserve: Preserved = ("mode",),
        mode: int | None = None,
    ) -> None:
        """Declares a file with the content of another one.

        A source that is unchanged since it was copied last is not read. Any other is read when
        the block ends, so it has to exist until then; a source that changes meanwhile fails
        its path, and nothing else.

        Args:
            name: Its path relative to the root; missing folders are made.
            source: The path of the other file, whose links are followed.
            preserve: The attributes that the copy takes over from the source; set-user-ID and
                set-group-ID only from one that belongs to this user, and to this group.
            mode: Its permission bits, instead of those of the source.

        Raises:
            InvalidNameError: The name is refused.
            SourceError: The source can't be opened, or is no regular file.
            TypeError: The name, ``preserve`` or the mode is of a wrong type.
            ValueError: The mode, or a time that is preserved, is out of range, the mode is
                decimal, or ``preserve`` has an unknown value.
        """
        checked, path = checked_preserve(preserve), os.path.abspath(source)
        own, found = checked_attributes(mode), look_at_source(path, lambda _size: False)
        state = FileState(None, found.size, own.of_copy(found.attributes, checked))
        wanted = Declaration(state, None, path, found.signature, own, checked)
        self._declared[parse_name(name)] = wanted

    def symlink(
        self,
        name: str | PurePath,
        target: str | PurePath,
        *,
        allow_escape: bool = False,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a symbolic link; its target need not exist.

        Args:
            name: Its path relative to the root; missing folders are made.
            target: The path that it points to, stored as it is.
            allow_escape: True if the target may lead out of the root: be absolute, climb above the
                root, or climb (``..``) after a name, which may be a link.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by default that
                of the write.

        Raises:
            InvalidNameError: The name is refused, or the target may lead out of the root.
            TypeError: The name, the target or the time is of a wrong type.
            ValueError: The time is out of range.
        """
        path = parse_name(name)
        pointed = parse_link_target(target, None if allow_escape else path)
        self._declared[path] = Declaration(LinkState(pointed, checked_attributes(None, mtime_ns)))

    def folder(
        self, name: str | PurePath, *, mode: int | None = None, mtime_ns: int | None = None
    ) -> None:
        """Declares a folder, which may stay empty.

        Args:
            name: Its path relative to the root; missing folders above it are made.
            mode: Its permission bits; it stays accessible for its owner (``0o700``).
            mtime_ns: The time of its last change, in nanoseconds since 1970, also after files
                in it have changed.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the mode or the time is of a wrong type.
            ValueError: The mode or the time is out of range, or the mode is decimal.
        """
        state = DirState(checked_attributes(mode, mtime_ns).of_folder())
        self._declared[parse_name(name)] = Declaration(state)

    def declared(self) -> list[tuple[Name, Declaration]]:
        """Lists what is declared, by name."""
        return sorted(self._declared.items(), key=lambda pair: encoded(pair[0]))
