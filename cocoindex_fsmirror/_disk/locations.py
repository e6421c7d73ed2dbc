"""Locations: where the root of a mirror is, and where its state folder.

As a rule that is ``<root>/.fsmirror``. It may also be in a *state directory*, together with those
of other roots, each named after the way from that directory to its root: so a project that is
moved or copied with both finds it again, and no copy finds that of its original.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple, Self, TypeAlias

from .._core.errors import RootError
from .._core.names import RESERVED
from .._core.states import digest_of
from .._core.text import encoded
from .ours import Spot

__all__ = ["Location", "Root", "is_state_folder"]

_LONGEST: Final = 60  # characters of the name of a root in that of its state folder


class Location(NamedTuple):
    """The place of a mirror, as it is declared; a path-like object for its root.

    Attributes:
        root: The absolute path of the root.
        state: The absolute path of the state directory; empty if the state folder is in the root.
        former: State directories, or an empty path for the root, from where the state folder
            moves if it is still there; ``None`` if this is no declaration, and nothing moves.
        is_noted: True to leave a note in the root that tells the state directory, False to
            leave none, and ``None`` to change nothing.
    """

    root: str
    state: str = ""
    former: tuple[str, ...] | None = None
    is_noted: bool | None = None

    @classmethod
    def of(cls, root: Root) -> Self:
        """Returns the location of a root that is told by its path, if it is not one already."""
        return root if isinstance(root, cls) else cls(str(root))

    @classmethod
    def named(cls, root: str, state: str) -> Self:
        """Returns the location of a root whose state directory somebody has named.

        Args:
            root: The absolute path of the root.
            state: The absolute path of the state directory; empty, or that of the root or of
                the ``.fsmirror`` in it, for the root itself.

        Raises:
            RootError: The state directory is inside of the root.
        """
        real, inside = os.path.realpath(root), os.path.realpath(state) if state else ""
        if not inside or inside in (real, os.path.join(real, RESERVED)):
            return cls(root)
        lexical = os.path.join(os.path.abspath(root), "")
        if inside.startswith(os.path.join(real, "")) or state.startswith(lexical):
            problem = f"can't have its state in {state}, which is inside of it"
            raise RootError(root, problem, "name a directory outside, or the root itself")
        return cls(root, state)

    def declared(self, former: tuple[str, ...], *, is_noted: bool | None) -> Self:
        """Returns the location as that of a mirror whose state folder may have to move there."""
        return self._replace(former=former, is_noted=is_noted)

    @property
    def spot(self) -> Spot:
        """The place of the state folder, as it is declared."""
        if not self.state:
            return Spot(self.root, RESERVED)
        root = os.path.realpath(self.root)
        way = os.path.relpath(root, os.path.realpath(self.state))
        shown = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(root))[:_LONGEST]
        return Spot(self.state, f"{shown}-{digest_of(encoded(way)).hex()}")

    def at(self, state: str) -> Self:
        """Returns the location with another state directory, or an empty path for the root."""
        return self._replace(state=state)

    def __fspath__(self) -> str:
        return self.root

    def __str__(self) -> str:
        return self.root


def is_state_folder(name: str) -> bool:
    """True if a folder in a state directory may have this name."""
    return re.fullmatch(r".+-[0-9a-f]{32}", name) is not None


Root: TypeAlias = str | Location
"""The root of a mirror: a path, if its state folder is in it, or its location."""
