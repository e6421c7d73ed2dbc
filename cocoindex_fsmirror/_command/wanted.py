"""The desired states of ``fsmirror sync``, from what a survey of the source found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from .._core.errors import RootError
from .._core.names import Name, leaf, parent
from .._core.signatures import Signature
from .._core.states import DirState, FileState, LinkState
from .._mirror.brake import Limit
from .._mirror.comparison import Wanted
from .._mirror.exact import Known
from .survey import Entry, Survey

__all__ = ["OWNER", "SOURCE", "Options", "check_survey", "declared", "known_in"]

OWNER: Final = "sync: owner"
"""The note of the identity under which ``fsmirror sync`` writes to a mirror."""
SOURCE: Final = "sync: source"
"""The note of the source that was mirrored last."""
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


def declared(survey: Survey) -> Iterator[tuple[Name, Wanted | None]]:
    """Yields what each path of a mirror should hold, by name; ``None`` if its source is bad."""
    prefix = os.path.join(survey.source, "")
    for name, entry in survey.entries():
        yield name, _wanted(prefix + name, entry)


def _wanted(path: str, entry: Entry) -> Wanted | None:
    """Returns what the copy of an entry should hold."""
    if entry.kind == "file":
        state = FileState(None, entry.size, entry.attributes)
        seen = Signature(entry.inode, entry.size, entry.attributes.mtime_ns or 0, entry.ctime_ns)
        return Wanted(state, None, path, seen)
    if entry.kind == "dir":
        return Wanted(DirState(entry.attributes))
    return None if entry.kind == "bad" else Wanted(LinkState(entry.target, entry.attributes))


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
