"""What the tests of one mirror share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cocoindex_fsmirror._mirror import look as _observe


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch waits for the next tick of the clock; the next look reads files instead."""
    monkeypatch.setattr(_observe, "time", SimpleNamespace(sleep=lambda _seconds: None))
