"""Rows that no release stores are damage, wherever they came from."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.errors import CorruptLedgerError
from cocoindex_fsmirror._core.owners import Owner
from tests.command.commands import run
from tests.mirror.files import INTENTS
from tests.support import OWNER, backups, exact_state

pytestmark = pytest.mark.usefixtures("no_waiting")

WRONG = {
    "kind": ["'fild'", "''", "x'00'", "7"],
    "owner": ["x'6f'"],
    "container": ["x'6f'"],
    "component": ["x'6f'"],
    "digest": ["x'00'", "x''", "'text'", "7", "zeroblob(17)"],
    "size": ["-1", "'x'", "x'00'", "1.5", "1e300"],
    "mode": ["-1", "65536", "0.5", "'x'", "x'00'"],
    "inode": ["'x'", "x'00'", "1.5"],
    "mtime_ns": ["'x'", "x'00'", "1.5"],
    "ctime_ns": ["'x'", "x'00'", "1.5"],
    "recorded_ns": ["'x'", "x'00'", "1.5", "1e30"],
    "made": ["2", "'x'"],
    "declared": ["2", "0"],
    "unsynced": ["-1", "x'01'"],
    "seen": ["'x'"],
    "target": ["x'00'"],
    "asked_ns": ["'x'", "x'00'", "1.5"],
    "source_inode": ["'x'"],
    "source_ctime_ns": ["x'00'"],
    "name": ["x'61'", "'../x'", "''", "'a//b'", "'/a'"],
}


@pytest.mark.parametrize(
    ("column", "value"), [(column, value) for column in WRONG for value in WRONG[column]]
)
def test_row_that_no_release_stores_is_damage(
    ledger: Path, root: Path, column: str, value: str
) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        sql = f"UPDATE rows SET {column} = {value} WHERE name = 'd/y'"
        database.execute(sql)
        database.commit()
    with Mirror(root) as mirror:
        with pytest.raises(CorruptLedgerError):
            mirror.verify()
        assert not mirror.observe().owners
        mirror.apply(INTENTS)
        assert mirror.verify() == []
    assert backups(root) == []
    assert [left for left in (root / ".fsmirror").iterdir() if "corrupt" in left.name]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE owners SET batches = 'x'",
        "UPDATE owners SET epoch = x'ff'",
        "INSERT INTO displaced VALUES ('d/y', 'o', '', '', 'd', 'x')",
        "INSERT INTO displaced VALUES ('../y', 'o', '', '', 'd', 0)",
        "INSERT INTO intents VALUES ('b', 'o', 0, x'00')",
        "INSERT INTO intents VALUES ('b', 'o', 0, 'text')",
    ],
)
def test_row_of_any_table_that_can_not_be_read_is_damage(
    ledger: Path, root: Path, tmp_path: Path, damage: str
) -> None:
    with Mirror(root) as mirror:
        mirror.prepare(Owner(OWNER), mirror.observe())
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(damage)
        database.commit()
    (source := tmp_path / "source").mkdir()
    before = exact_state(root)
    for command in ("verify", "status", "adopt --dry-run", f"sync --dry-run {source}"):
        result = run(*command.split(), root)
        assert result.exit_code == 3
        assert str(ledger) in result.stderr
    assert exact_state(root) == before
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
        assert mirror.verify() == []


@pytest.mark.parametrize("table", ["rows", "meta", "displaced", "intents", "owners"])
def test_ledger_without_a_table_is_damaged(ledger: Path, root: Path, table: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(f"DROP TABLE {table}")
        database.commit()
    with Mirror(root) as mirror:
        with pytest.raises(CorruptLedgerError):
            mirror.verify()
        mirror.apply(INTENTS)
        assert mirror.verify() == []


def test_row_with_nothing_where_a_value_must_be_is_damage(ledger: Path, root: Path) -> None:
    """Changes the tables, too, since SQLite would refuse it, as damage does not."""
    for sql in (
        "UPDATE sqlite_master SET sql = replace(sql, 'owner TEXT NOT NULL', 'owner TEXT')",
        "UPDATE rows SET owner = NULL ",
        "UPDATE sqlite_master SET sql = replace(sql, 'owner TEXT,', 'owner TEXT NOT NULL,')",
    ):
        with contextlib.closing(sqlite3.connect(ledger)) as database:
            database.execute("PRAGMA writable_schema = ON")
            database.execute(sql)
            database.commit()
    with Mirror(root) as mirror, pytest.raises(CorruptLedgerError, match="NULL"):
        mirror.verify()
