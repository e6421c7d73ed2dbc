"""Patterns of paths to leave out of a source, in the syntax of ``.gitignore``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import pathspec

__all__ = ["Filter", "UnreadableError", "patterns"]


def patterns(lines: Iterable[str]) -> pathspec.GitIgnoreSpec:
    """Parses patterns.

    Raises:
        ValueError: One can't be parsed; it is quoted.
    """
    import pathspec  # noqa: PLC0415  # It takes its time, and most sources are taken whole.

    listed = list(lines)
    for line in listed:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error) as error:
            raise ValueError(f"the pattern {line!r} can't be parsed: {error}") from None
    return pathspec.GitIgnoreSpec.from_lines(listed)


class UnreadableError(Exception):
    """A part of a source can't be read; the message says which, and why."""

    @classmethod
    def of(cls, path: str, error: Exception) -> Self:
        """Makes one from the error of the system."""
        reason = error.strerror if isinstance(error, OSError) else None
        return cls(f"{path}: {reason or error}")


class Filter:
    """Leaves paths out: by patterns for the whole source, and by ``.gitignore`` files in it."""

    def __init__(self, excluded: pathspec.GitIgnoreSpec | None, *, gitignore: bool) -> None:
        self._excluded = excluded
        self._gitignore = gitignore
        self._inner: list[tuple[str, pathspec.GitIgnoreSpec]] = []

    def entered(self, source: str, path: str) -> Filter:
        """Returns the filter for a folder, with what its own ``.gitignore`` adds.

        Raises:
            UnreadableError: That file can't be read or parsed.
        """
        name = os.path.join(path, ".gitignore")
        file = os.path.join(source, name)
        if not self._gitignore or not os.path.isfile(file):
            return self
        try:
            with open(file, "rb") as lines:
                added = patterns(os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
        except (OSError, ValueError) as error:
            raise UnreadableError.of(name, error) from error
        inner = Filter(self._excluded, gitignore=True)
        inner._inner = [*self._inner, (path, added)]
        return inner

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """True if a path is left out; of several ``.gitignore`` files the innermost decides."""
        if self._excluded is None and not self._gitignore:
            return False
        shown = f"{path}/" if is_folder else path
        if self._excluded is not None and self._excluded.match_file(shown):
            return True
        for folder, spec in reversed(self._inner):
            verdict = spec.check_file(os.path.relpath(path, folder or ".") + shown[len(path) :])
            if verdict.include is not None:
                return bool(verdict.include)
        return self._gitignore and is_folder and os.path.basename(path) == ".git"
