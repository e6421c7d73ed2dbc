"""The steps at which a connector can be interrupted, found without its help.

Three sources, since none sees all steps: CPython's audit events (whatever
opens, moves or removes, in every thread, also when it is called from C); a profile
function for the calls that raise none (writes, syncs, SQL, looks), in the thread that
calls the sink and in those that were started by a sink; and the sequence of actions
itself, for connectors that keep their state in memory. Calls by ``ctypes`` and inside
other extensions are not seen: their effects fall between two steps, as does the commit
at the end of ``with connection:``. Nor are the calls without an audit event of threads
that ran before the first sink was called.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import socket
import sqlite3
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn, Protocol, TypeVar

from ._history import Fault

__all__ = [
    "Death",
    "InjectedError",
    "Outcome",
    "apply_here",
    "apply_in_child",
    "is_injected",
    "kill",
]

_ActionT = TypeVar("_ActionT")
Apply = Callable[[Sequence[Any]], object]

_EVENTS: Final = frozenset(
    {
        *("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink"),
        *("os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr"),
        *("os.listdir", "os.scandir", "os.system", "os.exec", "os.posix_spawn"),
        *("subprocess.Popen", "sqlite3.connect", "fcntl.ioctl", "mmap.__new__"),
        *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"),
    }
)
_OF_OS: Final = frozenset(
    {
        *("write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range"),
        *("fsync", "fdatasync", "sync", "posix_fallocate", "mkfifo", "mknod"),
        *("stat", "lstat", "fstat", "readlink"),
    }
)
_OF_FILES: Final = frozenset({"write", "writelines", "flush", "truncate"})
_OF_DATABASES: Final = frozenset({"execute", "executemany", "executescript", "commit"})
_OF_SOCKETS: Final = frozenset({"send", "sendall"})
_DIED: Final = 0x5D
_INJECTED: Final = "(injected)"


class Death(SystemExit):
    """The process is gone, as far as the connector is concerned.

    Of this kind, since asyncio lets nothing else out of a task that nobody waits for,
    and threads end of it without a word.
    """


class InjectedError(OSError):
    """Something that the connector asked of the operating system failed."""


def is_injected(error: object) -> bool:
    """True if an exception was injected here."""
    return isinstance(error, Death) or _INJECTED in str(error)


class Process(Protocol):
    """A process that may have tasks and threads, which end when it dies."""

    def stop(self) -> None:
        """Stops what waits in its event loop; called by the thread that died."""

    def die(self) -> None:
        """Ends them; each step that they still take fails."""


class Outcome:
    """The outcome of a call of the sink.

    Attributes:
        where: The step at which it was interrupted; empty if it was not.
        died: Whether that was the end of the process.
        error: What it raised, as text; empty if it returned.
    """

    def __init__(self, where: str = "", *, died: bool = False, error: str = "") -> None:
        self.where, self.died, self.error = where, died, error


def apply_here(
    apply: Apply, actions: Sequence[Any], fault: Fault | None, process: Process | None = None
) -> Outcome:
    """Calls a sink in this process; its death is an exception that nothing outlives.

    ``finally`` and ``except BaseException`` still run, as they would not if the process
    really died, but each step that they take fails as well. (One exception: after an
    interrupted call that raises no audit event, other such calls go through again, since
    the interpreter then takes the profile function away from that thread.)

    Args:
        apply: The sink.
        actions: What it gets.
        fault: What goes wrong.
        process: What dies with it.
    """
    dies = fault is not None and fault.kind == "dies"

    def die(_where: str) -> NoReturn:
        if process is not None:
            process.stop()
        raise Death

    steps = _Steps(fault, die if dies else _raise_error, is_lasting=dies)
    error = ""
    with contextlib.nullcontext() if fault is None else _hushed():
        try:
            with steps.watched():
                try:
                    apply(_Watched(actions, steps))
                finally:
                    if dies and steps.reached and process is not None:
                        _listen()  # Again: a death takes the profile function away.
                        process.die()
        except Death:
            pass
        except Exception as raised:
            error = _text(raised)
    if dies and steps.reached:  # Also if the sink caught its death.
        return Outcome(steps.reached, died=True)
    return Outcome(steps.reached, error=error)


def kill(process: Process) -> None:
    """Ends a process while no sink is called: each step that it still takes fails."""

    def die(_where: str) -> NoReturn:
        raise Death

    with _hushed(), _Steps(Fault("dies", "inside"), die, is_lasting=True).watched():
        process.die()


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Says nothing of coroutines that were made, but not awaited, before an interruption."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        yield


def apply_in_child(apply: Apply, actions: Sequence[Any], fault: Fault | None) -> Outcome:
    """Calls a sink in a forked process, where its death is the end of that process.

    What it changes in memory is lost, whether it dies or not.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Threads of the engine are not used in the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _live_in_child(apply, actions, fault, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        where, _, error = told.read().decode(errors="replace").partition("\n")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, _DIED):
        raise RuntimeError(f"the process that applied the actions ended with {code}: {error}")
    return Outcome(where, died=code == _DIED, error=error)


