"""Owners: which declarer may act for an owner of paths.

A copied database of the engine acts under the owners of its original. While the original exists,
the copy is refused: it must neither change nor remove what the original declares.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import NamedTuple

from .._core.errors import RootError
from .._core.owners import Declarer, Epoch, Owner
from .._disk.calls import coarse_now_ns, identity_of
from .._disk.locations import Root
from .._disk.tree import Tree
from .known import mirrored
from .ledger import Ledger
from .reader import LedgerReader

__all__ = ["OwnerFigures", "admit", "check_database", "doubt", "may_tear_down", "owners"]

_log = logging.getLogger("cocoindex_fsmirror")


def admit(tree: Tree, ledger: Ledger, acting: Owner, *, begins: bool = False) -> Epoch:
    """Records an owner that begins an update.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        acting: The owner, with the epoch of its update.
        begins: True if the update changes the epoch also if it changes nothing else.

    Returns:
        The epoch of the owner now.

    Raises:
        RootError: The declarer uses a copy of the database that the owner belongs to.
    """
    known = ledger.owners().get(acting.identity)
    check_database(known, acting.declarer, tree.path)
    if known is None:
        now = acting._replace(since_ns=coarse_now_ns())
    else:
        now = known._replace(
            declarer=acting.declarer,
            epoch=acting.epoch if begins else known.epoch,
            in_doubt=known.in_doubt or acting.in_doubt,
        )
    if now != known:
        ledger.set_owner(now)
    return now.epoch


def check_database(known: Owner | None, acting: Declarer, root: str) -> None:
    """Raises if a declarer uses a copy of the database that an owner belongs to."""
    if known is not None and _uses_copy(known, acting, root):
        problem = f"belongs to the database {known.declarer.by}, of which {acting.by}"
        hint = "declare another directory; or remove that database, if this one takes over"
        raise RootError(root, f"{problem} is a copy; nothing was changed", hint)


def doubt(_tree: Tree, ledger: Ledger, owner: str) -> None:
    """Notes that some paths of an owner may be declared no longer."""
    known = ledger.owners().get(owner)
    if known is not None:
        ledger.set_owner(known._replace(in_doubt=True))


def may_tear_down(root: str, ledger: LedgerReader, owner: str, acting: Declarer) -> bool:
    """True if a declarer may remove what an owner wrote; logs why not.

    A directory target that has another key now was not dropped.
    """
    known = ledger.owners().get(owner)
    if known is None:
        return True
    if known.declarer.place and acting.place and known.declarer.place != acting.place:
        return False
    if _uses_copy(known, acting, root) is False:
        return True
    _log.warning(
        "%s: nothing was removed, since it belongs to the database %s, and %s is a copy of that"
        " (fsmirror drop removes it)",
        root,
        known.declarer.by,
        acting.by,
    )
    return False


def _uses_copy(known: Owner, acting: Declarer, root: str) -> bool | None:
    """True if a declarer uses a copy of the owner's database; ``None`` if that can't be told."""
    mine, by = known.declarer, known.declarer.by
    if not by or not acting.by or by == acting.by:
        return False
    with contextlib.suppress(OSError):
        if os.path.samefile(by, acting.by):  # It is mounted, or linked, elsewhere.
            return False
        if mine.has_file_of(Declarer(by, identity_of(by))):
            return True  # Whatever its numbers are: a snapshot has those of its original.
    if known.is_of(acting, root):
        return False
    # A database that is not there any more was moved.
    return os.path.lexists(by) if os.path.isabs(by) else None


class OwnerFigures(NamedTuple):
    """An owner, with its figures.

    Attributes:
        identity: Its UUID.
        by: Its name; for a directory target the engine's database, and its key in that.
        since_ns: The time of its first update, in nanoseconds since 1970.
        files: The number of its files and links.
        is_lost: True if a younger one has come in its place, since the engine's
            database was lost: nobody declares its files any more.
    """

    identity: str
    by: str
    since_ns: int
    files: int
    is_lost: bool


def _has_come_for(younger: Owner, owner: Owner) -> bool:
    """True if an owner is another one's successor, and not that of another app of its database."""
    return younger is not owner and not owner.declarer.has_file_of(younger.declarer)


def owners(root: Root) -> list[OwnerFigures]:
    """Lists the owners in a mirror, in the order of their first updates.

    Raises:
        RootError: The directory is no mirror.
    """
    with mirrored(root) as ledger:
        found = ledger.owners()
        youngest = {str(owner.declarer): owner for owner in found.values()}
        return [
            OwnerFigures(
                identity,
                by := str(owner.declarer),
                owner.since_ns,
                ledger.count(identity),
                bool(by) and _has_come_for(youngest[by], owner),
            )
            for identity, owner in found.items()
        ]
