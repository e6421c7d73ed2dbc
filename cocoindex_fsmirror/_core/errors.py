"""Errors as one tree, and the format of counts and sizes in messages.

FsMirrorError
├── InvalidNameError   a name that no directory can hold (also a ValueError)
├── RootError          the root directory cannot be used
│   └── LockedError    another writer holds it
├── TooManyRemovalsError  an update would remove more than it may
├── BarrierError       the disk did not confirm that the bytes are on it
├── LedgerError        the ledger could not be read or written
├── SourceError        a file that is to be copied can't be read (also an OSError)
│   └── SourceChangedError  the file changed while it was read
├── PathError          one path could not be brought to its desired state
│   └── ConflictError  because of foreign bytes, or of another declaration
└── ApplyError         a group of the errors of one batch
"""

from __future__ import annotations

import copyreg
import errno

TYPE_CHECKING = False  # As in typing, whose import takes longer than all of ours.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = [
    "ApplyError",
    "BarrierError",
    "ConflictError",
    "FsMirrorError",
    "InvalidNameError",
    "LedgerError",
    "LockedError",
    "PathError",
    "RootError",
    "SourceChangedError",
    "SourceError",
    "TooManyRemovalsError",
]


def counted(count: int, one: str, many: str = "") -> str:
    """Returns a count with its noun, such as ``1 file``; ``many`` is by default ``one`` + s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def readable(count: int) -> str:
    """Formats a number of bytes for people."""
    if count < 1024:
        return f"{count:,.0f} B"
    power = min((count.bit_length() - 1) // 10, 3)
    return f"{count / 1024**power:,.1f} {'KMG'[power - 1]}iB"


class FsMirrorError(Exception):
    """The base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        """Escapes what is not UTF-8 in a path, since a log or an engine may not take it."""
        return super().__str__().encode(errors="backslashreplace").decode()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles without the constructors, which take other arguments than the message."""
        # OSError takes no arguments where its constructor is overridden, so they are set again.
        state = {**self.__dict__, "args": self.args}
        return copyreg.__newobj__, (type(self), *self.args), state  # type: ignore[attr-defined]


class InvalidNameError(FsMirrorError, ValueError):
    """A declared name is refused.

    Attributes:
        name: The name as it was declared.
        reason: Why the name is refused, as half a sentence.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"invalid name {name!r}: {reason}")
        self.name, self.reason = name, reason


class RootError(FsMirrorError):
    """The root directory of a mirror cannot be used.

    Attributes:
        root: The path of the root.
        hint: The way to solve the problem.
    """

    def __init__(self, root: str, problem: str, hint: str) -> None:
        super().__init__(f"{root}: {problem} ({hint})")
        self.root, self.hint = root, hint


class LockedError(RootError):
    """Another writer held the lock of the root for longer than we wait."""


class TooManyRemovalsError(FsMirrorError):
    """An update would remove more files than it may.

    Attributes:
        root: The path of the root.
        removals: The number of files that would be removed, as far as is known.
        managed: The number of files when the update began.
        removed: An upper bound of the number that was removed already; within the limit.
    """

    def __init__(
        self,
        root: str,
        removals: int,
        managed: int,
        allowed: int,
        limit: str,
        *,
        removed: int = 0,
        word: str = "",
    ) -> None:
        gone = counted(removed, "was removed", "were removed")
        done = f"no more than {gone}" if removed else "nothing was removed"
        word = word or f"allow at least {removals} once"
        super().__init__(
            f"{root}: {removals:,} of {counted(managed, 'file')} would be removed, and {limit} "
            f"allows {allowed:,}: {done} (is the source complete? if they are to go, {word})"
        )
        self.root = root
        self.removals, self.managed, self.removed = removals, managed, removed


class BarrierError(FsMirrorError):
    """The disk did not confirm a batch, so nothing of it counts as written."""


class LedgerError(FsMirrorError):
    """The ledger could not be read or written, a full disk included."""


class CorruptLedgerError(LedgerError):
    """The file is damaged, or no ledger."""


class SourceError(FsMirrorError, OSError):
    """A file that is to be copied can't be read.

    Attributes:
        source: The path of the file.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"its source {source!r} {problem}")
        self.source = source


class SourceChangedError(SourceError):
    """A file that is copied changed after it was fingerprinted."""

    def __init__(self, source: str) -> None:
        super().__init__(source, "changed while it was read (update again)")


class NotAtHandError(FsMirrorError, OSError):
    """A path can't be restored without whoever declared it."""

    def __init__(self, problem: str = "no sound copy of its content is kept") -> None:
        super().__init__(problem)


class PathError(FsMirrorError):
    """One path could not be brought to its desired state.

    Attributes:
        path: The path, relative to the root.
        operation: The operation that failed, as a verb.
        problem: The reason.
        hint: The way to solve the problem; may be empty.
    """

    def __init__(self, path: str, operation: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{operation} {path!r}: {problem}" + (f" ({hint})" if hint else ""))
        self.path, self.operation, self.problem, self.hint = path, operation, problem, hint


class ConflictError(PathError):
    """Foreign bytes, or another declaration, are in the way of a declared path."""


_HINTS = {
    errno.ENOSPC: "free some space, then update again",
    errno.EDQUOT: "free some of the quota, then update again",
    errno.EFBIG: "raise the limit on the size of files",
    errno.ENAMETOOLONG: "this file system can't hold the name",
    errno.EACCES: "grant this user access",
    errno.EPERM: "is it immutable, or owned by someone else?",
    errno.EROFS: "remount the file system writable",
    errno.EIO: "check the disk and the kernel's log",
    errno.ENOTDIR: "a folder was replaced while we worked; update again",
    errno.ELOOP: "a folder was replaced by a link while we worked; update again",
}


def as_path_error(path: str, operation: str, error: PathError | OSError) -> PathError:
    """Returns the error of a path, with a hint if the usual cure is known."""
    if isinstance(error, PathError):
        return error if error.path == path else PathError(path, operation, f"after {error}")
    hint = _HINTS.get(error.errno or 0, "")
    failure = PathError(path, operation, error.strerror or str(error), hint)
    failure.__cause__ = error
    return failure


class ApplyError(FsMirrorError, ExceptionGroup[FsMirrorError]):
    """The failures of one batch, whose other paths were applied.

    The message names the paths that failed. The reasons are in the exceptions, which Python
    prints below the message.

    Attributes:
        exceptions: One error for each path, or root, that failed.
        where: The root, or the number of roots if several failed.
    """

    def __new__(cls, where: str, errors: Sequence[FsMirrorError]) -> Self:
        named = ", ".join(_subject(error) for error in errors[:_NAMED])
        more = f" and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        return super().__new__(cls, f"{where}: {len(errors)} failed: {named}{more}", list(errors))

    def __init__(self, where: str, errors: Sequence[FsMirrorError]) -> None:
        super().__init__(where, errors)
        self.where = where

    def derive(self, errors: Sequence[FsMirrorError], /) -> ApplyError:  # type: ignore[override]
        """Makes a smaller group, for ``split`` and ``except*``."""
        return ApplyError(self.where, errors)


_NAMED = 10  # failures that the message of a group names, before it counts the others


def _subject(error: FsMirrorError) -> str:
    """Returns the path, source or root of an error, or else its type."""
    known = (getattr(error, name, "") for name in ("path", "source", "root", "where"))
    return next((repr(place) for place in known if place), type(error).__name__)
