"""Fixtures of the tests of crashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.disks import CUTS, Disk, made_disk


@pytest.fixture(params=CUTS, ids=str)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """An empty disk, whose power can be cut."""
    with made_disk(request.param, tmp_path / "machine") as made:
        yield made
