"""The desired states of ``fsmirror sync``, from what a survey of the source found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from .._core.errors import RootError
from .._core.names import Name, leaf, parent
from .._core.rows import Kind, Row
from .._core.signatures import Signature
from .._core.states import DirState, FileState, LinkState
from .._disk.sources import Source, fingerprint, look_at_source
from .._mirror.brake import Limit
from .._mirror.comparison import Comparison, Wanted
from .._mirror.exact import Known
from .survey import Entry, Survey

__all__ = ["OWNER", "SOURCE", "Options", "check_survey", "comparison", "known_in", "leaves"]

OWNER: Final = "sync: owner"
"""The note of the identity under which ``fsmirror sync`` writes to a mirror."""
SOURCE: Final = "sync: source"
"""The note of the source that was mirrored last."""
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


def comparison(
    root: str,
    survey: Survey,
    owner: str,
    options: Options,
    check: Callable[[], None] = lambda: None,
) -> Comparison[Entry]:
    """Makes the comparison of a source with its mirror; the declarations are its entries.

    Args:
        root: The root of the mirror.
        survey: What the source holds.
        owner: Who mirrors it.
        options: How.
        check: Is called before each path; what it raises ends the comparison.
    """

    def is_said(entry: Entry, row: Row) -> bool:
        if options.checksum and entry.kind == "file":
            return False
        return _is_mirrored(entry, row)

    def wanted(name: Name, entry: Entry, row: Row | None) -> Wanted | None:
        if entry.kind == "bad":
            return None
        if entry.kind == "dir":
            return Wanted(DirState(entry.mode | _OWNER_MAY, entry.mtime_ns))
        if entry.kind == "link":
            return Wanted(LinkState(entry.target, entry.mtime_ns))
        path = os.path.join(survey.source, name)
        if options.checksum:
            source = fingerprint(path)
        elif row is not None and _is_mirrored(entry, row):  # Only its copy is in question.
            seen = Signature(entry.inode, entry.size, entry.mtime_ns, entry.ctime_ns)
            source = Source(path, row.digest, None, entry.mode, seen)
        else:
            source = look_at_source(path, os.path.join(root, name))
        state = FileState(source.digest, source.size, source.mode, source.mtime_ns)
        return Wanted(state, source, source.signature if source.is_provable else None)

    return Comparison(
        root,
        owner,
        is_said=is_said,
        wanted=wanted,
        on_conflict=options.on_conflict,
        durable=options.durability != "none",
        check=check,
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


def leaves(survey: Survey) -> Iterator[Name]:
    """Yields the files and links of a source, by path."""
    return (name for name, entry in survey.entries() if entry.kind != "dir")


def known_in(survey: Survey) -> Known:
    """Returns a function that tells if a path is in a source, as a folder or as something else."""

    @lru_cache(64)
    def kinds(folder: Name) -> dict[str, str]:
        return {entry.name: entry.kind for entry in survey.entries_in(folder)}

    def knows(name: Name, is_folder: bool) -> bool:
        kind = kinds(parent(name)).get(leaf(name))
        return kind == "dir" or (kind is not None and not is_folder)

    return knows


def check_survey(survey: Survey) -> None:
    """Raises an error, before anything is done, if a source can't be listed whole.

    What can't be seen is not gone: its copies would be removed.

    Raises:
        RootError: A part of it can't be listed.
    """
    if survey.unread:
        shown = "; ".join(survey.unread[:3])
        raise RootError(survey.source, f"can't be read whole: {shown}", "nothing was changed")
