"""``fsmirror sync --watch``, in a process of its own; and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support import backups, contents, snapshot

COMMAND = [str(Path(sys.executable).with_name("fsmirror")), "sync"]
PATIENCE = 60.0  # seconds, on a machine that is busy


class Follower:
    """A process that follows a source."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "--watch", "--json", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self) -> dict[str, Any]:
        """What the next run did."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, "nothing happened"
        figures: dict[str, Any] = json.loads(self._process.stdout.readline())
        return figures

    def rest(self) -> tuple[int, list[str], str]:
        """Ctrl-C: the exit status, the runs that were not read, and standard error."""
        self._process.send_signal(signal.SIGINT)
        shown, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, shown.splitlines(), errors


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source."""
    source = tmp_path / "src"
    (source / "d").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    return source


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    """Where the mirror is made."""
    return tmp_path / "dst"


@pytest.fixture
def follower(src: Path, dst: Path) -> Iterator[Follower]:
    """One that has mirrored the source once."""
    with Follower(src, dst) as running:
        assert running.run()["written"] == 1
        yield running


def test_changes_of_the_source_follow_and_a_burst_is_taken_together(
    src: Path, dst: Path, follower: Follower
) -> None:
    for number in range(100):
        (src / "d" / f"{number}").write_bytes(b"%d" % number)
    assert follower.run()["written"] == 100
    (src / "a").unlink()
    assert follower.run()["deleted"] == 1
    (src / "d").rename(src / "moved")
    assert (follower.run()["written"], len(contents(snapshot(dst)))) == (100, 100)
    assert contents(snapshot(dst)) == contents(snapshot(src))
    status, more, errors = follower.rest()
    assert (status, more, errors) == (0, [], "")


def test_a_tampered_mirror_is_healed_and_our_own_work_is_no_change(
    dst: Path, follower: Follower
) -> None:
    (dst / "a").write_bytes(b"tampered")
    assert follower.run()["healed"] == 1
    (dst / "mine").touch()  # Not our business.
    shutil.rmtree(dst / "d")
    assert follower.run()["unchanged"] == 1
    assert snapshot(dst) == {"a": b"a", "d": "dir", "mine": b""}
    assert backups(dst) == [b"tampered"]
    assert follower.rest()[:2] == (0, [])


def test_a_source_that_goes_and_comes_back_changes_nothing_meanwhile(
    src: Path, dst: Path, follower: Follower
) -> None:
    src.rename(src.with_name("away"))
    (dst / "d").rmdir()  # So that it looks.
    time.sleep(1)
    assert (dst / "a").read_bytes() == b"a"
    status, more, errors = follower.rest()
    assert (status, more) == (0, [])
    assert f"{src}: can't be read: No such file or directory (nothing was changed)" in errors
    assert "Traceback" not in errors


def test_while_one_follows_another_run_says_who_holds_the_mirror(
    src: Path, dst: Path, follower: Follower
) -> None:
    other = subprocess.run([*COMMAND, src, dst], capture_output=True, text=True, check=False)
    assert other.returncode == 3
    assert f"fsmirror: {dst}: process " in other.stderr
    assert "--watch" in other.stderr
    assert follower.rest()[0] == 0


def test_a_run_that_is_interrupted_says_so_and_the_next_completes_it(src: Path, dst: Path) -> None:
    for number in range(3000):
        (src / "d" / f"{number}").write_bytes(b"%d" % number)
    told = []
    for delay in (0.5, 0.7, 0.9):
        with subprocess.Popen([*COMMAND, src, dst], stderr=subprocess.PIPE, text=True) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            told.append((process.wait(PATIENCE), process.communicate()[1]))
    for status, errors in told:
        assert status in (0, 130, -signal.SIGINT)
        assert "Traceback" not in errors or status == -signal.SIGINT
    run = subprocess.run([*COMMAND, src, dst], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert snapshot(dst) == snapshot(src)
    assert os.listdir(dst / ".fsmirror" / "tmp") == []
