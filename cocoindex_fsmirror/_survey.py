"""Survey: what a source holds, as listed once before anything is done. Reads no file.

A large tree has to fit into memory, so each folder's listing is packed into bytes,
and taken out again by the component that mirrors it.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
import xxhash

from ._draft import LARGE
from ._errors import InvalidNameError, RootError, SourceError
from ._paths import RESERVED, check_names, parse_link_target, parse_name

if TYPE_CHECKING:
    import pathspec

__all__ = ["TOO_FAR", "Entry", "Listing", "Survey", "can_be_kept", "patterns", "survey"]

_AT_ONCE: Final = 1024  # entries of a folder that are mirrored by one component, more or less
_LONG: Final = 300  # bytes of a path; a key of LMDB has 511 at most, with what the engine adds
TOO_FAR: Final = "has a time that no mirror can keep; those from 1677 to 2262 can be"
"""What is wrong with a file whose time :func:`can_be_kept` refuses."""


class Entry(NamedTuple):
    """A file or a symbolic link of the source; times in nanoseconds, sizes in bytes."""

    name: str
    kind: Literal["file", "link"]
    size: int
    mtime_ns: int
    inode: int
    mode: int
    target: str = ""


class Listing(msgspec.Struct, frozen=True, gc=False):
    """A folder of the source, or a part of a large one.

    Attributes:
        path: Relative to the source; empty for the source itself.
        part: Which part it is. The first one, 0, stands for the folder itself.
        mode: Permission bits of the folder, in the first part.
        mtime_ns: Its time, in nanoseconds, in the first part.
        packed: Its entries.
    """

    path: str
    part: int
    mode: int
    mtime_ns: int
    packed: bytes

    @property
    def key(self) -> str:
        """Tells it from all others; a digest of a long path, which the engine can't take."""
        encoded = self.path.encode()
        is_long = len(encoded) > _LONG
        shown = f"//{_digest(encoded)}" if is_long else self.path or "."
        return f"{shown}//{self.part}" if self.part else shown

    def entries(self) -> Iterator[Entry]:
        """The entries, taken out."""
        fields = self.packed.decode().split("\0") if self.packed else []
        for start in range(0, len(fields), 7):
            name, kind, size, mtime_ns, inode, mode, target = fields[start : start + 7]
            numbers = int(size), int(mtime_ns), int(inode), int(mode)
            yield Entry(name, "link" if kind == "l" else "file", *numbers, target)


def _digest(encoded: bytes) -> str:
    """The digest of a long path."""
    from hashlib import blake2b  # noqa: PLC0415  # Few paths are long.

    return blake2b(encoded).hexdigest()


class Survey(msgspec.Struct):
    """What a walk through a source found.

    Attributes:
        source: The absolute path of the source.
        mode: Permission bits of the source itself.
        mtime_ns: Its time.
        listings: Its folders, from the top.
        files: How many files there are.
        links: How many links.
        size: How many bytes the files have.
        large: Those of the files of which drafts are made.
        skipped: Paths that are neither files, links nor folders.
        unread: Folders that can't be listed, with the reason.
        errors: What can't be mirrored, each as a sentence. What has an entry all the same
            is named again, in the same words, when it is read.
    """

    source: str
    mode: int = 0
    mtime_ns: int = 0
    listings: list[Listing] = msgspec.field(default_factory=list)
    files: int = 0
    links: int = 0
    size: int = 0
    large: list[str] = msgspec.field(default_factory=list)
    skipped: list[str] = msgspec.field(default_factory=list)
    unread: list[str] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)

    def digest(self) -> str:
        """A fingerprint of all that would be mirrored in the source."""
        hasher = xxhash.xxh3_128(repr(self.source).encode())
        for listing in self.listings:
            told = (listing.path, listing.part, listing.mode, listing.mtime_ns)
            hasher.update(f"{told!r}{len(listing.packed)} ".encode())
            hasher.update(listing.packed)
        return hasher.hexdigest()


