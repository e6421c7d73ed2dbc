"""Flows that close their databases, and a source to copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.target.flows import Declare, Flow, Main


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


@pytest.fixture
def wanted(flow: Flow) -> dict[str, Declare]:
    """The declarations of the flow, by name."""
    return flow.wanted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to be copied."""
    path = tmp_path / "source"
    path.write_bytes(b"12345")
    return path
