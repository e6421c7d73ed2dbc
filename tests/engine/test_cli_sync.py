"""What ``fsmirror sync`` copies, leaves out, and says it would do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest
from click.testing import CliRunner, Result

from cocoindex_fsmirror import Mirror, RootError, SourceError, _flow, _fs, _source, _survey, _sync
from cocoindex_fsmirror._draft import Draft
from cocoindex_fsmirror._fs import Tree
from cocoindex_fsmirror._paths import Name
from cocoindex_fsmirror._survey import survey
from cocoindex_fsmirror.cli import main
from tests.support import backups, command_environment, contents, exact_state, snapshot

THEN = 1_234_567_890_123_456_789


def sync(*arguments: object) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(main, ["sync", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    """What the command prints for programs."""
    result = sync(*arguments, "--json")
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


def _all(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything but our own folder: kind and mode, time, and content."""
    shown = snapshot(root)
    found: dict[str, tuple[object, ...]] = {}
    for path in (".", *shown):
        seen = (root / path).lstat()
        mode = 0 if stat.S_ISLNK(seen.st_mode) else seen.st_mode
        found[path] = (mode, seen.st_mtime_ns, shown.get(path))
    return found


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


# What is mirrored


def test_files_links_and_folders_come_with_their_modes_and_times(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)
    before = exact_state(dst)
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
        "skipped": [],
    }
    after = exact_state(dst)
    assert {p: s for p, s in after.items() if ".fsmirror" not in p} == {
        p: s for p, s in before.items() if ".fsmirror" not in p
    }


CHANGES: dict[str, Callable[[Path], object]] = {
    "a mode": lambda src: (src / "index.html").chmod(0o600),
    "a time": lambda src: os.utime(src / "index.html", ns=(5, 5)),
    "the time of a link": lambda src: os.utime(src / "loop", ns=(5, 5), follow_symlinks=False),
    "the mode of a folder": lambda src: (src / "docs").chmod(0o700),
    "the mode of the source": lambda src: src.chmod(0o750),
    "a content": lambda src: (src / "docs" / "large").write_bytes(b"small"),
    "a content that keeps size and time": lambda src: _edit_secretly(src / "index.html"),
    "a new file": lambda src: (src / "docs" / "new").write_bytes(b"new"),
    "a file less": lambda src: (src / "docs" / "deep" / "run.sh").unlink(),
    "a folder less": lambda src: (src / "empty").rmdir(),
    "a link elsewhere": lambda src: _relink(src / "docs" / "link", "deep"),
    "a link that becomes a file": lambda src: _replace(src / "loop", b"a file"),
    "a file that becomes a link": lambda src: _relink(src / "index.html", "docs"),
    "a file that becomes a folder": lambda src: _become_folder(src / "index.html"),
    "a folder that becomes a file": lambda src: _become_file(src / "docs"),
    "a tree less": lambda src: shutil.rmtree(src / "docs"),
    "a tree moved": lambda src: (src / "docs").rename(src / "empty" / "docs"),
}


def _edit_secretly(path: Path) -> None:
    """As many other bytes, with the time put back; only the folder's other file tells."""
    before = path.stat()
    path.write_bytes(b"INDEX<p>")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (path.parent / "beside").touch()


def _relink(path: Path, target: str) -> None:
    """A link takes a place."""
    path.unlink()
    path.symlink_to(target)


def _become_folder(path: Path) -> None:
    """A folder that is not as others takes the place of a file."""
    path.unlink()
    path.mkdir(mode=0o700)
    (path / "inner").write_bytes(b"inner")
    os.utime(path, ns=(THEN, THEN))


def _become_file(path: Path) -> None:
    """A file takes the place of a folder."""
    shutil.rmtree(path)
    path.write_bytes(b"a file")


