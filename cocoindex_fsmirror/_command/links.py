"""Links in a source: which are mirrored as links, and which as what they lead to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, TypeAlias

from .._core.names import RESERVED, Name, ancestors, may_lead_out
from .._disk.locations import Location, Root

__all__ = ["LinkPolicy", "Links", "closed_by"]

LinkPolicy: TypeAlias = Literal["keep", "follow", "follow-outside", "skip"]
"""Mirror links as links; as what they lead to: all, or those that may lead out of the source; or
leave them out."""


class Links:
    """The links of a source that are followed.

    Args:
        policy: Which links are followed.
        source: The real path of the source.
        closed: Real paths into which none may lead: those of the mirror and its state.

    Attributes:
        policy: As it was given.
        places: The real paths of the folders that links lead to, by the path of the link.
    """

    def __init__(self, policy: LinkPolicy, source: str, closed: Sequence[str] = ()) -> None:
        self.policy = policy
        self.places: dict[Name, str] = {}
        self._source = source
        self._closed = closed

    def place_of(self, path: Name, target: str) -> str:
        """Returns the real path that a link leads to; empty if it is mirrored as a link.

        Raises:
            ValueError: It leads nowhere, to itself, or into the mirror.
        """
        if self.policy in ("keep", "skip") or (
            self.policy == "follow-outside" and self._stays(path, target)
        ):
            return ""
        try:
            place = os.path.realpath(os.path.join(self._source, path), strict=True)
        except OSError as error:
            raise ValueError(
                f"the link to {target!r} can't be followed: {error.strerror}"
            ) from None
        for closed in self._closed:
            if os.path.commonpath([place, closed]) in (place, closed):
                raise ValueError(f"the link to {target!r} leads to where the mirror is")
        if RESERVED in place.split("/"):
            raise ValueError(f"the link to {target!r} leads into a folder of a mirror")
        return place

    def _stays(self, path: Name, target: str) -> bool:
        """True if a link leads to something in the source, or in a folder that is followed."""
        above = [folder for folder in ancestors(path) if folder in self.places]
        inside = path[len(above[-1]) + 1 :] if above else path
        return not may_lead_out(target, Name(inside))


def closed_by(*roots: Root) -> list[str]:
    """Returns the real paths of mirrors and of their states, into which no link may lead."""
    locations = [Location.of(root) for root in roots if root]
    places = [each for location in locations for each in (location.root, location.spot.path)]
    return [os.path.realpath(each) for each in places]
