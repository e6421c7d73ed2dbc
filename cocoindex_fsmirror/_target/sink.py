"""The sink: hands each root its part of a batch. The mirrors stay open from batch to batch."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from .._core.errors import ApplyError, FsMirrorError
from .._core.names import parse_name
from .._core.states import ABSENT
from .._disk.roots import is_there
from .._mirror.drift import DriftReport
from .._mirror.mirror import Mirror
from .actions import Action, Change, Drop, Mount, Single
from .specs import RootKey

__all__ = ["MOST", "apply_actions", "close_all", "mirror_at"]

_log = logging.getLogger("cocoindex_fsmirror")
_Step = Callable[[], object]


def apply_actions(context_provider: Any, actions: Sequence[Action]) -> None:
    """Applies a batch root by root; no failure hides another."""
    errors: list[FsMirrorError] = []
    for step in _steps(context_provider, actions):
        try:
            step()
        except FsMirrorError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ApplyError(f"{len(errors)} mirrors", errors)


def _steps(context_provider: Any, actions: Sequence[Action]) -> list[_Step]:
    """Lists the steps of a batch: roots are mounted first, then changed, and dropped last."""
    mounts: list[_Step] = []
    rest: list[_Step] = []
    changes: dict[RootKey, list[Change]] = {}
    for action in actions:
        match action:
            case Mount():
                mounts.append(partial(_mount, context_provider, action))
            case Change():
                changes.setdefault(action.place.root, []).append(action)
            case Single():
                rest.append(partial(_write_single, context_provider, action))
            case Drop():
                rest.append(partial(_drop, context_provider, action))
    applied = (partial(_change, context_provider, *pair) for pair in changes.items())
    return [*mounts, *applied, *rest]


def _mount(context_provider: Any, action: Mount) -> None:
    """Makes a root ready."""
    place = action.child
    root = place.root.resolve(context_provider)
    if action.was_file is not None:
        _write_single(context_provider, Single(place.root, action.was_file, False))
    if action.why_all_run:
        _log.warning("%s: every component below it runs again: %s", root, action.why_all_run)
    mirror_at(root).prepare(
        place.owner,
        place.update.drift or DriftReport(),
        parents=action.create_parent_dirs,
        durable=place.options.durable,
        exact=action.exact,
        by=action.by,
    )


def _change(context_provider: Any, root: RootKey, changes: list[Change]) -> None:
    """Brings the paths of one root to their desired states."""
    for change in changes:
        if change.intent.desired is ABSENT:
            change.place.update.declarations.withdraw(change.intent.name, change.intent.container)
    closed = [pair for change in changes for pair in change.closed]
    intents = [change.intent for change in changes]
    mirror_at(root.resolve(context_provider)).apply(intents, closed, changes[0].place.update.brake)


def _drop(context_provider: Any, action: Drop) -> None:
    """Gives a root up."""
    mirror_at(action.root.resolve(context_provider)).tear_down(action.owner)


def _write_single(context_provider: Any, action: Single) -> None:
    """Brings a file that is declared by itself to its desired state."""
    path = action.path.resolve(context_provider)
    intent = replace(action.intent, name=parse_name(os.path.basename(path)))
    if action.was_dir:
        mirror_at(path).tear_down(intent.owner, durable=intent.durable)
    mirror = mirror_at(os.path.dirname(path))
    if intent.desired is not ABSENT:
        mirror.prepare(
            intent.owner, DriftReport(), parents=intent.create_parents, durable=intent.durable
        )
        mirror.apply([intent])
    elif is_there(mirror.root):
        mirror.apply([intent])
        mirror.tear_down(intent.owner, durable=intent.durable)


MOST: Final = 32
"""How many ledgers stay open."""

_mirrors: dict[str, Mirror] = {}
_lock = threading.Lock()
_abandoned: list[Mirror] = []


def mirror_at(root: str) -> Mirror:
    """Returns the mirror of a root; its ledger stays open between batches."""
    with _lock:
        mirror = _mirrors.pop(root, None) or Mirror(root)
        _mirrors[root] = mirror
        if len(_mirrors) > MOST:
            _mirrors.pop(next(iter(_mirrors))).close()
        return mirror


@atexit.register
def close_all() -> None:
    """Folds each ledger's log into its file."""
    with _lock:
        for mirror in _mirrors.values():
            mirror.close()
        _mirrors.clear()


def _abandon() -> None:
    """Abandons the mirrors in a forked child: SQLite forbids even to close its parent's."""
    global _lock  # noqa: PLW0603  # The old one may be held by a thread that is not here.
    _lock = threading.Lock()
    _abandoned.extend(_mirrors.values())
    _mirrors.clear()


os.register_at_fork(after_in_child=_abandon)