def _replace(path: Path, content: bytes) -> None:
    """A file takes a place."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_the_source_follows(
    src: Path, dst: Path, change: Callable[[Path], object]
) -> None:
    sync(src, dst)
    change(src)
    listed = sync(src, dst, "--dry-run").stdout
    assert "0 changes" not in listed or change == CHANGES["the mode of the source"]
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)
    assert backups(dst) == []
    assert "0 changes" in sync(src, dst, "--dry-run").stdout


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "a mode": lambda dst: (dst / "index.html").chmod(0o600),
    "a time": lambda dst: os.utime(dst / "index.html"),
    "a content": lambda dst: (dst / "index.html").write_bytes(b"tampered"),
    "a link": lambda dst: _relink(dst / "loop", "elsewhere"),
    "a file less": lambda dst: (dst / "docs" / "large").unlink(),
    "a tree less": lambda dst: shutil.rmtree(dst / "docs"),
    "the mode of a folder": lambda dst: (dst / "docs").chmod(0o700),
    "the time of a folder": lambda dst: os.utime(dst / "docs"),
    "an empty folder less": lambda dst: (dst / "empty").rmdir(),
    "a file for a folder": lambda dst: _become_file(dst / "docs"),
    "the time of the root": os.utime,
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_what_was_tampered_with_is_healed(
    src: Path, dst: Path, tamper: Callable[[Path], object]
) -> None:
    sync(src, dst)
    tamper(dst)
    figures = told(src, dst)
    assert _all(dst) == _all(src)
    assert figures["written"] == figures["adopted"] == figures["deleted"] == 0
    assert sum(figures[name] for name in ("healed", "unchanged")) == 7


def test_a_tampered_content_with_its_times_put_back_is_found_by_checksum(
    src: Path, dst: Path
) -> None:
    sync(src, dst)
    path = dst / "index.html"
    _tamper_below_the_clock(path)
    assert told(src, dst, "--checksum")["healed"] == 1
    assert _all(dst) == _all(src)


def _tamper_below_the_clock(path: Path) -> None:
    """Other bytes, whatever ``lstat`` says: as if the record had been made just now."""
    path.write_bytes(b"INDEX<p>")
    os.utime(path, ns=(THEN, path.lstat().st_mtime_ns))


def test_a_source_that_was_edited_secretly_is_found_by_checksum(src: Path, dst: Path) -> None:
    sync(src, dst)
    path = src / "index.html"
    before = path.stat()
    path.write_bytes(b"INDEX<p>")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert told(src, dst)["written"] == 0  # Neither size nor time tells.
    assert told(src, dst, "--checksum")["written"] == 1
    assert _all(dst) == _all(src)


def test_an_existing_copy_is_adopted(src: Path, dst: Path) -> None:
    shutil.copytree(src, dst, symlinks=True)
    inodes = {path: path.lstat().st_ino for path in dst.rglob("*")}
    figures = told(src, dst)
    assert (figures["adopted"], figures["written"], figures["size"]) == (7, 0, 0)
    assert {path: path.lstat().st_ino for path in inodes} == inodes
    assert _all(dst) == _all(src)


# What is left out


def test_patterns_leave_out_files_and_folders(src: Path, dst: Path) -> None:
    sync(src, dst, "--exclude", "deep/", "--exclude", "*.html", "--exclude", "!index.html")
    assert set(snapshot(src)) - set(snapshot(dst)) == {"docs/deep", "docs/deep/run.sh"}
    sync(src, dst, "--exclude", "/docs")
    assert not (dst / "docs").exists()
    sync(src, dst)
    assert _all(dst) == _all(src)


def test_gitignore_files_are_heard_if_asked(src: Path, dst: Path) -> None:
    (src / ".gitignore").write_bytes(b"*.log\n/empty/\n")
    (src / ".git").mkdir()
    (src / ".git" / "HEAD").touch()
    (src / "a.log").touch()
    (src / "docs" / ".gitignore").write_bytes(b"!keep.log\n# a comment\nlarge\r\n/deep\n")
    (src / "docs" / "keep.log").touch()
    (src / "docs" / "other.log").touch()
    sync(src, dst)
    assert _all(dst) == _all(src)
    sync(src, dst, "--gitignore")
    gone = {".git", ".git/HEAD", "a.log", "empty", "docs/other.log", "docs/large"}
    gone |= {"docs/deep", "docs/deep/run.sh"}
    assert set(snapshot(src)) - set(snapshot(dst)) == gone


def test_what_git_itself_would_list_is_what_is_mirrored(tmp_path: Path, dst: Path) -> None:
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


@pytest.mark.parametrize("folder", ["", "docs/"])
def test_a_gitignore_file_with_a_bad_pattern_is_named(src: Path, dst: Path, folder: str) -> None:
    (src / f"{folder}.gitignore").write_bytes(b"*.log\n[z-a]\n")
    result = sync(src, dst, "--gitignore")
    assert result.exit_code == 3
    assert (
        f"{src}: can't be read whole: {folder}.gitignore: the pattern '[z-a]' can't be parsed"
        in result.stderr
    )
    assert result.stderr.count("\n") == 1
    assert snapshot(dst) == {}


@pytest.mark.parametrize("pattern", ["!", "\\", "[z-a]"])
def test_a_pattern_that_does_not_parse_is_one_line(src: Path, dst: Path, pattern: str) -> None:
    result = sync(src, dst, "--exclude", pattern)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"fsmirror: the pattern {pattern!r} can't be parsed")
    assert result.stderr.count("\n") == 1
    assert not dst.exists()


# What can't be read


def test_an_unreadable_file_fails_by_name_its_copy_stays_and_the_rest_goes_on(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    (src / "index.html").write_bytes(b"changed")
    (src / "new").write_bytes(b"new")
    real = _source._opened

    def opened(path: str) -> tuple[int, os.stat_result]:
        if path.endswith("index.html"):
            raise SourceError(path, "can't be read: Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(_source, "_opened", opened)
        result = sync(src, dst)
    assert result.exit_code == 3
    assert f"{str(src / 'index.html')!r} can't be read: Permission denied" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (dst / "index.html").read_bytes() == b"<p>index"
    assert (dst / "new").read_bytes() == b"new"
    assert sync(src, dst).exit_code == 0  # Though the listing is the same.
    assert _all(dst) == _all(src)
    assert told(src, dst)["written"] == 0


def test_a_source_that_changes_while_it_is_copied_fails_by_name_and_the_next_run_is_right(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    (src / "docs" / "large").write_bytes(b"1" * 100_000)
    real = Mirror.apply

    def apply(mirror: Mirror, *args: Any) -> object:
        (src / "docs" / "large").write_bytes(b"2" * 100_000)
        return real(mirror, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "apply", apply)
        result = sync(src, dst)
    assert result.exit_code == 3
    assert "write 'docs/large': its source" in result.stderr
    assert "changed while it was read (update again)" in result.stderr
    assert (dst / "docs" / "large").stat().st_size == 200_000
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)


FAR: int = 10_413_792_000 * 10**9  # 2300-01-01, beyond 64 bits of nanoseconds


def _sends_far(path: Path) -> None:
    """Gives something a time that the ledger can't keep."""
    try:
        os.utime(path, ns=(FAR, FAR), follow_symlinks=False)
    except OSError:
        pytest.skip("this file system holds no such time")
    if path.lstat().st_mtime_ns != FAR:
        pytest.skip("this file system holds no such time")


