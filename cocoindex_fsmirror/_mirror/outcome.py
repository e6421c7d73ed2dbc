"""Outcome: what a batch did, and what failed. A failure stops only its own path."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from .._core.errors import PathError
from .._core.names import Name

__all__ = ["Failures", "Outcome", "log_paths"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")

_HINTS = {
    errno.ENOSPC: "free some space, then update again",
    errno.EDQUOT: "free some of the quota, then update again",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EACCES: "grant this user write access",
    errno.EPERM: "is it immutable, or owned by someone else?",
    errno.EROFS: "remount the file system writable",
    errno.ENOTDIR: "a folder was replaced while we worked; update again",
    errno.ELOOP: "a folder was replaced by a link while we worked; update again",
}


class Outcome(msgspec.Struct):
    """The paths that a batch did something to, relative to the root.

    Attributes:
        written: Files that were put in place.
        kept: Paths that were right already, and are recorded now.
        adopted: Those of them, but for folders, that were not in the ledger.
        dressed: Files and links of which only mode or time was set.
        removed: Files that were removed.
        made: Folders that were made.
        pruned: Folders that were removed.
        backed_up: The paths in the backup area of foreign bytes, by the path that they were at.
        left: Foreign paths that stay although they are no longer declared.
        failures: One error for each path that failed.
        size: Bytes in the files that were put in place.
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


class Failures:
    """The paths of a batch that failed while it was applied.

    Args:
        errors: Gets an error for each of them.
    """

    def __init__(self, errors: list[PathError]) -> None:
        self._errors = errors
        self.names: set[Name] = set()

    def attempt(self, name: Name, operation: str, act: Callable[[_T], None], step: _T) -> None:
        """Does one step; collects its error."""
        try:
            act(step)
        except PathError as error:
            self._add(error)
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "")
            failure = PathError(name, operation, error.strerror or str(error), hint)
            failure.__cause__ = error
            self._add(failure)

    def _add(self, failure: PathError) -> None:
        """Collects a failure."""
        self.names.add(Name(failure.path))
        self._errors.append(failure)


def log_paths(root: str, outcome: Outcome) -> None:
    """Logs, at DEBUG, one line for each path that something was done to."""
    verbs = {
        "kept": outcome.kept,
        "left": outcome.left,
        "backed up": outcome.backed_up,
        "removed": [*outcome.removed, *outcome.pruned],
        "adopted": outcome.adopted,
        "dressed": outcome.dressed,
        "made": outcome.made,
        "wrote": outcome.written,
    }
    # A path may have several verbs, as one that was backed up and written: the last says most.
    done = {name: verb for verb, names in verbs.items() for name in names}
    for name, verb in done.items():
        _log.debug("%s: %s %r", root, verb, name)
