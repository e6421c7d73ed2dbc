"""Runs of ``fsmirror sync``, one after another, at once, cut off, and of an earlier release."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import RootError
from cocoindex_fsmirror._command import syncing
from cocoindex_fsmirror._command import syncing as _sync
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk import dress as dress_module
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import turns as _turns
from cocoindex_fsmirror._mirror.batch import apply_intents
from cocoindex_fsmirror._mirror.ledger import Ledger
from cocoindex_fsmirror._mirror.outcome import Outcome
from tests.command.syncing import state, sync, told
from tests.support import exact_state, snapshot, staged

# Several at once, and interruptions


def test_second_run_on_the_same_mirror_says_who_holds_it(src: Path, dst: Path) -> None:
    dst.mkdir()
    code = (
        "import sys, time; from cocoindex_fsmirror import Mirror\n"
        "from cocoindex_fsmirror._mirror.session import held\n"
        f"m = Mirror({str(dst)!r}); m.create()\n"
        "with held(m.session):\n    print('held', flush=True); sys.stdin.read()"
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
    """Counts the staged files."""
    return sum(len(files) for _, _, files in os.walk(dst / ".fsmirror" / "tmp"))


# Moments at which a run over 3,000 files is killed.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the ledger is there": lambda dst: (dst / ".fsmirror" / "ledger.sqlite3").exists(),
    "a file is staged": lambda dst: _staged(dst) > 0,
    "many files are staged": lambda dst: _staged(dst) > 100,
    "a file is in place": lambda dst: (dst / "many").is_dir() and any((dst / "many").iterdir()),
}


@pytest.mark.parametrize("is_reached", MOMENTS.values(), ids=MOMENTS)
def test_killed_run_is_completed_by_the_next(
    src: Path, dst: Path, is_reached: Callable[[Path], bool]
) -> None:
    (src / "many").mkdir()
    for number in range(3000):
        (src / "many" / f"{number}").write_bytes(b"%d" % number)
    command = [str(Path(sys.executable).with_name("fsmirror")), "sync", str(src), str(dst)]
    for _ in range(5):  # On a busy machine the kill may come too late.
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not is_reached(dst):
                time.sleep(0.001)
            process.kill()
        if is_cut_off := process.returncode == -signal.SIGKILL and state(dst) != state(src):
            break
        shutil.rmtree(dst)
    assert is_cut_off
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)
    assert staged(dst) == []


# Compared by rsync and diff


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_and_diff_find_no_difference(src: Path, dst: Path) -> None:
    # The package need not lie beside its tests; others may compile either meanwhile.
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(_sync.__file__).parent, src / "package", ignore=ignored)
    shutil.copytree(Path(__file__).parents[1], src / "tests", ignore=ignored)
    for change in (None, "kit", "target"):
        if change is not None:
            shutil.rmtree(src / "tests" / change)
            (src / "package" / "survey.py").write_text(change)
        assert sync(src, dst).exit_code == 0
        command = ["rsync", "-nai", "--delete", "--exclude=/.fsmirror", f"{src}/", f"{dst}/"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b""
        command = ["diff", "-r", "--no-dereference", "--exclude=.fsmirror", str(src), str(dst)]
        subprocess.run(command, check=True)


# When there is nothing to do


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collects the paths of each batch that is applied."""
    collected, real = list[list[str]](), apply_intents

    def apply(tree: Tree, ledger: Ledger, intents: list[Intent], **options: Any) -> Outcome:
        collected.append([intent.name for intent in intents])
        return real(tree, ledger, intents, **options)

    monkeypatch.setattr(syncing, "apply_intents", apply)
    return collected


def test_unchanged_run_applies_no_batch_and_keeps_the_ledger(
    src: Path, dst: Path, batches: list[list[str]]
) -> None:
    assert sync(src, dst).exit_code == 0
    before, ledger = exact_state(dst), (dst / ".fsmirror" / "ledger.sqlite3").read_bytes()
    assert len(batches) == 1
    assert told(src, dst)["unchanged"] == 7
    assert len(batches) == 1
    assert (dst / ".fsmirror" / "ledger.sqlite3").read_bytes() == ledger
    assert exact_state(dst).keys() == before.keys()
    changed = {path for path, seen in exact_state(dst).items() if before[path] != seen}
    assert {path for path in changed if ".fsmirror" not in path} == set()