def test_a_time_that_cannot_be_kept_fails_by_name_its_copy_stays_and_the_rest_goes_on(
    src: Path, dst: Path
) -> None:
    sync(src, dst)
    (src / "new").write_bytes(b"new")
    (src / "far").write_bytes(b"far")
    (src / "index.html").write_bytes(b"changed")
    far = ("far", "index.html", "loop")
    for name in far:
        _sends_far(src / name)
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
    assert _all(dst) == _all(src)


@pytest.mark.parametrize("folder", ["", "docs"])
def test_the_time_of_a_folder_that_cannot_be_kept_changes_nothing(
    src: Path, dst: Path, folder: str
) -> None:
    sync(src, dst)
    (src / "index.html").unlink()
    _sends_far(src / folder)
    result = sync(src, dst)
    assert result.exit_code == 3
    assert f"{folder or src}: has a time that no mirror can keep" in result.stderr
    assert result.stderr.endswith("(nothing was changed)\n")
    assert result.stderr.count("\n") == 1
    assert (dst / "index.html").exists()


# Exact, and the brake


def test_exact_moves_what_is_not_from_the_source_to_the_backups(src: Path, dst: Path) -> None:
    sync(src, dst)
    (dst / "mine").write_bytes(b"mine")
    (dst / "docs" / "mine too").write_bytes(b"mine too")
    listed = sync(src, dst, "--exact", "-n").stdout
    assert "back up  mine  (not managed)" in listed
    assert (dst / "mine").exists()
    sync(src, dst)
    assert (dst / "mine").exists()
    assert told(src, dst, "--exact")["backed_up"] == 2
    assert _all(dst) == _all(src)
    assert backups(dst) == [b"mine", b"mine too"]


def test_exact_over_an_existing_copy_adopts_what_is_right(src: Path, dst: Path) -> None:
    shutil.copytree(src, dst, symlinks=True)
    (dst / "mine").write_bytes(b"mine")
    figures = told(src, dst, "--exact")
    assert (figures["adopted"], figures["backed_up"], figures["written"]) == (7, 1, 0)
    assert _all(dst) == _all(src)


