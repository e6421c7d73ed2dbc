"""Reads the ledger: the queries, and the way to open it without changing anything.

Anybody may have made the file: names in it are checked, and a format that no release wrote is
refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar

import msgspec

from .._core.errors import LedgerError
from .._core.layout import GITIGNORE, LEDGER, LEDGER_FILES, RELIED_ON
from .._core.names import RESERVED, ROOT, Name, check_names, leaf
from .._core.owners import Owner
from .._core.ownership import Policies, PolicyTable
from .._core.rows import Displaced, Pending, Row, unpacked
from .._core.states import Kind, inode_of
from .._core.text import encoded, external
from .._disk.ours import Spot, opened_ours
from .database import GIVEN, connected, decoded, is_same_origin, opened, origin_of, translated
from .formats import FORMAT, SCHEMA, check_format, check_whole, migrated_copy

__all__ = [
    "ALL",
    "DEVICE",
    "FIELDS",
    "MOVE",
    "MOVED_FROM",
    "PAGE",
    "LedgerReader",
    "Recorded",
    "Span",
    "after",
    "root_of",
]

_T = TypeVar("_T")
FIELDS: Final = ", ".join(Row.__struct_fields__)
DEVICE: Final = "device"
"""The key of the device of the root, in a state folder elsewhere."""
MOVE: Final = "move"
"""The key of the identity of the last move, in the old and in the new ledger."""
MOVED_FROM: Final = "moved from"
"""The key of the folder from which a ledger was moved, as long as that is not emptied."""
PAGE: Final = 4096
"""Rows that are read at a time where there may be very many."""
# SQLite opens files by their paths, so that there is no ledger where a path is too long.
_NO_LEDGER: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_DECLARED_IN: Final = f"declared AND name BETWEEN {GIVEN} AND coalesce({GIVEN}, x'')"
_BELOW: Final = f"name > {GIVEN} || '/' AND name < {GIVEN} || '0'"  # "0" follows "/".
_AT_ONCE: Final = 500  # Older releases of SQLite take 999 values in a statement.

Recorded: TypeAlias = tuple[Name, str, bool, int | None, int | None, int, int, int, int, int]
"""Name, kind, if an ``lstat`` can prove it, and mode, asked_ns, recorded_ns, inode, size, mtime_ns
and ctime_ns as in a row."""


class Span(NamedTuple):
    """Some of the names of a ledger: those from a first one up to a last one."""

    first: str = ROOT
    last: str | None = None  # To SQLite every blob follows every text.


ALL: Final = Span()


def after(name: Name) -> str:
    """Returns where a span begins that holds all that follows a name."""
    return f"{name}\0"


class LedgerReader:
    """A ledger, open for reading. Every method raises :class:`LedgerError` if SQLite fails.

    Attributes:
        file: Its path, for messages.
        inode: The inode number of its file; 0 if there is none.
        origin: The identity of its file, which no copy has.
        is_copy: True if it is a copy in memory, which no writer changes.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        inode: int,
        file: str,
        origin: str = "",
        *,
        is_copy: bool = False,
    ) -> None:
        self._connection = connection
        self.file = file
        self.inode = inode
        self.origin = origin
        self.is_copy = is_copy

    @classmethod
    def peek(cls, spot: Spot) -> Self:
        """Opens the ledger in a state folder for reading; an empty one in memory if there is none.

        Changes nothing. A file without tables is no ledger yet: the first writer makes them in
        one step. Without a write-ahead log nobody has it open, so that not even the lock files of
        a WAL reader are needed (SQLite's ``immutable``).

        Raises:
            LedgerError: A newer release wrote it, it is damaged, or this user may not look.
        """
        file = os.path.join(spot.path, leaf(LEDGER))
        try:
            with opened_ours(spot, RELIED_ON) as (folder, linked):
                return cls._peek(file, folder, linked)
        except OSError as error:
            if error.errno in _NO_LEDGER:
                return cls.empty()
            hint = "grant this user read access"
            raise LedgerError(f"{file}: can't be read: {error.strerror} ({hint})") from error

    @classmethod
    def _peek(cls, file: str, folder: int, linked: set[Name]) -> Self:
        """Opens the ledger in our own folder for reading."""
        options = "mode=ro&immutable=1"
        with contextlib.suppress(FileNotFoundError):
            os.stat(f"{leaf(LEDGER)}-wal", dir_fd=folder, follow_symlinks=False)
            options = "mode=ro"
        if linked & {*LEDGER_FILES} and options == "mode=ro":  # A reader writes to the -shm file.
            problem = "is in use, and has hard links elsewhere (update once, which replaces it)"
            raise LedgerError(f"{file}: {problem}")
        with translated(file), contextlib.ExitStack() as until:
            connection, found = opened(file, folder, options)
            until.enter_context(contextlib.closing(connection))
            origin = origin_of(found, leaf(GITIGNORE), folder)
            version = check_format(connection, file)
            if version == FORMAT:
                until.pop_all()
                return cls(connection, inode_of(found), file, origin)
            if version:
                with decoded(file):
                    copy = migrated_copy(connection, version)
                return cls(copy, inode_of(found), file, origin, is_copy=True)
        return cls.empty()

    @classmethod
    def empty(cls) -> Self:
        """Makes a ledger in memory that knows nothing."""
        connection = connected("", "mode=memory")
        connection.executescript(SCHEMA)
        return cls(connection, 0, "a ledger in memory", is_copy=True)

    def close(self) -> None:
        """Closes the database; the last one to do so folds the log into it."""
        self._connection.close()

    def check(self) -> None:
        """Reads all of it, and raises :class:`CorruptLedgerError` if it is damaged anywhere."""
        with translated(self.file):
            check_whole(self._connection, self.file)
            self.owners(), self.displaced(), self.pending()

    @property
    def is_believed(self) -> bool:
        """True if this very file recorded its signatures: it was not copied, nor put back."""
        recorded = self.get_meta("origin")
        if recorded is None:  # Up to format 3, which an inode number that came back deceived.
            return self.get_meta("inode") == self.inode
        return is_same_origin(str(recorded), self.origin)

    @property
    def is_in_doubt(self) -> bool:
        """True if it may be of another time, or remember paths that are declared no longer."""
        return not self.is_believed or any(each.in_doubt for each in self.owners().values())

    def get_meta(self, key: str) -> object:
        """Returns a value that belongs to the whole mirror, or ``None``."""
        found = self._select("SELECT value FROM meta WHERE key = ?", key)
        return found[0][0] if found else None

    def noted(self, key: str) -> str:
        """Returns the text that was noted under a key; empty if there is none."""
        return str(self.get_meta(f"note:{key}") or "")

    def rows(self, where: str = "TRUE", *values: str | bytes | None, limit: int = -1) -> list[Row]:
        """Lists the rows that satisfy a condition, by name."""
        sql = f"SELECT {FIELDS} FROM rows WHERE {where} ORDER BY name LIMIT {limit}"
        return self._converted(self._named(sql, *values), list[Row])

    def page(self, span: Span) -> list[Row]:
        """Lists the first rows of declared paths in a span, :data:`PAGE` at most, by name."""
        return self.rows(_DECLARED_IN, *span, limit=PAGE)

    def signatures(self, span: Span) -> list[Recorded]:
        """Lists the columns that an ``lstat`` is compared with, for the rows of :meth:`page`."""
        sql = (
            "SELECT name, kind, NOT (unsynced OR seen), mode, asked_ns, recorded_ns, inode, size,"
            f" mtime_ns, ctime_ns FROM rows WHERE {_DECLARED_IN} ORDER BY name LIMIT {PAGE}"
        )
        return self._named(sql, *span)

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
                listed = [name for (name,) in some]
                with decoded(self.file):
                    check_names(listed)
                yield from listed

    def figures(self) -> tuple[int, ...]:
        """Counts owners, leaves, folders, bytes, the time of the last record, and copied paths."""
        sql = (
            "SELECT count(DISTINCT owner), count(*) FILTER (WHERE kind <> ?), count(*) FILTER"
            " (WHERE kind = ?), coalesce(sum(size), 0), coalesce(max(recorded_ns), 0),"
            " coalesce(sum(copied), 0) FROM rows"
        )
        return tuple(self._select(sql, Kind.DIR, Kind.DIR)[0])

    def rows_named(self, names: Iterable[Name]) -> dict[Name, Row]:
        """Returns the rows of some names, in the order of the names."""
        wanted, found = sorted(names, key=encoded), dict[Name, Row]()
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ", ".join([GIVEN] * len(some))
            found.update((row.name, row) for row in self.rows(f"name IN ({marks})", *some))
        return found

    def rows_below(self, name: Name) -> list[Row]:
        """Lists the rows of everything inside a folder."""
        return self.rows(_BELOW, name, name)

    def rows_of(self, owner: str, container: str = "") -> list[Row]:
        """Lists the rows of an owner, or of one of its containers and those below it."""
        inside = "instr(CAST(container AS BLOB), ?) = 1"
        return self.rows(f"owner = ? AND {inside}", owner, encoded(container))

    def is_declared(self, name: Name, *, is_folder: bool) -> bool:
        """True if a path is declared (a folder: as a folder), or if something below it is."""
        sql = "SELECT 1 FROM rows WHERE declared AND {} LIMIT 1"
        at = f"name = {GIVEN}" + (" AND kind = 'dir'" if is_folder else "")
        is_there = self._select(sql.format(at), name)
        return bool(is_there or self._select(sql.format(_BELOW), name, name))

    def deserted(self, owner: str) -> list[Row]:
        """Lists folders that an owner made for what is no longer declared, the deepest first."""
        below = "below.name > rows.name || '/' AND below.name < rows.name || '0'"
        # As a rule the last row below a folder is of a file. From the first one on, a search
        # would pass all rows of a chain of folders, for each folder in it.
        found = self.rows(
            "owner = ? AND kind = ? AND made AND NOT declared AND (SELECT 1 FROM rows AS below"
            f" WHERE {below} AND (declared OR kind <> ?) ORDER BY name DESC LIMIT 1) IS NULL",
            *(owner, Kind.DIR, Kind.DIR),
        )
        return found[::-1]

    def count(self, owner: str = "") -> int:
        """Counts the files and links of an owner, or of all owners."""
        sql = "SELECT count(*) FROM rows WHERE kind <> ? AND ? IN ('', owner)"
        return int(self._select(sql, Kind.DIR, owner)[0][0])

    def is_empty(self) -> bool:
        """True if nothing at all is managed."""
        return not self._select("SELECT 1 FROM rows UNION ALL SELECT 1 FROM intents LIMIT 1")

    def displaced(self) -> list[Displaced]:
        """Lists the declared paths that had to give way."""
        sql = 'SELECT name, owner, container, component, "by", seen FROM displaced'
        return self._converted(self._named(sql), list[Displaced])

    def policies(self) -> PolicyTable:
        """Returns the policies of all directory targets."""
        found = self._select("SELECT owner, container, copies, on_conflict FROM policies")
        values = self._converted([each[2:] for each in found], list[Policies])
        keys = ((str(owner), str(container)) for owner, container, *_ in found)
        return PolicyTable(dict(zip(keys, values, strict=True)))

    def pending(self) -> list[Pending]:
        """Lists the notes that an interrupted batch left, by batch and name."""
        found = self._select("SELECT batch, notes FROM intents ORDER BY batch, owner, part")
        with decoded(self.file):
            notes = [note for batch, packed in found for note in unpacked(batch, packed)]
            homes = {note.home for note in notes} - {ROOT}
            check_names([*homes, *(note.row.name for note in notes)])
        last = {(note.batch, note.home, note.entry): note for note in notes}
        return sorted(last.values(), key=lambda note: (note.batch, note.row.name))

    def owners(self) -> dict[str, Owner]:
        """Returns the owners by identity, in the order in which they came."""
        columns = 'identity, since_ns, "by", database, place, epoch, batches, in_doubt'
        sql = f"SELECT {columns} FROM owners ORDER BY since_ns, identity"
        rows = ((*each[:2], each[2:5], each[5:7], each[7]) for each in self._select(sql))
        found = {owner.identity: owner for owner in self._converted([*rows], list[Owner])}
        is_copied = self.get_meta("file") != self.file
        put_back = {each: owner.put_back(is_copied=is_copied) for each, owner in found.items()}
        return found if self.is_believed else put_back

    def _select(self, sql: str, *values: str | bytes | None) -> list[Any]:
        """Returns the rows that a query finds."""
        with translated(self.file):
            return self._connection.execute(sql, [*map(external, values)]).fetchall()

    def _named(self, sql: str, *values: str | bytes | None) -> list[Any]:
        """Returns the rows that a query finds, and checks the name at the front of each."""
        found = self._select(sql, *values)
        with decoded(self.file):
            check_names([first for first, *_ in found])
        return found

    def _converted(self, found: list[Any], kind: type[_T]) -> _T:
        """Returns what a query found as values of a type; SQLite would give any others, too."""
        with decoded(self.file):
            return msgspec.convert(found, kind, strict=False)


def root_of(ledger: LedgerReader) -> str:
    """Returns the path of the root when it was last opened for writing; empty if unknown."""
    file = str(ledger.get_meta("file") or "")
    told = file.removesuffix(f"/{RESERVED}/{leaf(LEDGER)}")  # Of before a state directory.
    return str(ledger.get_meta("root") or (told if told != file else ""))
