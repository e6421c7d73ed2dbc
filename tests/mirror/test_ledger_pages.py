"""Damage anywhere in a ledger is noticed before anything in it is believed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import FsMirrorError, Mirror
from cocoindex_fsmirror._core.owners import Owner
from tests.support import OWNER, backups, contents, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting")

PAGE = 4096
FILES = {f"folder-{n % 7}/file-{n:03}.html": b"content %d" % n for n in range(400)}
INTENTS = [write(name, content, durable=False) for name, content in FILES.items()]
TAMPERED = "folder-3/file-003.html"

Damage = Callable[[bytes, int, random.Random], bytes]
"""Returns a database with a damaged page."""


def _paged(new: Callable[[bytes, int, random.Random], bytes]) -> Damage:
    def damage(good: bytes, page: int, dice: random.Random) -> bytes:
        return good[: page * PAGE] + new(good, page, dice) + good[(page + 1) * PAGE :]

    return damage


def _other_page(good: bytes, page: int, dice: random.Random) -> bytes:
    """Returns another page; any page but the first, which begins with a header."""
    others = [other for other in range(1, len(good) // PAGE) if other != page]
    at = dice.choice(others) * PAGE
    return good[at : at + PAGE]


def _shifted(good: bytes, page: int, _dice: random.Random) -> bytes:
    return good[page * PAGE + 1 : (page + 1) * PAGE] + b"\0"


DAMAGES: dict[str, Damage] = {
    "zeros": _paged(lambda *_: bytes(PAGE)),
    "ones": _paged(lambda *_: b"\xff" * PAGE),
    "random": _paged(lambda _good, _page, dice: dice.randbytes(PAGE)),
    "another page": _paged(_other_page),
    "shifted": _paged(_shifted),
    "cut off": lambda good, page, _dice: good[: page * PAGE],
    "cut off inside": lambda good, page, _dice: good[: page * PAGE + 1000],
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of one tampered file among many, with a ledger of many pages."""
    root = tmp_path_factory.mktemp("sample") / "root"
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
    (root / TAMPERED).write_bytes(b"tampered")
    return root


@pytest.fixture
def root(sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample, which believes itself."""
    shutil.copytree(sample, tmp_path / "root")
    with Mirror(tmp_path / "root") as mirror:
        mirror.apply([])  # It reads every file, and believes itself.
        assert mirror.verify() == [TAMPERED]
    return tmp_path / "root"


def _ledger(root: Path) -> Path:
    return root / ".fsmirror" / "ledger.sqlite3"


def _damaged(root: Path, damage: Damage) -> Iterator[int]:
    """Yields each page, which is damaged meanwhile."""
    good = _ledger(root).read_bytes()
    dice = random.Random(5)
    for page in range(len(good) // PAGE):
        bad = damage(good, page, dice)
        if bad != good:
            with _ledger(root).open("r+b") as file:
                file.truncate(0)
                file.write(bad)
            yield page
    _ledger(root).write_bytes(good)


def _looked(root: Path) -> str:
    """Returns what a look finds: the paths that drifted, or ``damaged``."""
    with Mirror(root) as mirror:
        try:
            return ", ".join(mirror.verify())
        except FsMirrorError:
            return "damaged"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_no_damaged_page_makes_a_mirror_seem_in_order(root: Path, damage: Damage) -> None:
    found = {page: _looked(root) for page in _damaged(root, damage)}
    assert len(found) > 15
    assert all(shown == "damaged" or TAMPERED in shown for shown in found.values()), found
    # Pages that are not in use tell nothing, and hide nothing.
    assert sum(shown == "damaged" for shown in found.values()) > 0.6 * len(found)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_no_owner_is_known_from_a_damaged_ledger(root: Path, damage: Damage) -> None:
    """Only an owner that the look does not know has all declared again."""
    with Mirror(root) as mirror:
        mirror.prepare(Owner(OWNER), mirror.observe())
        assert mirror.observe().owners.keys() == {OWNER}
    for page in _damaged(root, damage):
        with Mirror(root) as mirror:
            report = mirror.observe()
        assert not report.owners or TAMPERED in report.names, page


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_update_after_any_damaged_page_puts_all_in_order(root: Path, damage: Damage) -> None:
    for page in _damaged(root, damage):
        (root / TAMPERED).write_bytes(b"tampered")
        (root / "theirs").write_bytes(b"foreign")
        with Mirror(root) as mirror:
            mirror.prepare(Owner(OWNER), mirror.observe())
            mirror.apply(INTENTS)
            assert mirror.verify() == [], page
            assert mirror.managed() == sorted(FILES)
        assert contents(snapshot(root)) == FILES | {"theirs": b"foreign"}
        assert set(backups(root)) <= {b"tampered"}
        for left in (root / ".fsmirror").iterdir():
            if "corrupt" in left.name or left.name.endswith(("-wal", "-shm")):
                left.unlink()


@pytest.mark.parametrize("seed", range(4))
def test_no_few_flipped_bytes_crash_a_look_or_hide_a_tampered_file(root: Path, seed: int) -> None:
    good, dice = _ledger(root).read_bytes(), random.Random(seed)
    for _ in range(25):
        bad = bytearray(good)
        start = dice.randrange(100, len(good))
        for at in range(start, min(start + dice.choice([1, 1, 4, 64]), len(good))):
            bad[at] ^= dice.randrange(1, 256)
        _ledger(root).write_bytes(bad)
        try:
            shown = _looked(root)
        except FsMirrorError as error:
            shown = str(error)
        assert shown != "", start


@pytest.mark.parametrize("part", range(6))
def test_damaged_log_is_no_reason_to_crash_or_to_lose_anything(root: Path, part: int) -> None:
    """SQLite ignores the end of a log from the first damaged frame on."""
    with Mirror(root) as mirror:
        mirror.apply([write("new", b"new", durable=False), *INTENTS[:50]])
        crashed = root.with_name("crashed")
        shutil.copytree(root, crashed)  # With the log, as after the death of the process.
    log = Path(f"{_ledger(crashed)}-wal")
    good, dice = log.read_bytes(), random.Random(part)
    assert len(good) > PAGE
    at = dice.randrange(len(good))
    damages: list[Callable[[], object]] = [
        partial(os.truncate, log, at),
        partial(log.write_bytes, bytes(len(good))),
        partial(log.write_bytes, good[:at] + dice.randbytes(99) + good[at + 99 :]),
        partial(log.write_bytes, dice.randbytes(len(good))),
        partial(log.write_bytes, b""),
        log.unlink,
    ]
    damages[part]()
    with Mirror(crashed) as mirror:
        mirror.observe()
        mirror.apply([write("new", b"new"), *INTENTS])
        assert mirror.verify() == []
    assert contents(snapshot(crashed)) == FILES | {"new": b"new"}
    assert set(backups(crashed)) <= {b"tampered"}


def test_ledger_that_is_lost_after_the_look_leaves_its_owner_unknown(root: Path) -> None:
    """Nobody was told to declare again, so the next look has to have it done."""
    with Mirror(root) as mirror:
        mirror.prepare(Owner(OWNER), mirror.observe())
        report = mirror.observe()
        assert report.owners.keys() == {OWNER}
        mirror.close()
        _ledger(root).write_bytes(b"garbage" * 1000)
        mirror.prepare(Owner(OWNER), report)
        mirror.apply(INTENTS[:3])
        assert not mirror.observe().owners
        mirror.prepare(Owner(OWNER), mirror.observe())
        assert mirror.observe().owners.keys() == {OWNER}
