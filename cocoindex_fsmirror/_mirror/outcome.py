"""Outcome: the results of a batch, and its failures. A failure stops only its own path."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

import msgspec

from .._core.errors import PathError
from .._core.names import Name

__all__ = ["Failures", "Outcome", "as_path_error", "log_paths"]

_log = logging.getLogger("cocoindex_fsmirror")

_HINTS: Final = {
    errno.ENOSPC: "free some space, then update again",
    errno.EDQUOT: "free some of the quota, then update again",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EACCES: "grant this user write access",
    errno.EPERM: "is it immutable, or owned by someone else?",
    errno.EROFS: "remount the file system writable",
    errno.ENOTDIR: "a folder was replaced while we worked; update again",
    errno.ELOOP: "a folder was replaced by a link while we worked; update again",
}
# A path may be in several lists, such as backed up and written; the last verb tells most.
_VERBS: Final = (
    *("kept", "left", "backed_up", "removed", "pruned"),
    *("adopted", "dressed", "made", "written"),
)


class Outcome(msgspec.Struct):
    """The paths that a batch did something to, relative to the root.

    Attributes:
        written: Files that were put in place.
        kept: Paths that were right already, and are recorded now.
        adopted: Files and links among them that were not in the ledger.
        dressed: Files and links of which only mode or time was set.
        removed: Files that were removed.
        made: Folders that were made.
        pruned: Folders that were removed.
        backed_up: Foreign paths, each with its new path in the backup area.
        left: Foreign paths that stay although they are no longer declared.
        failures: One error for each path that failed.
        size: The number of bytes in the files that were put in place.
    """

    written: list[Name] = msgspec.field(default_factory=list)
    kept: list[Name] = msgspec.field(default_factory=list)
    adopted: list[Name] = msgspec.field(default_factory=list)
    dressed: list[Name] = msgspec.field(default_factory=list)
    removed: list[Name] = msgspec.field(default_factory=list)
    made: list[Name] = msgspec.field(default_factory=list)
    pruned: list[Name] = msgspec.field(default_factory=list)
    backed_up: dict[Name, Name] = msgspec.field(default_factory=dict)
    left: list[Name] = msgspec.field(default_factory=list)
    failures: list[PathError] = msgspec.field(default_factory=list)
    size: int = 0


class _Step(Protocol):
    """A step of a plan."""

    @property
    def name(self) -> Name: ...


_T = TypeVar("_T", bound=_Step)


class Failures:
    """The paths of a batch that failed while it was applied.

    Args:
        errors: The list that the errors are added to.
    """

    def __init__(self, errors: list[PathError]) -> None:
        self._errors = errors
        self.names: set[Name] = set()

    def attempt(self, operation: str, act: Callable[[_T], None], steps: Iterable[_T]) -> None:
        """Calls a function with each step whose path has not failed yet; collects the errors."""
        for step in steps:
            if step.name not in self.names:
                try:
                    act(step)
                except (PathError, OSError) as error:
                    self.names.add(step.name)
                    self._errors.append(as_path_error(step.name, operation, error))


def as_path_error(name: Name, operation: str, error: PathError | OSError) -> PathError:
    """Returns the error of a path, with a hint if the usual cure is known."""
    if isinstance(error, PathError):
        return error
    hint = _HINTS.get(error.errno or 0, "")
    failure = PathError(name, operation, error.strerror or str(error), hint)
    failure.__cause__ = error
    return failure


def log_paths(root: str, outcome: Outcome) -> None:
    """Logs, at DEBUG, one line for each path that something was done to."""
    if not _log.isEnabledFor(logging.DEBUG):
        return
    done = {name: verb for verb in _VERBS for name in getattr(outcome, verb)}
    for name, verb in done.items():
        _log.debug("%s: %s %r", root, verb.replace("_", " "), name)
