"""A damaged ledger is set aside, and nothing is lost; one of a newer format is refused."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import FsMirrorError, LedgerError, Mirror
from cocoindex_fsmirror._mirror.known import exists
from tests.mirror.files import FILES, INTENTS
from tests.steps import identity
from tests.support import backups, contents, exact_state, snapshot

pytestmark = pytest.mark.usefixtures("no_waiting")


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
def test_corrupt_ledger_is_set_aside_and_the_files_are_adopted(
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
def test_look_at_a_corrupt_ledger_raises_nothing_and_never_hangs(
    ledger: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    damage(ledger)
    call = "import sys; from cocoindex_fsmirror import Mirror; Mirror(sys.argv[1]).observe()"
    command = [sys.executable, "-c", call, str(root)]
    before = exact_state(root)
    assert subprocess.run(command, check=False, timeout=15).returncode == 0
    assert exact_state(root) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_mirror_with_a_corrupt_ledger_exists(
    ledger: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    """A program that asks ``exists`` first must get to the update that sets the ledger aside."""
    damage(ledger)
    assert exists(str(root))


def test_ledgers_that_are_set_aside_never_replace_each_other(ledger: Path, root: Path) -> None:
    for number in range(3):
        ledger.write_bytes(b"garbage %d" % number * 1_000)
        with Mirror(root) as mirror:
            mirror.apply(INTENTS)
    aside = [path for path in ledger.parent.iterdir() if "corrupt" in path.name]
    assert len([path for path in aside if path.read_bytes().startswith(b"garbage")]) == 3


@pytest.mark.parametrize("start", range(0, 8, 2))
def test_flipped_bit_anywhere_loses_nothing_and_stops_nothing(
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
    """Returns the error of an update; ``None`` if it was applied."""
    try:
        mirror.apply(INTENTS)
    except FsMirrorError as error:
        return str(error)
    return None


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
def test_ledger_with_unreadable_notes_is_set_aside(ledger: Path, root: Path, damage: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database:
        database.execute(damage)
        database.commit()
    with Mirror(root) as mirror:
        mirror.observe()
        mirror.apply(INTENTS)
        assert mirror.verify() == []
    assert [path for path in ledger.parent.iterdir() if "corrupt" in path.name]
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


def test_newer_format_is_one_clear_error(ledger: Path, root: Path) -> None:
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
