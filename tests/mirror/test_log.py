"""The log at DEBUG has a line for each path with its action."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._mirror.outcome import Outcome, log_paths
from tests.support import OWNER, delete, folder, link, write

LOGGER = "cocoindex_fsmirror"


def _told(caplog: pytest.LogCaptureFixture, root: Path) -> list[str]:
    """Takes the lines logged at DEBUG since the last call, without the root, sorted."""
    found = [(each.levelno, each.getMessage()) for each in caplog.records]
    caplog.clear()
    debug = [message for level, message in found if level == logging.DEBUG]
    assert all(message.startswith(f"{root}: ") for message in debug)
    return sorted(message.removeprefix(f"{root}: ") for message in debug)


def test_each_path_is_one_line_with_its_action(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    (root / "found").write_bytes(b"found")
    (root / "foreign").write_bytes(b"foreign")
    first = [write("d/new", b"1"), write("found", b"found"), write("foreign", b"2"), link("l", "d")]
    mirror.apply([*first, folder("empty")])
    assert _told(caplog, root) == [
        "adopted 'found'",
        "made 'd'",
        "made 'empty'",
        "written 'd/new'",
        "written 'foreign'",
        "written 'l'",
    ]
    mirror.apply([write("found", b"found", mode=0o600), write("foreign", b"3"), folder("empty")])
    assert _told(caplog, root) == ["dressed 'found'", "written 'foreign'"]
    (root / "foreign").write_bytes(b"edited")
    mirror.apply([delete("d/new"), delete("found"), delete("foreign"), delete("empty")])
    assert _told(caplog, root) == [
        "backed up 'foreign'",
        "backed up 'found'",
        "pruned 'd'",
        "pruned 'empty'",
        "removed 'd/new'",
    ]


def test_paths_that_a_teardown_leaves_are_logged_too(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("a", b"1"), write("b", b"2"), write("d/c", b"3")])
    (root / "b").write_bytes(b"edited")
    caplog.set_level(logging.DEBUG, LOGGER)
    mirror.tear_down(OWNER)
    assert _told(caplog, root) == ["left 'b'", "pruned 'd'", "removed 'a'", "removed 'd/c'"]


def test_folder_that_gives_way_is_logged(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("a/b/c", b"1")])
    caplog.set_level(logging.DEBUG, LOGGER)
    mirror.apply([delete("a/b/c"), write("a", b"2")])
    assert _told(caplog, root) == ["pruned 'a/b'", "removed 'a/b/c'", "written 'a'"]


def test_update_that_changes_nothing_logs_nothing(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [write("a", b"1"), write("d/b", b"2"), folder("e")]
    mirror.apply(wanted)
    caplog.set_level(logging.DEBUG, LOGGER)
    mirror.apply(wanted)
    assert _told(caplog, root) == []


def test_log_lines_are_not_built_while_debug_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    log_paths("root", cast("Outcome", None))  # Fails if anything is asked of the outcome.
