"""Three small correct connectors: to a dict, to a folder, and to a SQLite table."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cocoindex as coco
from hypothesis import strategies as st

Output: TypeAlias = coco.TargetReconcileOutput["Action", Any, None]
Desired: TypeAlias = bytes | coco.NonExistenceType


class Action(NamedTuple):
    """An action on a key: to put a value there, or to delete it."""

    key: str
    value: bytes | None
    is_new: bool = False  # No previous record is known.


def _apply(_context: Any, _actions: Sequence[Action]) -> None:
    """Is never called: the kit calls the adapter instead."""


_sink = coco.TargetActionSink.from_fn(_apply)


def output(action: Action, record: object) -> Output:
    """Returns the output of ``reconcile``."""
    return coco.TargetReconcileOutput(action, _sink, record)


class Question(NamedTuple):
    """The arguments of ``reconcile`` for a declared key."""

    key: str
    value: bytes
    previous: Collection[Any]
    missing: bool


class Handler(coco.TargetHandler[bytes, Any, None]):
    """A handler that leaves to its shelf every step in which a mistake can be made."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def reconcile(
        self, key: coco.StableKey, desired: Desired, previous: Collection[Any], missing: bool, /
    ) -> Output | None:
        assert isinstance(key, str)
        if coco.is_non_existence(desired):
            return output(self.shelf.deletion(key), coco.NON_EXISTENCE)
        if self.shelf.is_settled(Question(key, desired, previous, missing)):
            return None
        return output(Action(key, desired, not previous), self.shelf.record(desired))


class Shelf:
    """A dict, in memory."""

    def __init__(self) -> None:
        self.store: dict[str, bytes] = {}

    def keys(self) -> st.SearchStrategy[str]:
        return st.sampled_from("abc")

    def values(self) -> st.SearchStrategy[bytes]:
        return st.binary(max_size=3)

    def handler(self) -> Handler:
        return Handler(self)

    def record(self, value: bytes) -> object:
        return value

    def deletion(self, key: str) -> Action:
        return Action(key, None)

    def is_settled(self, asked: Question) -> bool:
        return not asked.missing and all(r == self.record(asked.value) for r in asked.previous)

    def apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self.take(action)

    def take(self, action: Action) -> None:
        """Carries out one action."""
        if action.value is None:
            self.remove(action.key)
        else:
            self.put(action.key, action.value, is_new=action.is_new)

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.store[key] = value

    def remove(self, key: str) -> None:
        self.store.pop(key, None)

    def observe(self) -> Mapping[str, bytes]:
        return dict(self.store)


class Folder(Shelf):
    """Files of a folder, each replaced at once; staged beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.top = tempfile.TemporaryDirectory()
        self.at = Path(self.top.name, "files")
        self.at.mkdir()

    def path(self, key: str) -> Path:
        return self.at / key

    def staged(self, key: str) -> Path:
        return Path(self.top.name, key)

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        staged = self.staged(key)
        staged.write_bytes(value)
        os.replace(staged, self.path(key))

    def remove(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def observe(self) -> Mapping[str, bytes]:
        return {path.name: path.read_bytes() for path in self.at.iterdir()}

    def close(self) -> None:
        self.top.cleanup()


class Table(Shelf):
    """Rows of a table; a batch is a transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.top = tempfile.TemporaryDirectory()
        self.database = sqlite3.connect(Path(self.top.name, "db"))
        self.database.execute("PRAGMA synchronous=OFF")
        self.database.execute("CREATE TABLE shelf (key TEXT PRIMARY KEY, value BLOB)")

    def apply(self, actions: Sequence[Action]) -> None:
        with self.database:
            super().apply(actions)

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.database.execute("INSERT OR REPLACE INTO shelf VALUES (?, ?)", (key, value))

    def remove(self, key: str) -> None:
        self.database.execute("DELETE FROM shelf WHERE key = ?", (key,))

    def observe(self) -> Mapping[str, bytes]:
        return dict(self.database.execute("SELECT key, value FROM shelf"))

    def close(self) -> None:
        self.database.close()
        self.top.cleanup()
