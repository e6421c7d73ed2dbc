"""Output on a terminal: a progress bar, and colours."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from tests.command.commands import run
from tests.support import command_environment


def as_a_terminal_shows_it(*arguments: object, **environment: str) -> tuple[int, str]:
    """Runs a command on a terminal; returns its status and output."""
    import pty

    shown = bytearray()

    def read(fd: int) -> bytes:
        shown.extend(os.read(fd, 65536))
        return b"\0"  # Nothing more is written to our own standard output.

    command = [str(Path(sys.executable).with_name("fsmirror")), *map(str, arguments)]
    clean = command_environment(TERM="xterm", **environment)
    status = pty.spawn(["env", "-i", *(f"{k}={v}" for k, v in clean.items()), *command], read)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_terminal_shows_a_progress_bar_and_the_summary(source: Path, tmp_path: Path) -> None:
    """The bar goes to standard error, and is erased in the end."""
    (source / "large").write_bytes(os.urandom(3_000_000))
    status, text = as_a_terminal_shows_it("sync", source, tmp_path / "seen")
    assert status == 0
    assert "of 5 paths" in text
    assert "MiB" in text
    assert "4 written" in text
    assert stat.S_ISDIR((tmp_path / "seen").stat().st_mode)


def test_colours_show_on_a_terminal_only(target: Path) -> None:
    (target / "a").unlink()
    status, text = as_a_terminal_shows_it("verify", target)
    assert (status, text.splitlines()[0]) == (1, "\x1b[31mmissing \x1b[0m  a")
    status, text = as_a_terminal_shows_it("verify", target, NO_COLOR="1")
    assert (status, text.splitlines()[0]) == (1, "missing   a")
    assert run("verify", target).stdout.splitlines()[0] == "missing   a"
