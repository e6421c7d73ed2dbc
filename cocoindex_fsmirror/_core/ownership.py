"""Ownership: the owner of the bytes at a path, and their fate. Pure.

One table turns a verdict and a policy into a fate. The planner asks it about the bytes that a
look has found, and the batch asks it again about those that a rename has brought out.
:func:`.plan.judge` gives the verdicts. A further policy is also named where it is offered:
by the connector, by ``Mirror.update`` and by ``fsmirror sync``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "INHERITED",
    "NO_COPIES",
    "CopyPolicy",
    "Fate",
    "OnConflict",
    "Policies",
    "Policy",
    "PolicyTable",
    "Verdict",
    "fate_of",
]

OnConflict: TypeAlias = Literal["backup", "overwrite", "error"]
"""The policies for foreign bytes that a declaration can ask for."""
Policy: TypeAlias = OnConflict | Literal["keep", "save"]
"""A policy for foreign bytes. ``keep`` (leave them, without an error) is for teardown only;
``save`` backs up what we wrote as well, and is for paths that go."""
CopyPolicy: TypeAlias = Literal["auto", "all", "none"]
"""The contents that are kept to restore a path from: those that cost little room, all, or none."""


class Policies(NamedTuple):
    """The policies of what one directory target declares, by which its drift is healed.

    One that is ``None`` is that of the directory target above.
    """

    copies: CopyPolicy | None = None
    on_conflict: OnConflict | None = None


INHERITED: Final = Policies()
"""The policies of a directory target that has none of its own."""
NO_COPIES: Final = Policies("none", "backup")
"""The policies of who has told none."""


class PolicyTable:
    """The policies of all directory targets, with those that they inherit.

    Args:
        told: What each has told, by owner and container.
    """

    def __init__(self, told: Mapping[tuple[str, str], Policies]) -> None:
        self._told = told
        self._copies: dict[tuple[str, str], CopyPolicy] = {}  # It is asked for each row.
        self.keeps_copies = any(each.copies not in {None, "none"} for each in told.values())

    def told(self, owner: str, container: str) -> Policies:
        """Returns what a directory target has told itself."""
        return self._told.get((owner, container), INHERITED)

    def changed(self, owner: str, told: Mapping[str, Policies]) -> PolicyTable:
        """Returns the table for when an owner's directory targets have told something else."""
        return PolicyTable({**self._told, **{(owner, at): each for at, each in told.items()}})

    def copies(self, owner: str, container: str) -> CopyPolicy:
        """Returns which contents of a directory target are copied."""
        key = owner, container
        if key not in self._copies:
            found = (each.copies for each in self._upwards(owner, container) if each.copies)
            self._copies[key] = next(found)
        return self._copies[key]

    def on_conflict(self, owner: str, container: str) -> OnConflict:
        """Returns what is done with foreign bytes in a directory target."""
        found = (each.on_conflict for each in self._upwards(owner, container) if each.on_conflict)
        return next(found)

    def _upwards(self, owner: str, container: str) -> Iterator[Policies]:
        """Yields what a directory target has told, and each above it; at last the defaults."""
        yield self.told(owner, container)
        while container:
            container = "".join(container.removesuffix("//").rpartition("//")[:2])
            yield self.told(owner, container)
        yield NO_COPIES


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
    "save": Fate.BACK_UP,
}


def fate_of(verdict: Verdict, policy: Policy) -> Fate:
    """Looks up the fate of bytes.

    Args:
        verdict: The owner of the bytes.
        policy: The policy for foreign bytes.
    """
    is_saved = verdict is Verdict.OURS and policy == "save"
    is_foreign = verdict is Verdict.FOREIGN or is_saved
    return _FATES_OF_FOREIGN[policy] if is_foreign else _FATES[verdict]
