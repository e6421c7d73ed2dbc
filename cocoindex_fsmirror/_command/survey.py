"""Survey: lists a whole source before anything is done, and what a mirror of it should hold.

Reads no file, and follows no link below the source, unless it is asked to. A folder that can't be
listed is an error, and its copy stays as it is with all that is in it, since what it holds now is
unknown. A large tree has to fit into memory, so the listing of each folder is packed into bytes
(about 60 for an entry), and unpacked when the source is walked in the order of the names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from .._core.attributes import UNASKED, Attributes
from .._core.declaration import Declaration
from .._core.errors import InvalidNameError, RootError, SourceError
from .._core.names import (
    RESERVED,
    ROOT,
    Name,
    ancestors,
    check_names,
    leaf,
    parent,
    parse_link_target,
    parse_name,
)
from .._core.packing import Packer
from .._core.states import DirState, FileState, LinkState, Signature, inode_of
from .._core.text import encoded
from .._disk.abilities import attributes_for_copy
from .._disk.sources import SourceFolders, open_source
from .filters import Filter
from .links import Links, closed_by
from .options import Options
from .telling import Failure

__all__ = ["Entry", "Survey", "known_in", "protected_by", "survey"]

_TOO_FAR: Final = "has a time that no mirror can keep; those from 1677 to 2262 can be"


Kind: TypeAlias = Literal["file", "link", "dir", "bad"]
"""The kind of an entry; ``"bad"`` exists, but can't be mirrored: a copy of it stays as it is, with
all that is in it."""


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry of a folder of the source; sizes in bytes.

    ``attributes`` are those of its copy; ``ctime_ns`` and ``inode`` reveal edits. ``target`` is
    that of a link, or the real path of a file that a link leads to.
    """

    name: str
    kind: Kind
    size: int = 0
    attributes: Attributes = UNASKED
    ctime_ns: int = 0
    inode: int = 0
    target: str = ""

    def wanted(self, path: str) -> Declaration | None:
        """Returns what the copy of the entry at a path should hold; ``None`` if it is bad."""
        if self.kind == "file":
            mtime_ns = self.attributes.mtime_ns or 0
            seen = Signature(self.inode, self.size, mtime_ns, self.ctime_ns)
            state = FileState(None, self.size, self.attributes)
            return Declaration(state, None, self.target or path, seen)
        if self.kind == "dir":
            return Declaration(DirState(self.attributes))
        return None if self.kind == "bad" else Declaration(LinkState(self.target, self.attributes))


_packer: Final = Packer(list[Entry])


class Survey(msgspec.Struct):
    """The result of a walk through a source.

    Attributes:
        source: The absolute path of the source.
        tree: The source, from whose descriptor everything below it is opened.
        attributes: The attributes that the root of the mirror gets.
        folders: The packed entries of each folder, by its path.
        count: The number of entries, folders included.
        leaves: The number of files and links that can be mirrored.
        has_bad: True if an entry is bad.
        skipped: Paths that are neither files, links nor folders.
        errors: The entries that can't be mirrored.
        links: The links that are followed.
        filters: What leaves out entries of each folder, by its path; empty if nothing does, or if
            what is left out counts as gone.
    """

    source: str
    tree: SourceFolders | None = None
    links: Links = msgspec.field(default_factory=lambda: Links("keep", ""))
    attributes: Attributes = UNASKED
    folders: dict[str, bytes] = msgspec.field(default_factory=dict)
    count: int = 0
    leaves: int = 0
    has_bad: bool = False
    skipped: list[str] = msgspec.field(default_factory=list)
    errors: list[Failure] = msgspec.field(default_factory=list)
    filters: dict[str, Filter] = msgspec.field(default_factory=dict)

    def close(self) -> None:
        """Closes the source."""
        if self.tree is not None:
            self.tree.close()
            self.tree = None

    def declared(self) -> Iterator[tuple[Name, Declaration | None]]:
        """Yields what each path of a mirror should hold, in the order of the paths as bytes.

        That is the order of the ledger's rows: ``a-b`` comes before ``a/b``.
        """
        prefix = os.path.join(self.source, "")
        steps = self._steps("")
        while steps:
            path, entry = steps.pop()
            if entry is None:
                steps += self._steps(path)
            else:
                yield Name(path), entry.wanted(prefix + path)

    def _steps(self, folder: str) -> list[tuple[str, Entry | None]]:
        """Lists a folder, the first path last; ``None`` is the step into a folder in it.

        Args:
            folder: Its path, with ``/`` at the end.
        """
        entries = self.entries_in(folder.removesuffix("/"))
        steps: list[tuple[str, Entry | None]] = [(folder + each.name, each) for each in entries]
        inner = [(f"{folder}{each.name}/", None) for each in entries if each.kind == "dir"]
        return sorted([*steps, *inner], key=lambda step: encoded(step[0]), reverse=True)

    def entries_in(self, folder: str) -> list[Entry]:
        """Returns the entries of a folder, by name; none if it is not there."""
        packed = self.folders.get(folder)
        return [] if packed is None else _packer.unpack(packed)

    def link_at(self, name: Name) -> str:
        """Returns the target of a link."""
        assert self.tree is not None
        return os.readlink(leaf(name), dir_fd=self.tree.folder(parent(name)))

    def fail(self, path: str, error: OSError | ValueError) -> None:
        """Adds the error of a path, and marks its entry as bad if it is listed already."""
        above, base = os.path.split(path)
        found = self.entries_in(above)
        listed = [Entry(base, "bad") if entry.name == base else entry for entry in found]
        self.folders[above], self.has_bad = _packer.pack(listed), True
        self.errors.append(_unread(path, _reason(error)))


