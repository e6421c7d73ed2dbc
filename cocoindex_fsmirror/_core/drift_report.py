"""The report of a look for drift."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from msgspec.structs import replace

from .names import Name
from .owners import Owner
from .rows import Row

__all__ = ["DriftReport"]


class DriftReport(msgspec.Struct, frozen=True):
    """The result of a look for drift.

    Attributes:
        names: Declared paths whose actual state is not the last-written one.
        components: Owner and component of each of them that only its owner can restore.
        healable: The other ones, of which a copy is kept, with owner and component.
        stale: Owners with a path whose drift an earlier update saw, and nobody has healed.
        owners: The owners that the ledger remembers. One that is missing lost its memory.
        refreshed: Rows of files that were touched, but still hold their content.
    """

    names: frozenset[Name] = frozenset()
    components: frozenset[tuple[str, str]] = frozenset()
    healable: Mapping[Name, tuple[str, str]] = {}  # msgspec copies the default.
    stale: frozenset[str] = frozenset()
    owners: Mapping[str, Owner] = {}  # msgspec copies the default.
    refreshed: tuple[Row, ...] = ()

    def needs_owner(self, name: Name) -> bool:
        """True if a path has drifted, and only its owner can restore it."""
        return name in self.names and name not in self.healable

    def after(self, healed: Collection[str]) -> DriftReport:
        """Returns the report for when paths were healed; the other ones need their owners.

        Args:
            healed: The paths.
        """
        left = (each for name, each in self.healable.items() if name not in healed)
        names, components = self.names.difference(map(Name, healed)), self.components.union(left)
        return replace(self, names=names, components=components, healable={})
