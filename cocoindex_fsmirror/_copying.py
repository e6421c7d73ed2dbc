"""Open files: fingerprinted and copied. Knows no names; what it writes to was opened for it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Iterator
from typing import Final

import xxhash

__all__ = ["copied", "digest_of_file", "holds", "room", "write_all"]

_CHUNK: Final = 1 << 20  # bytes
_FICLONE: Final = 0x40049409  # <linux/fs.h>
_NO_CLONE: Final = (
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP),
    *(errno.EXDEV, errno.ENOTTY, errno.ETXTBSY),
)


def digest_of_file(fd: int) -> bytes:
    """xxh3-128 of everything that a descriptor still has to read, 16 bytes."""
    hasher = xxhash.xxh3_128()
    with room() as buffer:
        while count := os.readv(fd, [buffer]):
            hasher.update(memoryview(buffer)[:count])
    return hasher.digest()


def holds(fd: int, digest: bytes) -> bool:
    """Whether a file that we wrote holds a content."""
    os.lseek(fd, 0, os.SEEK_SET)
    return digest_of_file(fd) == digest


def room() -> mmap.mmap:
    """A buffer for a chunk of a file, which begins where a page does.

    To any other place in a page some processors copy at a quarter of the speed; see
    https://sourceware.org/bugzilla/show_bug.cgi?id=30994.
    """
    return mmap.mmap(-1, _CHUNK)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Writes bytes, however many the system takes at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def copied(source: int, target: int, size: int, at_once: int) -> Iterator[int]:
    """Copies a file: as a clone, else within the kernel, else through our hands.

    Args:
        source: A descriptor of the file.
        target: One of an empty file.
        size: How many bytes are copied; those of holes stay holes.
        at_once: How many the kernel is asked to copy in one call.

    Yields:
        How many bytes are there by now; nothing of a clone.
    """
    if _clone(source, target):
        return
    for start, end in _data(source, size):
        yield from _copy_range(source, target, start, end, at_once)
    os.ftruncate(target, size)


def _clone(source: int, target: int) -> bool:
    """Shares the blocks of a file, where the file system can; see ioctl_ficlone(2)."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file holds data, and not a hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # Nothing but a hole up to the end.
            start, end = end, size
        yield start, min(end, size)


def _copy_range(source: int, target: int, start: int, end: int, at_once: int) -> Iterator[int]:
    """Copies a part of a file to the same place of another; tells where it is as it goes on."""
    in_kernel = getattr(os, "copy_file_range", None)
    os.lseek(target, start, os.SEEK_SET)
    while start < end:
        count = min(end - start, at_once)
        if in_kernel is not None:
            try:
                done = in_kernel(source, target, count, start)
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                in_kernel = None
                continue
        else:
            chunk = os.pread(source, min(count, _CHUNK), start)
            write_all(target, chunk)
            done = len(chunk)
        if not done:
            return  # It is shorter now, which will be noticed.
        start += done
        yield start
