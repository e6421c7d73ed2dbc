"""Runs batches with an event before the k-th system call, or records all calls.

Only the calls of the package itself are seen: its modules get a stand-in for ``os``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import warnings
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final
from unittest import mock

from cocoindex_fsmirror._command import survey as _survey
from cocoindex_fsmirror._disk import calls, copies, dress, roots, sources, staging, tree
from cocoindex_fsmirror._mirror import drift as _drift
from cocoindex_fsmirror._mirror import ledger as _ledger
from cocoindex_fsmirror._mirror import reader as _reader
from cocoindex_fsmirror._mirror import session as _session
from cocoindex_fsmirror._mirror import stage as _stage
from cocoindex_fsmirror._mirror import state_folder as _state_folder
from cocoindex_fsmirror._mirror.ledger import Ledger

_PLACES = ["mkdir", "rmdir", "unlink", "rename", "renameat2", "link", "symlink"]
_BYTES = ["write", "copy_file_range", "ftruncate"]
CHANGES: Final = frozenset(
    [*_PLACES, *_BYTES, "fchmod", "fchown", "utime", "syncfs", "begin", "commit"]
)
LOOKS: Final = frozenset(
    [
        "open",
        "stat",
        "fstat",
        "lstat",
        "listdir",
        "scandir",
        "readlink",
        "getxattr",
        "fsync",
        "connect",
    ]
)

_DISK: Final = (calls, copies, dress, roots, sources, staging, tree)
_MIRROR: Final = (_stage, _session, _ledger, _reader, _drift, _state_folder)

Before = Callable[[str, tuple[Any, ...]], None]
Hear = Callable[[str, tuple[Any, ...], dict[str, Any]], None]


class _Os:
    """A stand-in for the module ``os`` that reports each call before it is made."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return _telling(name, real, self._hear) if name in CHANGES | LOOKS else real


def _telling(name: str, real: Callable[..., Any], hear: Hear) -> Callable[..., Any]:
    """Wraps a function, to report each call."""

    def call(*args: Any, **options: Any) -> Any:
        hear(name, args, options)
        return real(*args, **options)

    return call


@contextlib.contextmanager
def overheard(hear: Hear) -> Iterator[None]:
    """Reports every system call of the package, and every write of the ledger."""
    with contextlib.ExitStack() as stack:
        for module in (*_DISK, *_MIRROR, _survey):
            stack.enter_context(mock.patch.object(module, "os", _Os(hear)))
        connect = _telling("connect", sqlite3.connect, hear)
        stack.enter_context(mock.patch.object(sqlite3, "connect", connect))
        for name in ("renameat2", "syncfs"):
            real = getattr(calls, name)
            if real is not None:
                stack.enter_context(mock.patch.object(calls, name, _telling(name, real, hear)))
        for name in ("begin", "commit"):
            real = getattr(Ledger, name)
            stack.enter_context(mock.patch.object(Ledger, name, _telling(name, real, hear)))
        yield


def watched(before: Before) -> contextlib.AbstractContextManager[None]:
    """Reports the calls without their keyword arguments."""
    return overheard(lambda name, args, _options: before(name, args))


@contextlib.contextmanager
def recorded() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """Collects name and arguments of every call."""
    calls: list[tuple[str, tuple[Any, ...]]] = []
    with watched(lambda name, args: calls.append((name, args))):
        yield calls


def run_with_event(batch: Callable[[], object], event: Callable[[], None], k: int) -> bool:
    """Runs a batch, with an event before its k-th call (from 0); false if it has fewer calls."""
    seen, happening = 0, False

    def before(_name: str, _args: tuple[Any, ...]) -> None:
        nonlocal seen, happening
        if happening:
            return
        seen += 1
        if seen == k + 1:
            happening = True
            try:
                event()
            finally:
                happening = False

    with watched(before):
        batch()
    return seen > k


def run_failing(
    batch: Callable[[], None], fails: Callable[[str, tuple[Any, ...]], bool], code: int
) -> int:
    """Runs a batch in which the chosen calls fail with an errno; returns their number."""
    failed = 0

    def before(name: str, args: tuple[Any, ...]) -> None:
        nonlocal failed
        if fails(name, args):
            failed += 1
            raise OSError(code, os.strerror(code))

    with watched(before):
        batch()
    return failed


@contextlib.contextmanager
def failing_at(bad: Path, code: int, fails: Collection[str] = CHANGES | LOOKS) -> Iterator[None]:
    """Fails every call of some kinds that is about a path, which may be a pattern."""

    def hear(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if name in fails and any(fnmatch(path, str(bad)) for path in touched(name, args, options)):
            raise OSError(code, os.strerror(code))

    with overheard(hear):
        yield


def touched(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> list[str]:
    """Returns the paths that a system call is about."""
    if name in ("begin", "commit", "connect", "syncfs"):
        return []
    if name == "renameat2":
        return [_at(args[1], args[0]), _at(args[3], args[2])]
    if name in ("rename", "link"):
        return [_at(args[0], options.get("src_dir_fd")), _at(args[1], options.get("dst_dir_fd"))]
    first = args[1] if name == "symlink" else args[0]
    return [_at(first, options.get("dir_fd"))]


def _at(base: Any, above: int | None) -> str:
    """Returns the path of an entry of an open folder, or of a descriptor."""
    if isinstance(base, int):
        return os.readlink(f"/proc/self/fd/{base}")
    return os.path.join(
        os.readlink(f"/proc/self/fd/{above}") if above is not None else "", os.fsdecode(base)
    )


def crashes(batch: Callable[[], None], k: int) -> bool:
    """Runs a batch in a process that dies before its k-th call; false if it has fewer calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child uses no threads.
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if run_with_event(batch, lambda: os._exit(42), k) else 1)
        os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (42, 1), status
    return status == 42


def identity(path: Path) -> tuple[int, int, int, int]:
    """Returns ``lstat`` values that any change alters and reading does not."""
    seen = path.lstat()
    return seen.st_ino, seen.st_mode, seen.st_mtime_ns, seen.st_ctime_ns


def stamps(root: Path) -> dict[str, tuple[int, int, int]]:
    """Returns inode, mtime and ctime of all paths below a folder, without ``.fsmirror``."""
    found = {}
    for at, folders, files in os.walk(root):
        if at == str(root) and ".fsmirror" in folders:
            folders.remove(".fsmirror")
        for entry in (*folders, *files):
            seen = os.lstat(os.path.join(at, entry))
            found[os.path.join(at, entry)] = (seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns)
    return found


def quiet_state(root: Path) -> dict[str, tuple[object, ...]]:
    """Returns all state below a folder that readers of SQLite's log leave alone, also as root.

    That is the ``-shm`` file, and the ctime of the ``-wal`` file, which it chowns.
    """
    found: dict[str, tuple[object, ...]] = {}
    for at, folders, files in os.walk(root):
        for entry in (*folders, *(file for file in files if not file.endswith("-shm"))):
            path = Path(at, entry)
            seen = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
            ctime = 0 if entry.endswith("-wal") else seen.st_ctime_ns
            found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_mtime_ns, ctime, content)
    return found