def _live_in_child(
    apply: Apply, actions: Sequence[Any], fault: Fault | None, writer: int
) -> NoReturn:
    """Runs a child process that calls a sink once."""
    write = os.write

    def die(where: str) -> NoReturn:
        write(writer, where.encode())
        os._exit(_DIED)

    steps = _Steps(fault, die if fault and fault.kind == "dies" else _raise_error)
    code = 1
    try:
        error = ""
        try:
            with steps.watched():
                apply(_Watched(actions, steps))
        except Exception as raised:
            error = _text(raised)
        write(writer, f"{steps.reached}\n{error}".encode(errors="replace"))
        code = 0
    except BaseException:
        write(writer, f"\n{traceback.format_exc()}".encode(errors="replace"))
    finally:
        os._exit(code)


def _raise_error(where: str) -> NoReturn:
    """Raises the kind of error with which such a step fails."""
    if where.startswith("sqlite3"):
        error = sqlite3.OperationalError(f"disk I/O error {_INJECTED}")
        # Without a code it could mean anything, also that the database is damaged.
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
        raise error
    raise InjectedError(5, f"Input/output error {_INJECTED}")


def _text(error: Exception) -> str:
    """Shows an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Steps:
    """Counts steps, and does something at one of them, or from it on."""

    def __init__(
        self, fault: Fault | None, end: Callable[[str], NoReturn], *, is_lasting: bool = False
    ) -> None:
        self._left = fault.step if fault is not None and fault.where == "inside" else -1
        self._end = end
        self._is_lasting = is_lasting or (fault is not None and fault.lasting)
        self.reached = ""

    def step(self, name: str) -> None:
        """Counts a step that is about to be taken, and injects the fault if it is due."""
        if self._left < 0:
            return
        if self._left > 0:
            self._left -= 1
            return
        if not self._is_lasting:
            self._left = -1
        self.reached = self.reached or name
        self._end(name)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Counts every step meanwhile."""
        global _heard  # noqa: PLW0603  # An audit hook is there for good.
        if self._left < 0:
            with _threads_watched():
                yield
            return
        _install_audit_hook()
        profile = sys.getprofile()
        _heard = self
        _listen()
        try:
            with _threads_watched():
                yield
        finally:
            _heard = None
            # One that is written in C, such as cProfile's, can't be put back.
            sys.setprofile(profile if callable(profile) else None)


@contextlib.contextmanager
def _threads_watched() -> Iterator[None]:
    """Sets the profile function for threads that start meanwhile."""
    profile = threading.getprofile()
    threading.setprofile(_on_call)
    try:
        yield
    finally:
        threading.setprofile(profile)


def _listen() -> None:
    """Sets the profile function for this thread."""
    sys.setprofile(_on_call)


def _on_call(frame: FrameType, event: str, called: Any) -> None:
    """Counts a call of a built-in function as a step; this is the profile function."""
    if _heard is None or event != "c_call":
        return
    kind = _kind_of(called)
    # How a thread wakes an event loop, which would otherwise sleep for ever, is not the sink's.
    if kind and frame.f_code.co_name != "_write_to_self":
        _heard.step(f"{kind}.{called.__name__}")


def _kind_of(called: Any) -> str:
    """Returns how a built-in function touches the system without an audit event, if it does."""
    owner, name = getattr(called, "__self__", None), called.__name__
    if isinstance(owner, ModuleType):
        return "os" if name in _OF_OS and owner.__name__ == os.name else ""
    if name in _OF_FILES and isinstance(owner, io.IOBase):
        in_memory = isinstance(owner, io.BytesIO | io.StringIO)
        return "" if in_memory or owner in (sys.stdout, sys.stderr) else "file"
    if name in _OF_DATABASES and isinstance(owner, sqlite3.Connection | sqlite3.Cursor):
        return "sqlite3"
    return "socket" if name in _OF_SOCKETS and isinstance(owner, socket.socket) else ""


_heard: _Steps | None = None


@functools.cache
def _install_audit_hook() -> None:
    """Installs the audit hook, once; Python can't remove one."""
    sys.addaudithook(_on_event)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Counts an audit event as a step; this is the audit hook."""
    if _heard is not None and (event in _EVENTS or (event == "open" and _writes(arguments))):
        _heard.step(event)


def _writes(arguments: tuple[Any, ...]) -> bool:
    """True if a file is opened to be changed."""
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class _Watched(list[_ActionT]):
    """Actions; taking the next one is a step."""

    def __init__(self, actions: Sequence[_ActionT], steps: _Steps) -> None:
        super().__init__(actions)
        self._steps = steps

    def __iter__(self) -> Iterator[_ActionT]:
        for action in super().__iter__():
            self._steps.step("the next action")
            yield action
