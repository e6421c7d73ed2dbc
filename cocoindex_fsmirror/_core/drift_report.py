"""The report of a look for drift."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .names import Name
from .owners import Owner
from .rows import Row

__all__ = ["DriftReport"]


class DriftReport(msgspec.Struct, frozen=True):
    """The result of a look for drift.

    Attributes:
        names: Declared paths whose actual state is not the last-written one.
        components: Owner and component of each of them.
        stale: Owners with a path whose drift an earlier update saw, and nobody has healed.
        owners: The owners that the ledger remembers. One that is missing lost its memory.
        refreshed: Rows of files that were touched, but still hold their content.
    """

    names: frozenset[Name] = frozenset()
    components: frozenset[tuple[str, str]] = frozenset()
    stale: frozenset[str] = frozenset()
    owners: Mapping[str, Owner] = {}  # msgspec copies the default.
    refreshed: tuple[Row, ...] = ()
