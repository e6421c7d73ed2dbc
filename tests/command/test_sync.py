"""``fsmirror sync`` copies, leaves out by pattern, and names files that it can't read."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import Mirror, SourceError
from cocoindex_fsmirror._command import syncing
from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._disk import sources as _source
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._mirror.batch import apply_intents
from cocoindex_fsmirror._mirror.outcome import Outcome
from tests.command.commands import edit_unseen
from tests.command.syncing import (
    CHANGES,
    THEN,
    become_file,
    edit_secretly,
    relink,
    state,
    sync,
    told,
)
from tests.support import backups, beside_ours, contents, ledger_rows, send_far, snapshot

# Files that are mirrored


def test_files_links_and_folders_come_with_their_modes_and_times(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)
    before = beside_ours(dst)
    assert told(src, dst) | {"seconds": 0} == {
        "source": str(src),
        "root": str(dst),
        "written": 0,
        "adopted": 0,
        "healed": 0,
        "deleted": 0,
        "backed_up": 0,
        "unchanged": 7,
        "size": 0,
        "seconds": 0,
        "failures": [],
        "changes": [],
        "skipped": [],
    }
    assert beside_ours(dst) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_the_source_follows(
    src: Path, dst: Path, change: Callable[[Path], object]
) -> None:
    sync(src, dst)
    change(src)
    assert told(src, dst, "--dry-run")["changes"] != []
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)
    assert backups(dst) == []
    assert told(src, dst, "--dry-run")["changes"] == []


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a mode": lambda dst: (dst / "index.html").chmod(0o600),
    "a time": lambda dst: os.utime(dst / "index.html"),
    "a content": lambda dst: (dst / "index.html").write_bytes(b"tampered"),
    "a link": lambda dst: relink(dst / "loop", "elsewhere"),
    "a file less": lambda dst: (dst / "docs" / "large").unlink(),
    "a tree less": lambda dst: shutil.rmtree(dst / "docs"),
    "the mode of a folder": lambda dst: (dst / "docs").chmod(0o700),
    "the time of a folder": lambda dst: os.utime(dst / "docs"),
    "an empty folder less": lambda dst: (dst / "empty").rmdir(),
    "a file for a folder": lambda dst: become_file(dst / "docs"),
    "the time of the root": os.utime,
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampered_mirror_is_healed(src: Path, dst: Path, tamper: Callable[[Path], object]) -> None:
    sync(src, dst)
    tamper(dst)
    figures = told(src, dst)
    assert state(dst) == state(src)
    assert figures["written"] == figures["adopted"] == figures["deleted"] == 0
    assert sum(figures[name] for name in ("healed", "unchanged")) == 7


def test_checksum_finds_an_edit_of_the_mirror_that_no_lstat_shows(src: Path, dst: Path) -> None:
    sync(src, dst)
    edit_unseen(dst, "index.html", b"INDEX<p>")
    assert told(src, dst)["unchanged"] == 7
    (change,) = told(src, dst, "--checksum", "-n")["changes"]
    assert (change["action"], change["path"]) == ("heal", "index.html")
    figures = told(src, dst, "--checksum")
    assert (figures["written"], figures["healed"], figures["backed_up"]) == (0, 1, 1)
    assert state(dst) == state(src)


def test_source_edit_that_keeps_size_and_time_is_noticed(src: Path, dst: Path) -> None:
    sync(src, dst)
    edit_secretly(src / "index.html")
    assert [change["path"] for change in told(src, dst, "-n")["changes"]] == ["index.html"]
    assert told(src, dst)["written"] == 1
    assert state(dst) == state(src)


def test_source_edit_within_the_tick_of_its_reading_is_noticed(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another edit could leave the same ctime, so it is no proof."""
    now_ns = (src / "index.html").stat().st_ctime_ns
    with monkeypatch.context() as patch:
        patch.setattr(_source, "coarse_now_ns", lambda: now_ns)
        sync(src, dst)
    rows = {str(row.name): row.source_ctime_ns for row in ledger_rows(Mirror(dst))}
    assert rows["index.html"] == 0
    read = _opened(monkeypatch)
    sync(src, dst)
    assert str(src / "index.html") in read
    read.clear()
    sync(src, dst)
    assert read == []


