"""The ledger is damaged, lost, old or copied: nothing is lost, and the work goes on."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import FsMirrorError, LedgerError, Mirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.rows import Kind, Row
from cocoindex_fsmirror._mirror.drift import DriftReport
from cocoindex_fsmirror._mirror.formats import CorruptLedgerError
from cocoindex_fsmirror._mirror.ledger import Ledger
from cocoindex_fsmirror._mirror.notes import Pending
from cocoindex_fsmirror._mirror.reader import ALL, LedgerReader, Span
from cocoindex_fsmirror._mirror.reading import exists
from tests.steps import identity, quiet_state
from tests.support import OWNER, backups, contents, delete, exact_state, snapshot, write

FILES = {"x": b"1", "d/y": b"2", "d/ä\n": b"3"}
INTENTS = [write(name, content, durable=False) for name, content in FILES.items()]

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def ledger(root: Path) -> Path:
    """The closed ledger of a root with some files of ours, and a foreign one."""
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
    (root / "d" / "theirs").write_bytes(b"foreign")
    return root / ".fsmirror" / "ledger.sqlite3"


def _truncate(ledger: Path) -> None:
    os.truncate(ledger, ledger.stat().st_size // 2 + 100)


def _scramble(ledger: Path) -> None:
    ledger.write_bytes(bytes(range(256)) * 40)


def _head_only(ledger: Path) -> None:
    os.truncate(ledger, 100)


def _replace_by_folder(ledger: Path) -> None:
    ledger.unlink()
    ledger.mkdir()
    (ledger / "inside").write_bytes(b"foreign")


def _replace_by_fifo(ledger: Path) -> None:
    ledger.unlink()
    os.mkfifo(ledger)


def _other_database(ledger: Path) -> None:
    ledger.unlink()
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute("CREATE TABLE theirs (a)")
        database.commit()


DAMAGES = [_truncate, _scramble, _head_only, _replace_by_folder, _replace_by_fifo, _other_database]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_ledger_is_set_aside_and_said_so_and_the_files_are_adopted(
    ledger: Path, root: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(ledger)
    before = {name: identity(root / name) for name in FILES}
    with Mirror(root) as mirror, caplog.at_level(logging.WARNING, "cocoindex_fsmirror"):
        mirror.apply(INTENTS)
        assert mirror.managed() == sorted(FILES)
        assert mirror.verify() == []
    assert {name: identity(root / name) for name in FILES} == before
    (message,) = caplog.messages
    aside = [path for path in ledger.parent.iterdir() if "corrupt" in path.name]
    assert [path.name for path in aside if path.name in message] != []
    assert str(root) in message
    assert backups(root) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_look_at_a_corrupt_ledger_raises_nothing_and_never_hangs(
    ledger: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    damage(ledger)
    call = "import sys; from cocoindex_fsmirror import Mirror; Mirror(sys.argv[1]).observe()"
    command = [sys.executable, "-c", call, str(root)]
    before = exact_state(root)
    assert subprocess.run(command, check=False, timeout=15).returncode == 0
    assert exact_state(root) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_mirror_with_a_corrupt_ledger_exists(
    ledger: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    """Else a program that asks first would never get to the update that sets it aside."""
    damage(ledger)
    assert exists(str(root))


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_ledger_of_no_length_is_carried_on_from(ledger: Path, root: Path, suffix: str) -> None:
    Path(f"{ledger}{suffix}").write_bytes(b"")
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
        assert mirror.managed() == sorted(FILES)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


def test_after_a_lost_ledger_nothing_counts_as_ours(ledger: Path, root: Path) -> None:
    ledger.write_bytes(b"garbage" * 1_000)
    with Mirror(root) as mirror:
        mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


def test_what_was_set_aside_never_replaces_what_was_set_aside_before(
    ledger: Path, root: Path
) -> None:
    for number in range(3):
        ledger.write_bytes(b"garbage %d" % number * 1_000)
        with Mirror(root) as mirror:
            mirror.apply(INTENTS)
    aside = [path for path in ledger.parent.iterdir() if "corrupt" in path.name]
    assert len([path for path in aside if path.read_bytes().startswith(b"garbage")]) == 3


@pytest.mark.parametrize("start", range(0, 8, 2))
def test_a_flipped_bit_anywhere_loses_nothing_and_never_stops_us(
    ledger: Path, root: Path, start: int
) -> None:
    good = ledger.read_bytes()
    used = [at for at in range(len(good)) if good[at] != 0]
    for at in [*range(24, 100, 8), *used][start :: max(8, len(used) // 60)]:
        flipped = bytearray(good)
        flipped[at] ^= 1 << (at + start) % 8
        for suffix in ("-wal", "-shm"):
            Path(f"{ledger}{suffix}").unlink(missing_ok=True)
        ledger.write_bytes(flipped)
        with Mirror(root) as mirror:
            mirror.observe()
            refused = _refusal(mirror)
            assert refused is None or "format" in refused, f"byte {at}: {refused}"
            if refused is not None:
                continue
            assert not set(mirror.verify()) & set(FILES), f"byte {at}"
        assert contents(snapshot(root)).items() >= (FILES | {"d/theirs": b"foreign"}).items()


def _refusal(mirror: Mirror) -> str | None:
    """What a mirror has to say against an update; ``None`` if it was applied."""
    try:
        mirror.apply(INTENTS)
    except FsMirrorError as error:
        return str(error)
    return None


def test_a_name_that_is_no_text_any_more_is_a_corrupt_ledger(ledger: Path, root: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute("UPDATE rows SET name = CAST(x'ff41' AS TEXT) WHERE name = 'x'")
        database.commit()
    with Mirror(root) as mirror:
        mirror.observe()
        mirror.apply([], closed=[(OWNER, "")])
        mirror.apply(INTENTS)
    assert contents(snapshot(root)).items() >= {"x": b"1", "d/theirs": b"foreign"}.items()


def _rename_row(ledger: Path) -> None:
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
    _rename_row(ledger)
    opened = LedgerReader.peek(str(root))
    assert opened is not None
    with contextlib.closing(opened), pytest.raises(CorruptLedgerError, match=r"\.\./x"):
        read(opened)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_file_without_tables_is_no_ledger_yet(
    ledger: Path, root: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a process leaves it that ended while it made the ledger."""
    ledger.unlink()
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        assert LedgerReader.peek(str(root)) is None
    mirror = Mirror(root)
    assert not exists(mirror.root)
    assert mirror.observe() == DriftReport()
    mirror.apply([write("x", b"1")])
    assert exists(mirror.root)
    mirror.close()
    assert not caplog.records


