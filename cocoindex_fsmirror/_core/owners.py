"""Owners: who declares the paths of a mirror, and the update that wrote them last. Pure.

The engine's database and the ledger remember the same files, and each can be copied or put back
from another time without the other. So an owner's entry in the ledger names the database that it
belongs to, and carries the *epoch* of its last update, which the engine remembers too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

__all__ = ["NOBODY", "SYNC_OWNER", "SYNC_SOURCE", "Declarer", "Epoch", "Owner", "fits"]

SYNC_OWNER: Final = "sync: owner"
"""The note of the identity under which ``fsmirror sync`` writes to a mirror."""
SYNC_SOURCE: Final = "sync: source"
"""The note of the source that was mirrored last."""


class Declarer(NamedTuple):
    """The declarer of an owner's paths.

    Attributes:
        by: Its name for people; of a directory target, the path of the engine's database.
        database: The device, the inode and the birth of that database; empty if unknown. Earlier
            builds stored no birth.
        place: The key of the directory target in that database; empty for others.
    """

    by: str = ""
    database: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{self.by} {self.place}".strip()

    def has_file_of(self, other: Declarer) -> bool:
        """True if both use one database, which may have been moved, or mounted once more."""
        mine, others = self.database.split(), other.database.split()
        if len(mine) == len(others) > 2:
            return mine[1:] == others[1:]  # Many file systems get another device at each mount.
        return bool(mine) and mine == others[:2]


NOBODY: Final = Declarer()


class Epoch(NamedTuple):
    """A point in the history of an owner.

    Attributes:
        update: The identity of the last update that changed something; empty if unknown.
        batches: The number of batches in which it did.
    """

    update: str = ""
    batches: int = 0


class Owner(NamedTuple):
    """An owner as the ledger remembers it.

    Attributes:
        identity: A UUID.
        since_ns: The time of its first update, in nanoseconds since 1970.
        declarer: Its declarer.
        epoch: Its last change.
        in_doubt: True if some of its paths may be declared no longer, since the memories did
            not fit, or since a removal failed; the end of an update settles that.
    """

    identity: str
    since_ns: int = 0
    declarer: Declarer = NOBODY
    epoch: Epoch = Epoch()
    in_doubt: bool = False

    def is_of(self, acting: Declarer, root: str) -> bool:
        """True if a declarer is the owner's own: it uses the same database.

        Args:
            acting: The declarer.
            root: The path of the root. Earlier releases stored paths of databases as they were
                given; a relative one most often counts from a folder above the root.
        """
        mine = self.declarer
        if mine.by == acting.by or mine.has_file_of(acting):
            return True
        above = acting.by.removesuffix(mine.by)
        return not mine.database and above.endswith("/") and root.startswith(above)

    def put_back(self, *, is_copied: bool) -> Owner:
        """Returns what a ledger that was put back, or copied from elsewhere, says of the owner.

        It may remember paths that are declared no longer, and a copy belongs to whatever
        database is used with it.
        """
        if not self.declarer.place:
            return self
        declarer = Declarer(place=self.declarer.place) if is_copied else self.declarer
        return self._replace(declarer=declarer, in_doubt=True)

    def passes_to(self, acting: Declarer) -> bool:
        """True if a declarer whose database does not know the root carries on for the owner.

        Either that database is a new one at the place of the owner's, or the root has come from
        elsewhere together with it, and is declared by its path.
        """
        mine, is_same = self.declarer, self.declarer.has_file_of(acting)
        if mine.by not in ("", acting.by) and not is_same:
            return False
        if mine.place == acting.place:
            return not is_same and bool(mine.database or not mine.by)
        is_absolute = acting.place.startswith("/")
        return mine.place.startswith("/") and (
            is_absolute or mine.place.endswith(f"/{acting.place}")
        )


def fits(epoch: Epoch, settled: Epoch | None, begun: Collection[str], before: str) -> bool:
    """True if a ledger and the engine's database are of the same time.

    Args:
        epoch: That of the owner in the ledger.
        settled: The epoch that the engine remembers from the end of an update; ``None`` if it
            remembers no end.
        begun: The updates that the engine remembers to have begun last; several after an
            interrupted one, and an empty text from a release that remembered none.
        before: The last change before these began.
    """
    if "" in begun:
        return True
    if settled is None:
        return epoch.update in (*begun, before)
    if epoch.update == settled.update:
        # The engine removes what components that are gone had declared after it remembers the end.
        return epoch.batches >= settled.batches
    # The update was interrupted before its end, or was followed by one that was.
    return epoch.update in begun or (epoch.update == before and settled.update not in begun)