def _opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the paths of the source that are opened from now on."""
    opened, real = list[str](), _source._open

    def open_and_tell(path: str, *place: Any) -> tuple[int, os.stat_result]:
        opened.append(path)
        return real(path, *place)

    monkeypatch.setattr(_source, "_open", open_and_tell)
    return opened


def test_checksum_reads_every_file_on_both_sides(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    read = _opened(monkeypatch)
    hashed, real = list[str](), _tree._read

    def read_file(base: str, folder: int) -> tuple[os.stat_result, bytes] | None:
        hashed.append(base)
        return real(base, folder)

    monkeypatch.setattr(_tree, "_read", read_file)
    assert told(src, dst, "--checksum")["unchanged"] == 7
    assert len(read) == 4
    assert sorted(hashed) == ["index.html", "large", "nasty \n name", "run.sh"]


def test_paths_are_compared_in_the_order_of_the_ledger(src: Path, dst: Path) -> None:
    """``a-b`` comes before ``a/b``, but a walk would meet it after the contents of ``a``."""
    for name in ("a/b", "a/b/c", "a-b", "a.d", "a0", "a/b0/x", "a/b-/x", "\u00e9", "z/\U0001f600"):
        path = src / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "file").write_bytes(name.encode())
    with contextlib.closing(survey(Options(str(src)))) as found:
        names = [name for name, _ in found.declared()]
    assert names == sorted(snapshot(src))
    sync(src, dst)
    assert [row.name for row in ledger_rows(Mirror(dst))] == names
    assert told(src, dst)["unchanged"] == 16
    assert state(dst) == state(src)


def test_an_existing_copy_is_adopted(src: Path, dst: Path) -> None:
    shutil.copytree(src, dst, symlinks=True)
    inodes = {path: path.lstat().st_ino for path in dst.rglob("*")}
    figures = told(src, dst)
    assert (figures["adopted"], figures["written"], figures["size"]) == (7, 0, 0)
    assert {path: path.lstat().st_ino for path in inodes} == inodes
    assert state(dst) == state(src)


# Files that are left out


def test_patterns_leave_out_files_and_folders(src: Path, dst: Path) -> None:
    sync(src, dst, "--exclude", "deep/", "--exclude", "*.html", "--exclude", "!index.html")
    assert set(snapshot(src)) - set(snapshot(dst)) == {"docs/deep", "docs/deep/run.sh"}
    sync(src, dst, "--exclude", "/docs", "--delete-excluded")
    assert not (dst / "docs").exists()
    sync(src, dst)
    assert state(dst) == state(src)


def test_gitignore_files_are_obeyed_if_asked(src: Path, dst: Path) -> None:
    (src / ".gitignore").write_bytes(b"*.log\n/empty/\n")
    (src / ".git").mkdir()
    (src / ".git" / "HEAD").touch()
    (src / "a.log").touch()
    (src / "docs" / ".gitignore").write_bytes(b"!keep.log\n# a comment\nlarge\r\n/deep\n")
    (src / "docs" / "keep.log").touch()
    (src / "docs" / "other.log").touch()
    sync(src, dst)
    assert state(dst) == state(src)
    sync(src, dst, "--gitignore", "--delete-excluded")
    gone = {".git", ".git/HEAD", "a.log", "empty", "docs/other.log", "docs/large"}
    gone |= {"docs/deep", "docs/deep/run.sh"}
    assert set(snapshot(src)) - set(snapshot(dst)) == gone


def test_gitignore_option_mirrors_the_files_that_git_lists(tmp_path: Path, dst: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    src = tmp_path / "repository"
    lines = {
        "": "*.o\n!keep.o\nbuild/\n/only-here\n",
        "sub": "!*.o\nbuild\n",
        "sub/deep": "*\n!.*\n",
    }
    names = ["a.o", "keep.o", "build/x", "only-here", "x", "é.o"]
    for folder, ignored in lines.items():
        for name in names:
            (src / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (src / folder / name).touch()
        (src / folder / ".gitignore").write_text(ignored)
    environment = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(src), *arguments]
        env = os.environ | environment
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout.decode()

    git("init", "-q")
    listed = git("ls-files", "-z", "--others", "--exclude-standard")
    sync(src, dst, "--gitignore")
    assert set(contents(snapshot(dst))) == set(filter(None, listed.split("\0")))


def test_gitignore_file_with_a_bad_pattern_is_named(src: Path, dst: Path) -> None:
    (src / ".gitignore").write_bytes(b"*.log\n[z-a]\n")
    result = sync(src, dst, "--gitignore")
    assert result.exit_code == 3
    problem = "can't be read: .gitignore: the pattern '[z-a]' can't be parsed"
    assert f"{src}: {problem}" in result.stderr
    assert result.stderr.endswith("(nothing was changed)\n")
    assert result.stderr.count("\n") == 1
    assert snapshot(dst) == {}


def test_bad_gitignore_file_keeps_the_copy_of_its_folder(src: Path, dst: Path) -> None:
    sync(src, dst, "--gitignore")
    (src / "docs" / ".gitignore").write_bytes(b"*.log\n[z-a]\n")
    (src / "docs" / "large").unlink()
    (src / "index.html").write_bytes(b"changed")
    before = snapshot(dst / "docs")
    result = sync(src, dst, "--gitignore")
    assert result.exit_code == 3
    assert "'docs': .gitignore: the pattern '[z-a]' can't be parsed" in result.stderr
    assert snapshot(dst / "docs") == before
    assert (dst / "index.html").read_bytes() == b"changed"


@pytest.mark.parametrize("pattern", ["!", "\\", "[z-a]"])
def test_a_pattern_that_does_not_parse_is_one_line(src: Path, dst: Path, pattern: str) -> None:
    result = sync(src, dst, "--exclude", pattern)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"fsmirror: the pattern {pattern!r} can't be parsed")
    assert result.stderr.count("\n") == 1
    assert not dst.exists()


# Files that can't be read


def test_unreadable_file_fails_by_name_and_its_copy_stays(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    (src / "index.html").write_bytes(b"changed")
    (src / "new").write_bytes(b"new")
    real = _source._open

    def opened(path: str, *place: Any) -> tuple[int, os.stat_result]:
        if path.endswith("index.html"):
            raise SourceError(path, "can't be read: Permission denied")
        return real(path, *place)

    with monkeypatch.context() as patch:
        patch.setattr(_source, "_open", opened)
        result = sync(src, dst)
    assert result.exit_code == 3
    assert f"{str(src / 'index.html')!r} can't be read: Permission denied" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (dst / "index.html").read_bytes() == b"<p>index"
    assert (dst / "new").read_bytes() == b"new"
    assert sync(src, dst).exit_code == 0  # The listing is unchanged.
    assert state(dst) == state(src)
    assert told(src, dst)["written"] == 0


def test_source_that_changes_during_the_copy_fails_by_name_once(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    (src / "docs" / "large").write_bytes(b"1" * 100_000)

    def apply(*args: Any, **options: Any) -> Outcome:
        (src / "docs" / "large").write_bytes(b"2" * 100_000)
        return apply_intents(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(syncing, "apply_intents", apply)
        result = sync(src, dst)
    assert result.exit_code == 3
    assert "write 'docs/large': its source" in result.stderr
    assert "changed while it was read (update again)" in result.stderr
    assert (dst / "docs" / "large").stat().st_size == 200_000
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)


def test_file_with_an_impossible_time_fails_by_name_and_its_copy_stays(
    src: Path, dst: Path
) -> None:
    sync(src, dst)
    (src / "new").write_bytes(b"new")
    (src / "far").write_bytes(b"far")
    (src / "index.html").write_bytes(b"changed")
    far = ("far", "index.html", "loop")
    for name in far:
        send_far(src / name)
    for _ in range(2):
        result = sync(src, dst)
        assert result.exit_code == 3
        assert result.stderr.splitlines() == [
            f"fsmirror: its source {str(src / name)!r} has a time that no mirror can keep; "
            "those from 1677 to 2262 can be"
            for name in far
        ]
        assert (dst / "new").read_bytes() == b"new"
        assert (dst / "index.html").read_bytes() == b"<p>index"
        assert (dst / "loop").readlink() == Path(".")
        assert not (dst / "far").exists()
    assert sync(src, dst, "--dry-run").exit_code == 3
    changes = told(src, dst, "--dry-run")["changes"]
    assert [change["action"] for change in changes if change["path"] in ("", *far)] == ["fail"] * 3
    for name in far:
        os.utime(src / name, ns=(THEN, THEN), follow_symlinks=False)
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)


def test_source_with_an_impossible_time_is_not_mirrored(src: Path, dst: Path) -> None:
    sync(src, dst)
    (src / "index.html").unlink()
    send_far(src)
    result = sync(src, dst)
    assert result.exit_code == 3
    assert f"{src}: can't be read: has a time that no mirror can keep" in result.stderr
    assert result.stderr.endswith("(nothing was changed)\n")
    assert result.stderr.count("\n") == 1
    assert (dst / "index.html").exists()


def test_folder_with_an_impossible_time_stays_as_it_is(src: Path, dst: Path) -> None:
    sync(src, dst)
    (src / "index.html").unlink()
    (src / "docs" / "large").unlink()
    send_far(src / "docs")
    result = sync(src, dst, "--exact")
    assert result.exit_code == 3
    assert f"'{src / 'docs'}' has a time that no mirror can keep" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (dst / "index.html").exists()
    assert (dst / "docs" / "large").exists()
