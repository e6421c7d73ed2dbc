"""Reads the ledger: the queries, and the way to open it without changing anything."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Self, TypeAlias

from .._core.errors import InvalidNameError, LedgerError
from .._core.layout import LEDGER
from .._core.names import ROOT, Name, check_names
from .._core.rows import Displaced, Row
from .._core.states import Kind
from .formats import FORMAT, SCHEMA, CorruptLedgerError, check_format, migrated_copy
from .notes import Pending, unpacked

__all__ = [
    "ALL",
    "PAGE",
    "LedgerReader",
    "Recorded",
    "Span",
    "connected",
    "is_new",
    "translated",
]

PAGE: Final = 4096
"""Rows that are read at a time where there may be very many."""
_IN: Final = 500  # values in one IN (...); SQLite's limit was 999 for long
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_HINTS: Final = {
    sqlite3.SQLITE_FULL: "free some space, then update again",
    sqlite3.SQLITE_READONLY: "grant this user write access",
    sqlite3.SQLITE_CANTOPEN: "grant this user write access",
    sqlite3.SQLITE_IOERR: "is there space left? else check the disk",
}
_FIELDS: Final = ", ".join(Row.__struct_fields__)
_BELOW: Final = "name > ? || '/' AND name < ? || '0'"  # "0" follows "/".

Recorded: TypeAlias = tuple[Name, str, bool, int | None, int | None, int, int, int, int, int]
"""Name, kind, if an ``lstat`` can prove it, and mode, asked_ns, recorded_ns, inode, size, mtime_ns
and ctime_ns as in a row."""


class Span(NamedTuple):
    """Some of the names of a ledger: those after one and up to another, or only one."""

    after: Name = ROOT
    until: Name = ROOT
    only: Name = ROOT

    @property
    def condition(self) -> tuple[str, tuple[Name, ...]]:
        """A condition in SQL for which no other row is read, and its values."""
        if self.only:
            return "name > ? AND name = ?", (self.after, self.only)
        if self.until:
            return "name > ? AND name <= ?", (self.after, self.until)
        return "name > ?", (self.after,)


ALL: Final = Span()


class LedgerReader:
    """A ledger, open for reading. Every method raises :class:`LedgerError` if SQLite fails.

    Attributes:
        file: Its path, for messages.
        inode: Of its file; 0 if it has none.
        is_copy: True if it is a copy in memory, which no writer changes.
    """

    def __init__(
        self, connection: sqlite3.Connection, inode: int, file: str, *, is_copy: bool = False
    ) -> None:
        self._connection = connection
        self.file = file
        self.inode = inode
        self.is_copy = is_copy

    @staticmethod
    def peek(path: str) -> LedgerReader | None:
        """Opens the ledger of a root for reading; returns ``None`` if there is none.

        Changes nothing. A file without tables is none: the first writer makes them in one
        step. Without a write-ahead log nobody has it open, so that not even the lock files of
        a WAL reader are needed (SQLite's ``immutable``).

        Raises:
            LedgerError: A newer release wrote it, it is damaged, or this user may not look.
        """
        file = os.path.join(path, LEDGER)
        try:
            found = os.lstat(file)
            has_log = _exists(f"{file}-wal")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            hint = "grant this user read access"
            raise LedgerError(f"{file}: can't be read: {error.strerror} ({hint})") from error
        if not stat.S_ISREG(found.st_mode):
            raise CorruptLedgerError(f"{file}: not a regular file")
        with translated(file), contextlib.ExitStack() as opened:
            connection = connected(file, "mode=ro" if has_log else "mode=ro&immutable=1")
            opened.enter_context(contextlib.closing(connection))
            if is_new(connection):
                return None
            version = check_format(connection, file)
            if version < FORMAT:
                copy = migrated_copy(connection, version)
                return LedgerReader(copy, found.st_ino, file, is_copy=True)
            opened.pop_all()
            return LedgerReader(connection, found.st_ino, file)

    @classmethod
    def empty(cls) -> Self:
        """Makes a ledger in memory, that knows nothing."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.executescript(SCHEMA)
        return cls(connection, 0, "a ledger in memory", is_copy=True)

    def close(self) -> None:
        """Closes the database; the last one to do so folds the log into it."""
        self._connection.close()

    @property
    def is_believed(self) -> bool:
        """True if its signatures were recorded by this very file, not by a copy's original."""
        return self.get_meta("inode") == self.inode

    def get_meta(self, key: str) -> object:
        """Returns a value that belongs to the whole mirror, or ``None``."""
        found = self._select("SELECT value FROM meta WHERE key = ?", key)
        return found[0][0] if found else None

    def noted(self, key: str) -> str:
        """Returns a text that was noted for whoever keeps this mirror; empty if there is none."""
        return str(self.get_meta(f"note:{key}") or "")

    def rows(self, where: str = "TRUE", *values: str, limit: int = -1) -> list[Row]:
        """Lists the rows that satisfy a condition, by name."""
        sql = f"SELECT {_FIELDS} FROM rows WHERE {where} ORDER BY name LIMIT {limit}"
        return list(itertools.starmap(Row, self._named(sql, *values)))

    def page(self, span: Span) -> list[Row]:
        """Lists the first few rows of declared paths in a span, by name."""
        where, names = span.condition
        return self.rows(f"declared AND {where}", *names, limit=PAGE)

    def signatures(self, span: Span) -> list[Recorded]:
        """Lists what a look at the first few declared paths in a span needs, by name."""
        where, names = span.condition
        sql = (
            "SELECT name, kind, NOT (unsynced OR seen), mode, asked_ns, recorded_ns, inode, size,"
            f" mtime_ns, ctime_ns FROM rows WHERE declared AND {where} ORDER BY name LIMIT {PAGE}"
        )
        return self._named(sql, *names)

    def middle(self) -> Name:
        """Returns the name that about one half of all follow; empty if there is none."""
        # Without a condition, which would have to look into every row.
        half = "SELECT count(*) / 2 FROM rows"
        found = self._named(f"SELECT name FROM rows ORDER BY name LIMIT 1 OFFSET ({half})")
        return found[0][0] if found else ROOT

    def names(self, where: str = "TRUE", *values: str) -> Iterator[Name]:
        """Yields the names of rows; nothing may be written meanwhile."""
        with translated(self.file):
            sql = f"SELECT name FROM rows WHERE {where} ORDER BY name"
            cursor = self._connection.execute(sql, values)
            while some := cursor.fetchmany(PAGE):
                _check_names(some)
                yield from (name for (name,) in some)

    def figures(self) -> tuple[int, int, int, int, int]:
        """Counts owners, leaves, folders and bytes; tells the time of the last record."""
        sql = (
            "SELECT count(DISTINCT owner), count(*) FILTER (WHERE kind <> ?),"
            " count(*) FILTER (WHERE kind = ?), sum(size), max(recorded_ns) FROM rows"
        )
        found = self._select(sql, Kind.DIR, Kind.DIR)[0]
        owners, leaves, folders, size, recorded = (int(figure or 0) for figure in found)
        return owners, leaves, folders, size, recorded

    def rows_named(self, names: Iterable[Name]) -> dict[Name, Row]:
        """Returns the rows of some names."""
        found: list[Row] = []
        wanted = sorted(set(names))
        for start in range(0, len(wanted), _IN):
            some = wanted[start : start + _IN]
            found += self.rows(f"name IN ({','.join('?' * len(some))})", *some)
        return {row.name: row for row in found}

    def rows_below(self, name: Name) -> list[Row]:
        """Lists the rows of everything inside a folder."""
        return self.rows(_BELOW, name, name)

    def rows_of(self, owner: str, container: str = "") -> list[Row]:
        """Lists the rows of an owner, or of one of its containers and those below it."""
        inside = "substr(container, 1, length(?)) = ?"
        return self.rows(f"owner = ? AND {inside}", owner, container, container)

    def is_declared(self, name: Name, *, is_folder: bool) -> bool:
        """True if a path, or something below it, is declared; of a folder, as a folder."""
        sql = "SELECT 1 FROM rows WHERE declared AND {} LIMIT 1"
        at = "name = ? AND kind = 'dir'" if is_folder else "name = ?"
        is_there = self._select(sql.format(at), name)
        return bool(is_there or self._select(sql.format(_BELOW), name, name))

    def deserted(self, owner: str) -> list[Row]:
        """Lists folders that an owner made for what is no longer declared, the deepest first."""
        below = "below.name > rows.name || '/' AND below.name < rows.name || '0'"
        found = self.rows(
            "owner = ? AND kind = ? AND made AND NOT declared AND NOT EXISTS"
            f" (SELECT 1 FROM rows AS below WHERE {below} AND (declared OR kind <> ?))",
            *(owner, Kind.DIR, Kind.DIR),
        )
        return found[::-1]

    def count(self, owner: str = "") -> int:
        """Counts the files and links of an owner, or of all."""
        sql = "SELECT count(*) FROM rows WHERE kind <> ? AND ? IN ('', owner)"
        return int(self._select(sql, Kind.DIR, owner)[0][0])

    def is_empty(self) -> bool:
        """True if nothing at all is managed."""
        return not self._select("SELECT 1 FROM rows UNION ALL SELECT 1 FROM intents LIMIT 1")

    def displaced(self) -> list[Displaced]:
        """Lists the declared paths that had to give way."""
        sql = 'SELECT name, owner, container, component, "by", seen FROM displaced'
        return [Displaced._make(found) for found in self._select(sql)]

    def pending(self) -> list[Pending]:
        """Lists the intents that an interrupted batch left, by batch and name."""
        found = self._select("SELECT batch, notes FROM intents ORDER BY batch, owner, part")
        notes = [note for batch, packed in found for note in unpacked(batch, packed)]
        _check_names([(note.row.name,) for note in notes])
        last = {(note.batch, note.home, note.entry): note for note in notes}
        return sorted(last.values(), key=lambda note: (note.batch, note.row.name))

    def owners(self) -> list[tuple[str, str, int]]:
        """Lists who writes here: the identity, who that is, and since when, in nanoseconds."""
        sql = "SELECT substr(key, 7), value FROM meta WHERE key LIKE 'owner:%'"
        parts = [(identity, *str(value).partition(" ")) for identity, value in self._select(sql)]
        return [(identity, by, int(since or 0)) for identity, since, _, by in parts]

    def _select(self, sql: str, *values: str) -> list[Any]:
        """Returns what a query finds."""
        with translated(self.file):
            return self._connection.execute(sql, values).fetchall()

    def _named(self, sql: str, *values: str) -> list[Any]:
        """Returns what a query finds, each with a name at its front."""
        found = self._select(sql, *values)
        _check_names(found)
        return found


def connected(file: str, options: str) -> sqlite3.Connection:
    """Connects to the database in a file.

    Args:
        file: Its path.
        options: Those of SQLite's URI.
    """
    quoted = file.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file:{quoted}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def is_new(connection: sqlite3.Connection) -> bool:
    """True if a database still has no tables."""
    return not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def _exists(file: str) -> bool:
    """True if a file is there; unlike :func:`os.path.exists`, raises what keeps us from looking."""
    try:
        os.lstat(file)
    except FileNotFoundError:
        return False
    return True


def _check_names(found: list[Any]) -> None:
    """Refuses names that we would never have stored; the file may have been made by anybody."""
    try:
        check_names([first for first, *_ in found])
    except (InvalidNameError, TypeError) as error:
        raise CorruptLedgerError(f"holds what is no name: {error}") from error


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raises our errors instead of SQLite's."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorruptLedgerError(f"{what}: holds what is no text") from error
    except sqlite3.Error as error:
        # Without a code it is Python's complaint about a value that can't be decoded.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _CORRUPT:
            raise CorruptLedgerError(f"{what}: {error}") from error
        hint = _HINTS.get(code, "")
        raise LedgerError(f"{what}: {error}" + (f" ({hint})" if hint else "")) from error
