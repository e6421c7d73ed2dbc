"""``fsmirror verify`` lists each path that differs, and how."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._mirror.reading import row as row_of
from tests.command.commands import run, told

TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other bytes": (lambda target: (target / "a").write_bytes(b"tampered"), "modified"),
    "gone": (lambda target: (target / "a").unlink(), "missing"),
    "another mode": (lambda target: (target / "a").chmod(0o600), "mode"),
    "another time": (lambda target: os.utime(target / "a"), "mode"),
    "a link": (lambda target: _becomes(target / "a", lambda at: at.symlink_to("d")), "foreign"),
    "a folder": (lambda target: _becomes(target / "a", Path.mkdir), "foreign"),
    "a fifo": (lambda target: _becomes(target / "a", os.mkfifo), "foreign"),
}


def _becomes(path: Path, make: Callable[[Path], object]) -> None:
    """A file gives way to something else."""
    path.unlink()
    make(path)


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


def test_verify_is_silent_of_what_is_foreign_unless_it_is_to_be_exact(target: Path) -> None:
    (target / "mine").touch()
    os.utime(target, ns=(5, 5))
    assert run("verify", target).exit_code == 0
    result = run("verify", target, "--exact")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "foreign   mine")


def test_verify_finds_an_edit_that_hides_its_time_only_by_content(target: Path) -> None:
    with Mirror(target) as mirror:
        row = row_of(mirror.root, "a")
        assert row is not None
        (target / "a").write_bytes(b"x")
        os.utime(target / "a", ns=(row.mtime_ns, row.mtime_ns))
        there = (target / "a").lstat()
        hidden = replace(row, ctime_ns=there.st_ctime_ns, recorded_ns=there.st_ctime_ns + 10**10)
        mirror.session.run(lambda _tree, ledger: ledger.commit([hidden], ()))
    assert run("verify", target).exit_code == 0
    assert told("verify", target, "--content")["differences"] == [{"path": "a", "how": "modified"}]
