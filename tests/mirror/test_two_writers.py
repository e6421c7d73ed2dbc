"""Threads and processes on one root take turns, and nothing gets mixed up."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from tests.support import OWNER, backups, contents, delete, snapshot, write

ROUNDS = 25


def _many_batches(root: Path, who: str, *, shared: bool) -> None:
    """Applies small batches that write, replace and delete; half of the files remain."""
    top = "shared" if shared else f"by-{who}"
    with Mirror(root) as mirror:
        for number in range(ROUNDS):
            name = f"{top}/{number % 5}/{number}"
            mirror.apply([write(name, b"1", durable=False)])
            content = b"shared" if shared else who.encode()
            mirror.apply([write(name, content, durable=False), write(f"{top}/x", content)])
            if number % 2:
                mirror.apply([delete(name, durable=False)])


def _threads(root: Path, shared: bool) -> None:
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(_many_batches, root, who, shared=shared) for who in "ab"]
    for future in futures:
        future.result()


def _processes(root: Path, shared: bool) -> None:
    call = "from tests.mirror.test_two_writers import _many_batches; import pathlib, sys;"
    call += "_many_batches(pathlib.Path(sys.argv[1]), sys.argv[2], shared=sys.argv[3] == 'True')"
    commands = [[sys.executable, "-c", call, str(root), who, str(shared)] for who in "ab"]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in running] == [0, 0]


def _assert_rows_match_disk(root: Path) -> None:
    """Asserts that the rows agree with the disk, to the nanosecond."""
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        sql = "SELECT name, inode, size, mtime_ns, ctime_ns FROM rows WHERE kind = 'file'"
        rows = {name: tuple(rest) for name, *rest in ledger.execute(sql)}
        folders = {name for (name,) in ledger.execute("SELECT name FROM rows WHERE kind = 'dir'")}
        assert ledger.execute("SELECT count(*) FROM intents").fetchone() == (0,)
    seen = {name: os.lstat(root / name) for name in contents(snapshot(root))}
    assert rows == {n: (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in seen.items()}
    assert folders == {name for name, found in snapshot(root).items() if found == "dir"}


@pytest.mark.parametrize("writers", [_threads, _processes])
def test_writers_of_different_files_take_turns(
    root: Path, writers: Callable[[Path, bool], None]
) -> None:
    root.mkdir()
    writers(root, False)
    expected = {f"by-{who}/x": who.encode() for who in "ab"}
    for who in "ab":
        expected |= {f"by-{who}/{n % 5}/{n}": who.encode() for n in range(0, ROUNDS, 2)}
    assert contents(snapshot(root)) == expected
    assert backups(root) == []
    _assert_rows_match_disk(root)


@pytest.mark.parametrize("writers", [_threads, _processes])
def test_writers_of_the_same_files_take_turns(
    root: Path, writers: Callable[[Path, bool], None]
) -> None:
    root.mkdir()
    writers(root, True)
    expected = {f"shared/{n % 5}/{n}": b"shared" for n in range(0, ROUNDS, 2)}
    assert contents(snapshot(root)) == expected | {"shared/x": b"shared"}
    assert backups(root) == []
    _assert_rows_match_disk(root)


def test_threads_that_share_a_mirror_take_turns(mirror: Mirror, root: Path) -> None:
    def act(number: int) -> None:
        mirror.apply([write(f"{number % 3}/{number}", b"1", durable=False)])
        if number % 2:
            mirror.apply([delete(f"{number % 3}/{number}", durable=False)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(40)))
    assert contents(snapshot(root)) == {f"{n % 3}/{n}": b"1" for n in range(0, 40, 2)}
    _assert_rows_match_disk(root)


def test_teardown_leaves_only_files_that_others_wrote_after_it(
    root: Path,
) -> None:
    with Mirror(root) as first, Mirror(root) as second:
        first.create()
        for _ in range(5):
            first.apply([write("x", b"1")])
            second.tear_down(OWNER)
            assert not root.exists()
            first.create()
        first.apply([write("x", b"2")])
        assert second.managed() == ["x"]
    assert contents(snapshot(root)) == {"x": b"2"}
