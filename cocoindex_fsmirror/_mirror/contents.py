"""Contents: a SQLite database of small contents, each with its digest as its key.

They are compressed where that makes them smaller, and checked when they are taken out.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import zstandard

from .._core.layout import COPIES
from .._core.states import digest_of
from .database import opened, translated

__all__ = ["SMALL", "Contents"]

SMALL: Final = 1 << 16
"""The size of the largest content that is stored, in bytes."""
_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS contents
(digest BLOB PRIMARY KEY, is_packed INTEGER NOT NULL, content BLOB NOT NULL)"""
_LEVEL: Final = 1
"""Of zstandard. In one run, for 16 KiB of text: 78 us, against 106 with level 3 and 199 with zlib,
which compress as well; random bytes take 2 us a KiB, against 43 with zlib."""
_WORTH_PACKING: Final = 4096
"""The size from which contents are compressed, in bytes. For 1 KiB of text that takes 8 us, twice
as long as to store it, and saves 0.4 KiB, where the file itself takes 4 KiB of a disk."""
_PAGE: Final = 32768
"""The size of a page, in bytes. In SQLite's 4096, contents of 1 KiB take a quarter more room,
and in less than this they take longer to be stored."""
_T = TypeVar("_T")


class Contents:
    """The small contents of one mirror. Every method raises :class:`LedgerError` if SQLite fails.

    Args:
        folder: The path of our own folder.
        wal: False on a file system where write-ahead logging does not work.
        changes: False to change nothing, not even the lock files of SQLite.
    """

    def __init__(self, folder: str, *, wal: bool = True, changes: bool = True) -> None:
        self._file = os.path.join(folder, os.path.basename(COPIES))
        self._changes = changes
        self._journal = "WAL" if wal else "DELETE"
        self._connection: sqlite3.Connection | None = None
        self._found: os.stat_result | None = None

    def close(self) -> None:
        """Closes the database; it is opened again when it is needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def insert(self, folder: int, contents: Mapping[bytes, bytes]) -> None:
        """Stores contents, by digest, in one transaction.

        Args:
            folder: The descriptor of our own folder, in which the file of the database exists.
            contents: The contents.
        """
        pack = zstandard.ZstdCompressor(level=_LEVEL).compress
        rows = (
            (digest, *_smaller(content, pack(content)))
            if len(content) >= _WORTH_PACKING
            else (digest, False, content)
            for digest, content in contents.items()
        )
        sql = "INSERT OR IGNORE INTO contents (digest, is_packed, content) VALUES (?, ?, ?)"
        self._run(folder, lambda connection: connection.executemany(sql, rows))

    def take(self, folder: int, digest: bytes) -> bytes | None:
        """Returns a content; ``None`` if it is missing or damaged."""
        sql = "SELECT is_packed, content FROM contents WHERE digest = ?"
        found = self._run(folder, lambda connection: connection.execute(sql, (digest,)).fetchone())
        with contextlib.suppress(TypeError, zstandard.ZstdError):
            is_packed, content = found
            if is_packed:  # A damaged one may claim any size.
                content = zstandard.ZstdDecompressor().stream_reader(content).read(SMALL + 1)
            if digest_of(content) == digest:
                return bytes(content)
        return None

    def digests(self, folder: int) -> set[bytes]:
        """Returns the digests of all contents."""
        sql = "SELECT digest FROM contents"
        return {d for (d,) in self._run(folder, lambda connection: [*connection.execute(sql)])}

    def remove(self, folder: int, digests: Iterable[bytes]) -> None:
        """Removes contents, some of which may be missing."""
        values = [(digest,) for digest in digests]
        sql = "DELETE FROM contents WHERE digest = ?"
        self._run(folder, lambda connection: connection.executemany(sql, values))

    def _run(self, folder: int, act: Callable[[sqlite3.Connection], _T]) -> _T:
        """Calls a function with the database, in a transaction."""
        with translated(self._file), self._opened(folder) as connection:
            connection.execute("BEGIN IMMEDIATE" if self._changes else "BEGIN")
            return act(connection)

    def _opened(self, folder: int) -> sqlite3.Connection:
        """Returns the connection, anew if the file is another one than before."""
        there = os.stat(os.path.basename(COPIES), dir_fd=folder, follow_symlinks=False)
        if self._connection is not None and self._found is not None:
            if os.path.samestat(there, self._found):
                return self._connection
            self.close()
        connection, self._found = opened(self._file, folder, self._options(folder))
        with contextlib.ExitStack() as until:
            until.enter_context(contextlib.closing(connection))
            if self._changes:
                connection.execute(f"PRAGMA page_size={_PAGE}")
                connection.execute(f"PRAGMA journal_mode={self._journal}")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_SCHEMA)
            until.pop_all()
        self._connection = connection
        return connection

    def _options(self, folder: int) -> str:
        """Returns the options with which SQLite opens the file."""
        if self._changes:
            return "mode=rw"
        with contextlib.suppress(FileNotFoundError):
            os.stat(f"{os.path.basename(COPIES)}-wal", dir_fd=folder, follow_symlinks=False)
            return "mode=ro"
        return "mode=ro&immutable=1"  # Nobody has it open, as with a ledger.


def _smaller(content: bytes, packed: bytes) -> tuple[bool, bytes]:
    """Returns if a content is stored packed, and what is stored."""
    return (True, packed) if len(packed) < len(content) else (False, content)