def known_in(survey: Survey) -> Callable[[Name, bool], bool]:
    """Returns a function that tells if a path is in a source, as a folder or as something else."""

    @lru_cache(64)
    def kinds(folder: Name) -> dict[str, Kind]:
        return {entry.name: entry.kind for entry in survey.entries_in(folder)}

    def kind_of(name: Name) -> Kind | None:
        return kinds(parent(name)).get(leaf(name))

    protects = protected_by(survey)

    def knows(name: Name, is_folder: bool) -> bool:
        kind = kind_of(name)
        if kind is None and protects(name, is_folder):
            return True
        if kind is None and survey.has_bad:  # As a rule there are none.
            return any(kind_of(above) == "bad" for above in ancestors(name))
        return kind in ("dir", "bad") or (kind is not None and not is_folder)

    return knows


def protected_by(survey: Survey) -> Callable[[Name, bool], bool]:
    """Returns a function that tells if a path is left alone in a mirror, since it is left out."""
    filters = survey.filters

    @lru_cache(1024)
    def filter_of(folder: str) -> Filter:
        while folder not in filters:  # It is not in the source.
            folder = os.path.dirname(folder)
        return filters[folder]

    @lru_cache(1024)
    def is_left_out(folder: Name) -> bool:
        return filter_of(parent(folder)).leaves_out(folder, is_folder=True)

    def protects(name: Name, is_folder: bool) -> bool:
        above = any(map(is_left_out, ancestors(name)))
        return above or filter_of(parent(name)).leaves_out(name, is_folder=is_folder)

    return protects if filters else lambda _name, _is_folder: False


def survey(options: Options) -> Survey:
    """Lists every folder of a source, which stays open until the survey is closed.

    Raises:
        RootError: The source itself can't be listed.
    """
    source = os.path.realpath(options.source)  # A link to it may be switched at any time.
    try:
        tree = open_source(source)
    except OSError as error:
        raise _source_error(options.source, error) from error
    with contextlib.ExitStack() as opened:
        found = Survey(source, opened.enter_context(contextlib.closing(tree)))
        there = os.fstat(tree.fd)
        found.attributes = attributes_for_copy(there).of_folder()
        if not _can_be_kept(there.st_mtime_ns):
            raise _source_error(source, ValueError(_TOO_FAR))
        top = Filter(
            options.excluded,
            options.gitignore,
            options.max_size,
            protects=not options.delete_excluded,
        )
        found.links = Links(options.links, source, closed_by(options.root, options.sibling))
        tree.places = found.links.places
        waiting = [(ROOT, top, frozenset[tuple[int, int]]())]  # The next one last.
        while waiting:
            path, filters, above = waiting.pop()
            try:
                fd = tree.folder(path)
                inside, chain = filters.entered(fd, path), _chained(fd, above)
                if inside.protects and (inside.excluded or inside.gitignore):
                    found.filters[path] = inside
                inner = _list(found, fd, path, inside)
                waiting += [(each, inside, chain) for each in reversed(inner)]
            except (OSError, ValueError) as error:
                if not path:
                    raise _source_error(source, error) from error
                found.fail(path, error)
        opened.pop_all()
    return found


