"""Options of a run: a source, the root of its mirror, and the way to mirror it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from .._core.intents import Durability
from .._core.ownership import CopyPolicy, OnConflict
from .._disk.locations import Root
from .._mirror.brake import Limit
from .links import LinkPolicy

if TYPE_CHECKING:
    from .._core.patterns import Patterns

__all__ = ["Options"]


class Options(NamedTuple):
    """A source, the root of its mirror, and the way to mirror it.

    Attributes:
        source: An absolute path.
        root: The mirror: another one, or its location.
        excluded: Patterns of the paths that are left out, relative to the source.
        gitignore: True to leave out what the ``.gitignore`` files in the source name, and
            ``.git`` folders.
        durability: As in :func:`~cocoindex_fsmirror.mount_dir_target`.
        on_conflict: As there.
        checksum: True to read every file, in the source and in the mirror.
        exact: True to move what is not from the source to the backup area.
        max_delete: The number or part of the files that may be removed; by default the usual one
            of :func:`~._mirror.comparison.check_removals`.
        copies: Of ``"all"`` contents a copy is kept in the mirror; with ``"auto"`` of none, since
            the source has them.
        max_size: The size of the largest file that is taken, in bytes; ``None`` for any.
        backup_deleted: True to move what is gone in the source to the backup area, too.
        keep_backups: The age up to which backups are kept, such as ``30d``, or ``all``; empty for
            what the mirror was told before.
        delete_excluded: True to treat what is left out as gone, instead of leaving it alone.
        links: As of :class:`~.links.Links`.
        sibling: Another mirror of the source, with which contents are shared where the file system
            can; empty for none.
    """

    source: str
    root: Root = ""
    excluded: Patterns | None = None
    gitignore: bool = False
    durability: Durability = "batch"
    on_conflict: OnConflict = "backup"
    checksum: bool = False
    exact: bool = False
    max_delete: Limit | Literal["usual"] = "usual"
    copies: CopyPolicy = "auto"
    max_size: int | None = None
    backup_deleted: bool = False
    keep_backups: str = ""
    delete_excluded: bool = False
    sibling: Root = ""
    links: LinkPolicy = "keep"
