"""Fixtures of the tests of one mirror."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._mirror import place as _place
from tests.mirror.displacing import STAMP
from tests.mirror.files import INTENTS
from tests.support import write


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the time stamp of the next backups."""
    return lambda stamp: monkeypatch.setattr(_place, "stamp_now", lambda: stamp)


@pytest.fixture
def one_moment(at: Callable[[str], None]) -> None:
    """Gives all backups one time stamp, unless a test sets another."""
    at(STAMP)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the root, with files at the paths that a followed link would reach."""
    top = tmp_path / "outside"
    for name in ("x", f"{STAMP}/x", f"{STAMP}/d/x", f"backup/{STAMP}/x"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"outside")
    (top / STAMP / "empty").mkdir()
    return top


@pytest.fixture
def x(mirror: Mirror, root: Path) -> Path:
    """A managed file, beside another one."""
    mirror.apply([write("d/x", b"abc", component="/one"), write("y", b"1", mode=0o644)])
    return root / "d" / "x"


@pytest.fixture
def ledger(root: Path) -> Path:
    """The ledger of a closed mirror with some managed files and a foreign one."""
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
    (root / "d" / "theirs").write_bytes(b"foreign")
    return root / ".fsmirror" / "ledger.sqlite3"
