"""``fsmirror verify`` lists each path that differs, and how."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command.commands import edit_unseen, run, told
from tests.support import becomes

TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other bytes": (lambda target: (target / "a").write_bytes(b"tampered"), "modified"),
    "gone": (lambda target: (target / "a").unlink(), "missing"),
    "another mode": (lambda target: (target / "a").chmod(0o600), "mode"),
    "another time": (lambda target: os.utime(target / "a"), "mode"),
    "a link": (lambda target: becomes(target / "a", lambda at: at.symlink_to("d")), "foreign"),
    "a folder": (lambda target: becomes(target / "a", Path.mkdir), "foreign"),
    "a fifo": (lambda target: becomes(target / "a", os.mkfifo), "foreign"),
}


@pytest.mark.parametrize(("tamper", "how"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_verify_tells_how_a_file_differs(
    target: Path, tamper: Callable[[Path], object], how: str
) -> None:
    tamper(target)
    assert told("verify", target)["differences"] == [{"path": "a", "how": how}]
    result = run("verify", target, "--content")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"{how:8}  a"
    assert result.stdout.splitlines()[-1] == f"{target}: 1 path differs (3 files)"


def test_verify_lists_foreign_paths_only_if_exact(target: Path) -> None:
    (target / "mine").touch()
    os.utime(target, ns=(5, 5))
    assert run("verify", target).exit_code == 0
    result = run("verify", target, "--exact")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "foreign   mine")


def test_verify_finds_an_edit_that_hides_its_time_only_by_content(target: Path) -> None:
    edit_unseen(target, "a", b"x")
    assert run("verify", target).exit_code == 0
    assert told("verify", target, "--content")["differences"] == [{"path": "a", "how": "modified"}]
