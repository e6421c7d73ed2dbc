"""Turns: apply batches and, on a full disk, apply what did not fit again in smaller ones.

A batch needs room for all of its new versions beside the old ones. A smaller batch needs less, and
makes room for the next::

    apply ──> some did not fit ──> files that replace one of their size, the small ones first
      ^                            ──> files that take more room than before, the small ones first
      └──────────────── in batches of as many as fitted ────────────────┘

So what fits once the old versions are gone is written by the same call, unless new files in an
earlier batch took that room. Attempts end when one of them places nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from .._core.errors import ApplyError, BarrierError, FsMirrorError, LedgerError
from .._core.intents import Intent
from .._core.states import FileState
from .outcome import Outcome, Unfitting, is_full

__all__ = ["apply_all", "apply_one", "batches"]

_MOST: Final = 4096  # paths in a batch
_LARGEST: Final = 1 << 30  # bytes in a batch, which need room beside the old versions
_PARTS: Final = 8  # into which a batch is split at least

_Apply = Callable[[list[Intent]], Outcome]


def batches(intents: Iterable[Intent], most: int = 0) -> Iterator[list[Intent]]:
    """Yields intents a batch at a time.

    Args:
        intents: The intents.
        most: The largest number of them in a batch; 0 for as many as usual.
    """
    most = most or _MOST
    batch: list[Intent] = []
    size = 0
    for intent in intents:
        batch.append(intent)
        size += _size(intent)
        if len(batch) == most or size >= _LARGEST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def apply_all(apply: _Apply, to_do: Iterable[list[Intent]]) -> list[FsMirrorError]:
    """Applies batches, and again what did not fit on a full disk.

    Args:
        apply: Applies a batch.
        to_do: The batches.

    Returns:
        An error for each path that failed. If a single path could not be recorded, one more says
        so, and nothing was tried after that.

    Raises:
        BarrierError: The disk did not confirm a batch.
        LedgerError: The ledger could not be read or written.
    """
    turns = _Turns(apply)
    try:
        for batch in to_do:
            turns.take(batch)
        while turns.is_hopeful():
            turns.try_again()
    except (BarrierError, LedgerError) as error:
        if not is_full(error) or not turns.errors():
            raise
        return [*turns.errors(), error]
    return turns.errors()


def apply_one(apply: _Apply, batch: list[Intent], root: str) -> Outcome:
    """Applies a batch as :func:`apply_all` does, and returns the outcome of all turns.

    Args:
        apply: Applies a batch.
        batch: The batch.
        root: The root, for the error.

    Raises:
        ApplyError: Some paths failed; all others were applied.
    """
    total = Outcome()

    def apply_and_add(part: list[Intent]) -> Outcome:
        outcome = apply(part)
        total.add(replace(outcome, failures=[], unfitting=[]))
        return outcome

    if failures := apply_all(apply_and_add, [batch]):
        raise ApplyError(root, failures)
    return total


class _Turns:
    """Attempts at the paths that are still to be done.

    Args:
        apply: Applies a batch.
    """

    def __init__(self, apply: _Apply) -> None:
        self._apply = apply
        self._failures: list[FsMirrorError] = []
        self._waiting: dict[tuple[str, ...], Unfitting] = {}  # By declaration.
        self._limit = _MOST  # The number of paths in a batch,
        self._most = 1  # and the number that may fit next time.
        self._done = 0  # The number of paths that did not lack room, in this turn.

    def errors(self) -> list[FsMirrorError]:
        """Returns an error for each path that has failed and was not done since."""
        waiting = {each.intent.name: each.error for each in self._waiting.values()}
        return [*self._failures, *waiting.values()]

    def is_hopeful(self) -> bool:
        """True if something waits that may fit now, or in a smaller batch."""
        # What was tried, and did not fit when nothing else did, fits in no smaller batch.
        waits = self._limit > 1 and not all(each.tried for each in self._waiting.values())
        return bool(self._waiting) and (self._done > 0 or waits)

    def try_again(self) -> None:
        """Applies smaller batches of all that waits."""
        self._limit, self._most, self._done = self._most, 1, 0
        waiting = sorted(self._waiting.values(), key=lambda each: _size(each.intent))
        for grows in (False, True):
            rest = (each.intent for each in waiting if each.grows == grows)
            for batch in batches(rest, self._limit):
                self.take(batch)

    def take(self, batch: list[Intent]) -> None:
        """Applies a batch."""
        try:
            outcome = self._apply(batch)
        except (BarrierError, LedgerError) as error:
            if len(batch) <= 1 or not is_full(error):
                raise
            for part in batches(batch, -(-len(batch) // _PARTS)):  # Its notes need less room.
                self.take(part)
            return
        for intent in batch:
            self._waiting.pop(intent.declaration, None)
        # What a directory target declared that is gone is in no batch.
        done = max(0, len(batch) - len(outcome.unfitting))
        if outcome.unfitting:
            self._waiting |= {each.intent.declaration: each for each in outcome.unfitting}
            self._most = max(self._most, done, len(batch) // _PARTS)
        again = {each.intent.name for each in outcome.unfitting}
        self._failures += (failure for failure in outcome.failures if failure.path not in again)
        self._done += done


def _size(intent: Intent) -> int:
    """Returns the number of bytes that an intent writes at most."""
    return intent.desired.size if isinstance(intent.desired, FileState) else 0
