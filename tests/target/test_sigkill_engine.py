"""The real engine, killed by SIGKILL at random moments, converges at the next update."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import contents, exact_state, snapshot
from tests.target.flows import Flow, memoized, plain

ROUNDS = 10
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.target.flows import Flow, memoized, plain
from tests.target.test_sigkill_engine import declared_in

flow = Flow(Path(sys.argv[2]), {"plain": plain, "memoized": memoized}[sys.argv[3]])
flow.files = declared_in(0)
flow.attempt()
print("ready", flush=True)
sys.stdin.readline()
number = int(sys.argv[4])
while True:
    number += 1
    flow.files = declared_in(number)
    flow.app.update_blocking()
"""


def declared_in(number: int) -> dict[str, bytes]:
    """Returns the declarations of one of many updates; files and folders change places."""
    chosen = random.Random(number)
    files: dict[str, bytes] = {}
    for n in range(30):
        name = chosen.choice((f"d{n % 4}/f{n}", f"f{n}", f"x{n}", f"x{n}/deep/f"))
        files[name] = b"%d in %d " % (n, number) * chosen.randrange(1, 300)
    return files


def is_whole(content: bytes) -> bool:
    """True if a content is one declared version, from end to end."""
    words = content.split(b" ", 3)
    return len(words) > 2 and content in declared_in(int(words[2])).values()


def kill_one(at: Path, main: str, number: int, delay: float) -> None:
    """Starts a child that updates again and again, and kills it after a while."""
    repository = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, repository, str(at), main, str(number)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "COCOINDEX_DISABLE_USAGE_TRACKING": "1"},
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert b"ready\n" in iter(child.stdout.readline, b"")  # the engine logs there too
        timer = threading.Timer(delay, child.kill)
        timer.start()
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.wait(timeout=60) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


@pytest.mark.parametrize("main", [plain, memoized])
def test_files_are_whole_after_sigkill_and_the_next_update_converges(
    tmp_path: Path, main: object
) -> None:
    moments = random.Random(4711)
    root, name = tmp_path / "root", "plain" if main is plain else "memoized"
    for number in range(ROUNDS // 2):
        kill_one(tmp_path, name, 100 * number, moments.uniform(0.002, 0.25))
        there = contents(snapshot(root))
        assert [found for found, content in there.items() if not is_whole(content)] == []
    flow = Flow(tmp_path, plain if main is plain else memoized)
    flow.files = declared_in(1)
    try:
        flow.update()
        assert contents(flow.tree) == flow.files
        assert [n for n in snapshot(root, ours=True) if n.startswith(("tmp/", "backup"))] == []
        before = exact_state(root)
        flow.update()
        assert exact_state(root) == before
    finally:
        flow.close()
