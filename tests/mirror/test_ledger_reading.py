"""A ledger is read without changing anything, and no name in it leads out of the root."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import LedgerError, Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.errors import CorruptLedgerError
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.rows import Displaced, Pending, Row
from cocoindex_fsmirror._core.states import Kind
from cocoindex_fsmirror._disk.locations import Location
from cocoindex_fsmirror._mirror.known import exists
from cocoindex_fsmirror._mirror.ledger import Ledger
from cocoindex_fsmirror._mirror.reader import ALL, LedgerReader, Span
from tests.mirror.files import FILES, INTENTS
from tests.steps import quiet_state
from tests.support import OWNER, write

pytestmark = pytest.mark.usefixtures("no_waiting")


def rename_row(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute("UPDATE rows SET name = '../x' WHERE name = 'x'")
        database.commit()


@pytest.mark.parametrize(
    "read",
    [
        lambda ledger: ledger.rows(),
        lambda ledger: ledger.page(ALL),
        lambda ledger: ledger.signatures(ALL),
        lambda ledger: ledger.rows_named([Name("../x")]),
    ],
)
def test_no_name_that_leaves_the_root_is_read(
    ledger: Path, root: Path, read: Callable[[LedgerReader], object]
) -> None:
    rename_row(ledger)
    opened = LedgerReader.peek(Location(str(root)).spot)
    with contextlib.closing(opened), pytest.raises(CorruptLedgerError, match=r"\.\./x"):
        read(opened)


@pytest.mark.parametrize("name", ["x'78'", "x'ffff'", "'x' || char(0) || 'y'"])
def test_name_that_is_no_text_is_not_skipped(ledger: Path, root: Path, name: str) -> None:
    """Asks for what SQLite sorts behind every text, and for a text that holds a NUL."""
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(f"UPDATE rows SET name = {name} WHERE name = 'x'")
        database.commit()
    with Mirror(root) as mirror:
        with pytest.raises(CorruptLedgerError):
            mirror.verify()
        mirror.apply(INTENTS)
        assert mirror.verify() == []


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_database_without_tables_is_no_ledger_yet(
    ledger: Path, root: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that ends while it makes the ledger leaves such a file."""
    ledger.unlink()
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        assert not exists(str(root))
    mirror = Mirror(root)
    assert not exists(mirror.root)
    assert mirror.observe() == DriftReport()
    mirror.apply([write("x", b"1")])
    assert exists(mirror.root)
    mirror.close()
    assert not caplog.records


def test_no_ledger_with_a_name_that_leaves_the_root_is_opened(ledger: Path, root: Path) -> None:
    rename_row(ledger)
    folder = os.open(ledger.parent, os.O_RDONLY)
    try:
        with pytest.raises(CorruptLedgerError, match=r"\.\./x"):
            Ledger.open(str(root / ".fsmirror"), folder, str(root), wal=True)
    finally:
        os.close(folder)


@pytest.mark.parametrize(("home", "name"), [("", "../x"), ("../x", "x")])
def test_no_intent_with_a_name_that_leaves_the_root_is_read(home: str, name: str) -> None:
    row = Row(Name(name), Kind.FILE, OWNER, "")
    with contextlib.closing(Ledger.empty()) as opened:
        opened.begin([Pending("batch", Name(home), "0", False, row)], durable=False)
        with pytest.raises(CorruptLedgerError, match=r"\.\./x"):
            opened.pending()


def test_no_note_with_a_name_that_leaves_the_root_is_read() -> None:
    with contextlib.closing(Ledger.empty()) as opened:
        opened.set_displaced([Displaced(Name("../x"), OWNER, "", "", Name("y"))], [])
        with pytest.raises(CorruptLedgerError, match=r"\.\./x"):
            opened.displaced()


def test_no_staging_area_outside_the_root_is_emptied(ledger: Path, root: Path) -> None:
    """The note of a batch tells where its area is, and a ledger may come from anybody."""
    outside = root.parent / ".fsmirror" / "tmp" / ("a" * 32) / "0"
    outside.parent.mkdir(parents=True)
    outside.write_bytes(b"outside")
    with Mirror(root) as mirror:
        mirror.apply([write("new", b"1")])
        opened = mirror.session.ledger
        assert opened is not None
        row = Row(Name("y"), Kind.FILE, OWNER, "")
        opened.begin([Pending("b" * 32, Name(".."), "0", False, row)])
        mirror.apply([write("new", b"2")])
    assert outside.read_bytes() == b"outside"


def test_ledger_without_permission_is_not_taken_for_none(
    ledger: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a ledger belongs to another user, whose folder is closed."""
    real = os.stat

    def stat(path: str, **more: Any) -> os.stat_result:
        if path == ledger.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    for look in (partial(exists, str(root)), Mirror(root).status, Mirror(root).managed):
        with pytest.raises(LedgerError, match=r"Permission denied \(grant this user read access\)"):
            look()


@pytest.mark.parametrize("log", ["no log", "a log", "the log of a dead process"])
def test_peek_changes_nothing(ledger: Path, root: Path, log: str) -> None:
    with contextlib.ExitStack() as stack:
        if log != "no log":
            mirror = stack.enter_context(Mirror(root))
            mirror.apply([write("new", b"4")])
            assert Path(f"{ledger}-wal").stat().st_size > 0
        if log == "the log of a dead process":
            copy = root.with_name("copy")
            shutil.copytree(root, copy)
            mirror.close()
            root = copy
        before = quiet_state(root)
        peeked = LedgerReader.peek(Location(str(root)).spot)
        names = {row.name for row in peeked.rows()}
        peeked.close()
        assert names == {*FILES, "d"} | ({"new"} if log != "no log" else set())
        assert quiet_state(root) == before


def test_peek_at_a_folder_without_a_mirror_makes_none(root: Path) -> None:
    root.mkdir()
    assert not exists(str(root))
    assert list(root.iterdir()) == []


def test_one_row_is_found_without_reading_the_others(root: Path) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write(f"d/{number}") for number in range(2_000)])
    ledger = LedgerReader.peek(Location(str(root)).spot)
    with contextlib.closing(ledger):
        steps: list[None] = []
        ledger._connection.set_progress_handler(partial(steps.append, None), 1)
        for only in ("d/0", "d/1", "d/1999", "d/none"):
            found = [row.name for row in ledger.page(Span(only, only))]
            assert found == [name for name, *_ in ledger.signatures(Span(only, only))]
            assert found == ([] if only == "d/none" else [only])
        half = ledger.signatures(Span("c", "d/0"))
        assert [name for name, *_ in half] == ["d/0"]
    assert 0 < len(steps) < 2_000
