"""Counts what an update declares, where the memories of the engine and the ledger differ.

The engine's database and the ledger can be of different times: either may have been copied, or put
back from a backup. Then every component runs again, all that is declared is counted, and what
nobody has declared by the end of the update goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .._core.names import Name
from .._core.rows import Row
from .engine import Components

__all__ = ["Recount"]


@dataclass
class Recount:
    """The paths that an update declares, to find those that nobody declares any more.

    Attributes:
        besides: Owners that the root's owner has come in the place of.
        is_out_of_step: True if the ledger and the engine's database are of different times, so
            that every component runs in this update.
        names: The paths that were declared.
        components: The components that declared them.
    """

    besides: frozenset[str]
    is_out_of_step: bool
    names: set[Name] = field(default_factory=set)
    components: set[str] = field(default_factory=set)

    def is_declared(self, row: Row, running: Components | None) -> bool | None:
        """True if a path is declared, False if it is not; ``None`` if that can't be told.

        A component that was not run still declares what the engine has recorded for it.

        Args:
            row: The row of the path.
            running: The components that there are; ``None`` if that can't be told.
        """
        if row.name in self.names:
            return True
        if running is None:
            return None
        component = running.get(row.component)
        if component is None:
            return False
        prefix = row.container.replace("//", "/")
        if row.name.removeprefix(prefix) in component.keys:
            return True
        has_failed = self.is_out_of_step and row.component not in self.components
        return None if has_failed or not component.has_succeeded else False
