"""Fixtures of the tests of one mirror."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror._mirror import exits as _exits
from tests.mirror.displacing import STAMP


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the time by which the next backups are called."""
    return lambda stamp: monkeypatch.setattr(_exits, "stamp_now", lambda: stamp)


@pytest.fixture
def one_moment(at: Callable[[str], None]) -> None:
    """Unless a test says otherwise, all happens in one second."""
    at(STAMP)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder next to the root, with files under the names that are used here."""
    top = tmp_path / "outside"
    for name in ("x", f"{STAMP}/x", f"{STAMP}/d/x", f"backup/{STAMP}/x"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"outside")
    (top / STAMP / "empty").mkdir()
    return top
