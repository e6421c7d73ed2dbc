"""Other files whose content is declared: fingerprinted once, read again when it is copied."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from typing import IO, Final

from ._errors import SourceChangedError, SourceError
from ._fs import coarse_now_ns, digest_of_file, signature_of
from ._state import Signature, digest_of, proves

__all__ = ["Source", "Spooled", "fingerprint", "spool"]

_SMALL: Final = 1 << 16  # bytes of a file that is read once and carried along
_CARRIED: Final = 1 << 24  # bytes that are carried along at any one time
_ATTEMPTS: Final = 3  # at reading a file that changes meanwhile


class _Allowance:
    """How many bytes may still be carried along."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Takes a part of it, if there is as much."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Returns what was taken."""
        with self._lock:
            self._left += size


_allowance = _Allowance(_CARRIED)


class Source:
    """A file as it was when it was fingerprinted; a :class:`~._state.Content`.

    Attributes:
        mode: Its permission bits.
        mtime_ns: When it was last changed, in nanoseconds.
    """

    def __init__(
        self, source: str, digest: bytes, found: os.stat_result, read_ns: int, held: bytes | None
    ) -> None:
        self.source = source
        self.digest = digest
        self.size = found.st_size
        self.mode = stat.S_IMODE(found.st_mode)
        self.mtime_ns = found.st_mtime_ns
        self.held = held if held is not None and _allowance.take(len(held)) else None
        self._signature: Signature = signature_of(found)
        self._read_ns = read_ns

    def __del__(self) -> None:
        held = getattr(self, "held", None)
        if held is not None:
            _allowance.give_back(len(held))

    def __repr__(self) -> str:
        return f"Source({self.source!r}, {self.size} bytes)"

    def open(self) -> int:
        """A descriptor to read it from the start."""
        return _open(self.source)

    def is_unchanged(self, fd: int) -> bool:
        """Whether its signature proves that it was not changed since it was read."""
        return proves(signature_of(os.fstat(fd)), self._signature, self._read_ns)


class Spooled:
    """A content that came from elsewhere, in a file without a name; a :class:`~._state.Content`."""

    def __init__(self, source: str, digest: bytes, size: int, file: IO[bytes]) -> None:
        self.source = source
        self.digest = digest
        self.size = size
        self.held: bytes | None = None
        self._file = file

    def __del__(self) -> None:
        self._file.close()

    def open(self) -> int:
        """A descriptor of it."""
        return os.dup(self._file.fileno())

    def is_unchanged(self, _fd: int) -> bool:
        """Nobody else can reach it."""
        return True


def _open(path: str) -> int:
    """A descriptor of a regular file."""
    try:
        # A FIFO must not block us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise SourceError(path, f"can't be read: {problem}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceError(path, "is not a regular file")
    return fd


def fingerprint(path: str) -> Source:
    """Reads a file, in chunks; a small one is carried along.

    Raises:
        SourceError: It can't be read, or is no regular file.
        SourceChangedError: It kept changing while it was read.
    """
    fd = _open(path)
    try:
        for _ in range(_ATTEMPTS):
            read_ns, before = coarse_now_ns(), os.fstat(fd)
            held = os.pread(fd, _SMALL, 0) if before.st_size <= _SMALL else None
            if held is None:
                os.lseek(fd, 0, os.SEEK_SET)
                digest = digest_of_file(fd)
            else:
                digest = digest_of(held)
            is_whole = held is None or len(held) == before.st_size
            if is_whole and signature_of(os.fstat(fd)) == signature_of(before):
                return Source(path, digest, before, read_ns, held)
    except OSError as error:
        raise SourceError(path, f"can't be read: {error.strerror}") from error
    finally:
        os.close(fd)
    raise SourceChangedError(path)


def spool(source: str, content: bytes) -> bytes | Spooled:
    """Puts a content away in a file without a name, unless it is small, or there is no room."""
    if len(content) <= _SMALL:
        return content
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # Closed by its owner.
    except OSError:  # As a rule too many files are open.
        return content
    file.write(content)
    file.flush()
    return Spooled(source, digest_of(content), len(content), file)
