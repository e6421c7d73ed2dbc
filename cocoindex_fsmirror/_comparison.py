"""Comparison of a source with its mirror: every difference becomes an intent."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ._brake import Limit, allowance
from ._compare import LastWritten, batches, compare, last_written
from ._errors import SourceError, TooManyRemovalsError
from ._paths import Name, leaf, parent
from ._source import Source, fingerprint, look_at_source
from ._state import ABSENT, Desired, DirState, FileState, Intent, Kind, LinkState, Row, Signature
from ._survey import Entry, Survey
from ._sweep import Known

__all__ = ["Comparison", "Options", "check_removals", "known_in"]

_OWNER_MAY: Final = 0o700  # A folder that its owner can't enter can't be filled.
Durability: TypeAlias = Literal["batch", "none"]
OnConflict: TypeAlias = Literal["backup", "overwrite", "error"]


class Options(NamedTuple):
    """How a source is mirrored.

    Attributes:
        durability: As in :func:`~cocoindex_fsmirror.mount_dir_target`.
        on_conflict: As there.
        checksum: True to read every file, in the source and in the mirror.
        exact: True to move what is not from the source to the backup area.
        max_delete: How many files may be removed.
    """

    durability: Durability = "batch"
    on_conflict: OnConflict = "backup"
    checksum: bool = False
    exact: bool = False
    max_delete: Limit | None = None


class Comparison:
    """Compares a source with what was last written to its mirror, and with the disk.

    Args:
        root: The root of the mirror.
        survey: What the source holds.
        owner: Who mirrors it.
        options: How.
        suspects: What a look at the mirror did not prove to be unchanged, by name.
        check: Is called before each path; what it raises ends the comparison.

    Attributes:
        drifted: Paths of the intents that are out whose actual state differs.
        unread: Paths whose source can't be read, with the error; their copies stay.
        seen: How many entries of the source were compared.
    """

    def __init__(
        self,
        root: str,
        survey: Survey,
        owner: str,
        options: Options,
        *,
        suspects: Iterable[Name],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._survey = survey
        self._owner = owner
        self._options = options
        self._suspects = suspects
        self._check = check
        self.drifted: set[Name] = set()
        self.unread: dict[Name, SourceError] = {}
        self.seen = 0

    def batches(self) -> Iterator[list[Intent]]:
        """Yields what has to be done, as many intents as are applied together."""
        for batch in batches(self._intents()):
            yield batch
            self.drifted.clear()

    def _intents(self) -> Iterator[Intent]:
        """Yields what has to be done, by path."""
        written = last_written(self._root, self._suspects)
        for name, entry, last in compare(self._entries(), written, self._is_settled):
            mine = last if last is not None and last.row.owner == self._owner else None
            if entry is None:
                if mine is not None:
                    yield self._intent(name, ABSENT, container=mine.row.container)
            elif entry.kind != "bad":
                intent = self._wanted(name, entry, mine)
                if intent is not None:
                    if mine is not None and not mine.is_untouched:
                        self.drifted.add(name)
                    yield intent

    def _entries(self) -> Iterator[tuple[Name, Entry]]:
        """Yields the entries of the source, and counts them."""
        for pair in self._survey.entries():
            self._check()
            self.seen += pair[1].kind != "dir"
            yield pair

    def _is_settled(self, entry: Entry, last: LastWritten) -> bool:
        """True if source and mirror are as they were when the entry was mirrored."""
        return (
            last.is_untouched
            and last.row.owner == self._owner
            and not (self._options.checksum and entry.kind == "file")
            and _is_mirrored(entry, last.row)
        )

    def _wanted(self, name: Name, entry: Entry, last: LastWritten | None) -> Intent | None:
        """Makes the intent for an entry; ``None`` if its source can't be read."""
        if entry.kind == "dir":
            return self._intent(name, DirState(entry.mode | _OWNER_MAY, entry.mtime_ns))
        if entry.kind == "link":
            return self._intent(name, LinkState(entry.target, entry.mtime_ns))
        try:
            source = self._source(name, entry, last)
        except SourceError as error:
            self.unread[name] = error
            return None
        state = FileState(source.digest, source.size, source.mode, source.mtime_ns)
        seen = source.signature if source.is_provable else None
        return self._intent(name, state, content=source, source=seen)

    def _source(self, name: Name, entry: Entry, last: LastWritten | None) -> Source:
        """Looks at a file of the source; it is read only if that is needed to decide."""
        path = os.path.join(self._survey.source, name)
        if self._options.checksum:
            return fingerprint(path)
        if last is not None and _is_mirrored(entry, last.row):  # Only its copy is in question.
            signature = Signature(entry.inode, entry.size, entry.mtime_ns, entry.ctime_ns)
            return Source(path, last.row.digest, None, entry.mode, signature, is_provable=True)
        source = look_at_source(path)
        if source.digest is None and _may_be_right(os.path.join(self._root, name), source.size):
            return fingerprint(path)
        return source

    def _intent(self, name: Name, desired: Desired, **more: Any) -> Intent:
        """Makes an intent of the one who mirrors."""
        options = self._options
        return Intent(
            name,
            desired,
            self._owner,
            on_conflict=options.on_conflict,
            durable=options.durability != "none",
            **more,
        )


def _is_mirrored(entry: Entry, row: Row) -> bool:
    """True if an entry of the source is as it was when it was mirrored.

    Of a file that is proven by size, mtime, inode and ctime: an edit that puts the time back
    moves the ctime. A row of an earlier release has no inode and ctime of the source.
    """
    if row.asked_ns != entry.mtime_ns:
        return False
    if entry.kind == "file":
        return (
            row.kind == Kind.FILE
            and row.size == entry.size
            and row.mode == entry.mode
            and row.source_inode == entry.inode
            and row.source_ctime_ns == entry.ctime_ns
        )
    if entry.kind == "link":
        return row.kind == Kind.LINK and row.target == entry.target
    return row.kind == Kind.DIR and row.mode == entry.mode | _OWNER_MAY


def _may_be_right(path: str, size: int) -> bool:
    """True if there may be a file with the content of a source, so that it has to be hashed."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def known_in(survey: Survey) -> Known:
    """Returns what tells if a path is in a source, as a folder or as something else."""

    @lru_cache(64)
    def kinds(folder: Name) -> dict[str, str]:
        return {entry.name: entry.kind for entry in survey.entries_in(folder)}

    def knows(name: Name, is_folder: bool) -> bool:
        kind = kinds(parent(name)).get(leaf(name))
        return kind == "dir" or (kind is not None and not is_folder)

    return knows


def check_removals(root: str, survey: Survey, owner: str, limit: Limit | None) -> None:
    """Stops before anything is done, if too much would be removed.

    Raises:
        TooManyRemovalsError: More files would be removed than the limit allows.
    """
    if limit is None:
        return
    managed = gone = 0
    written = last_written(root, None)
    for _, entry, last in compare(survey.entries(), written, lambda *_: False):
        if last is not None and last.row.owner == owner and last.row.kind != Kind.DIR:
            managed += 1
            gone += entry is None or entry.kind == "dir"
    allowed = allowance(limit, managed)
    if gone > allowed:
        shown = f"{limit:.0%}" if isinstance(limit, float) else str(limit)
        raise TooManyRemovalsError(root, gone, managed, allowed, f"--max-delete {shown}")