def test_exact_leaves_what_it_could_not_put_right(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreign bytes at a path of the source are not from elsewhere."""
    dst.mkdir()
    (dst / "index.html").write_bytes(b"foreign")
    (dst / "mine").write_bytes(b"mine")
    result = sync(src, dst, "--exact", "--on-conflict", "error")
    assert result.exit_code == 3
    assert (dst / "index.html").read_bytes() == b"foreign"
    assert backups(dst) == [b"mine"]

    def opened(path: str) -> tuple[int, os.stat_result]:
        raise SourceError(path, "can't be read: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(_source, "_opened", opened)
        (src / "index.html").write_bytes(b"changed")
        assert sync(src, dst, "--exact").exit_code == 3
    assert (dst / "index.html").read_bytes() == b"foreign"
    assert sync(src, dst, "--exact").exit_code == 0
    assert _all(dst) == _all(src)
    assert backups(dst) == [b"foreign", b"mine"]


def test_what_exact_leaves_is_no_reason_to_run_again(src: Path, dst: Path) -> None:
    dst.mkdir()
    (dst / "index.html").write_bytes(b"foreign")
    options = _sync.Options(on_conflict="error", exact=True)
    with contextlib.closing(_sync.Syncing(str(dst), options)) as syncing:
        assert syncing.run(survey(str(src))).failures
        assert not syncing.has_drifted()
        (dst / "mine").touch()
        assert syncing.has_drifted()


def test_exact_clears_a_foreign_folder_out_of_the_way_in_one_run(src: Path, dst: Path) -> None:
    (dst / "index.html" / "theirs").mkdir(parents=True)
    (dst / "index.html" / "theirs" / "mine").write_bytes(b"mine")
    assert sync(src, dst).exit_code == 3
    assert sync(src, dst, "-n", "--exact").exit_code == 0
    assert sync(src, dst, "--exact").exit_code == 0
    assert _all(dst) == _all(src)
    assert backups(dst) == [b"mine"]


def test_exact_that_could_not_be_exact_fails_by_name(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    (dst / "theirs").write_bytes(b"1")
    real = Tree.back_up

    def back_up(tree: Tree, name: Name, *more: Any) -> Name:
        if name == "theirs":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(tree, name, *more)

    monkeypatch.setattr(Tree, "back_up", back_up)
    result = sync(src, dst, "--exact")
    assert result.exit_code == 3
    assert "fsmirror: move away 'theirs': Operation not permitted" in result.stderr
    monkeypatch.undo()
    assert told(src, dst, "--exact")["backed_up"] == 1


def test_exact_takes_the_folders_that_a_foreign_file_had_kept(src: Path, dst: Path) -> None:
    sync(src, dst)
    (dst / "docs" / "deep" / "mine").write_bytes(b"mine")
    shutil.rmtree(src / "docs")
    sync(src, dst)
    assert (dst / "docs" / "deep" / "mine").exists()
    assert told(src, dst, "--exact")["backed_up"] == 1
    assert _all(dst) == _all(src)


@pytest.mark.parametrize(("limit", "allowed"), [("0", 0), ("2", 2), ("40%", 2)])
def test_too_many_removals_stop_before_anything_is_done(
    src: Path, dst: Path, limit: str, allowed: int
) -> None:
    sync(src, dst)
    before = exact_state(dst)
    shutil.rmtree(src / "docs")
    (src / "new").touch()
    for more in ((), ("--dry-run",)):
        result = sync(src, dst, "--max-delete", limit, *more)
        assert result.exit_code == 3
        assert (
            f"3 of 7 files would be removed, and --max-delete {limit} allows {allowed}: nothing "
            "was removed" in result.stderr
        )
        assert {p for p in exact_state(dst) if ".fsmirror" not in p} == {
            p for p in before if ".fsmirror" not in p
        }
    assert sync(src, dst, "--max-delete", "3").exit_code == 0
    assert _all(dst) == _all(src)


def test_the_brake_holds_after_a_first_run_that_was_cut_off(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = coco.App.update_blocking

    def cut_off(app: coco.App[Any, Any]) -> None:
        real(app)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(coco.App, "update_blocking", cut_off)
        assert sync(src, dst).exit_code == 130
    shutil.rmtree(src)
    src.mkdir()
    assert sync(src, dst, "--max-delete", "0").exit_code == 3
    assert (dst / "index.html").exists()


@pytest.mark.parametrize("limit", ["-1", "101%", "many", "1.5", "", "%"])
def test_an_impossible_limit_is_one_line(src: Path, dst: Path, limit: str) -> None:
    result = sync(src, dst, f"--max-delete={limit}")
    assert result.exit_code == 2
    assert "neither a count nor a percentage" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_limit_that_is_no_number_for_python_is_one_line(src: Path, dst: Path) -> None:
    result = sync(src, dst, f"--max-delete={'9' * 5000}")
    assert result.exit_code == 2
    assert "it has 5,000 digits" in result.stderr
    assert result.stderr.count("\n") == 1
    assert sync(src, dst, f"--max-delete={'9' * 18}").exit_code == 0


# Dry runs


def test_a_dry_run_lists_what_the_run_then_does_and_changes_nothing(src: Path, dst: Path) -> None:
    figures = told(src, dst, "--dry-run")
    assert not dst.exists()
    listed = {(change["action"], change["path"]) for change in figures["changes"]}
    files = {"index.html", "docs/large", "docs/deep/run.sh", "nasty \n name"}
    files |= {"docs/link", "outside", "loop"}
    folders = {"docs/", "docs/deep/", "empty/"}
    folders |= {"./"}
    assert listed == {("write", f) for f in files} | {("make", f) for f in folders}
    sync(src, dst)
    (src / "index.html").write_bytes(b"changed")
    (src / "docs" / "link").unlink()
    (dst / "docs" / "large").write_bytes(b"tampered")
    (dst / "outside").unlink()
    before = exact_state(dst)
    listed = {(c["action"], c["path"]) for c in told(src, dst, "-n")["changes"]}
    assert exact_state(dst) == before
    expected = {("write", "index.html"), ("delete", "docs/link"), ("heal", "outside")}
    assert listed - {("update", "docs/"), ("update", "./")} == expected | {("heal", "docs/large")}
    figures = told(src, dst)
    counted = [figures[name] for name in ("written", "deleted", "healed", "backed_up")]
    assert counted == [1, 1, 2, 1]


def _lay_foreign(dst: Path) -> None:
    """What others may have put into a mirror."""
    (dst / "mine" / "deep").mkdir(parents=True)
    (dst / "mine" / "deep" / "file").write_bytes(b"mine")
    (dst / "docs" / "mine").write_bytes(b"mine")
    (dst / "index.html").write_bytes(b"tampered")


@pytest.mark.parametrize("foreign", [lambda _dst: None, _lay_foreign], ids=["clean", "foreign"])
@pytest.mark.parametrize("more", [(), ("--exact",)], ids=["plain", "exact"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_dry_run_lists_every_path_that_then_changes_and_no_other(
    src: Path,
    dst: Path,
    change: Callable[[Path], object],
    more: tuple[str, ...],
    foreign: Callable[[Path], object],
) -> None:
    sync(src, dst)
    foreign(dst)
    change(src)
    listed = told(src, dst, "-n", *more)["changes"]
    before = _all(dst)
    result = sync(src, dst, *more, "--json")
    after, figures = _all(dst), json.loads(result.stdout)
    differing = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    # Of a folder that stays in place for somebody else's file nobody can say more before.
    stays = {c["path"].rstrip("/") for c in listed if "if it is empty" in c["note"]} & {*after}
    stays |= {c["path"] for c in listed if c["action"] == "fail"}
    assert {c["path"].rstrip("/") for c in listed} - stays == differing - stays
    assert figures["deleted"] == _count(listed, "delete")
    kept = sum(1 for c in listed if "goes to the backup area" in c["note"])
    assert figures["backed_up"] == _count(listed, "back up") + kept
    assert (result.exit_code == 3) is any(c["action"] == "fail" for c in listed)
    assert len({(c["action"], c["path"]) for c in listed}) == len(listed)


def _count(listed: list[dict[str, Any]], action: str) -> int:
    """How many files or links are listed with an action."""
    return sum(1 for c in listed if c["action"] == action and not c["path"].endswith("/"))


def test_a_dry_run_that_goes_on_is_refused(src: Path, dst: Path) -> None:
    result = sync(src, dst, "-n", "--watch")
    assert result.exit_code == 2
    assert result.stderr == "fsmirror: --watch and --dry-run can't be given together\n"


def test_a_dry_run_names_conflicts(src: Path, dst: Path) -> None:
    (dst / "index.html").mkdir(parents=True)
    (dst / "index.html" / "mine").touch()
    (dst / "loop").write_bytes(b"mine")
    result = sync(src, dst, "-n")
    assert result.exit_code == 3
    assert "a directory is in the way, with what is not ours" in result.stdout
    assert "write    loop  (what is there goes to the backup area)" in result.stdout
    assert snapshot(dst) == {"index.html": "dir", "index.html/mine": b"", "loop": b"mine"}


# The engine's database


@pytest.mark.parametrize("damage", ["garbage", "cut off", "a file", "gone"])
def test_a_damaged_database_of_the_engine_is_set_aside_and_all_is_adopted(
    src: Path, dst: Path, damage: str
) -> None:
    sync(src, dst)
    engine = dst / ".fsmirror" / "engine"
    data = engine / "mdb" / "data.mdb"
    if damage == "garbage":
        data.write_bytes(os.urandom(data.stat().st_size))
    elif damage == "cut off":
        os.truncate(data, 100)
    else:
        shutil.rmtree(engine)
    if damage == "a file":
        engine.touch()
        result = sync(src, dst)
        assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
        assert "'.fsmirror/engine' is not a folder (move it away" in result.stderr
        engine.unlink()
    (src / "index.html").write_bytes(b"changed")
    result = sync(src, dst)
    assert result.exit_code == 0, result.output
    assert ("the engine's database is damaged" in result.stderr) is (
        damage in ("garbage", "cut off")
    )
    assert "1 written, 0 adopted, 0 healed, 0 deleted, 1 backed up, 6 unchanged" in result.stdout
    assert _all(dst) == _all(src)
    assert backups(dst) == [b"<p>index"]  # Without that memory nobody knows whose it was.
    assert told(src, dst)["unchanged"] == 7


def test_an_engine_that_can_not_go_on_is_one_line(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update_blocking(_app: coco.App[Any, Any]) -> None:
        raise RuntimeError("MDB_CORRUPTED")

    monkeypatch.setattr(coco.App, "update_blocking", update_blocking)
    result = sync(src, dst)
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert "the engine can't go on: MDB_CORRUPTED (if this remains, remove" in result.stderr


@pytest.mark.parametrize("where", ["engine", "engine/mdb"])
def test_the_engine_is_not_led_out_of_the_root(src: Path, dst: Path, where: str) -> None:
    sync(src, dst)
    outside = dst.parent / "outside"
    outside.mkdir()
    shutil.rmtree(dst / ".fsmirror" / where)
    (dst / ".fsmirror" / where).symlink_to(outside)
    result = sync(src, dst)
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert f"'.fsmirror/{where}' is not a folder" in result.stderr
    assert list(outside.iterdir()) == []


# Several at once, and interruptions


def test_a_second_run_on_the_same_mirror_says_who_holds_it(src: Path, dst: Path) -> None:
    dst.mkdir()
    code = (
        "import sys, time; from cocoindex_fsmirror import Mirror\n"
        f"m = Mirror({str(dst)!r}); m.create()\n"
        "with m.held():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        result = sync(src, dst)
        assert result.exit_code == 3
        assert f"process {other.pid} ({sys.executable} -c import sys" in result.stderr
        assert "is at work (let it finish, or end it)" in result.stderr
        other.communicate(b"")
    assert sync(src, dst).exit_code == 0


def _staged(dst: Path) -> int:
    """How many files wait to be put in place."""
    return sum(len(files) for _, _, files in os.walk(dst / ".fsmirror" / "tmp"))


# What is there when the process dies: of a run over 3,000 files.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the engine has begun": lambda dst: (dst / ".fsmirror" / "engine").exists(),
    "a file is staged": lambda dst: _staged(dst) > 0,
    "many files are staged": lambda dst: _staged(dst) > 100,
    "a file is in place": lambda dst: (dst / "many").is_dir() and any((dst / "many").iterdir()),
}


@pytest.mark.parametrize("is_reached", MOMENTS.values(), ids=MOMENTS)
def test_a_run_that_is_killed_is_completed_by_the_next(
    src: Path, dst: Path, is_reached: Callable[[Path], bool]
) -> None:
    (src / "many").mkdir()
    for number in range(3000):
        (src / "many" / f"{number}").write_bytes(b"%d" % number)
    command = [str(Path(sys.executable).with_name("fsmirror")), "sync", str(src), str(dst)]
    for _ in range(5):  # On a busy machine we may be too late.
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env=command_environment()
        ) as process:
            while process.poll() is None and not is_reached(dst):
                time.sleep(0.001)
            process.kill()
        if is_cut_off := process.returncode == -signal.SIGKILL and _all(dst) != _all(src):
            break
        shutil.rmtree(dst)
    assert is_cut_off
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)
    assert [name for name in snapshot(dst, ours=True) if name.startswith("tmp/")] == []


# Compared by others


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_and_diff_find_no_difference(src: Path, dst: Path) -> None:
    # The package need not lie beside its tests; others may compile either meanwhile.
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(_sync.__file__).parent, src / "package", ignore=ignored)
    shutil.copytree(Path(__file__).parents[1], src / "tests", ignore=ignored)
    for change in (None, "kit", "engine"):
        if change is not None:
            shutil.rmtree(src / "tests" / change)
            (src / "package" / "_fs.py").write_text(change)
        assert sync(src, dst).exit_code == 0
        command = ["rsync", "-nai", "--delete", "--exclude=/.fsmirror", f"{src}/", f"{dst}/"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b""
        command = ["diff", "-r", "--no-dereference", "--exclude=.fsmirror", str(src), str(dst)]
        subprocess.run(command, check=True)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The drafts that were begun, of files that need not be as large here."""
    told, real = list[str](), Mirror.draft

    def begin(mirror: Mirror, name: str, source: int) -> Draft | None:
        draft = real(mirror, name, source)
        if draft is not None:
            told.append(name)
        return draft

    for module in (_source, _survey):
        monkeypatch.setattr(module, "LARGE", 200_000)
    monkeypatch.setattr(Mirror, "draft", begin)
    return told


def test_a_large_file_is_copied_while_the_engine_starts(
    src: Path, dst: Path, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_engine, real = list[list[str]](), _sync.Syncing._opened

    def opened(syncing: _sync.Syncing) -> _flow.App:
        before_the_engine.append(begun.copy())
        return real(syncing)

    monkeypatch.setattr(_sync.Syncing, "_opened", opened)
    monkeypatch.setattr(_fs, "_copy", lambda *_: pytest.fail("it was copied again"))
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)
    (src / "index.html").write_bytes(b"changed")
    assert sync(src, dst).exit_code == 0
    assert begun == ["docs/large"]
    (src / "docs" / "large").write_bytes(os.urandom(300_000))
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)
    assert begun == ["docs/large", "docs/large"]
    assert before_the_engine == [begun[:1], begun[:1], begun]


