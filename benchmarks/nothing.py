"""A target that does nothing, with the interface of a directory: the floor for a flow.

A flow with it takes the time of the engine and of its own code. It saves what a target can save
of the engine's time, as ours does; otherwise it would be no floor.
"""

from __future__ import annotations

import inspect
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, Final

import cocoindex as coco

from cocoindex_fsmirror._target.engine import stay_attached

__all__ = ["DirTarget", "mount_dir_target"]

_RECORD = 40  # bytes, about as much as others remember; the files differ in their first ones


def _apply(_context: Any, _actions: Sequence[Any]) -> None:
    pass


def _apply_and_define(_context: Any, actions: Sequence[Any]) -> list[Any]:
    """Yields the handlers of directories, before 1.0.23."""
    definition: Any = coco.ChildTargetDef
    return [definition(handler=_Handler(_FILES)) if stays else None for _, stays in actions]


def _child_handler(_context: Any, _action: Any) -> _Handler:
    return _Handler(_FILES)


def _sink_of_directories() -> coco.TargetActionSink[Any]:
    """Makes the sink that hands out the handler of files, in the way of the installed engine."""
    if "child_handler" in inspect.signature(coco.TargetActionSink.from_fn).parameters:
        return coco.TargetActionSink.from_fn(_apply, child_handler=_child_handler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.TargetActionSink.from_fn(_apply_and_define)


class _Handler:
    """Remembers what is declared, and hands what changed to a sink."""

    def __init__(self, sink: coco.TargetActionSink[Any]) -> None:
        self._sink = sink

    def reconcile(
        self, key: coco.StableKey, desired: Any, previous: Any, may_be_missing: bool, /
    ) -> coco.TargetReconcileOutput[Any, Any] | None:
        """Asks for an action on a file that is new, changed or gone, and on each directory."""
        stay_attached()
        stays = not coco.is_non_existence(desired)
        record = (desired or b"")[:_RECORD] if stays else coco.NON_EXISTENCE
        if desired and previous and not may_be_missing and all(p == record for p in previous):
            return None
        return coco.TargetReconcileOutput(
            action=(key, stays), sink=self._sink, tracking_record=record
        )


_FILES: Final[coco.TargetActionSink[Any]] = coco.TargetActionSink.from_fn(_apply)
_PROVIDER: Final[Any] = coco.register_root_target_states_provider(
    "benchmarks/nothing", _Handler(_sink_of_directories())
)


class DirTarget:
    """A directory into which nothing is written."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def declare_file(self, filename: str, data: bytes) -> None:
        """Declares a file."""
        coco.declare_target_state(self._provider.target_state(filename, data))

    def __coco_memo_key__(self) -> object:
        """Returns the key by which memoized components know it."""
        return self._provider.memo_key


async def mount_dir_target(path: pathlib.Path) -> DirTarget:
    """Mounts the directory, as its namesakes in connectors do."""
    return DirTarget(await coco.mount_target(_PROVIDER.target_state(str(path), None)))
