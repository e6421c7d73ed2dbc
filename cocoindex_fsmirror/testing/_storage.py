"""Stores records and calls handlers by the engine's private code, which only this module uses.

No copy of that code would do: the form in which a record comes back depends on the annotation
of the handler's ``reconcile`` and on rules of the engine that may change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from cocoindex._internal.serde import serialize
from cocoindex._internal.target_state import _TypedTargetHandlerWrapper

__all__ = ["DELETED", "Stored", "TypedHandler", "serialize", "typed"]

DELETED: Final = None
"""Stands among stored records where a state may not exist."""


class Stored:
    """A record as it is in the engine's database."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stored) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    def get(self, deserialize: Callable[[bytes], Any]) -> Any:
        """Returns the record; the engine's wrapper of a handler calls this."""
        return deserialize(self.content)


class TypedHandler(Protocol):
    """A handler as the engine calls it: with stored records."""

    tracks_value_fingerprint: bool

    def reconcile(
        self, key: Any, desired: Any, records: list[Stored], may_be_missing: bool, /
    ) -> Any:
        """Decides what a key needs."""


class _Typed:
    """A handler in the engine's wrapper, which brings records back to their types."""

    def __init__(self, handler: object) -> None:
        self._wrapped = _TypedTargetHandlerWrapper(handler)
        self.tracks_value_fingerprint: bool = getattr(
            self._wrapped, "tracks_value_fingerprint", False
        )

    def reconcile(
        self, key: Any, desired: Any, records: list[Stored], may_be_missing: bool, /
    ) -> Any:
        """Decides what a key needs."""
        return self._wrapped.reconcile(key, desired, records, may_be_missing)

    def restored(self, record: Stored) -> object:
        """Rebuilds a record that was stored."""
        return record.get(self._wrapped._deserializer)  # noqa: SLF001


def typed(handler: object) -> _Typed:
    """Makes a handler ready to be called with stored records."""
    return _Typed(handler)
