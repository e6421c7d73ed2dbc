"""First runs of ``fsmirror sync`` and simple changes, one at a time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._disk import sources as _source
from tests.command.syncing import sync
from tests.support import backups, beside_ours, command_environment, contents, snapshot


def test_first_run_mirrors_everything(pages: Path, dst: Path) -> None:
    result = sync(pages, dst)
    assert result.exit_code == 0, result.output
    assert snapshot(dst) == snapshot(pages)
    assert result.stdout.count("\n") == 1
    assert (
        "3 written, 0 adopted, 0 healed, 0 deleted, 0 backed up, 0 unchanged, 267 B"
        in result.stdout
    )


def test_second_run_reads_and_writes_nothing(
    pages: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(pages, dst)
    before, read, real = beside_ours(dst), list[str](), _source._open

    def opened(path: str, *place: Any) -> tuple[int, os.stat_result]:
        read.append(path)
        return real(path, *place)

    monkeypatch.setattr(_source, "_open", opened)
    result = sync(pages, dst)
    assert result.exit_code == 0, result.output
    assert (
        "0 written, 0 adopted, 0 healed, 0 deleted, 0 backed up, 3 unchanged, 0 B" in result.stdout
    )
    assert beside_ours(dst) == before
    assert read == []
    sync(pages, dst, "--checksum")
    assert len(read) == 3  # The patch does see reads.


def test_changed_new_and_deleted_files_follow(pages: Path, dst: Path) -> None:
    sync(pages, dst)
    (pages / "index.html").write_bytes(b"<p>changed")
    (pages / "new").mkdir()
    (pages / "new" / "file").write_bytes(b"new")
    (pages / "guide" / "deep" / "two.bin").unlink()
    (pages / "guide" / "deep").rmdir()
    result = sync(pages, dst)
    assert "2 written" in result.stdout
    assert "1 deleted" in result.stdout
    assert snapshot(dst) == snapshot(pages)


def test_tampered_and_deleted_outputs_come_back(pages: Path, dst: Path) -> None:
    sync(pages, dst)
    (dst / "index.html").write_bytes(b"tampered")
    (dst / "guide" / "one.html").unlink()
    result = sync(pages, dst)
    assert result.exit_code == 0, result.output
    assert snapshot(dst) == snapshot(pages)
    assert backups(dst) == [b"tampered"]


def test_mode_of_a_file_follows(pages: Path, dst: Path) -> None:
    (pages / "index.html").chmod(0o750)
    sync(pages, dst)
    assert (dst / "index.html").stat().st_mode & 0o7777 == 0o750
    (pages / "index.html").chmod(0o640)
    sync(pages, dst)
    (dst / "guide" / "one.html").chmod(0o600)
    sync(pages, dst)
    assert (dst / "index.html").stat().st_mode & 0o7777 == 0o640
    assert (dst / "guide" / "one.html").stat().st_mode == (
        pages / "guide" / "one.html"
    ).stat().st_mode


def test_an_empty_folder_is_mirrored_and_removed(pages: Path, dst: Path) -> None:
    (pages / "empty").mkdir()
    sync(pages, dst)
    assert (dst / "empty").is_dir()
    (pages / "empty").rmdir()
    sync(pages, dst)
    assert snapshot(dst) == snapshot(pages)


def test_file_becomes_a_folder_and_a_file_again(pages: Path, dst: Path) -> None:
    sync(pages, dst)
    (pages / "index.html").unlink()
    (pages / "index.html").mkdir()
    (pages / "index.html" / "inner").write_bytes(b"inner")
    assert sync(pages, dst).exit_code == 0
    assert snapshot(dst) == snapshot(pages)
    (pages / "index.html" / "inner").unlink()
    (pages / "index.html").rmdir()
    (pages / "index.html").write_bytes(b"a file again")
    assert sync(pages, dst).exit_code == 0
    assert snapshot(dst) == snapshot(pages)


def test_foreign_file_stays(pages: Path, dst: Path) -> None:
    dst.mkdir()
    (dst / "mine.txt").write_bytes(b"mine")
    sync(pages, dst)
    sync(pages, dst)
    assert contents(snapshot(dst)) == {**contents(snapshot(pages)), "mine.txt": b"mine"}


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A source that is deeper than Python's stack."""
    source = tmp_path / "deep"
    source.mkdir()
    at = os.open(source, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=at)
        os.mkdir("e", dir_fd=at)
        at, above = os.open("d", os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)
    yield source
    subprocess.run(["rm", "-rf", source], check=True)  # pytest's own removal would recurse.


def test_very_deep_source_is_listed_folder_before_contents(deep: Path) -> None:
    with contextlib.closing(survey(Options(str(deep)))) as found:
        assert found.errors == []
    down = ["/".join(["d"] * depth) for depth in range(1101)]
    up = [f"{path}/e".lstrip("/") for path in reversed(down[:-1])]
    assert [name for name, _ in found.declared()] == [*down[1:], *up]


def test_a_very_long_path_is_mirrored(pages: Path, dst: Path) -> None:
    inner = Path(*[letter * 250 for letter in "abcd"])
    (pages / inner).mkdir(parents=True)
    (pages / inner / "file").write_bytes(b"far below")
    (pages / inner.parent / "file").write_bytes(b"below")
    result = sync(pages, dst)
    assert result.exit_code == 0, result.output
    assert snapshot(dst) == snapshot(pages)
    assert "5 unchanged" in sync(pages, dst).stdout
    (pages / inner / "file").unlink()
    assert "1 deleted" in sync(pages, dst).stdout
    assert snapshot(dst) == snapshot(pages)


def test_the_installed_command_runs(pages: Path, dst: Path) -> None:
    command = Path(sys.executable).with_name("fsmirror")
    ran = subprocess.run(
        [command, "sync", pages, dst],
        capture_output=True,
        text=True,
        check=True,
        env=command_environment(),
    )
    assert "3 written" in ran.stdout
    assert ran.stderr == ""
    assert snapshot(dst) == snapshot(pages)


def test_mirror_is_mirrored_without_its_own_folder(pages: Path, dst: Path) -> None:
    sync(pages, dst)
    result = sync(dst, dst.with_name("second"))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert snapshot(dst.with_name("second")) == snapshot(pages)
