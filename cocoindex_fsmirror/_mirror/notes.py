"""The notes of what a batch is about to do, packed for the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from .._core.names import Name
from .._core.rows import Row
from .formats import CorruptLedgerError

__all__ = ["Pending", "packed", "unpacked"]

_MOST: Final = 2048  # notes that are packed into one value; they are only read all together


class Pending(msgspec.Struct, frozen=True, gc=False):
    """An intent that was written down before its step: what a crash may have left.

    ``home`` and ``entry`` tell the slot in the staging area of ``batch``;
    ``row`` is what the path should hold afterwards, unless it is a ``removal``.
    """

    batch: str
    home: Name
    entry: str
    removal: bool
    row: Row


_Notes: TypeAlias = list[tuple[Name, str, bool, Row]]
"""The fields of each note without its batch."""


def packed(intents: Sequence[Pending]) -> Iterator[tuple[str, str, bytes]]:
    """Yields batch, owner and packed notes: an owner's can be dropped without being read."""
    by_owner: defaultdict[tuple[str, str], _Notes] = defaultdict(list)
    for note in intents:
        key = note.batch, note.row.owner
        by_owner[key].append((note.home, note.entry, note.removal, note.row))
    for (batch, owner), notes in by_owner.items():
        for start in range(0, len(notes), _MOST):
            yield batch, owner, msgspec.msgpack.encode(notes[start : start + _MOST])


def unpacked(batch: str, notes: bytes) -> list[Pending]:
    """Unpacks notes of a batch.

    Raises:
        CorruptLedgerError: They are none.
    """
    try:
        # Not strict: a row that was read from the ledger has 0 and 1 for its booleans.
        found = msgspec.msgpack.decode(notes, type=_Notes, strict=False)
    except (msgspec.DecodeError, TypeError) as error:
        raise CorruptLedgerError(f"holds an intent that can't be read: {error}") from error
    return [Pending(batch, *note) for note in found]
