"""Database: SQLite as the ledger uses it: connections, names and errors.

A name may be no UTF-8: the database holds its bytes as TEXT, and compares bytes. So names are
given to SQLite as text or bytes, with a cast.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from typing import Final

import msgspec

from .._core.errors import CorruptLedgerError, InvalidNameError, LedgerError
from .._core.text import internal
from .._disk.calls import is_open

__all__ = [
    "GIVEN",
    "connected",
    "decoded",
    "is_same_origin",
    "opened",
    "origin_of",
    "translated",
]

GIVEN: Final = "CAST(? AS TEXT)"
"""A name, or another text that may be bytes, in a statement."""
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_HINTS: Final = {
    sqlite3.SQLITE_FULL: "free some space, then update again",
    sqlite3.SQLITE_READONLY: "grant this user write access to it, and to its -wal and -shm",
    sqlite3.SQLITE_CANTOPEN: "grant this user access, or raise the limit of open files",
    sqlite3.SQLITE_IOERR: "is there space left, and no limit on sizes? else check the disk",
}


def connected(file: str, options: str) -> sqlite3.Connection:
    """Connects to the database in a file.

    Args:
        file: Its path.
        options: Those of SQLite's URI.
    """
    quoted = os.path.abspath(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file://{quoted}?{options}"  # Without the slashes, //x/y would be y on the host x.
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.text_factory = internal
    # A planted schema may call functions; one is refused later, by `check_format`.
    connection.execute("PRAGMA trusted_schema=OFF")
    for pragma in ("fullfsync", "checkpoint_fullfsync"):  # For macOS; elsewhere without effect.
        connection.execute(f"PRAGMA {pragma}=ON")
    return connection


def opened(file: str, folder: int, options: str) -> tuple[sqlite3.Connection, os.stat_result]:
    """Opens a database in our own folder.

    Args:
        file: Its path.
        folder: The descriptor of the folder that it is in, opened without following a link.
        options: Those of SQLite's URI.

    Returns:
        The connection, and the result of ``lstat`` for the file.

    Raises:
        CorruptLedgerError: It is no regular file.
        FileNotFoundError: There is no file.
        LedgerError: It was replaced meanwhile.
        sqlite3.Error: SQLite fails.
    """
    there = os.stat(os.path.basename(file), dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(there.st_mode):
        raise CorruptLedgerError(f"{file}: not a regular file")
    connection = connected(file, options)
    # SQLite knows paths only, and a folder above may have become a link.
    if not is_open(there):
        connection.close()
        raise LedgerError(f"{file}: was replaced while we opened it")
    return connection, there


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raises our errors instead of SQLite's."""
    try:
        yield
    except UnicodeDecodeError as error:  # In a message of SQLite, about a table or a column.
        raise CorruptLedgerError(f"{what}: holds bytes that are no text") from error
    except MemoryError as error:
        raise LedgerError(f"{what}: out of memory (raise the limit, then try again)") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # None if Python complains.
        if code in _CORRUPT:
            raise CorruptLedgerError(f"{what}: {error}") from error
        hint = _HINTS.get(code, "")
        raise LedgerError(f"{what}: {error}" + (f" ({hint})" if hint else "")) from error


@contextlib.contextmanager
def decoded(file: str) -> Iterator[None]:
    """Raises :class:`CorruptLedgerError` if a value that was stored is not what it should be."""
    try:
        yield
    except (msgspec.DecodeError, InvalidNameError, TypeError) as error:
        raise CorruptLedgerError(f"{file}: holds what no release stores: {error}") from error


def origin_of(found: os.stat_result, marker: str, folder: int | None = None) -> str:
    """Returns the identity of a ledger's file, which changes when it is copied or put back.

    A file that is restored often gets the inode number that it had. A second file beside it,
    which we never change, gets a new ctime then.

    Args:
        found: The result of ``lstat`` for the ledger.
        marker: The path of the second file.
        folder: The descriptor of the folder that a relative path counts from.
    """
    try:
        beside = os.stat(marker, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return f"{found.st_ino}"
    return f"{found.st_ino} {beside.st_ino} {beside.st_ctime_ns}"


def is_same_origin(recorded: str, now: str) -> bool:
    """True if a ledger's file was neither copied nor put back since its origin was recorded.

    If the second file has another inode number, but its old ctime, the file system numbers its
    files anew at each mount, and the numbers prove nothing.
    """
    before, after = recorded.split(), now.split()
    is_renumbered = before[1:2] != after[1:2] and before[2:] == after[2:] != []
    return recorded == now or is_renumbered
