"""Roots: the top directory of a mirror is opened, made, locked, synced above and removed.

A symbolic link may lead to a root; none is followed below it. The lock is ``flock(2)`` on the
directory itself: it ends with its process, so a crash leaves no lock behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from .._core.errors import LockedError, RootError
from .._core.layout import ABILITIES
from .._core.names import RESERVED, STATE, Name, leaf
from .abilities import Abilities
from .calls import DIRECTORY, closing, open_file, say_once, sync_folder
from .ours import Spot
from .tree import Tree

_MARK: Final = "user.cocoindex_fsmirror.state"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_MAPPED_PAGE: Final = 4096  # bytes; SQLite's walIndexPage writes one byte for each so many
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS, ioctl_iflags(2)
_NO_COW: Final = 0x00800000  # FS_NOCOW_FL
_NO_FOLDER: Final = ("is not a directory", "move away what is there, or name another")
_NO_ACCESS: Final = ("may not be opened", "grant this user read and write access")
_PROBLEMS: Final = {
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ELOOP: _NO_FOLDER,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: ("is on a read-only file system", "remount it writable"),
    errno.ENOENT: (
        "is missing, or the folder above it is",
        "make it, or leave create_parent_dirs at True",
    ),
}


def open_root(
    path: str, spot: Spot | None = None, *, create: bool = False, parents: bool = True
) -> tuple[Tree, int]:
    """Opens a root directory.

    Args:
        path: Its path. A symbolic link is followed here, and nowhere below.
        spot: The place of its state folder, which may be missing; by default in the root.
        create: True to make it if it is missing.
        parents: True to make missing folders above it too.

    Returns:
        The tree, and the number of folders that were made (the root and those above it).

    Raises:
        RootError: The root can't be used; the error has a hint.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        problem = f"can't be used: this process takes file names for {encoding}, and not for UTF-8"
        raise RootError(path, problem, "start Python with PYTHONUTF8=1 or a UTF-8 locale")
    made = 0
    try:
        for folder in _missing(path, parents=parents) if create else ():
            with contextlib.suppress(FileExistsError):  # Another process was faster.
                os.mkdir(folder)
                made += 1
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _root_error(path, error) from error
    tree = Tree(fd, path)
    if spot is not None and spot.name != RESERVED:
        with contextlib.suppress(FileNotFoundError):
            tree.take_state(open_spot(spot), spot.path)
    read_abilities(tree)
    return tree, made


def read_abilities(tree: Tree) -> None:
    """Reads what the file system of a root can do, as it was tried."""
    with contextlib.suppress(OSError, ValueError):  # They were not tried, as a rule.
        with closing(open_file(leaf(ABILITIES), tree.folder(STATE))) as file:
            found = msgspec.convert(json.loads(os.read(file, 1 << 20)), Abilities)
        if found.kind == tree.kind:  # Else the root was copied to another file system.
            tree.abilities = replace(found, path=tree.path)
    tree.forget()


