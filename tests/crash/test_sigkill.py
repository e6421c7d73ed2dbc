"""A process may be killed at any moment, also inside SQLite."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.intents import Intent
from tests.crash import scene
from tests.crash.harness import leave_out_barriers
from tests.support import Tree, backups, contents, delete, snapshot, staged, write

_ROUNDS = 25
_NAMES = ("a", "a/b", "a/c/d", "e/f", "e/g", "h", "i/j/k/l", "m")
_CALLS = "fchmod,ftruncate,mkdirat,pwrite64,renameat,renameat2,unlink,unlinkat"
_BARRIERS = "fdatasync,fsync,syncfs"  # Barriers would only take time.
_SAMPLES = 12


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out barriers and the log."""
    leave_out_barriers(monkeypatch)
    caplog.set_level("CRITICAL")


# At random


def _some_files(chance: random.Random) -> dict[str, bytes]:
    """Draws a declaration: some files, none of them below another."""
    files: dict[str, bytes] = {}
    for name in chance.sample(_NAMES, chance.randint(2, len(_NAMES))):
        if not any(name.startswith(f"{n}/") or n.startswith(f"{name}/") for n in files):
            files[name] = chance.randbytes(chance.choice([10, 1_000, 100_000]))
    return files


def _batch(before: dict[str, bytes], after: dict[str, bytes]) -> list[Intent]:
    """Returns the batch from one declaration to the next."""
    gone = [delete(name) for name in before if name not in after]
    return gone + [write(name, content) for name, content in after.items()]


def _apply_until_killed(root: Path, states: Sequence[dict[str, bytes]], told: int) -> None:
    """Applies one batch after the other; reports before each."""
    with Mirror(root) as mirror:
        for number in range(1, len(states)):
            os.write(told, bytes([number]))
            mirror.apply(_batch(states[number - 1], states[number]))


def _kill_at_random(root: Path, states: Sequence[dict[str, bytes]], chance: random.Random) -> int:
    """Returns the number of the batch that was applied when the process was killed."""
    report, told = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # As in the harness.
        child = os.fork()
    if child == 0:
        try:
            _apply_until_killed(root, states, told)
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(report, "rb") as reader:
        seen = reader.read(chance.randint(1, 3))
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return (seen + reader.read())[-1]


def _tree_of(files: dict[str, bytes]) -> Tree:
    """Returns files together with their folders."""
    folders = {str(above) for name in files for above in Path(name).parents} - {"."}
    return {**files, **dict.fromkeys(folders, "dir")}


def test_sigkill_at_random_leaves_old_or_new_and_the_next_converges(
    root: Path,
) -> None:
    chance = random.Random(20)
    root.mkdir()
    (root / "e").mkdir()
    (root / "e" / "user.txt").write_bytes(b"the user's")
    users: Tree = {"e": "dir", "e/user.txt": b"the user's"}
    state: dict[str, bytes] = {}
    for round_number in range(_ROUNDS):
        states = [state, *(_some_files(chance) for _ in range(200))]
        number = _kill_at_random(root, states, chance)
        old, state = states[number - 1], states[number]
        found = contents(snapshot(root))
        for name in {*found, *old, *state} - {*users}:
            legal = {old.get(name), state.get(name)}
            changes_kind = {name} & ({*_tree_of(old)} ^ {*old} | {*_tree_of(state)} ^ {*state})
            assert found.get(name) in legal | ({None} if changes_kind else set()), round_number
        with Mirror(root) as mirror:
            mirror.apply(_batch(old, state))
            assert mirror.verify(content=True) == []
        assert snapshot(root) == _tree_of(state) | users
        assert backups(root) == []
        assert staged(root) == []


# At a system call


def _trace(root: Path, *options: str) -> list[str]:
    """Applies the batch under strace; returns the names of its calls."""
    log = root.parent / "log"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={_CALLS},{_BARRIERS}"]
    command += ["-e", f"inject={_BARRIERS}:retval=0", *options]
    program = [sys.executable, "-B", "-m", "tests.crash.scene", str(root)]
    repository = Path(__file__).parents[2]
    subprocess.run([*command, *program], check=False, cwd=repository, capture_output=True)
    calls = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    return [call for call in calls if call not in _BARRIERS]


def test_sigkill_at_any_call_leaves_old_or_new_and_the_next_converges(
    tmp_path: Path,
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    rows = scene.undisturbed(tmp_path / "undisturbed")
    scene.lay_out(tmp_path / "root")
    calls = _trace(tmp_path / "root")
    if not calls:
        pytest.skip("strace may not trace here")
    assert {"pwrite64", "renameat2"} <= {*calls}
    for last in range(3, len(calls), len(calls) // _SAMPLES):
        root = tmp_path / str(last)
        old = scene.lay_out(root)
        nth = calls[: last + 1].count(calls[last])
        survived = _trace(root, "-e", f"inject={calls[last]}:signal=SIGKILL:when={nth}")
        assert len(survived) <= last + 1
        assert scene.problems(root, old) == []
        with Mirror(root) as mirror:
            mirror.apply(scene.intents(root))
            assert scene.problems_in_the_end(root, rows) == []
            assert mirror.verify(content=True) == []
