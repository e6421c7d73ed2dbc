"""The adapter that a connector's author writes, by which the kit reaches one external system."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol, runtime_checkable

from hypothesis.strategies import SearchStrategy

from ._history import Key, Value

__all__ = ["Target", "checked", "stable"]

_REQUIRED: Final = ("keys", "values", "handler", "apply", "observe")
_OPTIONAL: Final = {
    "expected": ("a key and a value", 2),
    "allows": ("the keys as its only argument", 1),
    "disturb": ("draw as its only argument", 1),
    "close": ("no arguments", 0),
}


@runtime_checkable
class Target(Protocol):
    """One external system, empty at first, and the connector to it.

    A class need not inherit from this, only have these methods. Four more are
    used if they are there:

    - ``expected(key, value)``: what ``observe()`` shows for a declared value, if
      that is not the value itself;
    - ``allows(keys)``: true if a set of keys may be declared together;
    - ``disturb(draw)``: changes the external system behind the connector's back;
      ``draw`` takes a strategy, as in ``hypothesis.strategies.composite``;
    - ``close()``: gives back what the instance holds.
    """

    def keys(self) -> SearchStrategy[Any]:
        """Returns the keys that may be declared; a few that meet again are best."""

    def values(self) -> SearchStrategy[Any]:
        """Returns what may be declared for a key."""

    def handler(self) -> Any:
        """Returns the ``TargetHandler``; called again after every restart.

        What belongs to one process, such as a queue, a worker task or a pool, is
        best made anew with it.
        """

    def apply(self, actions: Sequence[Any], /) -> Awaitable[object] | object:
        """Does what the sink's callback does; may be a coroutine.

        All coroutines of one simulated process run in the same event loop; when the
        process ends, its tasks are cancelled. A connector that keeps its state in
        memory is interrupted where it takes the next of the actions: if it takes all
        of them at once, as in ``sorted(actions)``, that is before it does anything.
        """

    def observe(self) -> Mapping[Any, Any]:
        """Reads what is really there, by key, without the connector's code."""


def checked(make: Callable[[], Target]) -> Callable[[], Target]:
    """Checks a factory of adapters by an instance that it makes, and returns it.

    Raises:
        TypeError: Something is missing or of the wrong kind; all of it is named.
    """
    name = getattr(make, "__qualname__", repr(make))
    given: object = make
    if not callable(given):
        kind = type(given).__name__
        raise TypeError(f"each example makes an adapter anew: give {kind}, not an instance of it")
    if not _takes(make, 0):
        raise TypeError(f"{name} can't be called without arguments to make an adapter")
    target = make()
    try:
        missing = [f"{each}()" for each in _REQUIRED if not callable(getattr(target, each, None))]
        problems = [f"it has no {', '.join(missing)}"] if missing else _problems(target)
    finally:
        close(target)
    if problems:
        raise TypeError(f"{name} is no target adapter: {'; '.join(problems)}")
    return make


def _problems(target: Target) -> list[str]:
    """Lists what an adapter gives that is of the wrong kind."""
    strategies: dict[str, object] = {"keys": target.keys(), "values": target.values()}
    problems = [
        f"{each}() gives {_kind(given)}, not a Hypothesis strategy"
        for each, given in strategies.items()
        if not isinstance(given, SearchStrategy)
    ]
    problems += _problems_of_handler(target.handler())
    if not _takes(target.apply, 1):
        problems.append("apply() does not take the actions as its only argument")
    there: object = target.observe()
    if not isinstance(there, Mapping):
        problems.append(f"observe() gives {_kind(there)}, not a mapping")
    return problems + _problems_of_options(target)


def _problems_of_handler(handler: object) -> list[str]:
    """Lists what is wrong with a handler."""
    if isinstance(handler, type):
        return [f"handler() gives the class {handler.__name__}, not an instance of it"]
    reconcile = getattr(handler, "reconcile", None)
    if not callable(reconcile) or not _takes(reconcile, 4):
        return [
            f"handler() gives {_kind(handler)}, which has no reconcile(key, desired, "
            "prev_possible_records, prev_may_be_missing)"
        ]
    if inspect.iscoroutinefunction(reconcile):
        return [f"handler() gives {_kind(handler)}, whose reconcile() is a coroutine"]
    return []


def _problems_of_options(target: Target) -> list[str]:
    """Lists what is wrong with the optional methods."""
    problems = []
    for name, (arguments, count) in _OPTIONAL.items():
        method = getattr(target, name, None)
        if method is not None and not callable(method):
            problems.append(f"{name} is {_kind(method)}, not a method")
        elif method is not None and not _takes(method, count):
            problems.append(f"{name}() must take {arguments}")
    return problems


def _kind(thing: object) -> str:
    """Names the type of a value, for a message."""
    return f"a {type(thing).__name__}"


def _takes(function: Callable[..., object], count: int) -> bool:
    """True if a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # Written in C, and does not say what it takes.
        return True
    return True


def close(target: Target) -> None:
    """Closes an instance that can be closed."""
    method = getattr(target, "close", None)
    if callable(method) and _takes(method, 0):
        method()


def expected(target: Target, key: Key, value: Value) -> Value:
    """Returns what is to be seen for a declared value."""
    method = getattr(target, "expected", None)
    return method(key, value) if callable(method) else value


def allows(target: Target) -> Callable[[AbstractSet[Key]], bool]:
    """Returns a check of keys: true if they may be declared together."""
    method = getattr(target, "allows", None)

    def allowed(keys: AbstractSet[Key]) -> bool:
        answer = method(keys) if callable(method) else True
        if not isinstance(answer, bool):
            raise TypeError(f"allows() gives {answer!r}, not True or False")
        return answer

    return allowed


def stable(key: Key, source: str = "keys()") -> Key:
    """Returns a key as it comes back from the engine, where a named tuple is a tuple.

    Args:
        key: The key.
        source: Who gives it.

    Raises:
        TypeError: The engine takes no such key.
    """
    if isinstance(key, tuple):
        return tuple(stable(part, source) for part in key)
    if key is None or isinstance(key, bool | int | str | bytes | uuid.UUID):
        return key
    if type(key).__module__.startswith("cocoindex"):  # A symbol.
        return key
    raise TypeError(f"{source} gives {key!r}: {_kind(key)} is no key of the engine")