def test_batches_are_bounded_in_paths_and_bytes(
    src: Path, dst: Path, batches: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        (src / "docs" / f"{number}").write_bytes(b"x" * 1000)
    monkeypatch.setattr(_turns, "_MOST", 10)
    assert sync(src, dst).exit_code == 0
    assert sorted(len(batch) for batch in batches)[-2:] == [10, 10]
    batches.clear()
    shutil.rmtree(dst)
    monkeypatch.setattr(_turns, "_MOST", 1000)
    monkeypatch.setattr(_turns, "_LARGEST", 4000)
    assert sync(src, dst).exit_code == 0
    assert max(len(batch) for batch in batches) < 10
    assert state(dst) == state(src)


def _touch(path: Path) -> None:
    """Sets an old mtime."""
    os.utime(path, ns=(5, 5))


def _rename(path: Path, to: Path) -> None:
    """Renames a folder, and restores the mtime of the folder above."""
    found = path.parent.stat()
    path.rename(to)
    os.utime(path.parent, ns=(found.st_atime_ns, found.st_mtime_ns))


REASONS: dict[str, Callable[[Path, Path], object]] = {
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
    "ledger is gone": lambda _, dst: (dst / ".fsmirror" / "ledger.sqlite3").unlink(),
}


@pytest.mark.parametrize("reason", REASONS)
def test_difference_on_either_side_is_put_right_in_one_batch(
    src: Path, dst: Path, batches: list[list[str]], reason: str
) -> None:
    assert sync(src, dst).exit_code == 0
    batches.clear()
    REASONS[reason](src, dst)
    time.sleep(0.05)  # A change in the tick of a look would be left to the next run.
    assert sync(src, dst).exit_code == 0
    assert len(batches) == 1
    assert state(dst) == state(src)
    assert sync(src, dst).exit_code == 0
    assert len(batches) == 1
    assert state(dst) == state(src)


def test_another_source_is_followed_without_rewriting_equal_files(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    inodes = {path: path.lstat().st_ino for path in dst.rglob("*") if ".fsmirror" not in str(path)}
    shutil.copytree(src, other := src.parent / "other", symlinks=True)
    (other / "index.html").write_bytes(b"another")
    figures = told(other, dst)
    assert (figures["written"], figures["unchanged"], figures["backed_up"]) == (1, 6, 0)
    del inodes[dst / "index.html"]
    assert {path: path.lstat().st_ino for path in inodes} == inodes
    assert state(dst) == state(other)


def test_cut_off_run_is_made_up_for_when_the_source_changes_back(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(tree: Tree, name: Name, *dress: Any) -> int:
        if not name:  # The root itself, which comes last.
            raise RootError(str(dst), "the process ended here", "")
        return real(tree, name, *dress)

    real = dress_module.dress_folder
    assert sync(src, dst).exit_code == 0
    shutil.copytree(src, before := src.parent / "before", symlinks=True)
    (src / "index.html").write_bytes(b"other")
    with monkeypatch.context() as patch:
        patch.setattr(syncing, "dress_folder", die)
        assert sync(src, dst).exit_code == 3
    assert (dst / "index.html").read_bytes() == b"other"
    (src / "index.html").write_bytes(b"<p>index")
    for path in ("index.html", "."):
        shutil.copystat(before / path, src / path)
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src) == state(before)


def test_failed_file_is_tried_again_though_nothing_changed(src: Path, dst: Path) -> None:
    (dst / "index.html" / "theirs").mkdir(parents=True)
    assert sync(src, dst).exit_code == 3
    assert sync(src, dst).exit_code == 3
    shutil.rmtree(dst / "index.html")
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)


def test_folder_that_had_to_stay_goes_though_nothing_changed(src: Path, dst: Path) -> None:
    assert sync(src, dst).exit_code == 0
    (dst / "docs" / "mine").touch()
    shutil.rmtree(src / "docs")
    assert sync(src, dst).exit_code == 0
    (dst / "docs" / "mine").unlink()
    assert sync(src, dst).exit_code == 0
    assert not (dst / "docs").exists()


# Imports


def test_sync_never_imports_the_engine(src: Path, dst: Path) -> None:
    code = (
        "import sys\nfrom cocoindex_fsmirror._command.main import main\n"
        "try:\n    main(['sync', *sys.argv[1:]])\n"
        "finally:\n    assert 'cocoindex' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(src), str(dst)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert state(dst) == state(src)
    assert not (dst / ".fsmirror" / "engine").exists()


# A mirror of an earlier release


def _age(dst: Path) -> None:
    """Makes a mirror look like one of release 0.1, which used the engine."""
    with contextlib.closing(sqlite3.connect(dst / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("DROP INDEX copied")
        ledger.execute("DROP TABLE policies")
        for column in ("seen", "source_inode", "source_ctime_ns", "copied"):
            ledger.execute(f"ALTER TABLE rows DROP COLUMN {column}")
        ledger.execute("ALTER TABLE rows RENAME COLUMN unsynced TO doubt")
        ledger.execute("UPDATE rows SET component = '/mount/index'")
        found = ledger.execute("SELECT identity, since_ns FROM owners").fetchall()
        for identity, since_ns in found:
            text = f"{since_ns} fsmirror sync"
            ledger.execute("INSERT INTO meta VALUES (?, ?)", (f"owner:{identity}", text))
        ledger.execute("DROP TABLE owners")
        inode = (dst / ".fsmirror" / "ledger.sqlite3").stat().st_ino
        ledger.execute("UPDATE meta SET key = 'inode', value = ? WHERE key = 'origin'", (inode,))
        ledger.execute("DELETE FROM meta WHERE key = 'file'")
        ledger.execute("UPDATE meta SET value = 2 WHERE key = 'format'")
        notes = (
            "what was mirrored, with nothing that failed",
            "listings with sources that could not",
        )
        for note in notes:
            ledger.execute("INSERT INTO meta VALUES (?, 'x')", (f"note:sync: {note}",))
        ledger.commit()
    for folder in ("engine", "engine.corrupt-2026-01-01T000000Z"):
        (dst / ".fsmirror" / folder / "mdb").mkdir(parents=True)
        (dst / ".fsmirror" / folder / "mdb" / "data.mdb").write_bytes(b"x" * 8192)


def test_mirror_of_an_earlier_release_keeps_its_rows(src: Path, dst: Path) -> None:
    sync(src, dst)
    inodes = {path: path.lstat().st_ino for path in dst.rglob("*") if ".fsmirror" not in str(path)}
    _age(dst)
    (src / "docs" / "large").write_bytes(b"changed")
    (src / "loop").unlink()
    figures = told(src, dst)
    done = [figures[name] for name in ("written", "adopted", "deleted", "backed_up", "unchanged")]
    assert done == [1, 0, 1, 0, 5]
    assert state(dst) == state(src)
    for gone in ("loop", "docs/large"):
        del inodes[dst / gone]
    assert {path: path.lstat().st_ino for path in inodes} == inodes
    assert set(os.listdir(dst / ".fsmirror")) <= {
        *(".gitignore", "abilities.json", "lock", "tmp", "backup"),
        *(f"ledger.sqlite3{suffix}" for suffix in ("", "-wal", "-shm")),
    }
    with contextlib.closing(sqlite3.connect(dst / ".fsmirror" / "ledger.sqlite3")) as ledger:
        notes = ledger.execute("SELECT key FROM meta WHERE key LIKE 'note:%'").fetchall()
    assert sorted(notes) == [("note:sync: owner",), ("note:sync: source",)]
    assert told(src, dst)["unchanged"] == 6


@pytest.mark.parametrize("where", ["engine", "engine/mdb"])
def test_old_engine_folder_is_removed_without_following_a_link(
    src: Path, dst: Path, where: str
) -> None:
    sync(src, dst)
    (outside := dst.parent / "outside").mkdir()
    (outside / "theirs").write_bytes(b"theirs")
    link = dst / ".fsmirror" / where
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    assert sync(src, dst).exit_code == 0
    assert not (dst / ".fsmirror" / "engine").is_symlink()
    assert not (dst / ".fsmirror" / "engine").exists()
    assert snapshot(outside) == {"theirs": b"theirs"}


# Full disks


def test_files_that_fit_once_old_ones_are_gone_are_written_in_one_run(
    src: Path, tmpfs: Callable[[str], Path]
) -> None:
    dst = tmpfs("6m") / "dst"
    for number in range(4):
        (src / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    assert sync(src, dst).exit_code == 0
    for number in range(4):
        (src / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    (src / "z.bin").write_bytes(os.urandom(1 << 19))
    result = sync(src, dst)
    assert (result.exit_code, result.stderr) == (0, "")
    assert state(dst) == state(src)


def test_full_disk_is_one_failure_a_file_and_the_run_ends(
    src: Path, tmpfs: Callable[[str], Path]
) -> None:
    dst = tmpfs("4m") / "dst"
    (src / "small").write_bytes(b"small")
    for number in range(6):
        (src / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    result = sync(src, dst)
    assert result.exit_code == 3
    lines = result.stderr.splitlines()
    assert 3 <= len(lines) <= 5
    assert all("No space left on device (free some space" in line for line in lines)
    assert (dst / "small").read_bytes() == b"small"
    for number in range(4):
        (src / f"{number}.bin").unlink()
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)
