"""Patterns of paths, in the syntax of ``.gitignore``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from .names import Name, ancestors

if TYPE_CHECKING:
    from typing import TypeAlias

    from pathspec import GitIgnoreSpec

    Patterns: TypeAlias = GitIgnoreSpec

__all__ = ["checked_patterns", "matching", "patterns"]


def patterns(lines: Iterable[str]) -> Patterns:
    """Parses patterns of paths, in the syntax of ``.gitignore``.

    Raises:
        ValueError: One can't be parsed; it is quoted.
    """
    import pathspec  # noqa: PLC0415  # Slow, and most mirrors need none.

    listed = list(lines)
    for line in listed:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error) as error:
            raise ValueError(f"the pattern {line!r} can't be parsed: {error}") from None
    return pathspec.GitIgnoreSpec.from_lines(listed)


def matching(lines: Sequence[str]) -> Callable[[Name, bool], bool]:
    """Returns a function of a path, and if it is a folder: true if that matches, or one above it.

    As in Git, nothing in a folder that matches is told apart.
    """
    if not lines:
        return lambda _name, _is_folder: False
    spec = patterns(lines)

    @lru_cache(1024)
    def is_in(folder: Name) -> bool:
        return spec.match_file(f"{folder}/")

    def matches(name: Name, is_folder: bool) -> bool:
        return any(map(is_in, ancestors(name))) or spec.match_file(name + "/" * is_folder)

    return matches


def checked_patterns(name: str, lines: object) -> Sequence[str]:
    """Returns the patterns of an option.

    Raises:
        TypeError: It is no list or tuple of texts.
        ValueError: One can't be parsed.
    """
    if isinstance(lines, str):
        raise TypeError(f"{name} takes patterns as a tuple, not str; write ({lines!r},)")
    if not isinstance(lines, list | tuple) or not all(isinstance(each, str) for each in lines):
        raise TypeError(f"{name} is neither True nor False, nor a tuple of patterns: {lines!r}")
    patterns(lines)
    return lines
