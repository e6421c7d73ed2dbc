"""Makes intents, runs commands, and reads the disk without code of the package."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name, parse_name
from cocoindex_fsmirror._core.rows import Row
from cocoindex_fsmirror._core.states import (
    ABSENT,
    Content,
    DirState,
    FileState,
    LinkState,
    digest_of,
)
from cocoindex_fsmirror._mirror.known import known

OWNER = "owner-a"
FAR: int = 10_413_792_000 * 10**9  # 2300-01-01, beyond 64 bits of nanoseconds
Mount: TypeAlias = Callable[..., Path]
"""Mounts something on a folder that it makes: ``mount(path, "-t", "tmpfs", "tmpfs")``."""
Tree: TypeAlias = dict[str, bytes | str]
"""By relative path: the bytes of a file, ``-> target`` of a link, ``dir`` of a folder."""


def write(
    name: str,
    content: bytes = b"",
    *,
    mode: int | None = None,
    mtime_ns: int | None = None,
    **more: Any,
) -> Intent:
    """Returns the intent to write a file."""
    state = FileState(digest_of(content), len(content), Attributes(mode, mtime_ns))
    return Intent(parse_name(name), state, **{"owner": OWNER, "content": content} | more)


def copy(
    name: str,
    source: Content,
    *,
    mode: int | None = None,
    mtime_ns: int | None = None,
    **more: Any,
) -> Intent:
    """Returns the intent to copy a file."""
    state = FileState(source.digest, source.size, Attributes(mode, mtime_ns))
    given: dict[str, Any] = {"owner": OWNER, "content": source} | more
    return Intent(parse_name(name), state, **given)


@dataclass(frozen=True)
class Elsewhere:
    """The content of another file, whose digest need not be known before."""

    content: bytes
    held: None = None
    source: str = "elsewhere"
    is_hashed: bool = True

    @property
    def digest(self) -> bytes | None:
        """The fingerprint, if it is known."""
        return digest_of(self.content) if self.is_hashed else None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.content)

    def open(self) -> int:
        """Opens a file with the bytes."""
        fd = os.memfd_create("elsewhere")
        os.pwrite(fd, self.content, 0)
        return fd

    def is_unchanged(self, _fd: int) -> bool:
        """True: the source never changes."""
        return True


def link(name: str, target: str, *, mtime_ns: int | None = None, **more: Any) -> Intent:
    """Returns the intent to make a symbolic link."""
    given: dict[str, Any] = {"owner": OWNER} | more
    return Intent(parse_name(name), LinkState(target, Attributes(None, mtime_ns)), **given)


def delete(name: str, **more: Any) -> Intent:
    """Returns the intent to delete a path."""
    return Intent(parse_name(name), ABSENT, **({"owner": OWNER} | more))


def folder(
    name: str, *, mode: int | None = None, mtime_ns: int | None = None, **more: Any
) -> Intent:
    """Returns the intent to make a directory."""
    state = DirState(Attributes(mode, mtime_ns))
    return Intent(Name(parse_name(name)), state, **({"owner": OWNER} | more))


def command_environment(**more: str) -> dict[str, str]:
    """Returns the least environment a command needs, without what changes Python's ways."""
    needed = ("HOME", "PATH", "PYTHONPATH")
    return {name: os.environ[name] for name in needed if name in os.environ} | more


def run_command(
    *arguments: object, redirection: str = "", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``fsmirror`` as a process of its own, started by a shell."""
    command = [sys.executable, "-c", "from cocoindex_fsmirror._command.process import run; run()"]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=command_environment(**environment),
    )


def told_by(error: BaseException) -> str:
    """Returns the messages of an error and of its parts, one a line."""
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return "\n".join([f"{type(error).__name__}: {error}", *map(told_by, parts)])


@contextlib.contextmanager
def failing(match: str) -> Iterator[pytest.ExceptionInfo[ApplyError]]:
    """Expects a batch to fail, with a message that matches a pattern."""
    with pytest.raises(ApplyError) as caught:
        yield caught
    assert re.search(match, said := told_by(caught.value)), said


def answer_of_child(act: Callable[[], str]) -> str:
    """Calls a function in a forked process, which may give up its rights; returns the answer."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child never uses a thread.
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, act().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def snapshot(root: Path, *, ours: bool = False) -> Tree:
    """Returns the tree below a folder; with ``ours``, that in ``.fsmirror/`` instead."""
    top = root / ".fsmirror" if ours else root
    found: Tree = {}
    for at, folders, files in os.walk(top):
        if not ours and at == str(root) and ".fsmirror" in folders:
            folders.remove(".fsmirror")
        for entry in (*folders, *files):
            path = os.path.join(at, entry)
            found[os.path.relpath(path, top)] = _shown(path)
    return found


def _shown(path: str) -> bytes | str:
    """Returns one entry of a snapshot."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"-> {os.readlink(path)}"
    if stat.S_ISDIR(mode):
        return "dir"
    if not stat.S_ISREG(mode):
        return "other"
    with open(path, "rb") as file:
        return file.read()


def contents(tree: Tree) -> dict[str, bytes]:
    """Returns the regular files of a snapshot."""
    return {name: found for name, found in tree.items() if isinstance(found, bytes)}


def send_far(path: Path, time_ns: int = FAR) -> None:
    """Sets an mtime that the ledger can't keep; skips a test where the file system can't."""
    try:
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
    except OSError:
        pytest.skip("this file system holds no such time")
    if path.lstat().st_mtime_ns != time_ns:
        pytest.skip("this file system holds no such time")


def backups(root: Path, state: Path | None = None) -> list[bytes]:
    """Returns the contents of all backups in a root, or in a state directory, sorted."""
    areas = [root / ".fsmirror/backup"] if state is None else state.glob("*/backup")
    return sorted(content for area in areas for content in contents(snapshot(area)).values())


def staged(root: Path) -> list[str]:
    """Returns the paths that are left in the staging area."""
    return [name for name in snapshot(root, ours=True) if name.startswith("tmp/")]


def exact_state(root: Path) -> dict[str, tuple[object, ...]]:
    """Returns all state below a folder, timestamps included, by path.

    Left out are SQLite's ``-shm``, in which readers keep their marks, and the
    ctime of its ``-wal``: a SQLite that runs as root sets its owner at each opening.
    """
    found: dict[str, tuple[object, ...]] = {}
    for at, folders, files in os.walk(root):
        for path in (os.path.join(at, entry) for entry in (*folders, *files)):
            seen = os.lstat(path)
            if not path.endswith("-shm"):
                ctime = None if path.endswith("-wal") else seen.st_ctime_ns
                found[path] = (seen.st_ino, seen.st_mode, seen.st_mtime_ns, ctime, _shown(path))
    return found


def beside_ours(root: Path) -> dict[str, tuple[object, ...]]:
    """Returns all state below a root, timestamps included, without ``.fsmirror``."""
    return {path: seen for path, seen in exact_state(root).items() if ".fsmirror" not in path}


def ledger_rows(mirror: Mirror) -> list[Row]:
    """Returns the rows of a mirror, by name."""
    with known(mirror.root) as ledger:
        return ledger.rows()


def unmark(root: Path) -> None:
    """Removes the mark that tells where the state of a root is, as copying without it does."""
    os.removexattr(root, "user.cocoindex_fsmirror.state")


def becomes(path: Path, make: Callable[[Path], object]) -> None:
    """Replaces a file by something else."""
    path.unlink()
    make(path)
