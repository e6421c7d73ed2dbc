"""The second process: it does what it is asked, ends with whoever asks, and is never needed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from cocoindex_fsmirror._beside import Beside


def alone(code: str) -> str:
    """Runs code in a process without threads, which pytest's are not; returns what it printed."""
    code = "import os, signal, threading, time\n" + textwrap.dedent(code)
    code = "from cocoindex_fsmirror._beside import Beside\n" + code
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _is_gone(pid: int) -> bool:
    """Whether a process has ended, soon."""
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # It ended; whoever adopted it has not asked how.
        time.sleep(0.01)
    return False


def test_another_process_is_asked_until_it_is_closed() -> None:
    pid = alone("""
        beside = Beside()
        assert beside.is_there
        pid = beside.ask(os.getpid)
        assert pid != os.getpid() and pid == beside.ask(os.getpid)
        result = beside.begin(divmod, 7, 2)
        assert result() == (3, 1)
        beside.close()
        assert not beside.is_there
        assert beside.ask(os.getpid) == os.getpid()
        beside.close()
        print(pid)
    """)
    assert _is_gone(int(pid))


def test_nobody_waits_for_what_is_not_wanted_any_more() -> None:
    alone("""
        beside = Beside()
        result = beside.begin(time.sleep, 1000)
        began = time.monotonic()
        beside.close()
        assert time.monotonic() - began < 500
    """)


@pytest.mark.parametrize("pipe", ["_calls", "_results"])
def test_what_was_closed_while_it_was_asked_is_called_here(pipe: str) -> None:
    alone(f"""
        beside = Beside()
        beside.{pipe}.close()
        assert beside.ask(os.getpid) == os.getpid()
        assert not beside.is_there
    """)


def test_what_is_raised_there_is_raised_here() -> None:
    alone("""
        beside = Beside()
        try:
            beside.ask(int, "no number")
        except ValueError:
            pass
        else:
            raise AssertionError
        assert beside.ask(os.getpid) != os.getpid()
        beside.close()
    """)


def test_what_can_t_be_sent_is_not() -> None:
    alone("""
        beside = Beside()
        try:
            beside.begin(lambda: 1)
        except Exception:
            pass
        else:
            raise AssertionError
        assert beside.ask(os.getpid) != os.getpid()
        assert type(beside.ask(threading.Lock)) is type(threading.Lock())  # Made here.
        assert beside.ask(os.getpid) == os.getpid()
        beside.close()
    """)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_if_it_dies_calls_are_made_here(when: str) -> None:
    alone(f"""
        beside = Beside()
        pid = beside.ask(os.getpid)
        if {when!r} == "before":
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
            result = beside.begin(os.getpid)
        else:
            os.kill(pid, signal.SIGSTOP)
            result = beside.begin(os.getpid)
            os.kill(pid, signal.SIGKILL)
        assert result() == os.getpid()
        assert not beside.is_there
        assert beside.ask(os.getpid) == os.getpid()
    """)


def test_ctrl_c_is_for_whoever_asks() -> None:
    alone("""
        beside = Beside()
        pid = beside.ask(os.getpid)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
        assert beside.ask(os.getpid) == pid
        beside.close()
    """)


def test_it_ends_when_whoever_asks_is_killed() -> None:
    code = (
        "import os, sys, time; from cocoindex_fsmirror._beside import Beside; beside = Beside();"
        "print(beside.ask(os.getpid), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert _is_gone(pid)


def test_threads_ask_one_after_the_other() -> None:
    alone("""
        beside = Beside()
        beside.ask(os.getpid)
        wrong = []
        def ask(number):
            for _ in range(200):
                if beside.ask(divmod, number, 10) != divmod(number, 10):
                    wrong.append(number)
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not wrong and beside.is_there
        beside.close()
    """)


def test_there_is_none_where_threads_are_at_work() -> None:
    """A fork would have their locks, and nobody to release them."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        beside = Beside()
        assert not beside.is_there
        assert beside.ask(os.getpid) == os.getpid()
        beside.close()
    finally:
        end.set()
        thread.join()


def test_there_is_none_where_the_system_has_no_room_for_it() -> None:
    alone("""
        def fork():
            raise BlockingIOError
        os.fork = fork
        before = len(os.listdir("/proc/self/fd"))
        beside = Beside()
        assert not beside.is_there
        assert beside.ask(os.getpid) == os.getpid()
        beside.close()
        assert len(os.listdir("/proc/self/fd")) == before
    """)
