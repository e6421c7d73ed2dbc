"""Declarations: a register of the paths of one update of a root, which finds contested ones.

Two components may declare one path, or a file above another path. The engine asks about each alone,
so the second one is told its rival here, and both fail in their batches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

from .._core.names import ROOT, Name, ancestors, parent

__all__ = ["Declarations"]


class _Declarer(NamedTuple):
    """The directory target that declares a path, and the component that it is used in."""

    place: str
    component: str


class Declarations:
    """A register of the paths that are declared below a root, during one update.

    Components declare from several threads.

    Attributes:
        owner: The identity of the root's mirror; empty until the root is mounted.
        components: The components that were seen in this update. All others may be gone.
    """

    def __init__(self) -> None:
        self.owner = ""
        self.components: set[str] = set()
        self._lock = threading.Lock()
        self._files: dict[Name, _Declarer] = {}
        self._below: dict[Name, tuple[Name, _Declarer]] = {}  # by folder: one of the paths in it
        self._declarers: dict[tuple[str, str], _Declarer] = {}  # There are far fewer than files.
        self._clear: dict[Name, _Declarer] = {}  # by folder: who has no rival at or above it

    def add(self, name: Name, place: str, component: str, *, is_file: bool) -> Name:
        """Adds a declaration.

        Args:
            name: The path below the root.
            place: The directory target that declares it, as a chain.
            component: The component that declares it.
            is_file: True if it is a file, not a directory.

        Returns:
            A path that another component has declared, and that can't exist together with
            this one; :data:`ROOT` if there is none.
        """
        with self._lock:
            me = self._declarers.get((place, component))
            if me is None:
                me = self._declarers[place, component] = _Declarer(place, component)
                self.components.add(component)
            folder = parent(name)
            is_first = self._clear.get(folder) is not me  # Most have one declared beside them.
            if is_first or name in self._files or name in self._below:
                for rival, other in self._rivals(name, is_first=is_first, is_file=is_file):
                    is_contrary = (rival, other.place) != (name, place)
                    if other is not me and other.component != component and is_contrary:
                        return rival
            if is_file:
                self._files[name] = me
                if name in self._below:
                    self._clear.clear()
            if is_first:
                for above in ancestors(name):
                    self._below.setdefault(above, (name, me))
                self._clear[folder] = me
        return ROOT

    def _rivals(
        self, name: Name, *, is_first: bool, is_file: bool
    ) -> Iterator[tuple[Name, _Declarer]]:
        """Yields the declarations that may contradict one."""
        for path in (name, *ancestors(name)) if is_first else (name,):
            if path in self._files:
                yield path, self._files[path]
        if is_file and name in self._below:
            yield self._below[name]

    def withdraw(self, name: Name, place: str) -> None:
        """Removes a declaration."""
        with self._lock:
            self._clear.clear()
            declarer = self._files.get(name)
            if declarer is not None and declarer.place == place:
                del self._files[name]
            for folder in ancestors(name):
                below, declarer = self._below.get(folder, (ROOT, None))
                if below == name and declarer is not None and declarer.place == place:
                    del self._below[folder]