def test_only_so_many_copies_are_begun_and_the_rest_is_copied_all_the_same(
    src: Path, dst: Path, begun: list[str]
) -> None:
    for number in range(20):
        (src / "docs" / f"large {number}").write_bytes(os.urandom(200_000))
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)
    assert len(begun) >= 8
    assert not _nameless()


def _nameless() -> list[str]:
    """The files without a name that are still open."""
    folder, shown = "/proc/self/fd", list[str]()
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # It was the folder's own.
            shown.append(os.readlink(f"{folder}/{fd}"))
    return [path for path in shown if "/.fsmirror/#" in path]


def test_a_large_file_that_goes_before_it_is_read_is_no_failure_of_others(
    src: Path, dst: Path, begun: list[str]
) -> None:
    with contextlib.closing(_sync.Syncing(str(dst), _sync.Options())) as syncing:
        found = survey(str(src))
        (src / "docs" / "large").unlink()
        summary = syncing.run(found)
    assert len(summary.failures) == 1
    assert "docs/large" in summary.failures[0]
    assert begun == []
    assert (dst / "index.html").is_file()


def test_a_copy_that_was_begun_is_given_up_if_the_run_fails(
    src: Path, dst: Path, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_syncing: _sync.Syncing) -> _flow.App:
        raise RootError(str(dst), "fails", "")

    monkeypatch.setattr(_sync.Syncing, "_opened", fail)
    assert sync(src, dst).exit_code == 3
    assert begun == ["docs/large"]
    assert not _nameless()


