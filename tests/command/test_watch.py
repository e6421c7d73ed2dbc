"""``fsmirror sync --watch``, and Ctrl-C, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command.following import PATIENCE, PROGRAM, Follower, small_source
from tests.support import Mount, backups, command_environment, contents, snapshot

COMMAND = [PROGRAM, "sync"]
INTERRUPTED = "\nfsmirror: interrupted; nothing is lost, run it again to complete it\n"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A small source."""
    return small_source(tmp_path / "src")


def test_changes_follow_and_a_burst_is_taken_together(
    src: Path, dst: Path, follower: Follower
) -> None:
    def is_mirrored() -> bool:
        return contents(snapshot(dst)) == contents(snapshot(src))

    for number in range(100):
        (src / "d" / f"{number}").write_bytes(b"%d" % number)
    assert follower.runs_until(is_mirrored) < 10
    (src / "a").unlink()
    assert follower.runs_until(is_mirrored) < 10
    (src / "d").rename(src / "moved")
    assert follower.runs_until(is_mirrored) < 10
    status, _, errors = follower.rest()
    assert (status, errors) == (130, "")


def test_tampered_mirror_is_healed_and_own_writes_cause_no_run(
    dst: Path, follower: Follower
) -> None:
    (dst / "a").write_bytes(b"tampered")
    assert follower.run()["healed"] == 1
    (dst / "mine").touch()  # Not mirrored, so no reason to run.
    shutil.rmtree(dst / "d")
    assert follower.run()["unchanged"] == 1
    assert snapshot(dst) == {"a": b"a", "d": "dir", "mine": b""}
    assert backups(dst) == [b"tampered"]
    status, runs, _ = follower.rest()
    assert status == 130
    assert len(runs) <= 1  # Own writes would cause a run each; one late event may cause one.
    assert all(json.loads(run)["healed"] == json.loads(run)["written"] == 0 for run in runs)


def test_source_that_goes_and_comes_back_changes_nothing_meanwhile(
    src: Path, dst: Path, follower: Follower
) -> None:
    src.rename(src.with_name("away"))
    follower.waits_for(f"{src}: can't be read: No such file or directory (nothing was changed)")
    assert follower.run() == {
        "error": f"{src}: can't be read: No such file or directory (nothing was changed)"
    }
    (dst / "d").rmdir()  # Makes the follower look.
    time.sleep(1)
    assert (dst / "a").read_bytes() == b"a"
    (src.with_name("away") / "a").write_bytes(b"changed")
    src.with_name("away").rename(src)
    follower.runs_until(lambda: snapshot(dst) == {"a": b"changed", "d": "dir"})
    (src / "a").write_bytes(b"and heard again")
    follower.runs_until(lambda: snapshot(dst) == snapshot(src))
    status, _, errors = follower.rest()
    assert status == 130
    assert "Traceback" not in errors


def _remade(path: Path) -> None:
    """Replaces a folder by a new one, which may get the same inode number."""
    shutil.rmtree(path)
    path.mkdir()


def _exchanged(path: Path) -> None:
    """Replaces a folder by a new one, and keeps the old one elsewhere."""
    path.with_name("other").mkdir()
    path.rename(path.with_name("old"))
    path.with_name("other").rename(path)


REPLACEMENTS = {"removed and made again": _remade, "exchanged for another": _exchanged}


@pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_replaced_source_is_followed(
    src: Path, dst: Path, follower: Follower, replace: Callable[[Path], None]
) -> None:
    for content in (b"new", b"newer"):
        replace(src)
        (src / "new").write_bytes(content)
        follower.runs_until(lambda: snapshot(dst) == snapshot(src))
        (src / "later").mkdir()
        (src / "later" / "file").write_bytes(content)
        follower.runs_until(lambda: snapshot(dst) == snapshot(src))
        shutil.rmtree(src.with_name("old"), ignore_errors=True)
    status, _, errors = follower.rest()
    assert status == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize("replace", [shutil.rmtree, *REPLACEMENTS.values()])
def test_replaced_mirror_is_filled_and_followed(
    src: Path, dst: Path, follower: Follower, replace: Callable[[Path], None]
) -> None:
    replace(dst)
    follower.runs_until(lambda: dst.exists() and snapshot(dst) == snapshot(src))
    (dst / "a").write_bytes(b"tampered")
    follower.runs_until(lambda: snapshot(dst) == snapshot(src))
    (src / "a").write_bytes(b"changed")
    follower.runs_until(lambda: snapshot(dst) == snapshot(src))
    assert backups(dst) == [b"tampered"]
    status, _, errors = follower.rest()
    assert status == 130
    assert "Traceback" not in errors


def test_mirror_replaced_by_a_file_is_filled_once_that_is_gone(
    src: Path, dst: Path, follower: Follower
) -> None:
    dst.rename(dst.with_name("old"))
    dst.write_bytes(b"in the way")
    follower.waits_for(f"fsmirror: {dst}: ")
    dst.unlink()
    follower.runs_until(lambda: dst.is_dir() and snapshot(dst) == snapshot(src))
    assert follower.rest()[0] == 130


@pytest.mark.root
@pytest.mark.slow
def test_file_that_did_not_fit_is_written_once_there_is_room(
    src: Path, tmp_path: Path, mount: Mount
) -> None:
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    with Follower(src, disk / "dst") as running:
        assert running.run()["written"] == 1
        (disk / "filler").write_bytes(bytes(3 << 20))
        (src / "big").write_bytes(os.urandom(2 << 20))
        assert "No space left" in running.run()["failures"][0]["problem"]
        time.sleep(4)  # Longer than the first pause: attempts that do not help say nothing.
        (disk / "filler").unlink()
        again = running.run()
        assert (again["written"], again["failures"]) == (1, [])
        status, _, errors = running.rest()
    assert status == 130
    assert errors.count("No space left") == 1
    assert (disk / "dst" / "big").stat().st_size == 2 << 20


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    words, clean = [*map(str, command)], command_environment()
    return subprocess.run(words, capture_output=True, text=True, check=False, env=clean)


