"""Copies: keeps the attributes that copies took over, so that memoized components follow them.

The engine runs a memoized component again if an argument changed; a file's mode and time are
none. So the sources of the copies that a component declares are the state of its directory
target in the engine's memo. The engine stores that state once the component has run.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeAlias

import cocoindex as coco
from cocoindex.connectors.localfs import FilePath
from cocoindex.resources.file import FileLike

from .._core.attributes import Attributes
from .._core.text import encoded
from .._disk.abilities import attributes_for_copy

__all__ = ["CopiedSources", "Copies"]

CopiedSources: TypeAlias = dict[bytes, tuple[int | None, int | None]]
"""By path of a source: its mode and its mtime, each if the copy follows it."""


class Copies:
    """The sources of the copies that each component declares, in one update of a root."""

    def __init__(self) -> None:
        self._of_component: dict[str, CopiedSources] = {}

    def add(
        self,
        source: Path | FilePath | FileLike[Any],
        found: Attributes,
        followed: Collection[str],
    ) -> None:
        """Adds a source with its attributes, of which its copy follows some."""
        if not followed:
            return
        at = source.file_path if isinstance(source, FileLike) else source
        path: object = at
        if isinstance(at, FilePath):
            path = at.path if at.base_dir is None else at.resolve()
        sources = self._of_component.setdefault(str(coco.get_component_context()), {})
        at_path = encoded(str(path))
        mode, mtime_ns = sources.get(at_path, (None, None))  # Of another copy, or the last run.
        sources[at_path] = (
            found.mode if "mode" in followed else mode,
            found.mtime_ns if "mtime" in followed else mtime_ns,
        )

    def look(self, component: str, before: object) -> tuple[CopiedSources, bool]:
        """Looks at the sources of a component again.

        Args:
            component: The path of the component.
            before: What the last look returned, as the engine stored it; something else if the
                component has just run for the first time, or an earlier build stored it.

        Returns:
            The sources as they are now, and true if none has changed. If the component runs
            after this call, it adds to the sources before the engine stores them.
        """
        known: CopiedSources = before if isinstance(before, dict) else {}
        now = {path: _now(path, *taken) for path, taken in known.items()}
        sources = self._of_component.setdefault(component, {})
        sources.update(now)
        return sources, now == known


def _now(path: bytes, mode: int | None, mtime_ns: int | None) -> tuple[int | None, int | None]:
    """Returns the attributes of a source; those that are known if it can't be looked at."""
    try:
        found = attributes_for_copy(os.stat(path))
    except OSError:
        return mode, mtime_ns
    return mode if mode is None else found.mode, mtime_ns if mtime_ns is None else found.mtime_ns