# When there is nothing to do


@pytest.fixture
def engine_runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each run of the engine."""
    runs, real = list[bool](), _sync.Syncing._opened

    def opened(syncing: _sync.Syncing) -> _flow.App:
        runs.append(True)
        return real(syncing)

    monkeypatch.setattr(_sync.Syncing, "_opened", opened)
    return runs


def test_where_nothing_changed_the_engine_is_not_even_started(
    src: Path, dst: Path, engine_runs: list[bool]
) -> None:
    assert sync(src, dst).exit_code == 0
    before = exact_state(dst)
    assert told(src, dst)["unchanged"] == 7
    assert len(engine_runs) == 1
    changed = {path for path, seen in exact_state(dst).items() if before.get(path) != seen}
    assert {path for path in changed if ".fsmirror" not in path} == set()
    assert _all(dst) == _all(src)


def _touch(path: Path) -> None:
    """Gives a file another time, long ago."""
    os.utime(path, ns=(5, 5))


def _rename(path: Path, to: Path) -> None:
    """Gives a folder another name, and the one above it the time that it had."""
    found = path.parent.stat()
    path.rename(to)
    os.utime(path.parent, ns=(found.st_atime_ns, found.st_mtime_ns))


_REASONS: dict[str, Callable[[Path, Path], object]] = {
    "source changed": lambda src, _: (src / "index.html").write_bytes(b"other"),
    "source touched": lambda src, _: _touch(src / "index.html"),
    "source got a mode": lambda src, _: (src / "index.html").chmod(0o600),
    "source got a folder": lambda src, _: (src / "more").mkdir(),
    "source has a folder touched": lambda src, _: _touch(src / "docs" / "deep"),
    "source has a folder renamed": lambda src, _: _rename(src / "docs", src / "docs2"),
    "source lost a file": lambda src, _: (src / "index.html").unlink(),
    "source lost a link": lambda src, _: (src / "docs" / "link").unlink(),
    "mirror edited": lambda _, dst: (dst / "index.html").write_bytes(b"other"),
    "mirror touched": lambda _, dst: _touch(dst / "index.html"),
    "mirror got the same mode": lambda _, dst: (dst / "index.html").chmod(
        stat.S_IMODE((dst / "index.html").stat().st_mode)
    ),
    "mirror got a mode": lambda _, dst: (dst / "index.html").chmod(0o600),
    "mirror lost a file": lambda _, dst: (dst / "index.html").unlink(),
    "mirror lost an empty folder": lambda _, dst: (dst / "empty").rmdir(),
    "engine is gone": lambda _, dst: shutil.rmtree(dst / ".fsmirror" / "engine"),
    "ledger is gone": lambda _, dst: (dst / ".fsmirror" / "ledger.sqlite3").unlink(),
}


@pytest.mark.parametrize("reason", _REASONS)
def test_the_engine_is_asked_as_soon_as_anything_may_be_otherwise(
    src: Path, dst: Path, engine_runs: list[bool], reason: str
) -> None:
    assert sync(src, dst).exit_code == 0
    _REASONS[reason](src, dst)
    time.sleep(0.05)  # What was touched in the very tick of a look is left to the next.
    assert sync(src, dst).exit_code == 0
    assert len(engine_runs) == 2
    assert _all(dst) == _all(src)
    assert sync(src, dst).exit_code == 0
    assert len(engine_runs) == 2
    assert _all(dst) == _all(src)


@pytest.mark.parametrize("options", [["--exact"], ["--checksum"], ["--exclude", "index.html"]])
def test_the_engine_is_asked_if_something_else_is_asked_for(
    src: Path, dst: Path, engine_runs: list[bool], options: list[str]
) -> None:
    assert sync(src, dst).exit_code == 0
    assert sync(src, dst, *options).exit_code == 0
    assert len(engine_runs) == 2


def test_the_engine_is_asked_after_an_upgrade_and_if_the_source_is_another_one(
    src: Path, dst: Path, engine_runs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sync(src, dst).exit_code == 0
    shutil.copytree(src, other := src.parent / "other", symlinks=True)
    assert sync(other, dst).exit_code == 0
    assert len(engine_runs) == 2
    monkeypatch.setattr(_sync, "__version__", "another")
    assert sync(other, dst).exit_code == 0
    assert len(engine_runs) == 3


def test_a_run_that_was_cut_off_is_not_forgotten_when_the_source_changes_back(
    src: Path, dst: Path, engine_runs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_syncing: _sync.Syncing, _app: _flow.App) -> None:
        real(_syncing, _app)
        raise RootError(str(dst), "the process ended here", "")

    assert sync(src, dst).exit_code == 0
    shutil.copytree(src, before := src.parent / "before", symlinks=True)
    (src / "index.html").write_bytes(b"other")
    real = _sync.Syncing._run_engine
    with monkeypatch.context() as patch:
        patch.setattr(_sync.Syncing, "_run_engine", die)
        assert sync(src, dst).exit_code == 3
    assert (dst / "index.html").read_bytes() == b"other"
    shutil.copystat(before / "index.html", src / "index.html")
    _write_in_place(src / "index.html", b"<p>index", before / "index.html")
    os.utime(src, ns=(THEN, THEN))
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src) == _all(before)


def _write_in_place(path: Path, content: bytes, like: Path) -> None:
    """Gives a file a content again, and its inode the time that it had."""
    path.write_bytes(content)
    shutil.copystat(like, path)


def test_what_failed_is_tried_again_though_nothing_changed(
    src: Path, dst: Path, engine_runs: list[bool]
) -> None:
    (dst / "index.html" / "theirs").mkdir(parents=True)
    assert sync(src, dst).exit_code == 3
    assert sync(src, dst).exit_code == 3
    assert len(engine_runs) == 2
    shutil.rmtree(dst / "index.html")
    assert sync(src, dst).exit_code == 0
    assert _all(dst) == _all(src)


def test_a_folder_that_could_not_go_goes_though_nothing_changed(
    src: Path, dst: Path, engine_runs: list[bool]
) -> None:
    assert sync(src, dst).exit_code == 0
    (dst / "docs" / "mine").touch()
    shutil.rmtree(src / "docs")
    assert sync(src, dst).exit_code == 0
    (dst / "docs" / "mine").unlink()
    assert sync(src, dst).exit_code == 0
    assert not (dst / "docs").exists()
    assert len(engine_runs) == 3


# With a second process, as the command has it


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    command = [str(Path(sys.executable).with_name("fsmirror")), *map(str, arguments)]
    clean = command_environment()
    return subprocess.run(command, capture_output=True, text=True, check=False, env=clean)


def test_the_command_reads_and_looks_in_a_second_process_with_the_same_result(
    src: Path, dst: Path
) -> None:
    for number in range(300):
        (src / "docs" / f"{number}").write_bytes(b"%d" % number)
    first = _command("sync", src, dst)
    assert (first.returncode, first.stderr) == (0, "")
    assert _all(dst) == _all(src)
    assert "0 written, 0 adopted, 0 healed" in _command("sync", src, dst).stdout
    (dst / "docs" / "1").write_bytes(b"edited")
    (dst / "docs" / "99").unlink()
    (dst / "index.html").chmod(0o600)
    verified = _command("verify", dst)
    assert verified.returncode == 1
    assert verified.stdout.splitlines()[:-1] == [
        "mode      docs",
        "modified  docs/1",
        "missing   docs/99",
        "mode      index.html",
    ]
    assert _command("verify", "--content", dst).stdout == verified.stdout
    assert "0 written, 0 adopted, 3 healed" in _command("sync", src, dst).stdout
    assert _all(dst) == _all(src)
    assert _command("verify", dst).returncode == 0
