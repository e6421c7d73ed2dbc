"""Raising: decides which error of a batch the engine is given, and has our log line tell them all.

An error in a component that still runs goes to whoever waits for it, or to the flow's exception
handler. As a rule, one in a component that is gone reaches nobody: the update returns normally,
and the engine prints a traceback for each such component. So the engine is given the first of
these only. To the engine the others are cancellations: it prints nothing, and tries again at the
next update, as after any error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from .._core.errors import ApplyError, FsMirrorError, TooManyRemovalsError
from .._core.names import ROOT
from .actions import Action, Change, Conclude, Drop, Mount, Single
from .engine import RETRIES_IN_PARTS
from .failures import RETRIED, Failures
from .keys import RootKey
from .specs import RootUpdate

__all__ = ["BatchErrors", "ask_again"]

_Step: TypeAlias = Mount | list[Change] | Single | Drop | Conclude


class _ToldError(FsMirrorError, asyncio.CancelledError):
    """A failure in a component that is gone, told by our log line."""


_told: set[RootKey] = set()
"""Single files and dropped roots whose failure was logged since the engine asked about them."""


def ask_again(root: RootKey) -> None:
    """Notes that the engine asks about a single file or a root, so that its failure is logged."""
    _told.discard(root)


class BatchErrors:
    """The errors of one batch of actions."""

    def __init__(self) -> None:
        self._errors: list[FsMirrorError] = []
        self._roots: set[str] = set()
        self._failed = 0  # actions
        self._apart: dict[str, Failures] = {}  # of single files and dropped roots, by root

    def add(self, step: _Step, error: FsMirrorError | None) -> None:
        """Adds the error of a step; one without an error settles its paths."""
        update, key = _update_of(step)
        names = [change.intent.name for change in step] if isinstance(step, list) else [ROOT]
        if update is not None:
            update.failures.settle(names)
        if error is None:
            return
        _forget_frames(error)
        root = getattr(error, "where", "") or getattr(error, "root", "") or str(key)
        if update is not None:
            update.failures.add(root, names, error)
        elif key not in _told:
            _told.add(key)
            then = f"{RETRIED} or by fsmirror drop" if isinstance(step, Drop) else RETRIED
            self._apart.setdefault(root, Failures(then=then)).add(root, names, error)
        if isinstance(step, Conclude) and isinstance(error, ApplyError | TooManyRemovalsError):
            # No declaration has failed, so the component that mounts the root must not either:
            # the engine would neither store the epoch, nor remove what other components declared.
            return
        self._errors.append(error)
        self._roots.add(root)
        bad = {getattr(part, "path", "") for part in getattr(error, "exceptions", ())}
        self._failed += sum(name in bad for name in names) if bad else len(names)

    def raised(self, actions: Sequence[Action]) -> FsMirrorError | None:
        """Returns the error for the engine; ``None`` if nothing failed."""
        for failures in self._apart.values():
            failures.tell()
        if not self._errors:
            return None
        error = self._errors[0]
        if len(self._errors) > 1:
            parts, where = self._errors, f"{len(self._roots)} mirrors"
            if len(self._roots) == 1:  # Of single files in one folder, each has an error.
                parts = [part for each in parts for part in getattr(each, "exceptions", (each,))]
                where = min(self._roots)
            error = ApplyError(where, parts)
        gone = [action for action in actions if isinstance(action, Change) and action.is_of_gone]
        components = {change.intent.component for change in gone}
        is_mixed = self._failed < len(actions) and len(components) > 1
        # Newer engines try parts of a batch, to tell the components that failed from the others.
        if len(gone) < len(actions) or (is_mixed and RETRIES_IN_PARTS):
            return error
        failures = gone[0].place.update.failures
        if len(components) == 1 and not failures.was_raised:
            failures.was_raised = True
            return error
        return _ToldError(str(error))


def _update_of(step: _Step) -> tuple[RootUpdate | None, RootKey]:
    """Returns the update that a step belongs to, if that is known, and its root."""
    if isinstance(step, list):
        return step[0].place.update, step[0].place.root
    if isinstance(step, Mount):
        return step.child.update, step.child.root
    if isinstance(step, Conclude):
        return step.update, step.root
    return None, step.path if isinstance(step, Single) else step.root


def _forget_frames(error: BaseException | None) -> None:
    """Takes the tracebacks out of an error: their frames would keep the update from ending."""
    if error is not None:
        error.__traceback__ = None
        for each in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
            _forget_frames(each)
