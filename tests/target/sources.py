"""Sources of copies: local files, and a blob of a connector that keeps its files in memory."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Self

import pytest
from cocoindex.connectors import localfs
from cocoindex.resources.file import FileLike, FileMetadata, FilePath

from tests.target.flows import OUT

THEN = 1_000_000_000_987_654_321
SMALL, LARGE = 1 << 16, (3 << 20) + 17
SIZES = pytest.mark.parametrize("size", [5, LARGE])  # Held in memory; read again when copied.


def fill(path: Path, size: int) -> bytes:
    """Writes new content to a source, always with the same mode and mtime; returns the content."""
    path.write_bytes(os.urandom(size))
    path.chmod(0o640)
    os.utime(path, ns=(THEN, THEN))
    return path.read_bytes()


class BlobPath(FilePath[str]):
    """The path of a blob, which is not on this machine."""

    __slots__ = ()

    def resolve(self) -> str:
        """Returns a URL, which is no path."""
        return f"mem://{self.path}"

    def _with_path(self, path: PurePath) -> Self:
        return type(self)(None, path)


class Blob(FileLike[str]):
    """A file of a connector that keeps its files in memory."""

    def __init__(self, content: bytes) -> None:
        super().__init__(BlobPath(None, PurePath("bucket/blob")))
        self.content = content
        self.reads = 0

    async def _fetch_metadata(self) -> FileMetadata:
        return FileMetadata(len(self.content), dt.datetime(2001, 9, 9))

    async def _read_impl(self, size: int = -1) -> bytes:
        self.reads += 1
        return self.content if size < 0 else self.content[:size]


def linked(path: Path) -> Path:
    """Makes a link to a file; returns it."""
    (path.parent / "link").symlink_to(path.name)
    return path.parent / "link"


LOCAL: dict[str, Callable[[Path], object]] = {
    "Path": lambda path: path,
    "Path, relative": lambda path: Path(os.path.relpath(path)),
    "Path, of a link": linked,
    "FilePath": localfs.FilePath,
    "FilePath below a key": lambda path: localfs.FilePath(f"../{path.name}", base_dir=OUT),
    "File": lambda path: localfs.File(localfs.FilePath(path)),
}
