"""Counts what an update declares, where the memories of the engine and the ledger differ.

The engine's database and the ledger can be of different times: either may have been copied, or put
back from a backup. Then every component runs again, all that is declared is counted, and what
nobody has declared by the end of the update goes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from .._core.names import Name
from .._core.rows import Displaced, Row
from .._core.text import external
from .engine import Components, path_of

__all__ = ["Recount"]


@dataclass
class Recount:
    """The paths that an update declares, to find those that nobody declares any more.

    Attributes:
        besides: Owners that the root's owner has come in the place of.
        is_out_of_step: True if the ledger and the engine's database are of different times, so
            that every component runs in this update.
        names: The paths that were declared, each with the containers that it was declared in.
        components: The components that declared them.
    """

    besides: frozenset[str]
    is_out_of_step: bool
    names: dict[Name, set[str]] = field(default_factory=dict)
    components: set[str] = field(default_factory=set)

    def is_declared(self, row: Row | Displaced, apps: Collection[Components]) -> bool | None:
        """True if a path is declared, False if it is not; ``None`` if that can't be told.

        A component that was not run still declares what the engine has recorded for it.

        Args:
            row: The row of the path, or the note of a declaration of it that gave way.
            apps: The components of each app that declares the root; none if they can't be told.
        """
        containers = self.names.get(row.name)
        if containers and (isinstance(row, Row) or row.container in containers):
            return True
        verdicts = [self._declares(running, row) for running in apps]
        return True if True in verdicts else None if None in (verdicts or [None]) else False

    def _declares(self, running: Components, row: Row | Displaced) -> bool | None:
        """True if an app declares a path, False if not; ``None`` if that can't be told."""
        component = running.get(row.component)
        if component is None:
            return False
        *targets, _ = row.container.split("//")
        own = row.name.removeprefix(row.container.replace("//", "/"))
        if path_of(map(external, (*targets, own))) in component.paths:
            return True
        has_failed = self.is_out_of_step and row.component not in self.components
        return None if has_failed or not component.has_succeeded else False
