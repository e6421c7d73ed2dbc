"""What a flow declares: files, directories and roots, as the engine keeps them until it asks.

Keys are stored in users' databases and never change silently.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec
from msgspec.structs import replace

from .._core.errors import RootError
from .._core.names import ROOT, Name, ancestors, parent
from .._core.states import Content, DirState, FileState, LinkState, digest_of
from .._mirror.brake import Brake, Limit, check_limit
from .._mirror.drift import DriftReport

__all__ = [
    "DirSpec",
    "Durability",
    "FileSpec",
    "OnConflict",
    "Options",
    "RootKey",
    "Spec",
    "Verify",
    "Watch",
]

Durability: TypeAlias = Literal["batch", "none"]
Verify: TypeAlias = Literal["stat", "content", "none"]
OnConflict: TypeAlias = Literal["backup", "overwrite", "error"]


class Options(msgspec.Struct, frozen=True, gc=False):
    """How a directory target treats its files."""

    durability: Durability = "batch"
    verify: Verify = "stat"
    on_conflict: OnConflict = "backup"
    exact: bool = False
    max_delete: Limit | None = None

    def __post_init__(self) -> None:
        """Refuses a value that is none of the documented ones."""
        check_limit(self.max_delete)
        for name, known in (
            ("durability", Durability),
            ("verify", Verify),
            ("on_conflict", OnConflict),
        ):
            if getattr(self, name) not in get_args(known):
                listed = ", ".join(repr(value) for value in get_args(known))
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {listed}")
        if self.exact and self.verify == "none":
            # With the ledger lost all is foreign, and nobody would declare it again.
            raise ValueError("exact=True needs verify='stat' or verify='content'")

    @property
    def durable(self) -> bool:
        """Whether barriers are made."""
        return self.durability != "none"


_DEFAULTS: Final = Options()
_ANY_FOLDER: Final = DirState()


class Watch:
    """What was seen of a root when it was mounted, whose mirror it is, and what is declared.

    Components declare from several threads.
    """

    def __init__(self, drift: DriftReport | None = None, max_delete: Limit | None = None) -> None:
        self.drift = drift or DriftReport()
        self.has_looked = drift is not None
        self.owner = ""
        self.brake = None if max_delete is None else Brake(max_delete)
        self._lock = threading.Lock()
        self._files: dict[Name, _Declarer] = {}
        self._below: dict[Name, tuple[Name, _Declarer]] = {}  # by folder: one of the paths in it
        self._declarers: dict[tuple[str, str], _Declarer] = {}  # There are far fewer than files.
        self._clear: dict[Name, _Declarer] = {}  # by folder: for whom nothing speaks against it

    def declare(self, name: Name, place: str, component: str, *, is_file: bool) -> Name:
        """Notes a declaration.

        Args:
            name: The path below the root.
            place: The directory target that declares it, as a chain.
            component: The component that declares it.
            is_file: Whether it is a file, not a directory.

        Returns:
            What another component has declared, during this update, and can't be
            there together with it; :data:`ROOT` if there is nothing like that.
        """
        with self._lock:
            me = self._declarers.get((place, component))
            if me is None:
                me = self._declarers[place, component] = _Declarer(place, component)
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
        """What was declared that may contradict a declaration."""
        if name in self._files:
            yield name, self._files[name]
        if is_first:
            for path in ancestors(name):
                if path in self._files:
                    yield path, self._files[path]
        if is_file and name in self._below:
            yield self._below[name]

    def withdraw(self, name: Name, place: str) -> None:
        """Forgets a declaration."""
        with self._lock:
            self._clear.clear()
            declarer = self._files.get(name)
            if declarer is not None and declarer.place == place:
                del self._files[name]
            for folder in ancestors(name):
                below, declarer = self._below.get(folder, (ROOT, None))
                if below == name and declarer is not None and declarer.place == place:
                    del self._below[folder]


class _Declarer(NamedTuple):
    """Who declares a path: through which directory target, and in which component."""

    place: str
    component: str


class FileSpec(msgspec.Struct, frozen=True, gc=False):
    """A declared file, or a link, which has its state for a content."""

    content: bytes | Content | LinkState
    mode: int | None
    create_parent_dirs: bool
    component: str
    rival: Name = ROOT
    options: Options = _DEFAULTS
    fresh_owner: str = ""
    drifted: bool = False
    mtime_ns: int | None = None

    @property
    def state(self) -> FileState | LinkState:
        """The desired state."""
        content = self.content
        if isinstance(content, LinkState):
            return content
        if isinstance(content, bytes):
            return FileState(digest_of(content), len(content), self.mode, self.mtime_ns)
        return FileState(content.digest, content.size, self.mode, self.mtime_ns)

    @property
    def payload(self) -> bytes | Content | None:
        """What a file holds, or where that is."""
        return None if isinstance(self.content, LinkState) else self.content


class DirSpec(msgspec.Struct, frozen=True, gc=False):
    """A declared directory; options that are ``None`` are inherited."""

    create_parent_dirs: bool
    component: str = ""
    rival: Name = ROOT
    durability: Durability | None = None
    verify: Verify | None = None
    on_conflict: OnConflict | None = None
    fresh_owner: str = ""
    watch: Watch | None = None
    state: DirState = _ANY_FOLDER
    exact: bool = False
    by: str = ""

    def options(self, inherited: Options) -> Options:
        """The options that hold here."""
        return replace(
            inherited,
            durability=self.durability or inherited.durability,
            verify=self.verify or inherited.verify,
            on_conflict=self.on_conflict or inherited.on_conflict,
        )


Spec: TypeAlias = FileSpec | DirSpec
"""What is declared."""


class RootKey(NamedTuple):
    """The engine's key of a root: a context key and a path below it, or an absolute path."""

    base_dir_key: str | None
    path: str

    def resolve(self, context_provider: Any) -> str:
        """The absolute path, by what the context says now.

        Raises:
            RootError: The context says nothing.
        """
        if self.base_dir_key is None:
            return self.path
        try:
            base = context_provider.get(self.base_dir_key, Path)
        except KeyError:
            problem = "is a context key for which nothing is provided"
            raise RootError(self.base_dir_key, problem, "provide a directory for it") from None
        return os.path.abspath(os.path.join(base, self.path))

    def __str__(self) -> str:
        if self.base_dir_key is None:
            return self.path
        return self.base_dir_key if self.path == "." else f"{self.base_dir_key}:{self.path}"
