"""Fixtures of the tests of copies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.disk.copied import LARGE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that is too large to be held in memory, and long unchanged."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, ns=(5, 5))
    return path
