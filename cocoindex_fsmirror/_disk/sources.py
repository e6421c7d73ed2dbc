"""Sources of declared contents: looked at once, and read again when they are copied.

A copy of a source that has changed in between raises :class:`SourceChangedError`.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from typing import IO, Final

import msgspec

from .._core.attributes import Attributes
from .._core.errors import SourceChangedError, SourceError
from .._core.names import Name
from .._core.states import Signature, digest_of, is_older, signature_of
from .abilities import attributes_for_copy
from .calls import closing, coarse_now_ns, digest_of_file, open_file
from .tree import NOT_THERE, Folders

SMALL: Final = 1 << 16
"""The size of the largest files that are read once and held in memory, in bytes."""
_HELD: Final = 1 << 24  # bytes that are held at any one time


_lock: Final = threading.Lock()
_held = 0  # bytes


def _hold(size: int) -> bool:
    """Adds to the number of bytes that are held; false if there is no room for them."""
    global _held  # noqa: PLW0603
    with _lock:
        has_room = _held + size <= _HELD
        _held += size if has_room else 0
        return has_room


class SourceFolders(Folders):
    """A source folder, and those below it, or that links in it lead to.

    Attributes:
        places: The real paths that are opened in the place of links, by the paths of these.
    """

    def __init__(self, fd: int, path: str) -> None:
        super().__init__(fd, path)
        self.places: dict[Name, str] = {}

    def _enter(self, folder: Name, above: int) -> int:
        """Opens a folder in the one above it, or the one that its link leads to."""
        place = self.places.get(folder)
        if place is None:
            return super()._enter(folder, above)
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY)


def open_source(path: str) -> SourceFolders:
    """Opens a source folder, to which a link may lead; below it, none is followed by itself."""
    return SourceFolders(os.open(path, os.O_RDONLY | os.O_DIRECTORY), path)


class Source(msgspec.Struct, eq=False):
    """A file as it was when it was looked at; a :class:`~._core.states.Content`.

    Attributes:
        source: Its path.
        digest: As of a file's state; ``None`` if it was not read yet.
        held: Its content, if it is small and there was room.
        attributes: Its attributes.
        signature: Its signature, before and after it was read.
        is_provable: True if any later change will show in the signature.
        within: The folder above it from whose descriptor it is opened, without following a link.
            By default, and if it is elsewhere, the path is opened, and links are followed.
    """

    source: str
    digest: bytes | None
    held: bytes | None
    attributes: Attributes
    signature: Signature
    is_provable: bool = True
    within: Folders | None = None

    def __post_init__(self) -> None:
        if self.held is not None and not _hold(len(self.held)):
            self.held = None

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.signature.size

    def __del__(self) -> None:
        if self.held is not None:
            _hold(-len(self.held))

    def open(self) -> int:
        """Opens the file, to be read from its start."""
        return _open(self.source, self.within)[0]

    def is_unchanged(self, fd: int) -> bool:
        """True if the open file is the one that was looked at, with the same signature."""
        return signature_of(os.fstat(fd)) == self.signature


class Spooled(msgspec.Struct, eq=False):
    """Content from elsewhere, in a file without a name: a :class:`~._core.states.Content`."""

    source: str
    digest: bytes
    size: int
    file: IO[bytes]
    held: None = None

    def __del__(self) -> None:
        self.file.close()

    def open(self) -> int:
        """Returns a descriptor of the file, at its start."""
        fd = os.dup(self.file.fileno())
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def is_unchanged(self, _fd: int) -> bool:
        """True, since no other process can reach the file."""
        return True


def _open(path: str, within: Folders | None = None) -> tuple[int, os.stat_result]:
    """Opens a regular file for reading; returns its descriptor and what ``fstat`` says of it.

    Args:
        path: Its path.
        within: As of a :class:`Source`.

    Raises:
        SourceError: The file can't be read, or is no regular file.
    """
    try:
        if within is not None and path.startswith(os.path.join(within.path, "")):
            above, _, base = path[len(within.path.rstrip("/")) + 1 :].rpartition("/")
            fd = open_file(base, within.folder(Name(above)))
        else:  # A FIFO must not block us.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        if within is not None and isinstance(error, OSError) and error.errno in NOT_THERE:
            raise SourceError(path, "was moved or replaced while it was read; try again") from error
        problem = error.strerror if isinstance(error, OSError) else error
        raise SourceError(path, f"can't be read: {problem}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise SourceError(path, "is not a regular file")
    return fd, found


def look_at_source(
    path: str,
    needs_digest: Callable[[int], bool] = lambda _size: True,
    within: Folders | None = None,
) -> Source:
    """Looks at a file that is to be copied; reads and hashes it if need be, and holds a small one.

    Args:
        path: Its path.
        needs_digest: True if a file of this size is to be read.
        within: As of a :class:`Source`.

    Raises:
        SourceError: The file can't be read, or is no regular file.
        SourceChangedError: The file changed while it was read.
    """
    now_ns = coarse_now_ns()
    fd, found = _open(path, within)
    try:
        with closing(fd):
            is_read = needs_digest(found.st_size)
            digest, held = _read(fd, found.st_size) if is_read else (None, None)
            signature = signature_of(os.fstat(fd))
    except OSError as error:
        raise SourceError(path, f"can't be read: {error.strerror}") from error
    is_whole = held is None or len(held) == found.st_size
    if not is_whole or signature != signature_of(found):
        raise SourceChangedError(path)
    is_provable = is_older(signature.ctime_ns, now_ns)
    return Source(path, digest, held, attributes_for_copy(found), signature, is_provable, within)


def may_be_at(target: str) -> Callable[[int], bool]:
    """Returns a function that tells if the digest of a source is needed before it is copied.

    A digest is needed of a small file, which is read at once, and of a file with the size of
    the target, which may hold the same bytes.
    """
    return lambda size: size <= SMALL or _has_size(target, size)


def _has_size(target: str, size: int) -> bool:
    """True if there is a regular file of a size, or may be: the path can be too long to look."""
    try:
        found = os.lstat(target)
    except OSError as error:
        return error.errno not in NOT_THERE
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _read(fd: int, size: int) -> tuple[bytes, bytes | None]:
    """Returns the digest of a file, and its content if it is small."""
    if size > SMALL:
        return digest_of_file(fd), None
    held = os.read(fd, SMALL)
    return digest_of(held), held


def spool(source: str, content: bytes) -> bytes | Spooled:
    """Keeps a content in a temporary file without a name; a small one stays in memory."""
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
