"""Sources, and mirrors of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.command.following import Follower
from tests.command.syncing import THEN
from tests.target.conftest import flow, make_flow

__all__ = ["dst", "edited", "flow", "follower", "make_flow", "pages", "source", "src", "target"]


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
    """The path of a mirror that is not made yet."""
    return tmp_path / "dst"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with two files and a link."""
    source = tmp_path / "src"
    (source / "d").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    (source / "d" / "b").write_bytes(b"bb")
    (source / "link").symlink_to("a")
    return source


@pytest.fixture
def target(source: Path, tmp_path: Path) -> Path:
    """The mirror of ``source``."""
    assert run("sync", source, tmp_path / "dst").exit_code == 0
    return tmp_path / "dst"


@pytest.fixture
def edited(source: Path, target: Path) -> Path:
    """The mirror of ``source``, with two backups of one path."""
    for number in range(2):
        (target / "a").write_bytes(b"edited %d" % number)
        assert run("sync", source, target).exit_code == 0
    return target


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A source with three files in nested folders."""
    source = tmp_path / "src"
    (source / "guide" / "deep").mkdir(parents=True)
    (source / "index.html").write_bytes(b"<p>index")
    (source / "guide" / "one.html").write_bytes(b"one")
    (source / "guide" / "deep" / "two.bin").write_bytes(bytes(range(256)))
    return source


@pytest.fixture
def follower(src: Path, dst: Path) -> Iterator[Follower]:
    """A process that follows a source of one file, which it has mirrored once."""
    with Follower(src, dst) as running:
        assert running.run()["written"] == 1
        yield running
