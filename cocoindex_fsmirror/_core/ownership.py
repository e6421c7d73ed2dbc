"""Ownership: whose bytes are at a path, and what happens to them. Pure.

:func:`judge` gives a verdict on what is there, and one table turns verdict and policy
into a fate. The plan uses it for what a look has found; whoever carries out the plan uses
it again for what a rename has brought out.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Final

from .intents import Intent, OnConflict
from .rows import Row
from .states import ABSENT, Actual, DirState, same_content

__all__ = ["Fate", "Verdict", "fate_of", "judge", "judge_bytes"]


class Verdict(enum.Enum):
    """The owner of the bytes at a path."""

    ABSENT = "nothing is there"
    RIGHT = "the desired bytes are there already"
    OURS = "a version that we wrote"
    FOREIGN = "bytes that we did not write"
    FOLDER = "a directory"


class Fate(enum.Enum):
    """The fate of the bytes at a path where something else is to be, or nothing."""

    NOTHING = "there are none"
    KEEP = "they stay, since they are right"
    DISCARD = "they go for good"
    BACK_UP = "they go to the backup area"
    LEAVE = "they stay; only a path that needs their place fails"
    REFUSE = "they stay, and the path fails"

    @property
    def blocks(self) -> bool:
        """True if the bytes stay where something else should be."""
        return self in (Fate.LEAVE, Fate.REFUSE)


_FATES: Final = {
    Verdict.ABSENT: Fate.NOTHING,
    Verdict.RIGHT: Fate.KEEP,
    Verdict.OURS: Fate.DISCARD,
    Verdict.FOLDER: Fate.LEAVE,
}
_FATES_OF_FOREIGN: Final[dict[OnConflict, Fate]] = {
    "backup": Fate.BACK_UP,
    "overwrite": Fate.DISCARD,
    "error": Fate.REFUSE,
    "keep": Fate.LEAVE,
}


def fate_of(verdict: Verdict, policy: OnConflict) -> Fate:
    """Looks up the fate of bytes.

    Args:
        verdict: Whose they are.
        policy: What to do about foreign ones.
    """
    return _FATES_OF_FOREIGN[policy] if verdict is Verdict.FOREIGN else _FATES[verdict]


def judge(intent: Intent, row: Row | None, actual: Actual) -> Verdict:
    """Tells whose bytes are at a path.

    Args:
        intent: Who asks, and for what.
        row: The last-written state of this very path, if there is one.
        actual: What is there; a regular file with its digest, if it could be read.
    """
    if actual.state is ABSENT:
        return Verdict.ABSENT
    if actual.digest is not None:
        if same_content(intent.desired, actual.state):
            return Verdict.RIGHT
        if row is not None and row.owner == intent.owner and row.digest == actual.digest:
            return Verdict.OURS if row.made else Verdict.FOREIGN
    return judge_bytes(actual, intent.ours)


def judge_bytes(actual: Actual, ours: Collection[bytes | None]) -> Verdict:
    """Tells whose bytes these are, by nothing but the digests of what we wrote."""
    if isinstance(actual.state, DirState):
        return Verdict.FOLDER
    is_ours = actual.digest is not None and actual.digest in ours
    return Verdict.OURS if is_ours else Verdict.FOREIGN
