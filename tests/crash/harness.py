"""Ends a process at any one of the steps by which it changes the disk."""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Final, NoReturn

import pytest

from cocoindex_fsmirror._disk import calls as _calls
from tests.crash.disks import Disk

_DIED: Final = 0x5D
_FAILED: Final = 0x5E
_CHANGING: Final = (
    *("copy_file_range", "fchmod", "fchown", "fsync", "ftruncate", "link", "mkdir", "rename"),
    *("rmdir", "symlink", "unlink", "utime"),
)


def die() -> NoReturn:
    """Ends the process at once, without any cleanup."""
    os._exit(_DIED)


class _Unsynced(sqlite3.Connection):
    """A connection that never syncs."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA synchronous="):  # It may also be asked for.
            return super().execute("PRAGMA synchronous=OFF")
        return super().execute(sql, *parameters)


def leave_out_barriers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out syncs, to save time where only processes die: the kernel forgets nothing."""
    monkeypatch.setattr(_calls, "syncfs", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    connect = functools.partial(sqlite3.connect, factory=_Unsynced)
    monkeypatch.setattr(sqlite3, "connect", connect)


class Steps:
    """Counts the edges of all steps that change the tree or the ledger; ends at one of them.

    There is an edge before a step, one after it, and one in the middle of a write; of two
    with nothing between them only the first counts. SQLite's statements have one before
    each; of those that repeat, for each row, only the first.

    Args:
        last: The number of the edge to end at.
        end: How to end.
        report: Where to write the name of the last step.
    """

    def __init__(self, last: int, end: Callable[[], NoReturn], report: int) -> None:
        self._last = last
        self._end = end
        self._report = report
        self._count = 0
        self._nothing_since = False
        self._statement = ""
        self._write = os.write

    def edge(self, name: str) -> None:
        """Counts an edge; ends the process if it is the one."""
        if self._nothing_since and name.startswith("before"):
            return
        self._nothing_since = name.startswith("after")
        self._count += 1
        if self._count == self._last:
            self._write(self._report, name.encode())
            self._end()

    def install(self) -> None:
        """Hooks into this process, for good: it is a child that does nothing else."""
        for name in _CHANGING:
            setattr(os, name, self._around(name, getattr(os, name)))
        self._install_writes()
        for name in ("renameat2", "syncfs"):
            if getattr(_calls, name) is not None:
                setattr(_calls, name, self._around(name, getattr(_calls, name)))
        connect = sqlite3.connect

        def connect_traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self._before_statement)
            return connection

        setattr(sqlite3, "connect", connect_traced)  # noqa: B010

    def _install_writes(self) -> None:
        """Hooks into the functions that make and fill files."""
        os_open, os_write = os.open, os.write

        def counted_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if not flags & os.O_CREAT:
                return os_open(path, flags, *args, **kwargs)
            return int(self._around("open", os_open)(path, flags, *args, **kwargs))

        def torn_write(fd: int, data: memoryview) -> int:
            self.edge("before write")
            half = os_write(fd, data[: len(data) // 2])
            self.edge("amid write")
            half += os_write(fd, data[half:])
            self.edge("after write")
            return half

        setattr(os, "open", counted_open)  # noqa: B010
        setattr(os, "write", torn_write)  # noqa: B010

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function with an edge before and one after."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.edge(f"before {name}")
            result = function(*args, **kwargs)
            self.edge(f"after {name}")
            return result

        return counted

    def _before_statement(self, sql: str) -> None:
        """Counts a statement that SQLite is about to carry out."""
        before, self._statement = self._statement, " ".join(sql.split()[:4])
        if self._statement != before and not self._statement.startswith("SELECT"):
            self.edge(f"before {self._statement}")
            self._nothing_since = False


def die_at(
    step: int, act: Callable[[], object], *, end: Callable[[], NoReturn] = die
) -> str | None:
    """Calls a function in a child process that ends at a step.

    Returns:
        The name of the step, or ``None`` if the child finished before it.
    """
    report, told = os.pipe()
    with warnings.catch_warnings():
        # The child uses no threads that other tests left, such as the engine's.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _carry_out(Steps(step, end, told), act)
    os.close(told)
    with os.fdopen(report, "rb") as reader:
        name = reader.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (_DIED if name else 0), f"the child ended with {code} at {name or 'no step'!r}"
    return name or None


def lose_power_after(disk: Disk, act: Callable[[], object]) -> None:
    """Calls a function in a process that is still running when the power fails."""

    def act_and_lose_power() -> None:
        act()
        disk.cut_power()
        os._exit(0)

    assert die_at(0, act_and_lose_power) is None
    disk.restart()


def lose_power_at(step: int, disk: Disk, act: Callable[[], object]) -> str | None:
    """Calls a function in a process at one of whose steps the power fails, if it gets there."""

    def lose_power_and_die() -> NoReturn:
        disk.cut_power()
        die()

    name = die_at(step, act, end=lose_power_and_die)
    if name is not None:
        disk.restart()
    return name


def _carry_out(steps: Steps, act: Callable[[], object]) -> NoReturn:
    """Lives the life of a child."""
    try:
        steps.install()
        act()
        steps.edge("at the end")
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(_FAILED)
    os._exit(0)
