"""The PyThreadState of an engine's thread is kept from call to call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import ctypes, faulthandler, functools, gc, os, pathlib, sys, threading, warnings
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"
import cocoindex as coco
import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._target import engine as _engine
from cocoindex_fsmirror._target import handlers as _handlers

def thread_states():
    api = ctypes.pythonapi
    for function in (api.PyInterpreterState_Main, api.PyInterpreterState_ThreadHead):
        function.restype = ctypes.c_void_p
    api.PyThreadState_Next.restype = ctypes.c_void_p
    main = ctypes.c_void_p(api.PyInterpreterState_Main())
    state, count = api.PyInterpreterState_ThreadHead(main), 0
    while state:
        state, count = api.PyThreadState_Next(ctypes.c_void_p(state)), count + 1
    return count

def runs_in_a_foreign_thread(function):
    begin = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: function())
    thread, libc = ctypes.c_ulong(), ctypes.CDLL(None)
    assert libc.pthread_create(ctypes.byref(thread), None, begin, None) == 0
    assert libc.pthread_join(thread, None) == 0
"""

FLOW = """
class Local(threading.local):
    calls = 0

local, numbers = Local(), {}
asked = _handlers.ChildHandler.reconcile

@functools.wraps(asked)
def reconcile(self, *arguments):
    local.calls += 1
    numbers.setdefault(threading.get_native_id(), []).append(local.calls)
    return asked(self, *arguments)

_handlers.ChildHandler.reconcile = reconcile
root = pathlib.Path(sys.argv[1])

async def main():
    out = await fsmirror.mount_dir_target(root / "out")
    for number in range(200):
        out.declare_file(f"{number}.txt", b"content")

environment = coco.Environment(coco.Settings(db_path=root / "db"))
coco.App(coco.AppConfig("app", environment=environment), main).update_blocking()
assert len(os.listdir(root / "out")) == 201
assert sum(map(len, numbers.values())) == 200
"""

KEPT = "assert all(seen == [*range(1, len(seen) + 1)] for seen in numbers.values()), numbers"
NOT_KEPT = "assert {number for seen in numbers.values() for number in seen} == {1}, numbers"

ASKED = """
from cocoindex_fsmirror._target.actions import Place
from cocoindex_fsmirror._target.specs import RootUpdate
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.specs import Options

place = Place(RootKey(None, "/nowhere"), "owner", Options(), RootUpdate())
handlers = [("file", _handlers.ChildHandler(place)), (tuple(place.root), _handlers.RootHandler())]
before = thread_states()
for count, (key, handler) in enumerate(handlers, start=1):
    gone = (key, coco.NON_EXISTENCE, [], False)
    runs_in_a_foreign_thread(lambda: handler.reconcile(*gone) and None)
    assert thread_states() == before + count, handler
"""

ENDED = """
before = thread_states()
for _ in range(_engine._MOST_ATTACHED + 8):
    runs_in_a_foreign_thread(_engine.stay_attached)
assert thread_states() == before + _engine._MOST_ATTACHED

gc.collect()
assert list(sys._current_frames()) == [threading.get_ident()]
with open(os.devnull, "w") as nowhere:
    faulthandler.dump_traceback(nowhere, all_threads=True)
other = threading.Thread(target=gc.collect)
other.start()
other.join()
"""

FORKED = """
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # The engine's threads are there.
    child = os.fork()
if child == 0:
    gc.collect()
    os._exit(7 if thread_states() == 1 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def runs(at: Path, *parts: str) -> None:
    """Runs a program in a process of its own, to its end and the interpreter's."""
    code = "\n".join((HEAD, *parts, "print('done')"))
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(at)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


@pytest.mark.parametrize(
    ("most", "then"), [(128, KEPT), (0, NOT_KEPT)], ids=["kept", "not kept without us"]
)
def test_thread_state_is_kept_from_call_to_call(tmp_path: Path, most: int, then: str) -> None:
    runs(tmp_path, f"_engine._MOST_ATTACHED = {most}", FLOW, then, FORKED)


def test_both_handlers_keep_the_thread_state(tmp_path: Path) -> None:
    runs(tmp_path, ASKED)


def test_states_of_ended_threads_are_harmless_and_few(tmp_path: Path) -> None:
    runs(tmp_path, ENDED, FORKED)


def test_flow_works_beside_threads_that_ended(tmp_path: Path) -> None:
    runs(tmp_path, ENDED, FLOW, NOT_KEPT)
