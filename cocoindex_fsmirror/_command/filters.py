"""Filters: which paths of a source are left out, by patterns in the syntax of ``.gitignore``."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from .._core.patterns import patterns
from .._disk.calls import open_file

if TYPE_CHECKING:
    from .._core.patterns import Patterns

__all__ = ["Filter"]


class Filter(NamedTuple):
    """Leaves paths out: by patterns for the whole source, and by ``.gitignore`` files in it.

    Attributes:
        excluded: The patterns.
        gitignore: True to obey the files.
        max_size: The size of the largest file that is taken, in bytes; ``None`` for any.
        protects: True to leave alone in a mirror what is left out.
        inner: The patterns of the files in a folder and those above it, each with its folder.
    """

    excluded: Patterns | None
    gitignore: bool
    max_size: int | None = None
    protects: bool = True
    inner: tuple[tuple[str, Patterns], ...] = ()

    def entered(self, fd: int, path: str) -> Filter:
        """Returns the filter for an open folder, with what its own ``.gitignore`` adds.

        As in Git, one that is a link does not count.

        Raises:
            OSError: That file can't be read.
            ValueError: It can't be parsed.
        """
        if not self.gitignore:
            return self
        try:
            file = open_file(".gitignore", fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return self
            raise
        with open(file, "rb") as lines:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return self
            try:
                added = patterns(os.fsdecode(line.rstrip(b"\r\n")) for line in lines)
            except ValueError as error:
                raise ValueError(f".gitignore: {error}") from None
        return self._replace(inner=(*self.inner, (path, added)))

    def is_too_large(self, found: os.stat_result) -> bool:
        """True if a file is left out for its size."""
        is_file = stat.S_ISREG(found.st_mode)
        return is_file and self.max_size is not None and found.st_size > self.max_size

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """True if a path is left out; of several ``.gitignore`` files the innermost decides."""
        if self.excluded is None and not self.gitignore:
            return False
        shown = f"{path}/" if is_folder else path
        if self.excluded is not None:
            told = self.excluded.check_file(shown).include
            if told is not None:
                return told
        for folder, spec in reversed(self.inner):
            verdict = spec.check_file(os.path.relpath(path, folder or ".") + shown[len(path) :])
            if verdict.include is not None:
                return bool(verdict.include)
        return self.gitignore and is_folder and os.path.basename(path) == ".git"
