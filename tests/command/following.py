"""Starts ``fsmirror COMMAND --watch`` in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.support import command_environment

PROGRAM = str(Path(sys.executable).with_name("fsmirror"))
PATIENCE = 60.0  # Seconds, on a busy machine.


class Follower:
    """A process that follows changes: those of a source, if no other command is given."""

    def __init__(self, *arguments: object, command: str = "sync") -> None:
        self._process = subprocess.Popen(
            [PROGRAM, command, "--watch", "--json", *map(str, arguments)],
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
