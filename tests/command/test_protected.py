"""Paths that are left out of a source are left alone in its mirror, unless they are to go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.command.syncing import sync
from tests.support import backups, contents, exact_state, snapshot


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source with a repository, an ignored folder, and files."""
    source = tmp_path / "src"
    for name in (".git/HEAD", "build/out.o", "build/deep/out.o", "docs/page", "docs/page.o"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / ".gitignore").write_text("build/\n*.o\n")
    return source


FOREIGN = {".git/HEAD": b"theirs", "build/theirs": b"theirs", "docs/new.o": b"theirs"}


def _fill(dst: Path) -> None:
    """Puts files of others where patterns match."""
    for name, content in FOREIGN.items():
        (dst / name).parent.mkdir(parents=True, exist_ok=True)
        (dst / name).write_bytes(content)


@pytest.mark.parametrize(
    "options",
    [["--gitignore"], ["--exclude", ".git", "--exclude", "/build", "--exclude", "*.o"]],
    ids=["gitignore", "exclude"],
)
def test_exact_leaves_alone_what_is_left_out(src: Path, dst: Path, options: list[str]) -> None:
    _fill(dst)
    (dst / "docs" / "foreign").write_bytes(b"foreign")
    result = sync(src, dst, "--exact", *options, "--dry-run")
    assert "theirs" not in result.stdout
    assert sync(src, dst, "--exact", *options).exit_code == 0
    kept = {".gitignore": b"build/\n*.o\n", "docs/page": b"docs/page"}
    assert contents(snapshot(dst)) == FOREIGN | kept
    assert backups(dst) == [b"foreign"]


@pytest.mark.parametrize("is_gone", [False, True], ids=["in the source", "gone there"])
def test_mirrored_files_that_are_left_out_later_stay(src: Path, dst: Path, is_gone: bool) -> None:
    assert sync(src, dst).exit_code == 0
    if is_gone:
        shutil.rmtree(src / "build")
        (src / "docs" / "page.o").unlink()
    before = exact_state(dst / "build"), contents(snapshot(dst))
    for options in (["--dry-run"], [], ["--max-delete", "0"], ["--exact"]):
        result = sync(src, dst, "--gitignore", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        assert (exact_state(dst / "build"), contents(snapshot(dst))) == before
    (src / "docs" / "page").write_text("changed")
    assert sync(src, dst, "--gitignore").exit_code == 0
    assert (dst / "docs" / "page").read_text() == "changed"
    assert (dst / "build" / "out.o").read_text() == "build/out.o"
    assert run("verify", dst, "--content").exit_code == 0


def test_protected_files_do_not_hide_that_the_source_is_empty(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    shutil.rmtree(src)
    src.mkdir()
    result = sync(src, dst, "--exclude", "build")
    assert result.exit_code == 3
    assert "4 of 4 files would be removed, and an empty source allows 0" in result.stderr


def test_folder_stays_for_what_is_protected_in_it(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    shutil.rmtree(src / "docs")
    assert sync(src, dst, "--gitignore").exit_code == 0
    assert "docs/page" not in snapshot(dst)
    assert (dst / "docs" / "page.o").read_text() == "docs/page.o"
    assert sync(src, dst).exit_code == 0
    assert not (dst / "docs").exists()


def test_excluded_files_go_if_that_is_asked_for(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    (dst / "build" / "theirs").write_bytes(b"theirs")
    options = ["--gitignore", "--exact", "--delete-excluded"]
    assert "build/out.o" in sync(src, dst, *options, "--dry-run").stdout
    assert sync(src, dst, *options).exit_code == 0
    assert {*snapshot(dst)} == {".gitignore", "docs", "docs/page"}
    assert backups(dst) == [b"theirs"]


def test_patterns_come_from_files_too(src: Path, dst: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("# a comment\n.git/\n\nbuild\r\n")
    (tmp_path / "two").write_text("!page.o")
    options = ["--exclude-from", str(tmp_path / "one"), "--exclude-from", str(tmp_path / "two")]
    assert sync(src, dst, "--exclude", "*.o", *options).exit_code == 0
    kept = {".gitignore", "docs", "docs/page", "docs/page.o"}
    assert {*snapshot(dst)} == kept
    assert sync(src, dst, "--exclude-from", str(tmp_path / "none")).exit_code == 2


def test_protected_file_gives_way_once_it_is_mirrored(src: Path, dst: Path) -> None:
    _fill(dst)
    assert sync(src, dst, "--gitignore").exit_code == 0
    assert sync(src, dst).exit_code == 0
    assert contents(snapshot(dst)).items() >= contents(snapshot(src)).items()
    assert backups(dst) == [b"theirs"]


def test_included_paths_are_taken_all_the_same(src: Path, dst: Path) -> None:
    options = ["--gitignore", "--include", "page.o", "--exclude", "*.o", "--include", "build/"]
    assert sync(src, dst, *options).exit_code == 0
    kept = {".gitignore", "docs", "docs/page", "docs/page.o", "build", "build/deep"}
    assert {*snapshot(dst)} == kept


@pytest.mark.parametrize(("size", "fits"), [("1K", True), ("1023", False), ("0.5KiB", False)])
def test_files_beyond_a_size_are_left_out_and_left_alone(
    src: Path, dst: Path, size: str, fits: bool
) -> None:
    (src / "large").write_bytes(bytes(1024))
    assert sync(src, dst, "--max-size", size).exit_code == 0
    assert (dst / "large").exists() == fits
    (dst / "large").write_bytes(b"theirs")
    assert sync(src, dst, "--max-size", "9", "--exact").exit_code == 0
    assert (dst / "large").read_bytes() == b"theirs"
    assert sync(src, dst, "--max-size", "9", "--exact", "--delete-excluded").exit_code == 0
    assert not (dst / "large").exists()


def test_mirrored_file_that_has_become_too_large_stays(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    (src / "docs" / "page").write_bytes(bytes(100))
    for options in ([], ["--exact"]):
        assert sync(src, dst, "--max-size", "99", *options).exit_code == 0
        assert (dst / "docs" / "page").read_text() == "docs/page"
    assert sync(src, dst, "--max-size", "99", "--delete-excluded").exit_code == 0
    assert not (dst / "docs" / "page").exists()


@pytest.mark.parametrize("size", ["", "K", "-1", "1X", "1..5", "1e9"])
def test_impossible_size_is_refused(src: Path, dst: Path, size: str) -> None:
    result = sync(src, dst, f"--max-size={size}")
    assert (result.exit_code, "is no size" in result.stderr) == (2, True)
