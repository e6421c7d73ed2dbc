"""Adapters to the target of ``sqlite``: the rows of a table, and tables."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import cocoindex as coco
from cocoindex._internal.context_keys import ContextProvider
from cocoindex.connectors.sqlite import ColumnDef, ManagedConnection, TableSchema, connect
from cocoindex.connectors.sqlite import _target as sqlite
from hypothesis import strategies as st

from tests.kit.others import Draw, Key

DATABASE = coco.ContextKey[ManagedConnection]("tests/kit/database")
THEIRS = "theirs"


class Database:
    """A database file, with a table that is none of ours."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory()
        self._file = Path(self._place.name, "database")
        self._managed: ManagedConnection | None = None
        self._pid = 0
        self.run(f"CREATE TABLE {THEIRS} (id INTEGER PRIMARY KEY)")

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements on a connection of its own; returns the rows of the last one."""
        with contextlib.closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            return [connection.execute(statement).fetchall() for statement in statements][-1]

    def managed(self) -> ManagedConnection:
        """Returns the connection of this process; a fork may not take it over."""
        if self._managed is None or self._pid != os.getpid():
            self._managed, self._pid = connect(self._file, load_vec=False), os.getpid()
            self._managed._conn.execute("PRAGMA synchronous = OFF")
        return self._managed

    def disconnect(self) -> None:
        """Closes the connection, as at the begin of another process."""
        if self._managed is not None:
            self._managed.close()
        self._managed = None

    def close(self) -> None:
        self.disconnect()
        self._place.cleanup()


class _RowHandler(sqlite._RowHandler):
    """A handler that makes whole rows of declarations, as ``declare_row`` does."""

    # Of which the engine would take fingerprints, and not of the part that the kit sees.
    tracks_value_fingerprint = False

    def reconcile(
        self,
        key: coco.StableKey,
        desired_state: Any,
        prev_possible_records: Collection[bytes],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[Any, bytes] | None:
        assert isinstance(key, tuple)
        if not coco.is_non_existence(desired_state):
            desired_state = {"id": key[0], "value": desired_state}
        return super().reconcile(key, desired_state, prev_possible_records, prev_may_be_missing)


class Rows(Database):
    """The rows of one table, with text as their key."""

    id_type = "TEXT"
    ids: tuple[str, ...] = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        columns = {"id": ColumnDef(self.id_type, nullable=False), "value": ColumnDef("BLOB")}
        self.schema = TableSchema[dict[str, Any]](columns, ["id"])
        self.run(f"CREATE TABLE ours (id {self.id_type} NOT NULL PRIMARY KEY, value BLOB)")

    def keys(self) -> st.SearchStrategy[Any]:
        return st.sampled_from([(each,) for each in self.ids])

    def values(self) -> st.SearchStrategy[Any]:
        return st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.binary(max_size=3)

    def handler(self) -> object:
        self.disconnect()
        return self._handler(_RowHandler)

    def apply(self, actions: Sequence[Any]) -> None:
        self._handler(sqlite._RowHandler)._apply_actions(ContextProvider(), actions)

    def observe(self) -> Mapping[Any, Any]:
        seen: dict[Key, object] = {(key,): value for key, value in self.run("SELECT * FROM ours")}
        return {**seen, THEIRS: self.run(f"SELECT * FROM {THEIRS}")}

    def _handler(self, kind: type[sqlite._RowHandler]) -> sqlite._RowHandler:
        """Returns a handler on the connection of this process."""
        return kind(self.managed(), "ours", self.schema)


class SharedRows(Rows):
    """A neighbour who writes to the table, and to another one."""

    def disturb(self, draw: Draw) -> None:
        key = draw(st.sampled_from([*self.ids, "of theirs"]))
        self.run(
            f"DELETE FROM ours WHERE id = '{key}'"
            if draw(st.booleans())
            else f"INSERT OR REPLACE INTO ours VALUES ('{key}', 'theirs')",
            f"INSERT INTO {THEIRS} VALUES (NULL)",
        )


class CaseFoldingRows(Rows):
    """Rows with a key in which case does not matter to the database."""

    id_type = "TEXT COLLATE NOCASE"
    ids = ("a", "A")

    def allows(self, keys: AbstractSet[Key]) -> bool:
        return len(keys) < 2


class UniqueRows(Rows):
    """A table in which the first letter of a key is unique."""

    ids = ("a1", "a2")

    def __init__(self) -> None:
        super().__init__()
        self.run("CREATE UNIQUE INDEX first ON ours (substr(id, 1, 1))")

    def allows(self, keys: AbstractSet[Key]) -> bool:
        return len(keys) < 2


def spec(id_type: str = "TEXT", **columns: str) -> Any:
    """Returns the declaration of a table with columns by type; ``!`` marks a required one."""
    more = {name: ColumnDef(of.rstrip("!"), nullable="!" not in of) for name, of in columns.items()}
    key = {"id": ColumnDef(id_type, nullable=False)}
    return sqlite._TableSpec(TableSchema[dict[str, Any]](key | more, ["id"]))


class Tables(Database):
    """Tables and their columns; each column is made anew to become another."""

    names: tuple[str, ...] = ("a", "b")
    specs: tuple[Any, ...] = (spec(), spec("INTEGER"))

    def keys(self) -> st.SearchStrategy[Any]:
        return st.sampled_from([(DATABASE.key, name) for name in self.names])

    def values(self) -> st.SearchStrategy[Any]:
        return st.sampled_from(self.specs)

    def expected(self, key: Key, value: Any) -> object:
        schema = value.table_schema
        return {
            name: column.type + ("" if column.nullable else "!")
            for name, column in schema.columns.items()
        }

    def handler(self) -> object:
        self.disconnect()
        return sqlite._TableHandler()

    def apply(self, actions: Sequence[Any]) -> None:
        provider = ContextProvider()
        provider.provide(DATABASE, self.managed())
        sqlite._apply_table_actions(provider, actions)

    def observe(self) -> Mapping[Any, Any]:
        tables = self.run("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {(DATABASE.key, name): self._columns(name) for (name,) in tables}

    def _columns(self, table: str) -> dict[str, str]:
        """Reads the columns of a table, by type."""
        columns = self.run(f'PRAGMA table_info("{table}")')
        return {name: of + "!" * is_set for _, name, of, is_set, _, _ in columns}


class MendedTables(Tables):
    """Tables whose earlier existence is no error, to see later defects."""

    def apply(self, actions: Sequence[Any]) -> None:
        again = {"insert": "upsert"}
        super().apply(
            [
                each._replace(main_action=again.get(each.main_action, each.main_action))
                for each in actions
            ]
        )


class AlteredTables(MendedTables):
    """Tables that stay, and whose columns come, go and change."""

    specs = (spec(), spec(x="TEXT"), spec(x="INTEGER", y="TEXT"))


class FilledTables(MendedTables):
    """Tables with a row in each."""

    specs = (spec(), spec(x="TEXT!"))

    def disturb(self, draw: Draw) -> None:
        for _, name in self.observe():
            if name != THEIRS:
                columns = ", ".join(self._columns(name))
                marks = ", ".join("'z'" for _ in self._columns(name))
                self.run(f"INSERT OR IGNORE INTO {name} ({columns}) VALUES ({marks})")


class IndexedTables(MendedTables):
    """A neighbour who makes an index on a column."""

    specs = (spec(), spec(x="TEXT"))

    def disturb(self, draw: Draw) -> None:
        with contextlib.suppress(sqlite3.OperationalError):
            self.run("CREATE INDEX by_x ON a (x)")


class CaseFoldingColumns(MendedTables):
    """Columns with two names that the database takes for one."""

    names = ("a",)
    specs = (spec(x="TEXT"), spec(X="TEXT"))


class CaseFoldingTables(MendedTables):
    """Tables with two names that the database takes for one."""

    names = ("a", "A")

    def allows(self, keys: AbstractSet[Key]) -> bool:
        return len(keys) < 2
