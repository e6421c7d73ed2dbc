"""Updates of the kit's histories on its model of the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from hypothesis import strategies as st

from cocoindex_fsmirror.testing import Delivery, History, Update
from cocoindex_fsmirror.testing._engine import Asked, Attempt
from cocoindex_fsmirror.testing._text import ABSENT
from cocoindex_fsmirror.testing._updating import Updating
from cocoindex_fsmirror.testing._world import Promises, World
from tests.kit.real_engine import is_poisoned
from tests.kit.recording import REMOVED, TOGETHER, Kind, Recording, Turn, make_handler


class Shelf:
    """An adapter with nothing to judge: it only records."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.recording = Recording()

    def keys(self) -> st.SearchStrategy[str]:
        return st.just("")

    values = keys

    def handler(self) -> Any:
        return make_handler(self._kind, self)

    def apply(self, actions: Sequence[Any]) -> None:
        for _ in actions:
            pass  # To take the next one is a step.

    def observe(self) -> dict[str, str]:
        return {}

    def expected(self, _key: str, _value: str) -> object:
        return ABSENT


class Watched(Updating):
    """An update of the model that reports the turns of components, and deliveries."""

    def _precommit(self, name: str) -> Attempt:
        mounted = TOGETHER if self._step.together else name
        recording_of(self._world).begin(mounted if name in self._step.declared else REMOVED)
        return super()._precommit(name)

    def _deliver(self, planned: list[Asked]) -> bool:
        actions = [asked.output.action.text for asked in planned if asked.output is not None]
        recording_of(self._world).delivers(actions)
        return super()._deliver(planned) and not is_poisoned(actions)


class ModelEngine:
    """The model, which goes through the same updates."""

    def __init__(self, kind: Kind) -> None:
        shelf = Shelf(kind)  # One for all: it has no state that a new container would lose.
        self._world = World(lambda: shelf, Promises(container=True))

    def update(self, step: Update) -> tuple[str, list[Turn]]:
        """Takes a step; returns the end of the update and its recording."""
        updating = Watched(self._world, step)
        updating.run()
        if updating.died:
            self._world.restart()
        ended = "dies" if updating.died else updating._ended
        return ended, recording_of(self._world).take()


def recording_of(world: World) -> Recording:
    """Returns the recording of a model."""
    return cast("Shelf", world.target).recording


_Declared: TypeAlias = Mapping[str, Mapping[str, str]]


def taken_in_turn(history: History) -> Iterator[Update]:
    """Returns the updates of a history in an order that both engines can follow."""
    known: set[str] = set()
    for step in history:
        if isinstance(step, Update):
            removed = known - step.declared.keys()
            # The engine deletes components at once, and a fault would strike any of them.
            stays: _Declared = {min(removed): {}} if len(removed) > 1 and step.fault else {}
            declared: _Declared = {**step.declared, **stays}
            known |= declared.keys()
            yield dataclasses.replace(
                step, declared=declared, together=False, delivery=Delivery.ONCE
            )
