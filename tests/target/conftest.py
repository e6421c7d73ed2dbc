"""Flows that close their databases, a source to copy, our log, and files that stay."""

from __future__ import annotations

import errno
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.ownership import NO_COPIES
from cocoindex_fsmirror._disk.staging import Slot, Staging
from cocoindex_fsmirror._target.specs import Options
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
def without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes flows keep no copies, whatever their options: drift is left to the owners."""
    monkeypatch.setattr(Options, "policies", NO_COPIES)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to be copied."""
    path = tmp_path / "source"
    path.write_bytes(b"12345")
    return path


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The warnings that our logger got since the list was last cleared."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                found.append(record.getMessage())

    log, handler = logging.getLogger("cocoindex_fsmirror"), Keep()
    log.addHandler(handler)
    yield found
    log.removeHandler(handler)


def heard(lines: list[str]) -> str:
    """Returns the only line, which may come a moment after the update has returned."""
    deadline = time.monotonic() + 10
    while not lines and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    (line,) = lines
    return line


@pytest.fixture
def immovable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Files that can't be removed; ``*`` stands for all."""
    names: set[str] = set()
    real = Staging.take

    def take(staging: Staging, slot: Slot, name: Name) -> None:
        if names & {name, "*"}:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        real(staging, slot, name)

    monkeypatch.setattr(Staging, "take", take)
    return names
