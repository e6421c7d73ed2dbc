"""Open files: hashed and copied. Knows no names; what it writes to was opened for it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

import xxhash

__all__ = ["buffer", "copy", "digest_of_file", "write_all"]

_CHUNK: Final = 1 << 20  # bytes
_FICLONE: Final = 0x40049409  # <linux/fs.h>
_NO_CLONE: Final = (
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP),
    *(errno.EXDEV, errno.ENOTTY, errno.ETXTBSY),
)


def digest_of_file(fd: int) -> bytes:
    """Hashes everything that a descriptor still has to read: xxh3-128, 16 bytes."""
    hasher, chunk = xxhash.xxh3_128(), buffer()
    while count := os.readv(fd, [chunk]):
        hasher.update(memoryview(chunk)[:count])
    return hasher.digest()


def buffer() -> mmap.mmap:
    """Returns a buffer for a chunk of a file, which begins where a page does.

    To any other place in a page some processors copy at a quarter of the speed; see
    https://sourceware.org/bugzilla/show_bug.cgi?id=30994.
    """
    return mmap.mmap(-1, _CHUNK)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Writes bytes, however many the system takes at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def copy(source: int, target: int, size: int, on_bytes: Callable[[int], None]) -> bytes:
    """Copies a file, as a clone where the file system shares blocks, and hashes the copy.

    Args:
        source: A descriptor of the file.
        target: A descriptor of an empty file.
        size: How many bytes are copied; holes among them stay holes.
        on_bytes: Is told of bytes that were copied, as they come.

    Returns:
        The digest of the bytes that the target holds now, whatever the source held.
    """
    if _clone(source, target):
        digest = digest_of_file(target)
        on_bytes(size)
        return digest
    hasher, chunk, position = xxhash.xxh3_128(), buffer(), 0
    for start, end in _data(source, size):
        _hash_zeros(hasher, start - position)
        on_bytes(start - position)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        position = start
        while position < end:
            count = min(os.readv(source, [chunk]), end - position)
            if not count:
                break  # It became shorter, which the digest tells.
            part = memoryview(chunk)[:count]
            write_all(target, part)
            hasher.update(part)
            position += count
            on_bytes(count)
    _hash_zeros(hasher, size - position)
    on_bytes(size - position)
    os.ftruncate(target, size)
    return hasher.digest()


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
    """Yields where a file holds data, and not a hole."""
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


def _hash_zeros(hasher: xxhash.xxh3_128, count: int) -> None:
    """Hashes as many zeros as a hole reads as."""
    zeros = memoryview(bytes(min(count, _CHUNK)))
    while count > 0:
        hasher.update(zeros[:count])
        count -= len(zeros)
