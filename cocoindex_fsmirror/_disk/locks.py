"""Locks: who may write to a root, and who holds it meanwhile; see flock(2)."""

from __future__ import annotations

import fcntl
import os
import time

from .._core.errors import LockedError
from .._core.names import Name, leaf, parent
from .calls import say_once
from .tree import Tree


def lock(tree: Tree, patience: float) -> None:
    """Locks the root exclusively until the tree is closed.

    Args:
        tree: The root.
        patience: How long to wait for another writer, in seconds.

    Raises:
        LockedError: Another writer still held it then.
    """
    deadline = time.monotonic() + patience
    while not _take(tree, tree.fd):
        if time.monotonic() >= deadline:
            problem = f"{_holder_of(tree.fd)} held it for {patience:g} seconds"
            raise LockedError(tree.path, problem, "let it finish, or end it")
        time.sleep(0.02)


def hold(tree: Tree, name: Name) -> int:
    """Locks a file of our own folder, for longer than a batch.

    Returns:
        Its descriptor; closing it releases the lock.

    Raises:
        LockedError: Another process holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    fd = os.open(leaf(name), flags, 0o600, dir_fd=tree.folder(parent(name)))
    if not _take(tree, fd):
        holder = _holder_of(fd)
        os.close(fd)
        raise LockedError(tree.path, f"{holder} is at work", "let it finish, or end it")
    return fd


def _take(tree: Tree, fd: int) -> bool:
    """Locks an open file; false if another holds it. Where locks don't work, warns once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # NFS, for one, locks no directory.
        problem = f"can't be locked here ({error.strerror})"
        say_once(f"{tree.path}: {problem}; let only one process at a time write to it")
    return True


def _holder_of(fd: int) -> str:
    """Names the process that holds the lock of an open file; see proc_locks(5)."""
    inode = str(os.fstat(fd).st_ino)
    try:
        with open("/proc/locks", encoding="utf-8") as lines:
            locks = [line.split() for line in lines]
        found = [lock for lock in locks if lock[1] == "FLOCK" and lock[5].endswith(f":{inode}")]
        pid = int(found[0][4])
        if pid == os.getpid():
            return "another part of this process"
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            command = " ".join(file.read().replace("\0", " ").split())
    except (OSError, ValueError, IndexError):
        return "another writer"
    return f"process {pid} ({command[:200]})"
