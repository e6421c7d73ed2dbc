"""Files whose content is declared: looked at once, read again when they are copied."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from typing import IO, Final

import msgspec

from .._core.attributes import Attributes
from .._core.errors import SourceChangedError, SourceError
from .._core.states import Signature, digest_of, is_older
from .calls import attributes_of, closing, coarse_now_ns, digest_of_file, signature_of

SMALL: Final = 1 << 16
"""The size of the largest files that are read once and held in memory, in bytes."""
_HELD: Final = 1 << 24  # bytes that are held at any one time


class _Allowance:
    """The number of bytes that may still be held."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Takes some of them; false if there are not as many."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Returns those that were taken."""
        with self._lock:
            self._left += size


_allowance = _Allowance(_HELD)


class Source(msgspec.Struct, eq=False):
    """A file as it was when it was looked at; a :class:`~._core.states.Content`.

    Attributes:
        source: Its path.
        digest: As of a file's state; ``None`` if it was not read yet.
        held: Its content, if it is small and there was room.
        attributes: All that it has beside the content.
        signature: Its signature, before and after it was read.
        is_provable: True if any later change will show in the signature.
    """

    source: str
    digest: bytes | None
    held: bytes | None
    attributes: Attributes
    signature: Signature
    is_provable: bool = True

    def __post_init__(self) -> None:
        if self.held is not None and not _allowance.take(len(self.held)):
            self.held = None

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.signature.size

    def __del__(self) -> None:
        if self.held is not None:
            _allowance.give_back(len(self.held))

    def open(self) -> int:
        """Opens the file, to be read from its start."""
        return _open(self.source)[0]

    def is_unchanged(self, fd: int) -> bool:
        """True if the open file is the one that was looked at, with the same signature."""
        return signature_of(os.fstat(fd)) == self.signature


class Spooled:
    """Content from elsewhere, in a file without a name: a :class:`~._core.states.Content`."""

    def __init__(self, source: str, digest: bytes, size: int, file: IO[bytes]) -> None:
        self.source = source
        self.digest = digest
        self.size = size
        self.held: bytes | None = None
        self._file = file

    def __del__(self) -> None:
        self._file.close()

    def open(self) -> int:
        """Returns a descriptor of the file, at its start."""
        fd = os.dup(self._file.fileno())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

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
        SourceChangedError: It changed while it was read.
    """
    return _look(path, lambda _size: True)


def unread_source(path: str) -> Source:
    """Looks at a file without reading it.

    Args:
        path: Its path.

    Raises:
        SourceError: It can't be opened, or is no regular file.
    """
    return _look(path, lambda _size: False)


def look_at_source(path: str, target: str = "") -> Source:
    """Looks at a file that is to be copied; reads it only if it is small, or has to be hashed.

    Args:
        path: Its path.
        target: The path of its copy. If a file of the same size is there, which may be the
            copy already, the digest is needed to tell.

    Raises:
        SourceError: It can't be read, or is no regular file.
        SourceChangedError: It changed while it was read.
    """
    return _look(path, lambda size: size <= SMALL or _has_size(target, size))


def _has_size(target: str, size: int) -> bool:
    """True if there is a regular file of a size."""
    try:
        found = os.lstat(target)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _look(path: str, is_read: Callable[[int], bool]) -> Source:
    """Looks at a file, and reads it if that is asked for at its size."""
    now_ns = coarse_now_ns()
    fd, found = _open(path)
    try:
        with closing(fd):
            digest, held = _read(fd, found.st_size) if is_read(found.st_size) else (None, None)
            signature = signature_of(os.fstat(fd))
    except OSError as error:
        raise SourceError(path, f"can't be read: {error.strerror}") from error
    is_whole = held is None or len(held) == found.st_size
    if not is_whole or signature != signature_of(found):
        raise SourceChangedError(path)
    is_provable = is_older(signature.ctime_ns, now_ns)
    return Source(path, digest, held, attributes_of(found), signature, is_provable)


def _read(fd: int, size: int) -> tuple[bytes, bytes | None]:
    """Returns the digest of a file, and its content if it is small."""
    if size > SMALL:
        return digest_of_file(fd), None
    held = os.read(fd, SMALL)
    return digest_of(held), held


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
