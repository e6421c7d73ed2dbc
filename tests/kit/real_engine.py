"""Updates of the kit's histories on a real app."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import cocoindex as coco

from cocoindex_fsmirror.testing import Fault, Update
from tests.kit.recording import PLUGS, REMOVED, ROOTS, TOGETHER, Kind, Recording
from tests.target.flows import BoomError

_LONG: Final = 30.0  # Seconds; never waited for unless something is broken.


class Database:
    """A database of the engine, for any number of apps."""

    def __init__(self, at: Path) -> None:
        self.failed: list[str] = []
        self.env = coco.Environment(
            coco.Settings(db_path=at),
            exception_handler=lambda error, _: self.failed.append(str(error)),
        )


class RealEngine:
    """A real app, which goes through updates of the kit.

    Its process dies by ``really_dies``. Without it, a death is an exception after which
    nothing more is asked or remembered.

    Attributes:
        first: The actions of the first batch of the last update, in their order.
        grace: How long components have to stand in line after they have reconciled, in
            seconds. Whether they made it is for ``first`` to say.
    """

    def __init__(
        self,
        database: Database,
        kind: Kind,
        name: str = "app",
        really_dies: Callable[[], NoReturn] | None = None,
    ) -> None:
        self.kind = kind
        self.recording = Recording()
        self.step = Update({})
        self._calls = 0
        self._is_dead = self._has_kept_some = False
        self.first: list[str] = []
        self.grace = 0.1
        self._really_dies = really_dies
        self._failed = database.failed
        self._app = coco.App(coco.AppConfig(name, environment=database.env), _main, self)

    def update(self, step: Update) -> str:
        """Takes a step; returns if the update finishes, fails or dies."""
        self.step, self._calls = step, 0
        self._is_dead = self._has_kept_some = False
        self._failed.clear()
        try:
            self._app.update_blocking(full_reprocess=step.full_reprocess)
        except Exception as error:
            self._failed.append(str(error))
        strange = [said for said in self._failed if "injected" not in said]
        assert not strange, strange
        if self._is_dead:
            return "dies"
        return "fails" if self._failed or self._has_kept_some else "finishes"

    async def run(self) -> None:
        """Runs the app."""
        container = await coco.mount_target(ROOTS.target_state("root", self))
        await (self._at_once(container) if self.step.together else self._in_turn(container))
        self.recording.begin(REMOVED)

    async def _in_turn(self, container: Any) -> None:
        """Mounts the components one after another, whatever their end."""
        for name, states in self.step.declared.items():
            self.recording.begin(name)
            handle = await coco.mount(coco.component_subpath(name), _declare, container, states)
            await handle.ready()
            if self._is_dead:
                raise BoomError("injected")

    async def _at_once(self, container: Any) -> None:
        """Mounts all components while the sink is held up, so that they come in one batch."""
        self.recording.begin(TOGETHER)
        self._is_held, self._may_go = threading.Event(), threading.Event()
        handles = [await coco.mount(coco.component_subpath("plug"), _plug, self)]
        await asyncio.to_thread(self._is_held.wait, _LONG)
        for name, states in self.step.declared.items():
            path = coco.component_subpath(name)
            handles.append(await coco.mount(path, _declare, container, states))
        for handle in handles:
            await handle.ready()

    def hold(self) -> None:
        """Holds the sink until all have reconciled, and a little until they stand in line."""
        self._is_held.set()
        keys = {key for states in self.step.declared.values() for key in states}
        asked, until = self.recording.turns[-1].asked, time.monotonic() + _LONG
        while any(key not in asked for key in keys) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(self.grace)

    def apply(self, actions: list[str]) -> None:
        """Applies the actions in the container; the sink."""
        self.recording.delivers(actions)
        fault, number = self.step.fault, self._calls
        self._calls += 1
        if number == 0:
            self.first = actions
        if fault is not None and fault.batch == number and strikes(fault, len(actions)):
            self._is_dead = fault.kind == "dies"
            if self._is_dead and self._really_dies is not None:
                self._really_dies()
            self._fail()
        if is_poisoned(actions):
            self._fail()

    def _fail(self) -> NoReturn:
        """Raises in the sink; the engine only logs that a component could not be deleted."""
        self._has_kept_some = self.recording.turns[-1].component == REMOVED
        raise BoomError("injected")


def strikes(fault: Fault, actions: int) -> bool:
    """True if a fault happens in a batch, whose only steps are its actions."""
    return fault.where != "inside" or fault.step < actions or fault.kind == "dies"


def is_poisoned(actions: Collection[str]) -> bool:
    """True if a batch fails whenever it is tried, by an action or by its size."""
    crowd = sum("crowd" in action for action in actions)
    return crowd > 3 or any("poison" in action for action in actions)


async def _main(engine: RealEngine) -> None:
    """Runs the flow; the main function of the app."""
    await engine.run()


def _declare(container: Any, states: Mapping[str, str]) -> None:
    """Declares the values of a component."""
    for key, value in states.items():
        coco.declare_target_state(container.target_state(key, value))


def _plug(engine: RealEngine) -> None:
    """Declares the plug, whose action comes before those of the others."""
    coco.declare_target_state(PLUGS.target_state("plug", engine))
