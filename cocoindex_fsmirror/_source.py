"""Other files whose content is declared: fingerprinted once, read again when it is copied."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from typing import IO, Final

from ._copying import digest_of_file
from ._draft import LARGE, Draft
from ._errors import SourceChangedError, SourceError
from ._fs import coarse_now_ns, signature_of
from ._state import Signature, digest_of, proves

__all__ = ["Source", "Spooled", "fingerprint", "open_source", "spool"]

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
        self,
        source: str,
        digest: bytes,
        found: os.stat_result,
        read_ns: int,
        held: bytes | None,
        *,
        draft: Draft | None = None,
    ) -> None:
        self.source = source
        self.digest = digest
        self.size = found.st_size
        self.mode = stat.S_IMODE(found.st_mode)
        self.mtime_ns = found.st_mtime_ns
        self.held = held if held is not None and _allowance.take(len(held)) else None
        self._signature: Signature = signature_of(found)
        self._read_ns = read_ns
        self._draft = draft

    def __del__(self) -> None:
        held = getattr(self, "held", None)
        if held is not None:
            _allowance.give_back(len(held))
        draft = getattr(self, "_draft", None)
        if draft is not None:
            draft.give_up()

    def __repr__(self) -> str:
        return f"Source({self.source!r}, {self.size} bytes)"

    def open(self) -> int:
        """A descriptor to read it from the start."""
        return open_source(self.source)

    def is_unchanged(self, fd: int) -> bool:
        """Whether its signature proves that it was not changed since it was read."""
        return proves(signature_of(os.fstat(fd)), self._signature, self._read_ns)

    def drafted(self, on_bytes: Callable[[int], None]) -> int | None:
        """The copy that was begun when it was fingerprinted, if it holds the same."""
        if self._draft is None:
            return None
        return self._draft.take(self._signature, self.digest, on_bytes)


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

    def drafted(self, _on_bytes: Callable[[int], None]) -> None:
        """Nobody began a copy."""


def open_source(path: str) -> int:
    """A descriptor of a regular file.

    Raises:
        SourceError: It can't be read, or is no regular file.
    """
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


def fingerprint(path: str, begin: Callable[[int], Draft | None] = lambda _fd: None) -> Source:
    """Reads a file, in chunks; a small one is carried along.

    Args:
        path: Its path.
        begin: Is asked for a draft of a large file, from its descriptor.

    Raises:
        SourceError: It can't be read, or is no regular file.
        SourceChangedError: It kept changing while it was read.
    """
    fd = open_source(path)
    try:
        draft = begin(fd) if os.fstat(fd).st_size >= LARGE else None
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
                return Source(path, digest, before, read_ns, held, draft=draft)
    except OSError as error:
        raise SourceError(path, f"can't be read: {error.strerror}") from error
    finally:
        os.close(fd)
    raise SourceChangedError(path)


def spool(source: str, content: bytes) -> bytes | Spooled:
    """Puts a content away in a file without a name, unless it is small, or there is no room."""
    if len(content) <= _SMALL:
        return content
    import tempfile  # noqa: PLC0415  # For what comes from elsewhere only.

    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # Closed by its owner.
    except OSError:  # As a rule too many files are open.
        return content
    file.write(content)
    file.flush()
    return Spooled(source, digest_of(content), len(content), file)
