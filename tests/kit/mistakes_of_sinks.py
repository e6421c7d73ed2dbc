"""Connectors with one mistake each, in what they do; without it, each is its base class."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from hypothesis import strategies as st

from tests.kit.connectors import Action, Folder, Handler, Question, Shelf, Table
from tests.kit.mistakes import Draw

# In memory


class DeleteRaises(Shelf):
    """Can't delete a missing key."""

    def remove(self, key: str) -> None:
        del self.store[key]


class Appends(Shelf):
    """Appends to a value that it takes for new."""

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.store[key] = (self.store.get(key, b"") if is_new else b"") + value


class Cells(Shelf):
    """Keeps each key in a cell, with the key as it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[str, tuple[str, bytes]] = {}

    def keys(self) -> st.SearchStrategy[str]:
        return st.sampled_from("aAbB")

    def cell(self, key: str) -> str:
        return key

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.cells[self.cell(key)] = key, value

    def remove(self, key: str) -> None:
        if key in self.observe():
            del self.cells[self.cell(key)]

    def observe(self) -> Mapping[str, bytes]:
        return dict(self.cells.values())


class FoldsCase(Cells):
    """A connector with one cell for two keys."""

    def cell(self, key: str) -> str:
        return key.lower()


class OneCase(FoldsCase):
    """A connector with one cell for two keys, whose adapter says so."""

    def allows(self, keys: AbstractSet[str]) -> bool:
        return len({self.cell(key) for key in keys}) == len(keys)


class DeletesFirst(OneCase):
    """Empties cells without a look at the owner: right if all actions come in one call."""

    def apply(self, actions: Sequence[Action]) -> None:
        super().apply(sorted(actions, key=lambda action: action.value is not None))

    def remove(self, key: str) -> None:
        self.cells.pop(self.cell(key), None)


class WritesAll(Shelf):
    """Writes all declared keys with every update, like a container."""

    def is_settled(self, asked: Question) -> bool:
        return False


class ClearsFirst(WritesAll):
    """Takes the actions of one call for all actions."""

    def apply(self, actions: Sequence[Action]) -> None:
        self.store.clear()
        super().apply(actions)


class TakesAllForOne(Shelf):
    """Treats all actions of a call like the first one."""

    def apply(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if actions[0].value is None:
                self.remove(action.key)
            else:
                self.put(action.key, action.value or b"")


class Graves(Shelf):
    """Marks deleted keys, and hides them."""

    def __init__(self) -> None:
        super().__init__()
        self.graves = set[str]()

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.revive(key)
        super().put(key, value)

    def revive(self, key: str) -> None:
        self.graves.discard(key)

    def remove(self, key: str) -> None:
        self.graves.add(key)

    def observe(self) -> Mapping[str, bytes]:
        return {key: value for key, value in self.store.items() if key not in self.graves}


class ForgetsMoved(Graves):
    """Leaves the mark where one component deletes a key that another one declares."""

    def revive(self, key: str) -> None:
        pass


class Shared(Shelf):
    """A connector with a neighbour, who keeps values there as well."""

    def disturb(self, draw: Draw) -> None:
        self.store[draw(self.keys()) + "~"] = draw(self.values())


class DeletesByPrefix(Shared):
    """Deletes all keys that begin like the key."""

    def remove(self, key: str) -> None:
        for other in [other for other in self.store if other.startswith(key)]:
            del self.store[other]


class Rows(Shelf):
    """Rows without a key, each found by its values."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, bytes]] = []

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.remove(key)
        self.rows.append((key, value))

    def remove(self, key: str) -> None:
        self.rows = [row for row in self.rows if row[0] != key]

    def observe(self) -> Mapping[str, bytes]:
        keys = {key for key, _ in self.rows}
        return {key: b",".join(value for k, value in self.rows if k == key) for key in keys}


class RemembersRows(Rows):
    """Looks only for rows that it remembers to have written; a new process remembers none."""

    def handler(self) -> Handler:
        self.known: set[str] = set()
        return super().handler()

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        super().put(key, value)
        self.known.add(key)

    def remove(self, key: str) -> None:
        if key in self.known:
            super().remove(key)


class Listed(Shelf):
    """Keeps a list of its keys, which nobody else changes."""

    def __init__(self) -> None:
        super().__init__()
        self.list: dict[str, bytes] = {}

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.store[key] = self.list[key] = value

    def remove(self, key: str) -> None:
        self.list.pop(key, None)
        self.store.pop(key, None)

    def disturb(self, draw: Draw) -> None:
        self.store[draw(self.keys())] = draw(self.values())


class BelievesList(Listed):
    """Writes no key that is in its list."""

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        if self.list.get(key) != value:
            super().put(key, value)


class Sparing(Listed):
    """Deletes only values that are still as written; others are the neighbour's."""

    def remove(self, key: str) -> None:
        written = self.list.pop(key, None)
        if written is not None and self.store.get(key) == written:
            del self.store[key]


class SparesForAWhile(Sparing):
    """Deletes a key with the next batch."""

    def apply(self, actions: Sequence[Action]) -> None:
        for key in self.store.keys() - self.list.keys():
            del self.store[key]
        super().apply(actions)


# In files


class CreatesOnce(Folder):
    """Can't create a key that is there already."""

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        if is_new:
            os.close(os.open(self.path(key), os.O_CREAT | os.O_EXCL))
        super().put(key, value)


class StagesOnce(Folder):
    """Can't stage over the remains of an earlier attempt."""

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        os.close(os.open(self.staged(key), os.O_CREAT | os.O_EXCL))
        super().put(key, value)


class UnlinkRaises(Folder):
    """Can't delete a missing key."""

    def remove(self, key: str) -> None:
        self.path(key).unlink()


class SwallowsErrors(Folder):
    """Goes on after an error of the operating system, and says nothing."""

    def take(self, action: Action) -> None:
        with contextlib.suppress(OSError):
            super().take(action)


class TriesTheRest(Folder):
    """Goes on after an error, and raises the first one in the end."""

    def apply(self, actions: Sequence[Action]) -> None:
        errors = list[OSError]()
        for action in actions:
            try:
                self.take(action)
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]


class HearsTheFirstOnly(TriesTheRest):
    """Swallows errors at any action but the first."""

    def apply(self, actions: Sequence[Action]) -> None:
        super().apply(actions[:1])
        with contextlib.suppress(OSError):
            super().apply(actions[1:])


class WritesInPlace(Folder):
    """Empties a file before it writes it."""

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        self.path(key).write_bytes(value)


class LeavesResidue(Folder):
    """Stages among the files; nobody owns the remains of an attempt.

    To remove it before the next batch is not enough: there may be none.
    """

    def staged(self, key: str) -> Path:
        return self.path(f"{uuid.uuid4()}.new")


# In SQLite


class InsertsOnce(Table):
    """Can't insert a row that is there already."""

    def put(self, key: str, value: bytes, *, is_new: bool = False) -> None:
        if is_new:
            self.database.execute("INSERT INTO shelf VALUES (?, ?)", (key, value))
        else:
            super().put(key, value)


class SwallowsSqlErrors(Table):
    """Goes on after an error of SQLite, and says nothing."""

    def take(self, action: Action) -> None:
        with contextlib.suppress(sqlite3.Error):
            super().take(action)
