"""A model of the engine's commit protocol, for the target states of one container.

It is checked against the real engine: where they differ, it is wrong. What an app
goes through for each of its components, with the names that the engine has for it:

1. *precommit*: reconcile the keys that are declared, and those that were, against the
   tracked states; add the new states to them, and remember all that;
2. *apply*: hand the actions to the sink;
3. *commit*: only now drop the states that are no longer true.

After a crash between 1 and 3 several states may be true. Each has the version of the
attempt that added it, or that last found nothing to do; a commit keeps those of its own
version. A state that may not exist at all is tracked as ``DELETED``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import cocoindex as coco
from cocoindex.connectorkits.fingerprint import fingerprint_object

from ._history import Key, Value
from ._storage import DELETED, Stored, TypedHandler, serialize

__all__ = ["Asked", "Attempt", "Engine"]

_Invalidation: TypeAlias = Literal["lossy", "destructive"] | None
_FIRST: Final = 1


class Asked(NamedTuple):
    """One call of reconcile, and its answer.

    ``desired`` is ``coco.NON_EXISTENCE`` for a key that is no longer declared, and
    ``output`` is ``None`` where there was nothing to do.
    """

    key: Key
    desired: Value
    records: list[Stored]
    may_be_missing: bool
    output: coco.TargetReconcileOutput[Any, Any] | None


@dataclass(slots=True)
class _State:
    """One state that a key may be in."""

    version: int
    record: bytes | None  # DELETED


@dataclass(slots=True)
class _Item:
    """The tracked states of one key, with the container and its schema that they belong to."""

    container: int
    states: list[_State] = field(default_factory=list)
    schema: int = 0

    def copy(self) -> _Item:
        """Copies the states, as older than any version of the component that takes them over."""
        return _Item(self.container, [_State(0, s.record) for s in self.states], self.schema)


@dataclass(slots=True)
class _Component:
    """The tracked states of one component."""

    version: int = 0
    items: dict[Key, _Item] = field(default_factory=dict)


@dataclass
class Attempt:
    """One component between its precommit and its commit."""

    component: str
    version: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def acted(self) -> list[Asked]:
        """Those that need an action, in the order in which the sink gets them."""
        return [asked for asked in self.asked if asked.output is not None]


class Engine:
    """The memory of the engine, which survives a crash of the process."""

    def __init__(self) -> None:
        self._components: dict[str, _Component] = {}
        self._container = 0
        self._schema = 0

    @property
    def components(self) -> list[str]:
        """The components that are tracked."""
        return list(self._components)

    def owned(self, component: str) -> set[Key]:
        """Lists the keys that a component owns."""
        known = self._components.get(component)
        return set(known.items) if known is not None else set()

    @property
    def tracked(self) -> set[Key]:
        """The keys for which a state is tracked."""
        return {key for known in self._components.values() for key in known.items}

    def mount(self, invalidation: _Invalidation = None) -> None:
        """Reconciles and applies the container, before everything in it."""
        if invalidation == "destructive":
            self._container, self._schema = self._container + 1, 0
        elif invalidation == "lossy":
            self._schema += 1

    def precommit(
        self,
        component: str,
        declared: Mapping[Key, Value],
        handler: TypedHandler,
        *,
        full_reprocess: bool = False,
    ) -> Attempt:
        """Reconciles a component, and remembers what may be true from now on."""
        known = self._components.setdefault(component, _Component())
        known.version += 1
        attempt = Attempt(component, known.version)
        for key, value in declared.items():
            item = self._take_over(component, key)
            asked = self._ask(handler, key, value, item, full_reprocess)
            attempt.asked.append(asked)
            if item is None and _creates(asked):
                item = _Item(self._container, [_State(0, DELETED)])
            if item is not None:
                _note(item, asked, known.version)
                known.items[key] = item
        for key in [key for key in known.items if key not in declared]:
            item = known.items[key]
            if item.container == self._container:
                asked = self._ask(handler, key, coco.NON_EXISTENCE, item, full_reprocess)
                attempt.asked.append(asked)
                _note(item, asked, known.version)
        return attempt

    def commit(self, attempt: Attempt) -> None:
        """Forgets what is no longer true, after the sink has returned."""
        known = self._components[attempt.component]
        for key, item in list(known.items.items()):
            item.states = [state for state in item.states if _lasts(state, attempt.version)]
            item.schema = self._schema
            if not item.states:
                del known.items[key]

    def end(self, component: str) -> None:
        """Forgets a component that was removed, after its last commit."""
        self._components.pop(component, None)

    def plan(
        self, declared: Mapping[str, Mapping[Key, Value]], handler: TypedHandler
    ) -> Iterator[Asked]:
        """Plans what an update would do with what components own already; remembers nothing."""
        for component, states in declared.items():
            known = self._components.get(component, _Component())
            for key, value in states.items():
                yield self._ask(handler, key, value, known.items.get(key), False)
            for key in known.items.keys() - states.keys():
                yield self._ask(handler, key, coco.NON_EXISTENCE, known.items[key], False)

    def _take_over(self, component: str, key: Key) -> _Item | None:
        """Takes over what is tracked of a key, also from another component."""
        own = self._components[component].items.get(key)
        if own is not None:
            return own if own.container == self._container else None
        for other in self._components.values():
            item = other.items.pop(key, None)
            if item is not None:
                return item.copy() if item.container == self._container else None
        return None

    def _ask(
        self,
        handler: TypedHandler,
        key: Key,
        value: Value,
        item: _Item | None,
        full_reprocess: bool,
    ) -> Asked:
        """Calls reconcile, unless the handler has promised what it would say."""
        states = item.states if item is not None else []
        records = [Stored(state.record) for state in states if state.record is not DELETED]
        may_be_missing = (
            full_reprocess
            or item is None
            or item.schema != self._schema
            or any(state.record is DELETED for state in states)
        )
        asked = Asked(key, value, records, may_be_missing, None)
        if handler.tracks_value_fingerprint and not may_be_missing and value_is(value, records):
            return asked
        return asked._replace(output=handler.reconcile(key, value, records, may_be_missing))


def value_is(value: Value, records: list[Stored]) -> bool:
    """True if each record is the fingerprint of the value, for handlers that promise that."""
    if coco.is_non_existence(value):
        return False
    wanted = serialize(fingerprint_object(value))
    return all(record.content == wanted for record in records)


def _note(item: _Item, asked: Asked, version: int) -> None:
    """Adds the state that an action leads to; or confirms those that need none."""
    if asked.output is None:
        for state in item.states:
            state.version = version
        return
    record = asked.output.tracking_record
    item.states.append(
        _State(version, DELETED if coco.is_non_existence(record) else serialize(record))
    )


def _creates(asked: Asked) -> bool:
    """True if there is something to track from now on."""
    return asked.output is not None and not coco.is_non_existence(asked.output.tracking_record)


def _lasts(state: _State, version: int) -> bool:
    """True if a state still holds after a commit."""
    return state.version == version and state.record is not DELETED
