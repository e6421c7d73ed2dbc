"""Starts ``fsmirror COMMAND --watch`` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support import command_environment

PROGRAM = str(Path(sys.executable).with_name("fsmirror"))
PATIENCE = 60.0  # Seconds, on a busy machine.


def small_source(source: Path) -> Path:
    """Makes a source of one file and one folder."""
    (source / "d").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    return source


class Follower:
    """A process that follows changes: those of a source, if no other command is given."""

    def __init__(
        self, *arguments: object, command: str = "sync", program: Sequence[str] = (PROGRAM,)
    ) -> None:
        self._process = subprocess.Popen(
            [*program, command, "--watch", "--json", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=command_environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the process, so that it reads no events."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def run(self) -> dict[str, Any]:
        """Returns the figures of the next run."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, "nothing happened"
        figures: dict[str, Any] = json.loads(self._process.stdout.readline())
        return figures

    def runs_until(self, is_so: Callable[[], bool]) -> int:
        """Counts the runs until a condition holds; a busy machine may split a burst."""
        count = 0
        while not is_so():
            self.run()
            count += 1
        return count

    def waits_until(self, is_so: Callable[[], bool]) -> None:
        """Waits until a condition holds; a run that only made folders may not be told."""
        until = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < until, "nothing happened"
            assert self._process.poll() is None, "it has ended"
            time.sleep(0.05)

    def ended(self) -> tuple[int, str]:
        """Waits until it ends by itself; returns exit status and standard error."""
        _, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, errors

    def waits_for(self, message: str) -> None:
        """Reads standard error until a text appears."""
        assert self._process.stderr is not None
        told = ""
        while message not in told:
            ready, _, _ = select.select([self._process.stderr], [], [], PATIENCE)
            assert ready, f"not said in {told!r}"
            told += os.read(self._process.stderr.fileno(), 65536).decode()

    def rest(self) -> tuple[int, list[str], str]:
        """Sends Ctrl-C; returns exit status, unread runs, and standard error."""
        self._process.send_signal(signal.SIGINT)
        shown, errors = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, shown.splitlines(), errors
