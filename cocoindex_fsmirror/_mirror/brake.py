"""Brake: stop an update that would remove too many files.

A flow's removals come in several batches, and their number is not known beforehand. Those
that the engine has already asked us to reconcile are known, and count. A batch that exceeds
the limit together with them is refused as a whole, and so is every later batch that removes
anything, because the known removals only grow.
"""

from __future__ import annotations

from .._core.errors import TooManyRemovalsError
from .._core.names import Name
from .._core.states import Kind
from .reader import LedgerReader

__all__ = ["Brake", "Limit", "allowance", "check_limit"]

Limit = int | float
"""The most files that may be removed: a count, or as a float a fraction of the managed files."""


def check_limit(limit: Limit | None) -> None:
    """Refuses a value that is no limit.

    Raises:
        TypeError: The value is neither a count nor a fraction.
        ValueError: The value is out of range.
    """
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"max_delete is an int or a float, not {type(limit).__name__}")
    if limit < 0 or (isinstance(limit, float) and not limit <= 1):
        raise ValueError(f"max_delete={limit!r} is neither a count nor between 0.0 and 1.0")


def allowance(limit: Limit, managed: int) -> int:
    """Returns the number of files that a limit allows to remove.

    Args:
        limit: A count, or a fraction.
        managed: The number of managed files.
    """
    # 0.29 * 100 is a little less than 29.
    return int(round(limit * managed, 6)) if isinstance(limit, float) else limit


class Brake:
    """Limits the removals of one update.

    Args:
        limit: The most files that the update may remove.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._announced: set[Name] = set()
        self._managed: int | None = None  # At the first batch of the update.
        self._gone: set[Name] = set()  # Removed by this update, or refused.
        self._passed: set[Name] = set()  # Those that were not refused.

    def announce(self, name: Name) -> None:
        """Notes that a path is no longer declared. Threads of the engine may call this."""
        self._announced.add(name)

    def check(self, root: str, planned: set[Name], ledger: LedgerReader, owner: str) -> None:
        """Refuses a batch that removes too much; to be called for each batch of the update.

        Args:
            root: The root, for the message.
            planned: The files that the batch removes.
            ledger: The ledger of the root.
            owner: The owner whose files are counted.

        Raises:
            TooManyRemovalsError: The batch, the batches before it and the announced paths
                are too many files, or were at an earlier batch.
        """
        if self._managed is None:
            self._managed = ledger.count(owner)
        if not planned:
            return
        allowed = allowance(self._limit, self._managed)
        self._gone |= planned
        announced = self._announced - self._gone  # Atomic, so no lock is needed.
        if len(self._gone) + len(announced) > allowed:
            managed = ledger.rows_named(announced).values()
            self._gone |= {row.name for row in managed if row.kind != Kind.DIR}
        if len(self._gone) <= allowed:
            self._passed |= planned
            return
        figures = (len(self._gone), self._managed, allowed, f"max_delete={self._limit!r}")
        raise TooManyRemovalsError(root, *figures, removed=len(self._passed))
