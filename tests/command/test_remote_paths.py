"""``fsmirror sync`` with a path on another machine, as ``rsync`` would take it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.support import snapshot


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source with one file."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(b"a")
    return tmp_path / "src"


REMOTE = ["deploy@web1:/srv/www", "web1:www", "web1:", "web1::module/www", "rsync://web1/www", ":x"]


@pytest.mark.parametrize("path", REMOTE)
@pytest.mark.parametrize("is_target", [True, False])
def test_path_on_another_machine_is_refused_and_nothing_is_made(
    src: Path, monkeypatch: pytest.MonkeyPatch, path: str, is_target: bool
) -> None:
    monkeypatch.chdir(src.parent)
    result = run("sync", "src", path) if is_target else run("sync", path, "dst")
    assert result.exit_code == 2
    assert result.stderr == (
        f"fsmirror: Invalid value for '{'DST' if is_target else 'SRC'}': {path} names a path on "
        f"another machine (write ./{path} for a path on this one)\n"
    )
    assert os.listdir() == ["src"]


def test_source_with_a_colon_that_is_no_path_is_one_line(src: Path) -> None:
    result = run("sync", "web1:\0", src.with_name("dst"))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("path", ["./web1:www", "sub/web1:www", "{here}/web1:www"])
def test_colon_behind_a_slash_is_part_of_a_local_name(
    src: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(src.parent)
    there = path.format(here=src.parent)
    assert run("sync", "src", there).exit_code == 0
    assert snapshot(Path(there)) == snapshot(src)
    assert run("sync", there, "dst").exit_code == 0
    assert snapshot(Path("dst")) == snapshot(src)


def test_existing_source_with_a_colon_is_taken_and_a_target_is_not(
    src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier mistake may have made the target."""
    monkeypatch.chdir(src.parent)
    src.rename("web1:www")
    assert run("sync", "web1:www", "dst").exit_code == 0
    assert snapshot(Path("dst")) == snapshot(Path("web1:www"))
    assert run("sync", "dst", "web1:www").exit_code == 2


@pytest.mark.parametrize("command", ["status", "verify", "backups", "drop"])
def test_mirror_on_another_machine_is_refused_unless_it_exists_here(
    src: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(src.parent)
    result = run(command, "web1:www")
    assert result.exit_code == 2
    assert "web1:www names a path on another machine" in result.stderr
    assert run("sync", "src", "./web1:www").exit_code == 0
    more = ["--yes"] if command == "drop" else []
    assert run(command, "web1:www", *more).exit_code == 0
