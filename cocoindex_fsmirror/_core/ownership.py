"""Ownership: the owner of the bytes at a path, and their fate. Pure.

One table turns a verdict and a policy into a fate. The planner asks it about the bytes that a
look has found, and the batch asks it again about those that a rename has brought out.
:func:`.plan.judge` gives the verdicts. A further policy is also named where it is offered:
by the connector, by ``Mirror.update`` and by ``fsmirror sync``.
"""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias

__all__ = ["Fate", "OnConflict", "Policy", "Verdict", "fate_of"]

OnConflict: TypeAlias = Literal["backup", "overwrite", "error"]
"""The policies for foreign bytes that a declaration can ask for."""
Policy: TypeAlias = OnConflict | Literal["keep"]
"""A policy for foreign bytes. ``keep`` (leave them, without an error) is for teardown only."""


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
_FATES_OF_FOREIGN: Final[dict[Policy, Fate]] = {
    "backup": Fate.BACK_UP,
    "overwrite": Fate.DISCARD,
    "error": Fate.REFUSE,
    "keep": Fate.LEAVE,
}


def fate_of(verdict: Verdict, policy: Policy) -> Fate:
    """Looks up the fate of bytes.

    Args:
        verdict: The owner of the bytes.
        policy: The policy for foreign bytes.
    """
    return _FATES_OF_FOREIGN[policy] if verdict is Verdict.FOREIGN else _FATES[verdict]
