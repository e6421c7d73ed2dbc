"""``fsmirror publish --watch``: every change is published, whole."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.command.following import Follower


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """The path of a link that is not made yet."""
    return tmp_path / "site"


@pytest.fixture
def follower(source: Path, link: Path) -> Iterator[Follower]:
    """A process that has published a source once."""
    with Follower(source, link, command="publish") as started:
        assert started.run()["version"] == "site.a"
        yield started


def test_changes_of_the_source_are_published_in_turn(
    source: Path, link: Path, follower: Follower
) -> None:
    for number, name in enumerate(["site.b", "site.a", "site.b"]):
        (source / "a").write_bytes(b"%d" % number)
        figures = follower.run()
        assert (figures["version"], figures["failures"]) == (name, [])
        assert os.readlink(link) == name
        assert (link / "a").read_bytes() == b"%d" % number
    status, _, errors = follower.rest()
    assert (status, errors) == (130, "")


def test_edit_of_the_current_version_is_undone(link: Path, follower: Follower) -> None:
    (link / "a").write_bytes(b"edited")
    assert follower.run()["version"] == "site.b"
    assert (link / "a").read_bytes() == b"a"
    (link / "d" / "b").unlink()
    assert follower.run()["version"] == "site.a"
    assert (link / "d" / "b").read_bytes() == b"bb"


def test_failure_leaves_the_link_until_it_is_mended(
    source: Path, link: Path, follower: Follower
) -> None:
    os.mkdir(f"{link}.b")
    (link.parent / "site.b" / "a").mkdir()
    (link.parent / "site.b" / "a" / "theirs").write_bytes(b"theirs")
    (source / "a").write_bytes(b"new")
    figures = follower.run()
    assert (figures["version"], len(figures["failures"])) == ("site.a", 1)
    assert (link / "a").read_bytes() == b"a"
    (link.parent / "site.b" / "a").rename(link.parent / "aside")
    (source / "more").write_bytes(b"more")
    assert follower.run()["version"] == "site.b"
    assert (link / "a").read_bytes() == b"new"


def test_looks_that_find_nothing_publish_nothing(source: Path, link: Path) -> None:
    with Follower(source, link, "--rescan", "0.3", command="publish") as started:
        assert started.run()["version"] == "site.a"
        time.sleep(2)
        assert os.readlink(link) == "site.a"
        assert started.rest() == (130, [], "")


def test_failure_is_told_once(source: Path, link: Path) -> None:
    os.mkdir(f"{link}.a")
    (link.parent / "site.a" / "a").mkdir()
    (link.parent / "site.a" / "a" / "theirs").write_bytes(b"theirs")
    with Follower(source, link, command="publish") as started:
        assert len(started.run()["failures"]) == 1
        time.sleep(3)  # Longer than the first pause.
        status, runs, errors = started.rest()
    assert (status, runs) == (3, [])
    assert errors.count("a directory is in the way") == 1


def test_watch_takes_no_rollback(source: Path, link: Path) -> None:
    assert run("publish", source, link, "--watch", "--rollback").exit_code == 2
    assert run("publish", source, link, "--watch", "-n").exit_code == 2
