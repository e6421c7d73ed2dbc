"""The steps at which a sink can be interrupted, and the effect on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from cocoindex_fsmirror.testing import Fault
from cocoindex_fsmirror.testing._sink import Sink
from cocoindex_fsmirror.testing._steps import Apply, Outcome, apply_here, apply_in_child
from tests.kit.connectors import Folder

How = Callable[[Apply, Sequence[Any], Fault | None], Outcome]
HOWS = pytest.mark.parametrize("how", [apply_here, apply_in_child])


def dies(step: int) -> Fault:
    """Kills the process before a step."""
    return Fault("dies", "inside", step=step)


def fails(step: int, *, lasting: bool = False) -> Fault:
    """Makes a step fail."""
    return Fault("fails", "inside", step=step, lasting=lasting)


def listed(at: Path) -> dict[str, bytes | None]:
    """Lists a folder."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in at.iterdir()}


# Steps


def write(at: Path) -> None:
    (at / "file").write_bytes(b"new")


def replace(at: Path) -> None:
    (at / "staged").write_bytes(b"new")
    os.replace(at / "staged", at / "file")


def write_by_descriptor(at: Path) -> None:
    file = os.open(at / "file", os.O_CREAT | os.O_WRONLY)
    try:
        os.write(file, b"new")
        os.fsync(file)
    finally:
        os.close(file)


def make_and_remove(at: Path) -> None:
    (at / "folder").mkdir()
    (at / "folder").rmdir()


def unlink_from_c(at: Path) -> None:
    for name in ("one", "two"):
        os.symlink("nowhere", at / name)
    list(map(os.unlink, [at / "one", at / "two"]))


def in_another_thread(at: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(make_and_remove, at).result()


def insert(at: Path) -> None:
    with contextlib.closing(sqlite3.connect(at / "db")) as database:
        database.execute("CREATE TABLE t (x)")
        database.cursor().executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        database.commit()


def look(at: Path) -> None:
    assert (at / "file").read_bytes() == b"old"
    os.stat(at / "file")
    os.listdir(at)


@HOWS
@pytest.mark.parametrize("kind", ["dies", "fails"])
@pytest.mark.parametrize(
    ("apply", "steps"),
    [
        (write, ["open", "file.write"]),
        (replace, ["open", "file.write", "os.rename"]),
        (write_by_descriptor, ["open", "os.write", "os.fsync"]),
        (make_and_remove, ["os.mkdir", "os.rmdir"]),
        (unlink_from_c, ["os.symlink", "os.symlink", "os.remove", "os.remove"]),
        (in_another_thread, ["os.mkdir", "os.rmdir"]),
        (
            insert,
            ["sqlite3.connect", "sqlite3.execute", "sqlite3.executemany", "sqlite3.commit"],
        ),
        (look, ["os.stat", "os.listdir"]),
    ],
)
def test_steps_are_listed_in_order(
    apply: Callable[[Path], None],
    steps: list[str],
    kind: Literal["dies", "fails"],
    how: How,
    tmp_path: Path,
) -> None:
    reached = []
    for number in range(len(steps) + 1):
        at = tmp_path / str(number)
        at.mkdir()
        (at / "file").write_bytes(b"old")
        fault = Fault(kind, "inside", step=number)
        outcome = how(lambda _, at=at: apply(at), [], fault)  # type: ignore[misc]
        assert (outcome.died, bool(outcome.error)) == (
            (kind == "dies", kind == "fails") if number < len(steps) else (False, False)
        )
        reached.append(outcome.where)
    assert reached == [*steps, ""]


@HOWS
def test_taking_the_next_action_is_a_step(how: How) -> None:
    def apply(actions: Sequence[int]) -> None:
        assert [action for action in actions if action < 3] == actions

    assert [how(apply, [1, 2], dies(step)).where for step in range(3)] == [
        "the next action"
    ] * 2 + [""]


def test_coroutine_has_the_steps_of_a_function() -> None:
    class Slow(Folder):
        async def apply(self, actions: Sequence[Any]) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            make_and_remove(self.at)

    with contextlib.closing(Slow()) as slow, contextlib.closing(Sink(slow)) as apply:
        steps = [apply_here(apply, [], fails(step)).where for step in range(3)]
    assert steps == ["os.mkdir", "os.rmdir", ""]
