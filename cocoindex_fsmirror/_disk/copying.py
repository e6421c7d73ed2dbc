"""Open files: hashed and copied. Knows no names; what it writes to was opened for it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Final

import xxhash

from .calls import clone

_CHUNK: Final = 1 << 20  # bytes


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
        source: A descriptor of the file, at its start.
        target: A descriptor of an empty file.
        size: How many bytes are copied; chunks of zeros among them become holes.
        on_bytes: Is told of bytes that were copied, as they come.

    Returns:
        The digest of the bytes that the target holds now, whatever the source held.
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
