"""Flows that give their databases back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.target.flows import Flow, Main


@pytest.fixture
def make_flow(tmp_path: Path) -> Iterator[Callable[..., Flow]]:
    """Makes flows; all of them write to one root."""
    flows: list[Flow] = []

    def make(main: Main | None = None, *, name: str = "app") -> Flow:
        flows.append(Flow(tmp_path, main, name=name))
        return flows[-1]

    yield make
    for flow in flows:
        flow.close()


@pytest.fixture
def flow(make_flow: Callable[..., Flow]) -> Flow:
    """A flow that declares its files in the main component."""
    return make_flow()
