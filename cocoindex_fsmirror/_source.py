"""Other files whose content is declared: fingerprinted once, read again when it is copied."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from typing import IO, Final, NamedTuple

from ._copying import digest_of_file
from ._draft import LARGE, Draft
from ._errors import SourceChangedError, SourceError
from ._fs import coarse_now_ns, signature_of
from ._state import Signature, digest_of, proves

__all__ = ["Found", "Source", "Spooled", "fingerprint", "found_at", "open_source", "spool"]

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


class Found(NamedTuple):
    """What a file was when it was read.

    Attributes:
        digest: As of a file's state.
        signature: Its signature, before and after.
        mode: Its permission bits.
        read_ns: A time before it was read, by the clock that stamps files.
        held: Its content, if it is small.
    """

    digest: bytes
    signature: Signature
    mode: int
    read_ns: int
    held: bytes | None


class Source:
    """A file as it was when it was fingerprinted; a :class:`~._state.Content`.

    Attributes:
        mode: Its permission bits.
    """

    __slots__ = ("_draft", "_read_ns", "_signature", "digest", "held", "mode", "source")

    def __init__(self, source: str, found: Found, draft: Draft | None = None) -> None:
        self.source = source
        self.digest, self._signature, self.mode, self._read_ns, held = found
        self.held = held if held is not None and _allowance.take(len(held)) else None
        self._draft = draft

    @property
    def size(self) -> int:
        """In bytes."""
        return self._signature.size

    @property
    def mtime_ns(self) -> int:
        """When it was last changed, in nanoseconds."""
        return self._signature.mtime_ns

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
    return _opened(path)[0]


def _opened(path: str) -> tuple[int, os.stat_result]:
    """The same, with what ``fstat`` says of it."""
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


def fingerprint(path: str, begin: Callable[[int], Draft | None] = lambda _fd: None) -> Source:
    """Reads a file, in chunks; a small one is carried along.

    Args:
        path: Its path.
        begin: Is asked for a draft of a large file, from its descriptor.

    Raises:
        SourceError: It can't be read, or is no regular file.
        SourceChangedError: It kept changing while it was read.
    """
    read_ns = coarse_now_ns()
    fd, found = _opened(path)
    try:
        draft = begin(fd) if found.st_size >= LARGE else None
        return Source(path, _read(path, fd, found, read_ns), draft)
    finally:
        os.close(fd)


def found_at(paths: list[str]) -> list[Found | None]:
    """What some files hold; ``None`` for each that is not small, or can't be read."""
    return [_found_at(path) for path in paths]


def _found_at(path: str) -> Found | None:
    """The same of one."""
    try:
        read_ns = coarse_now_ns()
        fd, found = _opened(path)
        try:
            return _read(path, fd, found, read_ns) if found.st_size <= _SMALL else None
        finally:
            os.close(fd)
    except SourceError:
        return None


def _read(path: str, fd: int, before: os.stat_result, read_ns: int) -> Found:
    """Reads an open file, until that can be done in peace; ``before`` was seen after a time."""
    try:
        for _ in range(_ATTEMPTS):
            signature, mode = signature_of(before), stat.S_IMODE(before.st_mode)
            held = os.pread(fd, _SMALL, 0) if before.st_size <= _SMALL else None
            if held is None:
                os.lseek(fd, 0, os.SEEK_SET)
                digest = digest_of_file(fd)
            else:
                digest = digest_of(held)
            is_whole = held is None or len(held) == before.st_size
            if is_whole and signature_of(os.fstat(fd)) == signature:
                return Found(digest, signature, mode, read_ns, held)
            read_ns, before = coarse_now_ns(), os.fstat(fd)
    except OSError as error:
        raise SourceError(path, f"can't be read: {error.strerror}") from error
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