def patterns(lines: Iterable[str]) -> pathspec.GitIgnoreSpec:
    """Patterns in the syntax of ``.gitignore``.

    Raises:
        ValueError: One can't be parsed; it is quoted.
    """
    import pathspec  # noqa: PLC0415  # It takes its time, and most sources are taken whole.

    listed = list(lines)
    for line in listed:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error) as error:
            raise ValueError(f"the pattern {line!r} can't be parsed: {error}") from None
    return pathspec.GitIgnoreSpec.from_lines(listed)


class _UnreadError(Exception):
    """A part of a source can't be read; the message says which, and why."""


def _reason(error: Exception) -> str:
    """Why something can't be read, in short."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


class _Filter:
    """What is left out: by patterns for the whole source, and by ``.gitignore`` files in it."""

    def __init__(self, excluded: pathspec.GitIgnoreSpec | None, *, gitignore: bool) -> None:
        self._excluded = excluded
        self._gitignore = gitignore
        self._inner: list[tuple[str, pathspec.GitIgnoreSpec]] = []

    def entered(self, source: str, path: str) -> _Filter:
        """The filter for a folder, with what its own ``.gitignore`` adds, if that can be read."""
        name = os.path.join(path, ".gitignore")
        file = os.path.join(source, name)
        if not self._gitignore or not os.path.isfile(file):
            return self
        try:
            with open(file, "rb") as lines:
                added = patterns(os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
        except (OSError, ValueError) as error:
            raise _UnreadError(f"{name}: {_reason(error)}") from error
        inner = _Filter(self._excluded, gitignore=True)
        inner._inner = [*self._inner, (path, added)]
        return inner

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a path is left out; of several ``.gitignore`` files the innermost decides."""
        if self._excluded is None and not self._gitignore:
            return False
        shown = f"{path}/" if is_folder else path
        if self._excluded is not None and self._excluded.match_file(shown):
            return True
        for folder, spec in reversed(self._inner):
            verdict = spec.check_file(os.path.relpath(path, folder or ".") + shown[len(path) :])
            if verdict.include is not None:
                return bool(verdict.include)
        return self._gitignore and is_folder and os.path.basename(path) == ".git"


def survey(
    source: str, excluded: pathspec.GitIgnoreSpec | None = None, *, gitignore: bool = False
) -> Survey:
    """Lists every folder of a source.

    Args:
        source: Its absolute path.
        excluded: What to leave out, relative to the source.
        gitignore: Whether to leave out what Git would: by the ``.gitignore`` files in
            the source, and ``.git`` folders.

    Raises:
        RootError: The source is gone.
    """
    found = Survey(source)
    try:
        there = os.stat(source)
    except OSError as error:
        hint = "nothing was changed"
        raise RootError(source, f"can't be read: {error.strerror}", hint) from error
    found.mode, found.mtime_ns = stat.S_IMODE(there.st_mode), there.st_mtime_ns
    if not can_be_kept(there.st_mtime_ns):
        found.unread.append(f"{source}: {TOO_FAR}")
    _list_all(found, there, _Filter(excluded, gitignore=gitignore))
    return found


def can_be_kept(mtime_ns: int) -> bool:
    """Whether the ledger can keep a time: from 1677 to 2262. Some file systems hold later ones."""
    return -(1 << 63) <= mtime_ns < 1 << 63


def _list_all(found: Survey, there: os.stat_result, excluded: _Filter) -> None:
    """Lists every folder: the top one first, and each before those below it."""
    waiting = [("", there, excluded)]  # The next one last.
    while waiting:
        path, seen, above = waiting.pop()
        try:
            inside = above.entered(found.source, path)
            folders = _list(found, path, seen, inside)
        except _UnreadError as error:
            found.unread.append(str(error))
        else:
            waiting += [(*folder, inside) for folder in reversed(folders)]


