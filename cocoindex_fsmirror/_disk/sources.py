"""Files whose content is declared: looked at once, read again when they are copied."""

from __future__ import annotations

import os
import stat
import threading
from typing import IO, Final

from .._core.errors import SourceChangedError, SourceError
from .._core.signatures import Signature, is_older
from .._core.states import digest_of
from .copying import digest_of_file
from .tree import coarse_now_ns, signature_of

__all__ = ["SMALL", "Source", "Spooled", "fingerprint", "look_at_source", "spool", "unread_source"]

SMALL: Final = 1 << 16
"""The size of the largest files that are read once and held in memory, in bytes."""
_HELD: Final = 1 << 24  # bytes that are held at any one time
_ATTEMPTS: Final = 3  # at reading a file that changes meanwhile


class _Allowance:
    """How many bytes may still be held."""

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


_allowance = _Allowance(_HELD)


class Source:
    """A file as it was when it was looked at; a :class:`~._state.Content`.

    Attributes:
        source: Its path.
        digest: As of a file's state; ``None`` if it was not read yet.
        held: Its content, if it is small and there was room.
        mode: Its permission bits.
        signature: Its signature, before and after it was read.
        is_provable: True if any later change will show in the signature.
    """

    __slots__ = ("digest", "held", "is_provable", "mode", "signature", "source")

    def __init__(
        self,
        source: str,
        digest: bytes | None,
        held: bytes | None,
        mode: int,
        signature: Signature,
        *,
        is_provable: bool = True,
    ) -> None:
        self.source = source
        self.digest = digest
        self.held = held if held is not None and _allowance.take(len(held)) else None
        self.mode = mode
        self.signature = signature
        self.is_provable = is_provable

    @property
    def size(self) -> int:
        """In bytes."""
        return self.signature.size

    @property
    def mtime_ns(self) -> int:
        """When it was last changed, in nanoseconds."""
        return self.signature.mtime_ns

    def __del__(self) -> None:
        held = getattr(self, "held", None)
        if held is not None:
            _allowance.give_back(len(held))

    def __repr__(self) -> str:
        return f"Source({self.source!r}, {self.size} bytes)"

    def open(self) -> int:
        """Opens it, to be read from the start."""
        return _open(self.source)[0]

    def is_unchanged(self, fd: int) -> bool:
        """True if the open file is the one that was looked at, with the same signature."""
        return signature_of(os.fstat(fd)) == self.signature


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
        """Returns a descriptor of it."""
        return os.dup(self._file.fileno())

    def is_unchanged(self, _fd: int) -> bool:
        """True, since nobody else can reach it."""
        return True


def _open(path: str) -> tuple[int, os.stat_result]:
    """Opens a regular file for reading; returns its descriptor and what ``fstat`` says of it.

    Raises:
        SourceError: It can't be read, or is no regular file.
    """
    try:
        # A FIFO must not block us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise SourceError(path, f"can't be read: {problem}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise SourceError(path, "is not a regular file")
    return fd, found


def fingerprint(path: str) -> Source:
    """Reads and hashes a file, in chunks; a small one is held.

    Args:
        path: Its path.

    Raises:
        SourceError: It can't be read, or is no regular file.
        SourceChangedError: It kept changing while it was read.
    """
    now_ns = coarse_now_ns()
    fd, found = _open(path)
    try:
        return _read(path, fd, found, now_ns)
    finally:
        os.close(fd)


def unread_source(path: str) -> Source:
    """Looks at a file without reading it.

    Args:
        path: Its path.

    Raises:
        SourceError: It can't be opened, or is no regular file.
    """
    now_ns = coarse_now_ns()
    fd, found = _open(path)
    os.close(fd)
    return _seen(path, None, None, found, now_ns)


def look_at_source(path: str, target: str = "") -> Source:
    """Looks at a file that is to be copied; reads it only if it is small, or has to be hashed.

    Args:
        path: Its path.
        target: The path of its copy. If a file of the same size is there, which may be the
            copy already, the digest is needed to tell.

    Raises:
        SourceError: It can't be read, or is no regular file.
        SourceChangedError: It kept changing while it was read.
    """
    now_ns = coarse_now_ns()
    fd, found = _open(path)
    try:
        if found.st_size <= SMALL or _has_size(target, found.st_size):
            return _read(path, fd, found, now_ns)
        return _seen(path, None, None, found, now_ns)
    finally:
        os.close(fd)


def _has_size(target: str, size: int) -> bool:
    """True if there is a regular file of a size."""
    try:
        found = os.lstat(target)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _read(path: str, fd: int, before: os.stat_result, now_ns: int) -> Source:
    """Reads an open file, until it does not change meanwhile; ``before`` was seen after a time."""
    try:
        for _ in range(_ATTEMPTS):
            held = os.pread(fd, SMALL, 0) if before.st_size <= SMALL else None
            if held is None:
                os.lseek(fd, 0, os.SEEK_SET)
                digest = digest_of_file(fd)
            else:
                digest = digest_of(held)
            is_whole = held is None or len(held) == before.st_size
            if is_whole and signature_of(os.fstat(fd)) == signature_of(before):
                return _seen(path, digest, held, before, now_ns)
            now_ns, before = coarse_now_ns(), os.fstat(fd)
    except OSError as error:
        raise SourceError(path, f"can't be read: {error.strerror}") from error
    raise SourceChangedError(path)


def _seen(
    path: str, digest: bytes | None, held: bytes | None, found: os.stat_result, now_ns: int
) -> Source:
    """Makes the source from what was seen of it after a time."""
    signature, mode = signature_of(found), stat.S_IMODE(found.st_mode)
    is_provable = is_older(signature.ctime_ns, now_ns)
    return Source(path, digest, held, mode, signature, is_provable=is_provable)


def spool(source: str, content: bytes) -> bytes | Spooled:
    """Puts a content away in a file without a name, unless it is small, or there is no room."""
    if len(content) <= SMALL:
        return content
    import tempfile  # noqa: PLC0415  # For what comes from elsewhere only.

    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # Closed by its owner.
    except OSError:  # As a rule too many files are open.
        return content
    file.write(content)
    file.flush()
    return Spooled(source, digest_of(content), len(content), file)
