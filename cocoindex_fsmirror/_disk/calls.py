"""System calls that differ between systems or that Python lacks; hashing and copying open files.

Where a fallback promises less than the call, a warning says so once in a process. The calls of
macOS are tested through a stand-in for its C library (``tests/disk/macos.py``), and on no real
one yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import logging
import mmap
import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import xxhash

IS_MACOS: Final = sys.platform == "darwin"
"""True on macOS, where each file is synced for itself."""
_NOREPLACE: Final = 4 if IS_MACOS else 1  # RENAME_EXCL of <sys/stdio.h>, or renameat2(2)
_EXCHANGE: Final = 2  # RENAME_SWAP there.
_FICLONE: Final = 0x40049409  # <linux/fs.h>
_NOOWNERCOPY: Final = 2  # <sys/clonefile.h>
_FULLFSYNC: Final = 51  # <sys/fcntl.h>, like the next
_PREALLOCATE: Final = 42
_ALL_AT_ONCE: Final = 4  # F_ALLOCATEALL
_FROM_END: Final = 3  # F_PEOFPOSMODE
# CLOCK_REALTIME_COARSE of <linux/time.h>, where there is one.
_TICK: Final = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""The flags with which a folder is opened."""
_CHUNK: Final = 1 << 20  # bytes
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL
UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""The errors of a full disk, and of a full quota."""

_log = logging.getLogger("cocoindex_fsmirror")
libc: Final = ctypes.CDLL(None, use_errno=True)
"""The C library."""


def _escape(record: logging.LogRecord) -> bool:
    """Escapes what is not UTF-8 in a path: a handler that writes UTF-8 would lose the line."""
    record.msg, record.args = record.getMessage().encode(errors="backslashreplace").decode(), ()
    return True


_log.addFilter(_escape)


@functools.cache
def say_once(message: str) -> None:
    """Warns once in a process that less is achieved than was promised."""
    _log.warning("%s", message)


def _check(result: int, *_call: object) -> None:
    """Raises the ``OSError`` for a call that failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _foreign_call(name: str, *arguments: type) -> Callable[..., None] | None:
    """Returns a function of the C library that raises ``OSError``; ``None`` if it has none."""
    function: Any = getattr(libc, name, None)
    if function is not None:
        function.argtypes, function.errcheck = arguments, _check
    return function  # type: ignore[no-any-return]


_Int: Final = ctypes.c_int
renameat2 = _foreign_call(
    "renameatx_np" if IS_MACOS else "renameat2",
    *(_Int, ctypes.c_char_p, _Int, ctypes.c_char_p, ctypes.c_uint),
)
"""On macOS ``renameatx_np``, whose flags have other numbers."""
syncfs = _foreign_call("syncfs", _Int)
fclonefileat = _foreign_call("fclonefileat", _Int, _Int, ctypes.c_char_p, _Int)


def coarse_now_ns() -> int:
    """Returns the time in nanoseconds by the clock that the kernel stamps files with."""
    return time.clock_gettime_ns(_TICK)


def belongs_to_us(found: os.stat_result) -> bool:
    """True if nobody else may write to a file: who runs owns it, or root, and has not shared it."""
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def identity_of(path: str) -> str:
    """Returns the device, the inode and the mtime of a file or folder, as one text.

    Raises:
        OSError: It can't be looked at.
    """
    found = os.stat(path)
    return f"{found.st_dev} {found.st_ino} {found.st_mtime_ns}"


def open_file(base: str, folder: int) -> int:
    """Opens an entry of a folder for reading; follows no link and does not block on a FIFO."""
    return os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)


