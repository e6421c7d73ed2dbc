"""A helper process: its result, and its end in every case."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from cocoindex_fsmirror._command.helper import helped
from cocoindex_fsmirror._core.names import Name
from tests.command.syncing import state


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process without other threads, in which a helper can be forked."""
    imports = (
        "import os, signal, sys, time\nfrom cocoindex_fsmirror._command.helper import helped\n"
    )
    command = [sys.executable, "-c", imports + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_helper_calls_the_function_in_a_process_and_ends() -> None:
    alone("""
        with helped(os.getpid) as result:
            pid = result()
            assert pid != os.getpid()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            sys.exit()
        sys.exit("it is still there")
    """)


def test_a_result_of_any_size_arrives() -> None:
    alone("""
        with helped(lambda: list(range(1_000_000))) as result:
            assert result() == list(range(1_000_000))
    """)


@pytest.mark.parametrize("how", ["raises", "dies", "result can't be pickled"])
def test_failing_helper_leaves_the_call_to_its_parent(how: str) -> None:
    alone(f"""
        parent = os.getpid()
        def function():
            if os.getpid() == parent:
                return "here"
            if {how!r} == "raises":
                raise ValueError
            if {how!r} == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            return lambda: None
        with helped(function) as result:
            assert result() == "here"
    """)


def test_error_of_the_function_is_raised_in_the_parent() -> None:
    def fail() -> None:
        raise ValueError("as said")

    with helped(fail) as result, pytest.raises(ValueError, match="as said"):
        result()


def test_helper_whose_result_is_not_taken_is_ended() -> None:
    alone("""
        with helped(lambda: time.sleep(60)):
            pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            sys.exit()
        sys.exit("it is still there")
    """)


def test_ctrl_c_interrupts_the_parent_not_the_helper() -> None:
    alone("""
        reading, writing = os.pipe()
        told, telling = os.pipe()
        def wait():
            os.write(telling, b"%d" % os.getpid())
            os.read(reading, 1)
            return os.getpid()
        with helped(wait) as result:
            pid = int(os.read(told, 100))
            os.kill(pid, signal.SIGINT)
            os.write(writing, b"x")
            assert result() == pid
    """)


def test_a_helper_ends_when_its_parent_is_killed() -> None:
    code = (
        "import os, signal, time; from cocoindex_fsmirror._command.helper import helped\n"
        "told, telling = os.pipe()\n"
        "def look():\n    os.write(telling, b'%d' % os.getpid())\n"
        "    time.sleep(0.5)\n    return 'x' * 10_000_000\n"
        "with helped(look):\n    print(int(os.read(told, 100)), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    pid, deadline = int(run.stdout), time.monotonic() + 30
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    """True if a process exists and is no zombie, which its dead parent can't reap."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_no_helper_is_forked_beside_threads() -> None:
    """A fork would inherit their locks, with nobody to release them."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        with helped(os.getpid) as result:
            assert result() == os.getpid()
    finally:
        end.set()
        thread.join()


def test_no_helper_is_used_where_fork_fails() -> None:
    alone("""
        def fork():
            raise BlockingIOError
        os.fork = fork
        before = len(os.listdir("/proc/self/fd"))
        with helped(os.getpid) as result:
            assert result() == os.getpid()
        assert len(os.listdir("/proc/self/fd")) == before
    """)


# Used by the command


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    command = [str(Path(sys.executable).with_name("fsmirror")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_verify_finds_the_same_in_two_processes_as_in_one(src: Path, dst: Path) -> None:
    for number in range(300):
        (src / "docs" / f"{number}").write_bytes(b"%d" % number)
    first = _command("sync", src, dst)
    assert (first.returncode, first.stderr) == (0, "")
    assert state(dst) == state(src)
    assert "0 written, 0 adopted, 0 healed" in _command("sync", src, dst).stdout
    (dst / "docs" / "1").write_bytes(b"edited")
    (dst / "docs" / "99").unlink()
    (dst / "index.html").chmod(0o600)
    verified = _command("verify", dst)
    assert verified.returncode == 1
    assert verified.stdout.splitlines()[:-1] == [
        "mode      docs",
        "modified  docs/1",
        "missing   docs/99",
        "mode      index.html",
    ]
    assert _command("verify", "--content", dst).stdout == verified.stdout
    assert "0 written, 0 adopted, 3 healed" in _command("sync", src, dst).stdout
    assert state(dst) == state(src)
    assert _command("verify", dst).returncode == 0


def test_more_suspects_than_fit_are_looked_for_again(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cocoindex_fsmirror._mirror import drift as _drift
    from tests.command.syncing import sync

    sync(src, dst)
    for name in ("index.html", "loop", "outside"):
        (dst / name).unlink()
    monkeypatch.setattr(_drift, "_FEW", 3)
    suspects = _drift.few_suspects(str(dst))
    assert suspects is not None
    assert {Name("index.html"), Name("loop"), Name("outside")} <= {*suspects}
    monkeypatch.setattr(_drift, "_FEW", 2)
    assert _drift.few_suspects(str(dst)) is None
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)