def _chained(fd: int, above: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Adds a folder to those above it; raises if a link has led back to one of them."""
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) in above:
        raise ValueError("a link leads back to a folder above it")
    return above | {(found.st_dev, found.st_ino)}


def _source_error(source: str, error: OSError | ValueError) -> RootError:
    """Returns the error for a source that can't be mirrored at all."""
    return RootError(source, f"can't be read: {_reason(error)}", "nothing was changed")


def _reason(error: OSError | ValueError) -> str:
    """Returns what went wrong, without a path."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "was replaced by something else while the source was read; sync again"
    return error.strerror or str(error)


def _unread(path: str, problem: str) -> Failure:
    """Returns the failure of a path that can't be read."""
    return Failure(f"{path!r}: {problem}", path, "read", problem)


def _can_be_kept(time_ns: int) -> bool:
    """True if the ledger can keep a time: from 1677 to 2262. Some file systems store others."""
    return -(1 << 63) <= time_ns < 1 << 63


def _list(found: Survey, fd: int, path: Name, inside: Filter) -> list[Name]:
    """Lists one folder; returns the folders in it."""
    with os.scandir(fd) as listing:
        entries = [entry for entry in listing if entry.name != RESERVED]
    entries.sort(key=lambda entry: entry.name)
    is_name = _are_names([entry.name for entry in entries])
    prefix = f"{path}/" if path else ""
    looks = (_look_at(found, each, prefix + each.name, inside, is_name) for each in entries)
    listed = [entry for entry in looks if entry is not None]
    found.folders[path] = _packer.pack(listed)
    found.count += len(listed)
    found.has_bad |= any(entry.kind == "bad" for entry in listed)
    found.leaves += sum(1 for entry in listed if entry.kind in ("file", "link"))
    return [Name(prefix + entry.name) for entry in listed if entry.kind == "dir"]


def _are_names(names: list[str]) -> bool:
    """True if all names can be mirrored; most folders are checked at once."""
    try:
        check_names(names)
    except InvalidNameError:
        return False
    return True


def _look_at(
    found: Survey, entry: os.DirEntry[str], path: str, inside: Filter, is_name: bool
) -> Entry | None:
    """Looks at an entry of a folder; returns ``None`` if it is not to be mirrored."""
    try:
        seen, target = entry.stat(follow_symlinks=False), ""
        is_out = inside.leaves_out(path, is_folder=stat.S_ISDIR(seen.st_mode))
        if not (is_out or is_name):
            parse_name(path)
        if not is_out and stat.S_ISLNK(seen.st_mode):
            seen, target = _led(found, Name(path), seen)
            is_out = inside.leaves_out(path, is_folder=stat.S_ISDIR(seen.st_mode))
        if is_out:
            return None
        is_skipped = stat.S_ISLNK(seen.st_mode) and found.links.policy == "skip"
        if is_skipped or inside.is_too_large(seen):
            return Entry(entry.name, "bad") if inside.protects else None
        return _entry(found, entry.name, path, seen, target)
    except InvalidNameError as error:
        message = f"{path!r}: {error}" if error.name != path else str(error)
        found.errors.append(Failure(message, path, "mirror", str(error)))
    except FileNotFoundError:
        pass  # The entry went while we looked.
    except OSError as error:
        found.errors.append(_unread(path, _reason(error)))
        return Entry(entry.name, "bad")
    except ValueError as error:
        found.errors.append(_unread(path, str(error)))
        return Entry(entry.name, "bad")
    return None


def _led(found: Survey, path: Name, seen: os.stat_result) -> tuple[os.stat_result, str]:
    """Looks at what a link leads to, if it is followed; returns that, and its path or target."""
    target = found.link_at(path)
    place = found.links.place_of(path, target)
    return (os.stat(place), place) if place else (seen, target)


def _entry(found: Survey, name: str, path: str, seen: os.stat_result, target: str) -> Entry | None:
    """Makes an entry from a ``stat``; ``target`` is that of a link, or where a link leads."""
    kind: Kind = "file"
    if stat.S_ISDIR(seen.st_mode):
        kind = "dir"
        if target:
            found.links.places[Name(path)], target = target, ""
    elif stat.S_ISLNK(seen.st_mode):
        kind, target = "link", parse_link_target(target, None)
    elif not stat.S_ISREG(seen.st_mode):
        found.skipped.append(path)
        return None
    if not _can_be_kept(seen.st_mtime_ns):
        message = str(SourceError(os.path.join(found.source, path), _TOO_FAR))
        found.errors.append(Failure(message, path, "mirror", _TOO_FAR))
        return Entry(name, "bad")
    ctime_ns = seen.st_ctime_ns if _can_be_kept(seen.st_ctime_ns) else 0
    taken = attributes_for_copy(seen)
    attributes = taken.of_folder() if kind == "dir" else taken
    return Entry(name, kind, seen.st_size, attributes, ctime_ns, inode_of(seen), target)
