"""Mounts for the tests that need them; each is taken away again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cocoindex_fsmirror import _observe

Mount = Callable[..., Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts something on a folder that it makes: ``mount(path, "-t", "tmpfs", "tmpfs")``."""
    mounted: list[Path] = []

    def act(point: Path, *arguments: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        point.mkdir(parents=True, exist_ok=True)
        command = ["mount", *arguments, str(point)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            pytest.skip(f"this machine does not let us mount: {result.stderr.strip()}")
        mounted.append(point)
        return point

    yield act
    for point in reversed(mounted):
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def tmpfs(mount: Mount, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a file system of a size, such as ``512k``, below the test's own folder."""
    return lambda size: mount(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch waits for the next tick of the clock; the next look reads files instead."""
    monkeypatch.setattr(_observe, "time", SimpleNamespace(sleep=lambda _seconds: None))
