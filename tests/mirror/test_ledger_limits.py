"""A sound ledger that can't be read for want of memory or descriptors is not damaged."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import LedgerError, Mirror
from cocoindex_fsmirror._core.errors import CorruptLedgerError
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._mirror.database import translated
from cocoindex_fsmirror._mirror.known import exists, noted
from cocoindex_fsmirror._mirror.owners import owners
from cocoindex_fsmirror._mirror.reader import LedgerReader
from tests.mirror.files import FILES, INTENTS
from tests.support import OWNER, contents, exact_state, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting")

_LIMITED = """
import os, resource, sys
from cocoindex_fsmirror import FsMirrorError, Mirror
from cocoindex_fsmirror._core.names import Name
from tests.support import write
root, what, room = sys.argv[1], sys.argv[2], int(sys.argv[3])
mirror = Mirror(root)
mirror.verify()  # Everything is loaded.
intents = [write(f"d/{n:04}", b"%d" % n, durable=False) for n in range(3000)]
if what == "memory":
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
else:
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, free + room))
for act in (mirror.verify, mirror.observe, lambda: mirror.apply(intents)):
    try:
        act()
    except (FsMirrorError, MemoryError, OSError) as error:
        print(type(error).__name__, str(error)[:200])
"""


@pytest.fixture
def many(root: Path) -> Path:
    """A mirror with a ledger of some hundred pages."""
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write(f"d/{n:04}", b"%d" % n, durable=False) for n in range(3000)])
    return root


@pytest.mark.parametrize(
    ("what", "room"),
    [
        *(("memory", room << 10) for room in (0, 64, 256, 512, 1024, 2048, 4096)),
        *(("descriptors", room) for room in (0, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_limit_of_the_process_is_no_damage(many: Path, what: str, room: int) -> None:
    command = [sys.executable, "-c", _LIMITED, str(many), what, str(room)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    told = done.stdout + done.stderr
    assert "Corrupt" not in told
    assert "set aside" not in told
    assert not [left for left in (many / ".fsmirror").iterdir() if "corrupt" in left.name]
    assert len(contents(snapshot(many))) == 3000
    with Mirror(many) as mirror:
        mirror.apply([])
        assert mirror.verify() == []
        assert len(mirror.managed()) == 3000


@pytest.mark.parametrize(
    "error", [MemoryError(), sqlite3.ProgrammingError("Cannot operate on a closed database.")]
)
def test_error_that_tells_nothing_of_the_file_is_no_damage(error: Exception) -> None:
    with pytest.raises(LedgerError) as raised, translated("the ledger"):
        raise error
    assert type(raised.value) is LedgerError
    assert str(raised.value).startswith("the ledger: ")


@pytest.mark.parametrize(
    "code", ["SQLITE_NOMEM", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_FULL"]
)
def test_code_of_sqlite_that_tells_nothing_of_the_file_is_no_damage(code: str) -> None:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = getattr(sqlite3, code)
    with pytest.raises(LedgerError) as raised, translated("the ledger"):
        raise error
    assert not isinstance(raised.value, CorruptLedgerError)


def test_batch_without_memory_leaves_the_ledger_where_it_is(
    ledger: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> sqlite3.Connection:
        raise MemoryError

    with Mirror(root) as mirror:
        with monkeypatch.context() as patch:
            patch.setattr("cocoindex_fsmirror._mirror.database.connected", fail)
            for act in (partial(mirror.apply, INTENTS), mirror.verify, mirror.observe):
                with pytest.raises(LedgerError, match="out of memory"):
                    act()
        assert mirror.verify() == []
    assert not [left for left in ledger.parent.iterdir() if "corrupt" in left.name]


# Newer formats


def _update(mirror: Mirror) -> None:
    with mirror.update() as files:
        files.write("x", b"1")


@pytest.mark.parametrize(
    "ask",
    [
        lambda mirror: mirror.apply(INTENTS),
        lambda mirror: mirror.apply([], closed=[(OWNER, "")]),
        lambda mirror: mirror.verify(),
        lambda mirror: mirror.verify(content=True),
        lambda mirror: mirror.observe(),
        lambda mirror: mirror.status(),
        lambda mirror: mirror.managed(),
        lambda mirror: mirror.create(),
        lambda mirror: mirror.prepare(Owner(OWNER), Mirror("nowhere").observe()),
        lambda mirror: mirror.tear_down(OWNER),
        _update,
        lambda mirror: exists(mirror.root),
        lambda mirror: noted(mirror.root, "x"),
        lambda mirror: owners(mirror.root),
        lambda mirror: LedgerReader.peek(mirror.location.spot),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_ledger_of_a_newer_format_is_refused_in_every_way(
    ledger: Path, root: Path, ask: Callable[[Mirror], object], is_open: bool
) -> None:
    with Mirror(root) as mirror:
        if is_open:
            mirror.apply([])
        with contextlib.closing(sqlite3.connect(ledger)) as database:
            database.execute("UPDATE meta SET value = 77 WHERE key = 'format'")
            database.execute("ALTER TABLE rows RENAME COLUMN made TO created")
            database.execute("UPDATE rows SET kind = 'fifo'")
            database.execute("CREATE TABLE copies (digest BLOB)")
            database.commit()
        before = exact_state(root / "d"), snapshot(root)
        with pytest.raises(LedgerError, match="has format 77") as refusal:
            ask(mirror)
        assert type(refusal.value) is LedgerError
        assert (exact_state(root / "d"), snapshot(root)) == before
    assert not [left for left in ledger.parent.iterdir() if "corrupt" in left.name]
    assert contents(snapshot(root)).items() >= FILES.items()