def open_spot(spot: Spot) -> int:
    """Opens a state folder outside of a root; no link is followed to it but those above it.

    Raises:
        FileNotFoundError: It is missing.
        RootError: It can't be opened.
    """
    try:
        with closing(os.open(spot.above, os.O_RDONLY | os.O_DIRECTORY)) as above:
            return os.open(spot.name, DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _root_error(spot.path, error) from error


def make_spot(spot: Spot) -> int:
    """Makes a state folder outside of a root, and opens it; it may exist. It has to be writable.

    Raises:
        RootError: It can't be made, or opened.
    """
    try:
        os.makedirs(spot.above, 0o755, exist_ok=True)
        with closing(os.open(spot.above, os.O_RDONLY | os.O_DIRECTORY)) as above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(spot.name, 0o700, dir_fd=above)
                sync_folder(above)
            fd = os.open(spot.name, DIRECTORY, dir_fd=above)
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            os.close(fd)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    except OSError as error:
        raise _root_error(spot.path, error) from error
    return fd


def read_mark(root: str | int) -> str:
    """Returns the state directory that is told by an extended attribute of a root; empty if none.

    Sessions leave it where they can, so that a state folder elsewhere is not overlooked.
    """
    with contextlib.suppress(OSError, AttributeError):
        told = os.fsdecode(os.getxattr(root, _MARK))
        return told if os.path.isabs(told) and "\0" not in told else ""
    return ""


def set_mark(tree: Tree, state: str) -> None:
    """Marks a root with its state directory; with an empty path, removes the mark."""
    if read_mark(tree.path) == state:
        return
    with contextlib.suppress(OSError, AttributeError):  # Some file systems have none.
        if state:
            os.setxattr(tree.fd, _MARK, os.fsencode(state))
        else:
            os.removexattr(tree.fd, _MARK)


def remove_spot(spot: Spot) -> None:
    """Removes a state folder outside of a root, if it is empty."""
    with (
        contextlib.suppress(OSError),
        closing(os.open(spot.above, os.O_RDONLY | os.O_DIRECTORY)) as above,
    ):
        os.rmdir(spot.name, dir_fd=above)


def is_there(path: str) -> bool:
    """True if a root exists.

    Raises:
        RootError: The root can't be looked at, which does not mean that it is gone.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _root_error(path, error) from error


def sync_above(path: str, levels: int) -> None:
    """Syncs the folders above the root in which folders were made."""
    for _ in range(levels):
        path = os.path.dirname(path)
        with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as fd:
            sync_folder(fd)


def remove_root(path: str, levels: int) -> None:
    """Removes the root and the folders above it, as far as they are empty."""
    with contextlib.suppress(OSError):
        for _ in range(levels):
            os.rmdir(path)
            path = os.path.dirname(path)


def point_link(path: str, target: str) -> None:
    """Makes a symbolic link point to a target, in one step, and waits until the disk has it.

    Args:
        path: The path of the link, which may be missing.
        target: What it points to, stored as it is.

    Raises:
        RootError: The link can't be made, or something else than a link is there.
    """
    folder, base = os.path.split(path)
    fresh = os.path.join(folder, f".{base}.new")
    try:
        if os.path.islink(fresh):  # A crash left it.
            os.unlink(fresh)
        os.symlink(target, fresh)
        os.rename(fresh, path)
        sync_above(path, 1)
    except OSError as error:
        hint = "grant this user write access to the folder that it is in"
        raise RootError(path, f"can't be moved: {error.strerror}", hint) from error


def _missing(path: str, *, parents: bool) -> Iterator[str]:
    """Yields the folders to be made, from the top."""
    missing = [path] if not os.path.isdir(path) else []
    while missing and parents and not os.path.lexists(os.path.dirname(missing[-1])):
        missing.append(os.path.dirname(missing[-1]))
    return reversed(missing)


def _root_error(path: str, error: OSError) -> RootError:
    """Returns the error for a root that can't be opened, with its cure."""
    unknown = (f"can't be opened: {error.strerror}", "check the path and its file system")
    return RootError(path, *_PROBLEMS.get(error.errno or 0, unknown))


def lock(tree: Tree, patience: float) -> None:
    """Locks the root exclusively until the tree is closed.

    Args:
        tree: The root.
        patience: The longest time to wait for another writer, in seconds.

    Raises:
        LockedError: Another writer still holds the lock.
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
        The descriptor of the file; closing it releases the lock.

    Raises:
        LockedError: Another process holds the lock.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    base, above = tree.at(name)
    fd = os.open(base, flags, 0o600, dir_fd=above)
    if not _take(tree, fd):
        holder = _holder_of(fd)
        os.close(fd)
        raise LockedError(tree.path, f"{holder} is at work", "let it finish, or end it")
    return fd


def is_mappable(tree: Tree) -> bool:
    """True if SQLite's shared memory can be a mapped file of the state folder, as WAL needs it.

    SQLite makes sure of its room by writing one byte for each 4 KiB. Where blocks are smaller
    that leaves holes, and if the disk has no room for one, its first use kills the process
    (SIGBUS).
    """
    blocks = os.fstatvfs(tree.folder(STATE)).f_frsize
    return tree.state_syncs and blocks >= _MAPPED_PAGE


def make_mappable(tree: Tree, name: Name) -> None:
    """Makes an empty file that can be changed through a mapping on a full disk.

    btrfs copies a block to change it. If there is no room for the copy of a mapped one, it kills
    the process (SIGBUS), unless the file is changed in place: chattr(1), ``+C``. Where that is
    unknown, nothing is made. Kernels before 6.17 ask for the room all the same.
    """
    with contextlib.suppress(OSError):  # As a rule it is there already.
        base, above = tree.at(name)
        with closing(os.open(base, _NEW, 0o600, dir_fd=above)) as fd:
            try:
                fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", _NO_COW))
            except OSError:
                tree.remove_file(name)


def _take(tree: Tree, fd: int) -> bool:
    """Locks an open file; false if another process holds the lock. Warns if locks don't work."""
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
