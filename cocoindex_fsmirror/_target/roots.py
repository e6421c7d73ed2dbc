"""Registers our root provider with the engine, as soon as both are imported.

The engine removes what an undeclared root had declared only if a provider of its name is
registered, also in a process that does not use the target. The real handler is loaded when the
engine first asks it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import cocoindex as coco

from .records import PROVIDER, Record

__all__ = ["ROOTS"]


class _Roots(coco.TargetHandler[Any, Record, Any]):
    """Loads the handler of root directories at its first use: its import takes 0.1 seconds."""

    def reconcile(
        self, key: coco.StableKey, declared: Any, previous: Collection[Record], missing: bool, /
    ) -> coco.TargetReconcileOutput[Any, Record, Any] | None:
        """Calls the real handler."""
        from .handlers import RootHandler  # noqa: PLC0415

        return RootHandler().reconcile(key, declared, previous, missing)


ROOTS = coco.register_root_target_states_provider(PROVIDER, _Roots())
