"""Keys: the paths of roots and state directories, as the engine and its records hold them.

Keys are stored in users' databases and never change silently.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from .._core.errors import RootError
from .._core.text import encoded, external, internal
from .._disk.locations import Location

__all__ = ["IN_ROOT", "RootKey", "StateKey"]


class RootKey(NamedTuple):
    """The engine's key of a root: a context key and a path below it, or a path alone.

    A relative path stays relative, so that a project which was moved or copied finds its own
    files, and its memoized components do not run again.
    """

    base_dir_key: str | None
    path: str

    @property
    def stable(self) -> tuple[str | None, str | bytes]:
        """The key as the engine takes it: bytes where a path is not UTF-8."""
        return self.base_dir_key, external(self.path)

    @classmethod
    def of(cls, stable: tuple[str | None, str | bytes]) -> Self:
        """Returns the key that the engine gives back."""
        return cls(stable[0], internal(stable[1]))

    def resolve(self, context_provider: Any) -> str:
        """Returns the absolute path, by what the context says now.

        Raises:
            RootError: The context says nothing.
        """
        if self.base_dir_key is None:
            return os.path.abspath(self.path)
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

    @property
    def packed(self) -> bytes:
        """The key as it is stored in records."""
        return encoded(f"{self.base_dir_key or ''}\0{self.path}")

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """Returns the key that was packed."""
        base, _, path = internal(packed).partition("\0")
        return cls(base or None, path)


class StateKey(NamedTuple):
    """The place where the state folder of a root is to be.

    Attributes:
        key: The key of the state directory; ``None`` for the root itself.
        is_noted: True to leave a note in the root that tells the state directory, and ``None``
            to change nothing about that.
    """

    key: RootKey | None = None
    is_noted: bool | None = False

    @classmethod
    def recorded(cls, packed: Iterable[bytes]) -> Self:
        """Returns where the state folder of a root is that is no longer declared, as recorded."""
        told = max(packed, default=b"")
        return cls(RootKey.unpacked(told) if told else None, None)

    @property
    def packed(self) -> bytes:
        """The key as it is stored in records; empty for the root itself."""
        return self.key.packed if self.key is not None else b""

    def locate(
        self, root: str, former: Iterable[bytes], resolve: Callable[[RootKey], str]
    ) -> Location:
        """Returns the location of a root.

        Args:
            root: Its absolute path.
            former: The packed keys of the state directories where its state folder may be so far.
            resolve: Returns the absolute path of a key.

        Raises:
            RootError: The state directory is inside of the root, or a context says nothing.
        """
        location = Location.named(root, resolve(self.key) if self.key is not None else "")
        before = dict.fromkeys([""]) if location.state else {}
        for packed in former:
            with contextlib.suppress(RootError):  # Its context is not provided any more.
                before[resolve(RootKey.unpacked(packed)) if packed else ""] = None
        before.pop(location.state, None)
        return location.declared(tuple(before), is_noted=self.is_noted)


IN_ROOT: Final = StateKey()
"""The root itself, without a note."""
