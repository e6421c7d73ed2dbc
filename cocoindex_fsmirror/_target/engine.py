"""Differences between the releases of the engine that we support, and its threads."""

from __future__ import annotations

import ctypes
import inspect
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import cocoindex as coco

__all__ = [
    "HAS_CHILD_FACTORY",
    "RETRIES_IN_PARTS",
    "component_in_use",
    "database_in_use",
    "is_live",
    "make_sink",
    "stay_attached",
]

_ActionT = TypeVar("_ActionT")

HAS_CHILD_FACTORY: Final = (
    "child_handler" in inspect.signature(coco.TargetActionSink.from_fn).parameters
)
"""True if a sink takes a factory for the handlers of children (from 1.0.23), which
preview needs. Before, the sink returned a ``ChildTargetDef`` for each action."""

RETRIES_IN_PARTS: Final = HAS_CHILD_FACTORY
"""True if the engine tries parts of a batch that failed (from 1.0.23)."""

# The types of the engine's context provider and handlers are not public.
_Apply = Callable[[Any, Sequence[_ActionT]], None]
_ChildHandler = Callable[[Any, _ActionT], Any]


def database_in_use() -> str:
    """Returns the path of the engine's database that is being updated; empty if unknown."""
    try:
        # No release has a public way to ask for it.
        settings = coco.get_component_context()._env.settings  # noqa: SLF001
    except (AttributeError, LookupError, RuntimeError):
        return ""
    return str(settings.db_path or "")


def component_in_use() -> str:
    """Returns the path of the component that calls; empty outside of one."""
    try:
        return str(coco.get_component_context())
    except RuntimeError:
        return ""


def is_live() -> bool:
    """True if the update goes on, and follows changes; false if that is unknown."""
    try:
        # Nor for this.
        return coco.get_component_context()._core_processor_ctx.live  # noqa: SLF001
    except (AttributeError, RuntimeError):
        return False


_MOST_ATTACHED: Final = 128


_thread = threading.local()
_attached = itertools.count()


def stay_attached() -> None:
    """Keeps the calling thread's ``PyThreadState`` alive between calls.

    The engine's threads are not Python's: CPython makes a thread state for every call from
    one, with a stack that is mapped and unmapped again, and destroys it afterwards. That is
    8 us, twice for each file. A thread that holds one reference more keeps its state, and its
    ``threading.local`` values, as the threads of a pool do. The reference is never given back,
    because nobody tells us when such a thread ends; hence only the first threads hold one, for
    5 KB each.

    The one trick of this kind: it takes a fifth off a first run, more than the tenth that
    a trick has to be worth (``benchmarks/README.md`` has the measurement).
    """
    if not hasattr(_thread, "is_attached") and next(_attached) < _MOST_ATTACHED:
        _thread.is_attached = True
        ctypes.pythonapi.PyGILState_Ensure()


def make_sink(
    apply: _Apply[_ActionT], child_handler: _ChildHandler[_ActionT]
) -> coco.TargetActionSink[_ActionT]:
    """Makes a synchronous sink that knows the handlers of the children of containers.

    Args:
        apply: Carries out a batch of actions.
        child_handler: Returns the handler of the children of a container; ``None`` for an
            action that neither creates nor updates one.
    """
    if HAS_CHILD_FACTORY:
        return coco.TargetActionSink.from_fn(apply, child_handler=child_handler)

    def apply_and_define(
        context_provider: Any, actions: Sequence[_ActionT]
    ) -> list[coco.ChildTargetDef[Any] | None]:
        apply(context_provider, actions)
        handlers = (child_handler(context_provider, action) for action in actions)
        return [h if h is None else coco.ChildTargetDef(handler=h) for h in handlers]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.TargetActionSink.from_fn(apply_and_define)
