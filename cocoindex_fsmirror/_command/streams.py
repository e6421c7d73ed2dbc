"""Standard output and standard error of the command, whatever they are connected to.

Python flushes both once more when the interpreter ends, and exits with a traceback and status
120 if that fails. So what can't be written is dropped here, once the failure was reported.
A character that the stream's encoding lacks is written as an escape.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["open_streams"]


def open_streams(on_lost: Callable[[OSError], object]) -> None:
    """Opens the three standard streams again; one that is closed leads to ``/dev/null``.

    Args:
        on_lost: Is told of the first write to standard output that fails. Failures of
            standard error are ignored: there is nowhere left to report them.
    """
    _fill_descriptors()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _opened(1, sys.stdout, on_lost)
    sys.stderr = _opened(2, sys.stderr, _ignore)


def _fill_descriptors() -> None:
    """Keeps files of ours from becoming 0, 1 or 2 if those are closed: libraries log there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _opened(fd: int, stream: TextIO | None, on_lost: Callable[[OSError], object]) -> TextIO:
    """Opens a descriptor as text, in the encoding of the stream that Python had opened on it."""
    encoding = "utf-8" if stream is None else stream.encoding
    is_by_lines = stream is not None and bool(stream.line_buffering)
    buffer = io.BufferedWriter(_File(fd, on_lost))
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=is_by_lines)


def _ignore(_error: OSError) -> None:
    """Does nothing."""


class _File(io.FileIO):
    """A descriptor that drops what can't be written, and reports the first such failure."""

    def __init__(self, fd: int, on_lost: Callable[[OSError], object]) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._on_lost = on_lost

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes bytes; claims to have done so if that fails, or they would be tried again."""
        try:
            return super().write(data)
        except OSError as error:
            on_lost, self._on_lost = self._on_lost, _ignore
            on_lost(error)
            return memoryview(data).nbytes