def test_no_ledger_with_a_name_that_leaves_the_root_is_opened(ledger: Path, root: Path) -> None:
    _rename_row(ledger)
    folder = os.open(ledger.parent, os.O_RDONLY)
    try:
        with pytest.raises(CorruptLedgerError, match=r"\.\./x"):
            Ledger.open(str(root), folder, network=False)
    finally:
        os.close(folder)


def test_no_intent_with_a_name_that_leaves_the_root_is_read() -> None:
    row = Row(Name("../x"), Kind.FILE, OWNER, "")
    with contextlib.closing(Ledger.empty()) as opened:
        opened.begin([Pending("batch", Name(""), "0", False, row)], durable=False)
        with pytest.raises(CorruptLedgerError, match=r"\.\./x"):
            opened.pending()


def test_a_ledger_that_may_not_be_looked_at_is_not_taken_for_none(
    ledger: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of another user, whose folder is closed."""
    real = os.lstat

    def lstat(path: str, **more: Any) -> os.stat_result:
        if path == str(ledger):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", lstat)
    for look in (partial(exists, str(root)), Mirror(root).status, Mirror(root).managed):
        with pytest.raises(LedgerError, match=r"Permission denied \(grant this user read access\)"):
            look()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET value = 1 WHERE key = 'format'",
        "INSERT INTO intents VALUES ('batch', 'owner', 0, x'ff')",
        "INSERT INTO intents VALUES ('batch', 'owner', 0, x'9194a0a131c293a12f')",
        "INSERT INTO intents VALUES ('batch', 'owner', 0, 'text')",
    ],
    ids=["a format that was never released", "no notes", "notes of another kind", "text"],
)
def test_what_can_not_be_read_is_set_aside(ledger: Path, root: Path, damage: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(damage)
        database.commit()
    with Mirror(root) as mirror:
        mirror.observe()
        mirror.apply(INTENTS)
        assert mirror.verify() == []
    assert [path for path in ledger.parent.iterdir() if "corrupt" in path.name]
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


def test_a_format_from_the_future_is_one_clear_error(ledger: Path, root: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute("UPDATE meta SET value = 7 WHERE key = 'format'")
        database.commit()
    before = exact_state(root / "d")
    with Mirror(root) as mirror:
        with pytest.raises(LedgerError, match=f"{ledger}.*7") as error:
            mirror.apply(INTENTS)
        assert type(error.value) is LedgerError
        known = partial(exists, mirror.root)
        for ask in (partial(mirror.apply, INTENTS), known, mirror.status, mirror.verify):
            with pytest.raises(LedgerError, match="has format 7"):
                ask()
    assert ledger.exists()
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}
    assert exact_state(root / "d") == before


@pytest.mark.parametrize("what", ["ledger", "folder"])
def test_a_deleted_ledger_makes_everything_adopted_and_nothing_ours(
    ledger: Path, root: Path, what: str
) -> None:
    ledger.unlink() if what == "ledger" else shutil.rmtree(ledger.parent)
    before = {name: identity(root / name) for name in FILES}
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
        assert {name: identity(root / name) for name in FILES} == before
        assert mirror.managed() == sorted(FILES)
        mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


@pytest.mark.parametrize("what", ["ledger", "folder"])
def test_a_ledger_that_vanishes_while_a_mirror_is_open_is_made_anew(
    ledger: Path, root: Path, what: str
) -> None:
    with Mirror(root) as mirror:
        mirror.apply([write("new", b"4")])
        if what == "folder":
            shutil.rmtree(ledger.parent)
        else:
            for path in ledger.parent.glob("ledger*"):
                path.unlink()
        mirror.apply([*INTENTS, write("new", b"4"), write("later", b"5")])
        assert mirror.managed() == sorted([*FILES, "new", "later"])
    with Mirror(root) as other:
        assert other.managed() == sorted([*FILES, "new", "later"])


def test_an_edit_is_found_though_the_ledger_was_copied_with_its_root(
    ledger: Path, root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "x").write_bytes(b"7")
    with Mirror(copy) as mirror:
        assert mirror.verify() == ["x"]
        assert OWNER not in mirror.observe().known
        mirror.apply(INTENTS)
        assert mirror.verify() == []
    assert contents(snapshot(copy)) == FILES | {"d/theirs": b"foreign"}
    assert backups(copy) == [b"7"]


def test_a_restored_ledger_is_not_believed_blindly(
    ledger: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = ledger.with_name("old")
    shutil.copy2(ledger, old)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"newer"), delete("d/y"), write("z", b"4")])
    (root / "d" / "y").write_bytes(b"foreign y")
    for path in ledger.parent.glob("ledger*"):
        path.unlink()
    os.rename(old, ledger)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"newest"), write("z", b"4"), delete("d/y")])
        assert mirror.verify() == []
    assert any("copied or restored" in message for message in caplog.messages)
    assert contents(snapshot(root)).items() >= {"x": b"newest", "z": b"4"}.items()
    assert set(backups(root)) == {b"newer", b"foreign y"}


def test_an_older_ledger_put_back_into_the_same_file_loses_nothing(
    ledger: Path, root: Path
) -> None:
    old = ledger.read_bytes()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"7"), delete("d/y")])
    (root / "d" / "y").write_bytes(b"8")
    ledger.write_bytes(old)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"9"), delete("d/y")])
    assert (root / "x").read_bytes() == b"9"
    assert backups(root) == [b"7", b"8"]


@pytest.mark.parametrize("log", ["no log", "a log", "the log of a dead process"])
def test_a_peek_changes_nothing_at_all(ledger: Path, root: Path, log: str) -> None:
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
        peeked = LedgerReader.peek(str(root))
        assert peeked is not None
        names = {row.name for row in peeked.rows()}
        peeked.close()
        assert names == {*FILES, "d"} | ({"new"} if log != "no log" else set())
        assert quiet_state(root) == before


def test_a_peek_at_what_is_no_mirror_makes_none(root: Path) -> None:
    root.mkdir()
    assert LedgerReader.peek(str(root)) is None
    assert list(root.iterdir()) == []


def test_one_path_is_looked_at_without_reading_the_others(root: Path) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write(f"d/{number}") for number in range(2_000)])
    ledger = LedgerReader.peek(str(root))
    assert ledger is not None
    with contextlib.closing(ledger):
        steps: list[None] = []
        ledger._connection.set_progress_handler(partial(steps.append, None), 1)
        for only in ("d/0", "d/1", "d/1999", "d/none"):
            found = [row.name for row in ledger.page(Span(only=Name(only)))]
            assert found == [name for name, *_ in ledger.signatures(Span(only=Name(only)))]
            assert found == ([] if only == "d/none" else [only])
        half = ledger.signatures(Span(Name("c"), Name("d/0")))
        assert [name for name, *_ in half] == ["d/0"]
    assert 0 < len(steps) < 2_000
