"""Survey: lists a source whole, before anything is done. Reads no file.

A large tree has to fit into memory, so the listing of each folder is packed into bytes
(about 60 for an entry), and unpacked when the source is walked in the order of the names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from .._core.attributes import UNASKED, Attributes
from .._core.errors import InvalidNameError, RootError, SourceError
from .._core.names import RESERVED, Name, check_names, parse_link_target, parse_name
from .._disk.calls import attributes_of, inode_of
from .patterns import Filter, UnreadableError

if TYPE_CHECKING:
    import pathspec

__all__ = ["TOO_FAR", "Entry", "Survey", "survey"]

TOO_FAR: Final = "has a time that no mirror can keep; those from 1677 to 2262 can be"
"""The problem of a file whose time does not fit into the ledger's 64 bits."""

Kind: TypeAlias = Literal["file", "link", "dir", "bad"]
"""The kind of an entry; ``"bad"`` exists, but can't be mirrored: a copy of it stays as it is."""


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry of a folder of the source; sizes in bytes.

    ``attributes`` are those that its copy has; ``ctime_ns`` and ``inode`` tell of edits.
    """

    name: str
    kind: Kind
    size: int = 0
    attributes: Attributes = UNASKED
    ctime_ns: int = 0
    inode: int = 0
    target: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Entry]).decode


class Survey(msgspec.Struct):
    """The result of a walk through a source.

    Attributes:
        source: The absolute path of the source.
        attributes: Those that the root of the mirror gets.
        folders: The packed entries of each folder, by its path.
        files: How many files there are.
        links: How many links.
        skipped: Paths that are neither files, links nor folders.
        unread: Folders that can't be listed, with the reason.
        errors: What can't be mirrored, each as a sentence.
    """

    source: str
    attributes: Attributes = UNASKED
    folders: dict[str, bytes] = msgspec.field(default_factory=dict)
    files: int = 0
    links: int = 0
    skipped: list[str] = msgspec.field(default_factory=list)
    unread: list[str] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of entries, folders included."""
        return self.files + self.links + max(len(self.folders) - 1, 0)

    def entries(self) -> Iterator[tuple[Name, Entry]]:
        """Yields everything below the source, in the order of the paths as text.

        That is the order of the ledger's rows: ``a-b`` comes before ``a/b``.
        """
        walks = [self._folder("")]
        while walks:
            for path, entry in walks[-1]:
                if entry is None:
                    walks.append(self._folder(path))
                    break
                yield Name(path), entry
            else:
                walks.pop()

    def _folder(self, folder: str) -> Iterator[tuple[str, Entry | None]]:
        """Yields the entries of a folder; each folder in it twice, as ``None`` to be entered."""
        prefix = f"{folder}/" if folder else ""
        entries = self.entries_in(folder)
        if all(entry.kind != "dir" for entry in entries):
            for entry in entries:
                yield prefix + entry.name, entry
            return
        steps: list[tuple[str, Entry | None]] = []
        for entry in entries:
            steps.append((entry.name, entry))
            if entry.kind == "dir":
                steps.append((f"{entry.name}/", None))
        for name, step in sorted(steps, key=lambda step: step[0]):
            yield prefix + name.removesuffix("/"), step

    def entries_in(self, folder: str) -> list[Entry]:
        """Returns the entries of a folder, by name; none if it is not there."""
        packed = self.folders.get(folder)
        return [] if packed is None else _decode(packed)


def survey(
    source: str, excluded: pathspec.GitIgnoreSpec | None = None, *, gitignore: bool = False
) -> Survey:
    """Lists every folder of a source.

    Args:
        source: Its absolute path.
        excluded: What to leave out, relative to the source.
        gitignore: True to leave out what Git would: by the ``.gitignore`` files in
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
    found.attributes = attributes_of(there).of_folder()
    if not _can_be_kept(there.st_mtime_ns):
        found.unread.append(f"{source}: {TOO_FAR}")
    waiting = [("", Filter(excluded, gitignore=gitignore))]  # The next one last.
    while waiting:
        path, above = waiting.pop()
        try:
            inside = above.entered(source, path)
            folders = _list(found, path, inside)
        except UnreadableError as error:
            found.unread.append(str(error))
        else:
            waiting += [(folder, inside) for folder in reversed(folders)]
    return found


def _can_be_kept(time_ns: int) -> bool:
    """True if the ledger can keep a time: from 1677 to 2262. Some file systems hold later ones."""
    return -(1 << 63) <= time_ns < 1 << 63


def _list(found: Survey, path: str, inside: Filter) -> list[str]:
    """Lists one folder; returns the folders in it."""
    try:
        with os.scandir(os.path.join(found.source, path)) as listing:
            entries = [entry for entry in listing if entry.name != RESERVED]
    except OSError as error:
        raise UnreadableError.of(path or found.source, error) from error
    entries.sort(key=lambda entry: entry.name)
    are_names = _are_names([entry.name for entry in entries])
    listed: list[Entry] = []
    folders: list[str] = []
    for entry in entries:
        inner = f"{path}/{entry.name}" if path else entry.name
        seen = _look_at(found, entry, inner, inside, is_name=are_names)
        if seen is not None:
            listed.append(seen)
            if seen.kind == "dir":
                folders.append(inner)
    found.folders[path] = _encode(listed)
    return folders


def _are_names(names: list[str]) -> bool:
    """True if all names can be mirrored; most folders are checked at once."""
    try:
        check_names(names)
    except InvalidNameError:
        return False
    return True


def _look_at(
    found: Survey, entry: os.DirEntry[str], path: str, inside: Filter, *, is_name: bool
) -> Entry | None:
    """Returns what an entry of a folder is, or ``None`` if it is not to be mirrored."""
    try:
        seen = entry.stat(follow_symlinks=False)
        is_folder = stat.S_ISDIR(seen.st_mode)
        if inside.leaves_out(path, is_folder=is_folder):
            return None
        if not is_name:
            parse_name(path)
        return _entry(found, entry, path, seen)
    except InvalidNameError as error:
        found.errors.append(f"{path!r}: {error}" if error.name != path else str(error))
    except FileNotFoundError:
        pass  # It went while we looked.
    except OSError as error:
        found.unread.append(f"{path}: {error.strerror}")
    return None


def _entry(found: Survey, entry: os.DirEntry[str], path: str, seen: os.stat_result) -> Entry | None:
    """Makes an entry of what was seen, and counts it."""
    kind: Kind = "file"
    target = ""
    if stat.S_ISDIR(seen.st_mode):
        kind = "dir"
    elif stat.S_ISLNK(seen.st_mode):
        kind, target = "link", parse_link_target(os.readlink(entry.path), None)
    elif not stat.S_ISREG(seen.st_mode):
        found.skipped.append(path)
        return None
    found.files += kind == "file"
    found.links += kind == "link"
    if not _can_be_kept(seen.st_mtime_ns):
        if kind == "dir":  # What is in it could not be told from what is gone.
            found.unread.append(f"{path}: {TOO_FAR}")
            return None
        found.errors.append(str(SourceError(os.path.join(found.source, path), TOO_FAR)))
        return Entry(entry.name, "bad")
    ctime_ns = seen.st_ctime_ns if _can_be_kept(seen.st_ctime_ns) else 0
    attributes = attributes_of(seen).of_folder() if kind == "dir" else attributes_of(seen)
    return Entry(entry.name, kind, seen.st_size, attributes, ctime_ns, inode_of(seen), target)