def is_open(found: os.stat_result) -> bool:
    """True if this process has a file open.

    SQLite opens a path, and tells no descriptor. Where descriptors can't be listed, true.
    """
    try:
        numbers = [int(number) for number in os.listdir("/dev/fd")]
    except OSError:
        return True
    for number in numbers:
        with contextlib.suppress(OSError):  # That of the listing itself is closed.
            if os.path.samestat(os.fstat(number), found):
                return True
    return False


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Closes a descriptor at the end of a block.

    Not for a descriptor that a tree has cached, which the tree closes: give a duplicate of that.
    """
    try:
        yield fd
    finally:
        os.close(fd)


def move(source: str, source_fd: int, target: str, target_fd: int) -> None:
    """Renames without replacing: ``FileExistsError`` if the target exists."""
    if _renames(_NOREPLACE, source, source_fd, target, target_fd):
        return
    # A hard link refuses to replace, too. Folders, for one, can't be linked.
    try:
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.stat(target, dir_fd=target_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    else:
        os.unlink(source, dir_fd=source_fd)


def exchange(source: str, source_fd: int, target: str, target_fd: int) -> bool:
    """Exchanges two entries in one step; false if that can't be done here.

    Raises:
        FileNotFoundError: One is missing.
    """
    return _renames(_EXCHANGE, source, source_fd, target, target_fd)


def link_and_replace(source: str, source_fd: int, target: str, target_fd: int) -> bool:
    """Renames over an entry, which gets the name of the other one; false without hard links.

    Raises:
        FileNotFoundError: One is missing.
    """
    aside = source + ".old"
    try:
        os.link(target, aside, src_dir_fd=target_fd, dst_dir_fd=source_fd, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # EPERM, ENOSYS, ENOTSUP, EMLINK: each driver has another.
        return False
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    os.rename(aside, source, src_dir_fd=source_fd, dst_dir_fd=source_fd)
    return True


def replace(source: str, source_fd: int, target: str, target_fd: int) -> None:
    """Renames to a name, and replaces what is there."""
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def _renames(flag: int, source: str, source_fd: int, target: str, target_fd: int) -> bool:
    """Renames with a flag of renameat2; false if the system or the file system lacks it."""
    if renameat2 is None:
        return False
    try:
        renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), flag)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def names_at(folder: int) -> list[str]:
    """Lists the entries of an open folder.

    btrfs lists what was there when the folder was opened, or rewound last; see rewinddir(3).
    """
    os.lseek(folder, 0, os.SEEK_SET)
    return os.listdir(folder)


def sync_file(fd: int) -> None:
    """Waits until a file or folder is on the disk: on macOS, not only in its cache."""
    if IS_MACOS:
        try:
            fcntl.fcntl(fd, _FULLFSYNC)
        except OSError as error:
            if error.errno not in (*UNSUPPORTED, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)


def allocate(fd: int, size: int) -> None:
    """Makes sure that the disk has room for the bytes of an empty file."""
    if not IS_MACOS:
        os.posix_fallocate(fd, 0, size)
        return
    # fstore_t: flags, mode, offset, length, and the bytes that were allocated.
    fcntl.fcntl(fd, _PREALLOCATE, struct.pack("=Iiqqq", _ALL_AT_ONCE, _FROM_END, 0, size, 0))
    os.ftruncate(fd, size)


def sync_folder(fd: int) -> bool:
    """Waits until the names in a folder are on the disk; false if the file system syncs none."""
    try:
        sync_file(fd)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def clone(source: int, target: int) -> bool:
    """Shares the blocks of a file; false if the file system can't. See ioctl_ficlone(2)."""
    if IS_MACOS:  # Which clones to new names only.
        return False
    with contextlib.suppress(OSError):  # A copy will tell what is wrong, if that is more.
        fcntl.ioctl(target, _FICLONE, source)
        return True
    return False


def clone_as(source: int, base: str, folder: int) -> bool:
    """Makes a file that shares the blocks of another one; false if the file system can't.

    On macOS it gets the mode and the times of that, too. An empty file may be left.
    """
    if fclonefileat is None:
        with closing(os.open(base, _NEW, 0o600, dir_fd=folder)) as target:
            return clone(source, target)
    try:
        fclonefileat(source, folder, os.fsencode(base), _NOOWNERCOPY)
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, errno.EXDEV):
            raise
        return False
    return True


def digest_of_file(fd: int) -> bytes:
    """Hashes a file from the position of its descriptor to its end: xxh3-128, 16 bytes."""
    hasher, chunk = xxhash.xxh3_128(), buffer()
    while count := os.readv(fd, [chunk]):
        hasher.update(memoryview(chunk)[:count])
    return hasher.digest()


def buffer() -> mmap.mmap:
    """Returns a page-aligned buffer for a chunk of a file.

    Some processors copy to any other address at a quarter of the speed; see
    https://sourceware.org/bugzilla/show_bug.cgi?id=30994.
    """
    return mmap.mmap(-1, _CHUNK)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Writes all bytes; a single write(2) may write fewer."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def copy(source: int, target: int, size: int, on_bytes: Callable[[int], None]) -> bytes:
    """Copies a file, as a clone where the file system shares blocks, and hashes the copy.

    Args:
        source: A descriptor of the file, at its start.
        target: A descriptor of an empty file.
        size: The number of bytes to copy; chunks of zeros among them become holes.
        on_bytes: Called with the number of bytes of each chunk that was copied.

    Returns:
        The digest of the bytes that the target holds now, even if the source has changed.
    """
    if clone(source, target):
        digest = digest_of_file(target)
        on_bytes(size)
        return digest
    hasher, chunk, left = xxhash.xxh3_128(), buffer(), size
    # A source that became shorter ends early; the digest tells.
    while left and (count := min(os.readv(source, [chunk]), left)):
        part = memoryview(chunk)[:count]
        hasher.update(part)
        if part[0] or bytes(part).strip(b"\0"):
            write_all(target, part)
        else:
            os.lseek(target, count, os.SEEK_CUR)
        left -= count
        on_bytes(count)
    os.ftruncate(target, size)
    return hasher.digest()
