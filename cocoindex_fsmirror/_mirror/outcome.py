"""Outcome: the results of a batch, and its failures. A failure stops only its own path."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from .._core.errors import FsMirrorError, PathError, as_path_error
from .._core.intents import Intent
from .._core.names import Name, ancestors
from .._disk.calls import FULL
from .._disk.tree import NOT_THERE

__all__ = ["Failures", "Outcome", "Unfitting", "is_crossing", "is_full", "log_paths"]

_log = logging.getLogger("cocoindex_fsmirror")

# A path may be in several lists, such as backed up and written; the last verb tells most.
_VERBS: Final = (
    *("kept", "left", "backed_up", "removed", "pruned"),
    *("adopted", "dressed", "made", "written"),
)


class Unfitting(NamedTuple):
    """An intent that failed for want of room, and its error.

    ``grows`` is true if the path takes more room than it did before, and ``tried`` is false if
    it had to wait for others to make room.
    """

    intent: Intent
    grows: bool
    tried: bool
    error: PathError


class Outcome(msgspec.Struct):
    """The paths that a batch did something to, relative to the root.

    Attributes:
        written: Files that were put in place.
        kept: Paths that were right already, and are recorded now.
        adopted: Files and links among them that were not in the ledger.
        dressed: Files and links of which only mode or time was set.
        dressed_folders: Folders that were there, and had another mode or time.
        removed: Files that were removed.
        made: Folders that were made.
        pruned: Folders that were removed.
        backed_up: Foreign paths, each with its new path in the backup area.
        left: Foreign paths that stay although they are no longer declared.
        failures: One error for each path that failed.
        unfitting: Those of the intents that failed, if the disk was full.
        size: The number of bytes in the files that were put in place.
    """

    written: list[Name] = msgspec.field(default_factory=list)
    kept: list[Name] = msgspec.field(default_factory=list)
    adopted: list[Name] = msgspec.field(default_factory=list)
    dressed: list[Name] = msgspec.field(default_factory=list)
    dressed_folders: list[Name] = msgspec.field(default_factory=list)
    removed: list[Name] = msgspec.field(default_factory=list)
    made: list[Name] = msgspec.field(default_factory=list)
    pruned: list[Name] = msgspec.field(default_factory=list)
    backed_up: dict[Name, Name] = msgspec.field(default_factory=dict)
    left: list[Name] = msgspec.field(default_factory=list)
    failures: list[PathError] = msgspec.field(default_factory=list)
    unfitting: list[Unfitting] = msgspec.field(default_factory=list)
    size: int = 0

    def find_unfitting(
        self, intents: Iterable[Intent], growing: Collection[Name], waiting: Collection[Name]
    ) -> None:
        """Finds the intents that failed since the disk was full.

        Args:
            intents: All intents of the batch.
            growing: The paths that take more room than before.
            waiting: The paths that were not tried.
        """
        # If a backup does not fit, its file stays in staging. Only this error tells.
        failures = (failure for failure in self.failures if failure.operation != "back up")
        full = {failure.path: failure for failure in failures if is_full(failure)}
        self.unfitting = [
            Unfitting(each, each.name in growing, each.name not in waiting, full[each.name])
            for each in intents
            if each.name in full
        ]

    def add(self, other: Outcome) -> None:
        """Adds what a further batch did.

        Args:
            other: The outcome of that batch.
        """
        self.size += other.size
        self.backed_up |= other.backed_up
        for verb in {*_VERBS, "dressed_folders", "failures", "unfitting"} - {"backed_up"}:
            getattr(self, verb).extend(getattr(other, verb))


class _Step(Protocol):
    """A step of a plan."""

    @property
    def name(self) -> Name: ...


_T = TypeVar("_T", bound=_Step)


class Failures:
    """The paths of a batch that failed while it was applied.

    Args:
        errors: The list that the errors are added to.

    Attributes:
        causes: The error of each path.
    """

    def __init__(self, errors: list[PathError]) -> None:
        self._errors = errors
        self.causes: dict[Name, PathError | OSError] = {}
        self.waiting: set[Name] = set()  # Those that were not tried, for want of room.

    def lack(self) -> OSError | None:
        """Returns the first error so far that says that the disk is full."""
        lacks = (each for each in self.causes.values() if isinstance(each, OSError))
        return next((each for each in lacks if is_full(each)), None)

    def attempt(
        self,
        operation: str,
        act: Callable[[_T], None],
        steps: Iterable[_T],
        is_told: Callable[[_T], bool] = lambda _step: True,
    ) -> None:
        """Calls a function with each step whose path has not failed yet; collects the errors.

        Args:
            operation: The operation, as a verb.
            act: The function.
            steps: The steps, in order.
            is_told: False of a step whose error is told only by the paths that fail with it.
        """
        for step in steps:
            if step.name not in self.causes:
                try:
                    act(step)
                except (PathError, OSError) as error:
                    cause = self._cause_of(step.name, error)
                    self.causes[step.name] = cause
                    if is_told(step):
                        self._errors.append(as_path_error(step.name, operation, cause))

    def _cause_of(self, name: Name, error: PathError | OSError) -> PathError | OSError:
        """Returns the error of a path; of a path whose folder is missing, that of the folder."""
        if isinstance(error, OSError) and error.errno in NOT_THERE:
            above = [folder for folder in ancestors(name) if folder in self.causes]
            return self.causes[above[-1]] if above else error
        return error


def is_crossing(error: PathError) -> bool:
    """True if a path failed since no file can be renamed to where it is, or from there."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EXDEV


def is_full(error: BaseException) -> bool:
    """True if an error says that the disk, or the quota, is full."""
    cause = error.__cause__ if isinstance(error, FsMirrorError) else error
    if isinstance(cause, sqlite3.Error):  # To SQLite a full quota is just a failed write.
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return isinstance(cause, OSError) and cause.errno in FULL


def log_paths(root: str, outcome: Outcome) -> None:
    """Logs, at DEBUG, one line for each path that something was done to."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    done = {name: verb for verb in _VERBS for name in getattr(outcome, verb)}
    for name, verb in done.items():
        _log.debug("%s: %s %r", root, verb.replace("_", " "), name)