def test_run_beside_a_watching_one_says_who_holds_the_mirror(
    src: Path, dst: Path, follower: Follower
) -> None:
    other = _run(*COMMAND, src, dst)
    assert other.returncode == 3
    assert f"fsmirror: {dst}: process " in other.stderr
    assert "--watch" in other.stderr
    assert follower.rest()[0] == 130


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_interrupted_run_says_so_and_the_next_completes_it(
    src: Path, dst: Path, delay: float
) -> None:
    for number in range(3000):
        (src / "d" / f"{number}").write_bytes(b"%d" % number)
    with subprocess.Popen(
        [*COMMAND, src, dst], stderr=subprocess.PIPE, text=True, env=command_environment()
    ) as process:
        while process.poll() is None and not (dst / ".fsmirror").exists():
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    # The run was at work, or had printed all, or had ended already.
    assert (process.returncode, errors) in {(130, INTERRUPTED), (-signal.SIGINT, ""), (0, "")}
    run = _run(*COMMAND, src, dst)
    assert (run.returncode, run.stderr) == (0, "")
    assert snapshot(dst) == snapshot(src)
    assert os.listdir(dst / ".fsmirror" / "tmp") == []


_INTERRUPTED_START = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from cocoindex_fsmirror._command.process import run
run()
"""


@pytest.mark.parametrize("module", ["click", "msgspec", "cocoindex_fsmirror._mirror.session"])
def test_interrupt_before_the_command_has_begun_just_ends_it(dst: Path, module: str) -> None:
    code = _INTERRUPTED_START.format(module=module)
    command = [sys.executable, "-c", code, "status", str(dst)]
    run = _run(*command)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, "", "")


def test_interrupt_is_heard_once_the_command_has_begun(src: Path, dst: Path) -> None:
    code = _INTERRUPTED_START.format(module="pathspec")
    command = [sys.executable, "-c", code, "sync", "--exclude=x", str(src), str(dst)]
    run = _run(*command)
    assert (run.returncode, run.stderr) == (130, INTERRUPTED)


def test_ignored_interrupt_stays_ignored(src: Path, dst: Path) -> None:
    code = _INTERRUPTED_START.format(module="click")
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-c", code]
    assert _run(*ignoring, "sync", src, dst).returncode == 0
    assert snapshot(dst) == snapshot(src)


def test_installed_entry_point_imports_little() -> None:
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    assert scripts == {"fsmirror": "cocoindex_fsmirror._command.process:run"}


_INTERRUPTED_IMPORT = """
import os, signal, sys, weakref
from cocoindex_fsmirror._command.process import run

class Finder:
    def find_spec(self, name, *_):
        if name == "pathspec":
            gone = set()
            # Where exceptions are dropped, as in the import system's own locks.
            watch = weakref.ref(gone, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del gone

sys.meta_path.insert(0, Finder())
run()
"""


def test_interrupt_during_an_import_is_not_lost(src: Path, dst: Path) -> None:
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT, "sync", "--exclude=x", str(src), str(dst)]
    run = _run(*command)
    assert (run.returncode, run.stderr) == (130, INTERRUPTED)


_INTERRUPTED_WRITE = """
import os, signal
from cocoindex_fsmirror._command.syncing import Syncing
from cocoindex_fsmirror._command.process import run

def go_on(syncing, size, go_on=Syncing._go_on):
    if size:
        for _ in range({times}):
            os.kill(os.getpid(), signal.SIGINT)
    go_on(syncing, size)

Syncing._go_on = go_on
run()
"""


_INTERRUPTED_END = """
import os, signal
from cocoindex_fsmirror._command.syncing import Syncing
from cocoindex_fsmirror._command.process import run

def add(syncing, outcome, add=Syncing._add):
    os.kill(os.getpid(), signal.SIGINT)
    return add(syncing, outcome)

Syncing._add = add
run()
"""


def test_interrupt_after_the_last_file_is_not_lost(src: Path, dst: Path) -> None:
    run = _run(sys.executable, "-c", _INTERRUPTED_END, "sync", src, dst)
    assert (run.returncode, run.stderr) == (130, INTERRUPTED)


def test_interrupt_stops_before_anything_more_is_placed_and_cleans_up(src: Path, dst: Path) -> None:
    for number in range(300):
        (src / "d" / f"{number}").write_bytes(b"%d" % number)
    code = _INTERRUPTED_WRITE.format(times=1)
    command = [sys.executable, "-c", code, "sync", str(src), str(dst)]
    run = _run(*command)
    assert (run.returncode, run.stderr) == (130, INTERRUPTED)
    assert contents(snapshot(dst)) == {}
    assert os.listdir(dst / ".fsmirror" / "tmp") == []
    run = _run(*COMMAND, src, dst)
    assert run.returncode == 0
    assert snapshot(dst) == snapshot(src)


def test_second_interrupt_ends_the_process_at_once(src: Path, dst: Path) -> None:
    code = _INTERRUPTED_WRITE.format(times=2)
    command = [sys.executable, "-c", code, "sync", str(src), str(dst)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (-signal.SIGINT, "")
    assert contents(snapshot(dst)) == {}
    run = subprocess.run([*COMMAND, src, dst], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert snapshot(dst) == snapshot(src)
    assert os.listdir(dst / ".fsmirror" / "tmp") == []
