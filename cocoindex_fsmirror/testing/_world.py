"""The external system of one run, and what is known of it without asking the connector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import cocoindex as coco
from hypothesis.strategies import SearchStrategy

from . import _adapter
from ._adapter import Target, stable
from ._asking import Asking
from ._engine import Asked, Engine
from ._history import Disturb, Fault, Key, Value
from ._same import same
from ._sink import Sink
from ._steps import Outcome, apply_here, apply_in_child, kill
from ._text import ABSENT

__all__ = ["Draw", "Memory", "Promises", "World"]

Draw = Callable[[SearchStrategy[Any]], Any]


class Promises(NamedTuple):
    """Promises of a connector beyond the engine's contract, and the way its process dies."""

    atomic: bool = False
    heals: bool = False
    container: bool = False
    deaths: Literal["raise", "fork"] = "raise"

    def checked(self) -> Promises:
        """Checks the options, and returns them.

        Raises:
            TypeError: One of them is neither true nor false.
            ValueError: There is no such way to die.
        """
        for name in ("atomic", "heals", "container"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}, not True or False")
        if self.deaths not in ("raise", "fork"):
            raise ValueError(f"deaths is {self.deaths!r}, and can be 'raise', 'fork'")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not as by default, by their names as arguments."""
        default = type(self)()._asdict()
        return {name: value for name, value in self._asdict().items() if value != default[name]}


@dataclass
class Memory:
    """The known state of the external system.

    Attributes:
        others: What is there that was never declared.
        finished: What was to be seen after the last update that finished.
        loose: Declared keys where somebody else put or took something since.
        interrupted: Keys with actions that were, or may have been, cut off since.
        is_disturbed: Whether somebody else changed anything since.
    """

    others: dict[Key, Value]
    finished: dict[Key, Value] = field(default_factory=dict)
    loose: set[Key] = field(default_factory=set)
    interrupted: set[Key] = field(default_factory=set)
    is_disturbed: bool = False


class World:
    """An external system, its connector, and the engine that drives it.

    Attributes:
        target: The adapter.
        handler: The handler of the process that runs now.
        engine: The model of the engine.
        memory: What is known.
    """

    def __init__(self, make: Callable[[], Target], promises: Promises) -> None:
        self._make = make
        self.promises = promises
        self.engine = Engine()
        self._sink: Sink | None = None
        self._open()

    def _open(self) -> None:
        """Makes a new, empty external system."""
        self.target = self._make()
        self.restart()
        self.memory = Memory(self.see())

    def close(self) -> None:
        """Gives the external system back."""
        try:
            self._end()
        finally:
            _adapter.close(self.target)

    def _end(self) -> None:
        """Ends the process, if there is one."""
        if self._sink is not None:
            self._sink.close()

    def renew(self) -> None:
        """Destroys the external system, and makes another."""
        self.close()
        self._open()

    def restart(self) -> None:
        """Starts another process."""
        self._end()
        self._sink = Sink(self.target)
        self.handler = Asking(self.target.handler())

    def crash(self) -> None:
        """Kills the process, and starts another one."""
        if self._sink is not None:
            kill(self._sink)
        self.restart()

    def see(self) -> dict[Key, Value]:
        """Returns what is really there."""
        there = self.target.observe()
        return {stable(key, "observe()"): value for key, value in there.items()}

    def to_be_seen(self, key: Key, desired: Value) -> Value:
        """Returns what is to be seen for one declared key."""
        if coco.is_non_existence(desired):
            return ABSENT
        return _adapter.expected(self.target, key, desired)

    def apply(self, planned: Sequence[Asked], fault: Fault | None) -> Outcome:
        """Calls the sink."""
        actions = [asked.output.action for asked in planned if asked.output is not None]
        assert self._sink is not None
        if self.promises.deaths == "fork":
            return apply_in_child(self._sink, actions, fault)
        return apply_here(self._sink, actions, fault, process=self._sink)

    def disturb(self, step: Disturb, draw: Draw) -> tuple[Disturb, dict[Key, Value]]:
        """Changes the external system as somebody else would.

        Returns:
            The step with what was drawn, and what changed, as it is now.
        """
        before, again, drawn = self.see(), list(step.drawn), list[Any]()

        def recorded(strategy: SearchStrategy[Any]) -> Any:
            drawn.append(again.pop(0) if again else draw(strategy))
            return drawn[-1]

        disturb: Callable[[Draw], None] | None = getattr(self.target, "disturb", None)
        if disturb is None:
            raise TypeError("Disturb() needs an adapter with a method disturb(draw)")
        disturb(recorded)
        there, tracked = self.see(), self.engine.tracked
        changed = {
            key: there.get(key, ABSENT)
            for key in {**before, **there}
            if not same(before.get(key, ABSENT), there.get(key, ABSENT))
        }
        others = {key: value for key, value in there.items() if key not in tracked}
        loose = self.memory.loose.union(tracked.intersection(changed))
        self.memory = dataclasses.replace(
            self.memory, others=others, loose=loose, is_disturbed=True
        )
        return Disturb(tuple(drawn)), changed
