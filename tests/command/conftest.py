"""A source with something of everything, and where it is mirrored to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command.syncing import THEN
from tests.target.conftest import flow, make_flow

__all__ = ["dst", "flow", "make_flow", "src"]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source with something of everything."""
    source = tmp_path / "src"
    (source / "docs" / "deep").mkdir(parents=True)
    (source / "empty").mkdir(mode=0o711)
    (source / "index.html").write_bytes(b"<p>index")
    (source / "docs" / "large").write_bytes(os.urandom(200_000))
    (source / "docs" / "deep" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "docs" / "deep" / "run.sh").chmod(0o4750)
    (source / "docs" / "link").symlink_to("../index.html")
    (source / "outside").symlink_to("/nowhere/at all")
    (source / "loop").symlink_to(".")
    (source / "nasty \n name").write_bytes(b"nasty")
    for number, path in enumerate(sorted(source.rglob("*"))):
        os.utime(path, ns=(THEN, THEN + number), follow_symlinks=False)
    os.utime(source, ns=(THEN, THEN))
    return source


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    """Where the mirror is made."""
    return tmp_path / "dst"