def _list(
    found: Survey, path: str, there: os.stat_result, inside: _Filter
) -> list[tuple[str, os.stat_result]]:
    """Lists one folder; returns those in it."""
    try:
        with os.scandir(os.path.join(found.source, path)) as listing:
            entries = [entry for entry in listing if entry.name != RESERVED]
    except OSError as error:
        raise _UnreadError(f"{path or found.source}: {_reason(error)}") from error
    entries.sort(key=lambda entry: entry.name)
    are_names = _are_names([entry.name for entry in entries])
    leaves: list[str] = []
    folders: list[tuple[str, os.stat_result]] = []
    for entry in entries:
        inner = f"{path}/{entry.name}" if path else entry.name
        seen = _look_at(found, entry, inner, inside, is_name=are_names)
        if isinstance(seen, str):
            leaves.append(seen)
        elif seen is not None:
            folders.append((inner, seen))
    found.listings.extend(_listings(path, there, leaves))
    return folders


def _are_names(names: list[str]) -> bool:
    """Whether all names can be mirrored; most folders are looked through at once."""
    try:
        check_names(names)
    except InvalidNameError:
        return False
    return True


def _look_at(
    found: Survey, entry: os.DirEntry[str], path: str, excluded: _Filter, *, is_name: bool
) -> str | os.stat_result | None:
    """What an entry of a folder is: a file or link, packed; a folder; nothing to be mirrored."""
    try:
        seen = entry.stat(follow_symlinks=False)
        is_folder = stat.S_ISDIR(seen.st_mode)
        if excluded.leaves_out(path, is_folder=is_folder):
            return None
        if not is_name:
            parse_name(path)
        if not can_be_kept(seen.st_mtime_ns):
            _note_time(found, path, is_folder=is_folder)
        return seen if is_folder else _leaf(found, entry, path, seen)
    except InvalidNameError as error:
        found.errors.append(f"{path!r}: {error}" if error.name != path else str(error))
    except FileNotFoundError:
        pass  # It went while we looked.
    except OSError as error:
        found.unread.append(f"{path}: {error.strerror}")
    return None


def _leaf(found: Survey, entry: os.DirEntry[str], path: str, seen: os.stat_result) -> str | None:
    """A file or link, counted and packed; nothing if it is neither."""
    if stat.S_ISREG(seen.st_mode):
        found.files += 1
        found.size += seen.st_size
        if seen.st_size >= LARGE:
            found.large.append(path)
        return _packed(entry.name, seen)
    if stat.S_ISLNK(seen.st_mode):
        target = parse_link_target(os.readlink(entry.path), None)
        found.links += 1
        return _packed(entry.name, seen, target)
    found.skipped.append(path)
    return None


def _note_time(found: Survey, path: str, *, is_folder: bool) -> None:
    """Notes a time that can't be kept: of a file in the words of the run, which keeps its copy."""
    if is_folder:
        found.unread.append(f"{path}: {TOO_FAR}")
    else:
        found.errors.append(str(SourceError(os.path.join(found.source, path), TOO_FAR)))


def _packed(name: str, seen: os.stat_result, target: str = "") -> str:
    """A file, or a link if there is a target, in one text; no name and no target holds a NUL."""
    kind, mode = "l" if target else "f", stat.S_IMODE(seen.st_mode)
    return f"{name}\0{kind}\0{seen.st_size}\0{seen.st_mtime_ns}\0{seen.st_ino}\0{mode}\0{target}"


def _listings(path: str, there: os.stat_result, leaves: list[str]) -> Iterator[Listing]:
    """A folder's listing; a large one in parts that stay the same when others change."""
    count = 1
    while len(leaves) > count * _AT_ONCE * 2:
        count *= 2
    parts: list[list[str]] = [[] for _ in range(count)] if count > 1 else [leaves]
    for leaf in leaves if count > 1 else ():
        parts[zlib.crc32(leaf.partition("\0")[0].encode()) % count].append(leaf)
    for number, part in enumerate(parts):
        dress = (0, 0) if number else (stat.S_IMODE(there.st_mode), there.st_mtime_ns)
        yield Listing(path, number, *dress, "\0".join(part).encode())
