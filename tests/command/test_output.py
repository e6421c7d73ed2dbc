"""Output of ``fsmirror`` to a full disk, a closed pipe, or a terminal of ASCII."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import command_environment, contents, run_command, snapshot

UNWRITABLE = "fsmirror: standard output can't be written: No space left on device\n"
MISSING = "Invalid value for 'DST': Directory 'none' does not exist."
COMMANDS = [
    *("sync src dst", "sync src dst --dry-run", "sync src dst --watch"),
    *("status dst", "verify dst", "why dst/a", "drop dst --yes"),
    *("backups dst", "backups dst purge --older-than 1d", "backups dst restore a --to b"),
]
HELP = ["--help", "--version", "sync --help", "backups --help", "backups dst restore --help"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a source, its mirror, and a backup in that."""
    (tmp_path / "src").mkdir()
    (tmp_path / "dst").mkdir()
    (tmp_path / "src" / "a").write_bytes(b"a")
    (tmp_path / "dst" / "a").write_bytes(b"mine")
    assert run_command("sync", "src", "dst", cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, *(f"{each} --json" for each in COMMANDS), *HELP])
def test_output_to_a_full_disk_is_one_line_and_exit_status_3(here: Path, command: str) -> None:
    ran = run_command(*command.split(), redirection="> /dev/full", cwd=here)
    assert (ran.returncode, ran.stderr) == (3, UNWRITABLE)


def test_run_whose_summary_is_lost_has_done_its_work(here: Path) -> None:
    (here / "src" / "new").write_bytes(b"new")
    assert run_command("sync", "src", "dst", redirection="> /dev/full", cwd=here).returncode == 3
    assert contents(snapshot(here / "dst")) == contents(snapshot(here / "src"))


def test_error_that_programs_lose_has_a_line_of_its_own(here: Path) -> None:
    ran = run_command("status", "none", "--json", redirection="> /dev/full", cwd=here)
    assert (ran.returncode, ran.stderr) == (3, f"fsmirror: {MISSING}\n{UNWRITABLE}")


@pytest.mark.parametrize("command", [*COMMANDS, "status dst --json", *HELP])
def test_reader_that_has_left_ends_the_command_quietly(here: Path, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-c", "from cocoindex_fsmirror._command.process import run; run()"]
    with open(writing, "wb") as pipe:
        ran = subprocess.run(
            [*program, *command.split()],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
            cwd=here,
            env=command_environment(),
        )
    assert (ran.returncode, ran.stderr) == (141, b"")  # 128 + SIGPIPE, as in shells.


def test_first_line_of_a_long_list_is_shown_without_noise(here: Path) -> None:
    for number in range(300):
        (here / "dst" / f"{number:03}").touch()
    ran = run_command("verify", "dst", "--exact", redirection="| head -n 1", cwd=here)
    assert (ran.stdout, ran.stderr) == ("foreign   000\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection", ["2> /dev/full < /dev/null", "2>&- < /dev/null", "<&- >&- 2>&-"]
)
@pytest.mark.parametrize(
    ("command", "status"),
    [
        *(("status dst", 0), ("verify dst", 0), ("sync src dst", 0), ("drop dst --yes", 0)),
        *(("status none", 2), ("status none --json", 2), ("", 2), ("--none", 2), ("drop dst", 2)),
        ("sync src dst/a", 2),
        ("backups dst restore a", 3),
    ],
)
def test_messages_that_go_nowhere_change_no_exit_status(
    here: Path, command: str, status: int, redirection: str
) -> None:
    ran = run_command(*command.split(), redirection=redirection, cwd=here)
    assert ran.returncode == status
    assert ran.stderr == ""


@pytest.mark.parametrize("command", COMMANDS[:2] + COMMANDS[3:])
def test_closed_standard_output_is_no_failure(here: Path, command: str) -> None:
    ran = run_command(*command.split(), redirection=">&-", cwd=here)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


_SHOW_OUTPUT = """
import os, sys
from cocoindex_fsmirror._command import main as cli
from cocoindex_fsmirror._command.process import run
cli.main = lambda: print(os.readlink("/proc/self/fd/1"), file=sys.stderr)
run()
"""


def test_closed_output_is_replaced_by_dev_null() -> None:
    """Libraries may log to standard output, and must not write into a file of ours."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", _SHOW_OUTPUT]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env=command_environment()
    )
    assert (ran.returncode, ran.stderr) == (0, "/dev/null\n")


# A locale of ASCII

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def accented(tmp_path: Path) -> Path:
    """A folder with a source that has names outside ASCII, and its mirror, which has drifted."""
    (tmp_path / "é" / "ü").mkdir(parents=True)
    (tmp_path / "é" / "ü" / "ß").write_bytes(b"1")
    (tmp_path / "é" / "ö").write_bytes(b"2")
    assert run_command("sync", "é", "dst", cwd=tmp_path, LC_ALL="C.UTF-8").returncode == 0
    (tmp_path / "dst" / "ö").write_bytes(b"edited")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "status", "shown"),
    [
        ("status dst", 1, r"fsmirror sync {here}/\xe9,"),
        ("verify dst", 1, r"modified  \xf6"),
        ("why dst/ü/ß", 0, r"\xfc/\xdf: managed, a file"),
        ("why dst/ö --json", 1, r'"path": "\u00f6"'),
        ("sync é dst --dry-run", 0, r"heal     \xf6  (1 B, what is"),
        ("sync é dst", 0, r"foreign '\xf6' was moved to"),
        ("sync é õ", 0, r"{here}/\xf5: 2 written"),
        ("sync none dst/ü", 2, "Directory 'none' does not exist"),
        ("sync õ dst", 2, r"Directory '\xf5' does not exist"),
        ("drop dst --yes", 0, r"left in place, since it is not ours: '\xf6'"),
        ("drop dst", 2, "Remove 2 files from {here}/dst?"),
        ("backups dst restore ö", 2, r"\xf6: there is no such backup"),
    ],
)
def test_names_outside_ascii_are_escaped_and_change_no_exit_status(
    accented: Path, command: str, status: int, shown: str
) -> None:
    ran = run_command(*command.split(), redirection="< /dev/null", cwd=accented, **ASCII)
    assert ran.returncode == status, ran.stderr
    assert shown.format(here=accented) in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert (ran.stdout + ran.stderr).isascii()


def test_mirror_made_with_an_ascii_locale_is_in_order_with_another(accented: Path) -> None:
    assert run_command("sync", "é", "õ", cwd=accented, **ASCII).returncode == 0
    assert snapshot(accented / "õ") == snapshot(accented / "é")
    assert run_command("verify", "õ", cwd=accented, LC_ALL="C.UTF-8").returncode == 0


def test_process_that_forces_ascii_names_is_not_restarted_forever() -> None:
    """``-X`` outranks the environment, so that a restart would change nothing."""
    code = "from cocoindex_fsmirror._command.process import run; run()"
    ran = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code, "--version"],
        check=False,
        timeout=60,
        env=command_environment(**ASCII),
    )
    assert ran.returncode == 0
