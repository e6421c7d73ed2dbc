"""The ledger: the last-written states, in ``ledger.sqlite3`` of the state folder.

The engine forgets the children of a directory that is no longer declared, so
without the ledger nobody could tell our files from the user's. SQLite in WAL mode
with ``synchronous=NORMAL`` loses its last commits in a power cut, but never its
consistency; what must not be lost is written before the first barrier of a batch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

from msgspec.structs import astuple

from .._core.layout import GITIGNORE, LEDGER
from .._core.names import Name, leaf
from .._core.owners import Owner
from .._core.ownership import Policies
from .._core.rows import Displaced, Pending, Row, packed
from .._core.states import inode_of
from .._core.text import external
from .contents import Contents
from .database import GIVEN, decoded, opened, origin_of, translated
from .formats import FORMAT, SCHEMA, check_format, migrate
from .reader import FIELDS, MOVED_FROM, LedgerReader, root_of

__all__ = ["Ledger"]

_log = logging.getLogger("cocoindex_fsmirror")
_ROOM: Final = 32 << 10  # bytes that the log takes for a transaction beside its rows
# A cast would turn a number or a digest into text.
_TEXTS: Final = ("name", "container", "component", "target")
_MARKS: Final = ", ".join(GIVEN if each in _TEXTS else "?" for each in Row.__struct_fields__)


class Ledger(LedgerReader):
    """A ledger, open for writing. Every method raises :class:`LedgerError` if SQLite fails."""

    _synchronous = "NORMAL"
    is_crowded = False  # True if the disk was full in this update: it makes no more copies.

    @classmethod
    def open(cls, path: str, folder: int, root: str, *, wal: bool) -> Ledger:
        """Opens the ledger for writing; an empty file becomes one.

        Args:
            path: The path of the state folder.
            folder: Its descriptor, opened without following a link.
            root: The path of the root; empty if another one stands for it.
            wal: False on a file system where write-ahead logging does not work.

        Raises:
            CorruptLedgerError: The file is damaged, or no ledger.
            FileNotFoundError: There is no file.
            LedgerError: A newer release wrote it, or SQLite fails.
        """
        file = os.path.join(path, leaf(LEDGER))
        with translated(file), contextlib.ExitStack() as until:
            connection, there = opened(file, folder, "mode=rw")
            until.enter_context(contextlib.closing(connection))
            origin = origin_of(there, leaf(GITIGNORE), folder)
            ledger = cls(connection, inode_of(there), file, origin)
            found = check_format(connection, file)
            ledger._synchronous = "NORMAL" if wal else "FULL"
            connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
            connection.execute(f"PRAGMA synchronous={ledger._synchronous}")
            if not found:
                connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
            elif found < FORMAT:
                with ledger.transaction(), decoded(file):
                    migrate(connection, found)
            ledger._check_all(root)
            until.pop_all()
        return ledger

    @cached_property
    def contents(self) -> Contents:
        """The small copies beside the ledger."""
        return Contents(os.path.dirname(self.file), wal=self._synchronous == "NORMAL")

    def close(self) -> None:
        """Closes the database, and that of the copies."""
        self.contents.close()
        super().close()

    def check_format(self) -> None:
        """Refuses a ledger that a newer version has migrated since it was opened."""
        with translated(self.file):
            check_format(self._connection, self.file)

    def _check_all(self, root: str) -> None:
        """Refuses a damaged ledger; does not believe the signatures in a copied one."""
        self.check()
        deque(self.names(), 0)
        if not self.is_believed:
            if not self.is_empty() or self.owners():
                _log.warning("%s: was copied or restored; every file is read anew", self.file)
            self.distrust()
            self.set_meta(MOVED_FROM, "")
            for owner in self.owners().values():
                self.set_owner(owner)
        if self.get_meta("origin") != self.origin:
            self.set_meta("origin", self.origin)
            self._connection.execute("DELETE FROM meta WHERE key = 'inode'")
        if root and root_of(self) not in ("", root):
            # We made the root, but not the folders above it here: teardown must leave those.
            self.set_meta("made", min(1, int(str(self.get_meta("made") or 0))))
        if self.get_meta("file") != self.file:
            self.set_meta("file", self.file)
        if root and root_of(self) != root:
            self.set_meta("root", root)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes the statements of a block count all together, or not at all."""
        with translated(self.file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself if the disk was full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def set_meta(self, key: str, value: object) -> None:
        """Stores a value that belongs to the whole mirror."""
        given = GIVEN if isinstance(value, str) else "?"
        with translated(self.file):
            sql = f"INSERT OR REPLACE INTO meta VALUES (?, {given})"
            self._connection.execute(sql, (key, external(value)))

    def note(self, key: str, text: str) -> None:
        """Notes a text under a key."""
        self.set_meta(f"note:{key}", text)

    def identity(self, key: str) -> str:
        """Returns the identity that is noted for a declarer; makes one at its first use."""
        if not self.noted(key):
            self.note(key, uuid.uuid4().hex)
        return self.noted(key)

    def begin(
        self,
        intents: Sequence[Pending],
        owners: Collection[str] = (),
        update: str = "",
        *,
        durable: bool = False,
    ) -> None:
        """Stores the notes of a batch that begins; the last one for a slot counts.

        Args:
            intents: A note for each of its steps.
            owners: The owners whose epoch advances now, also if the batch is cut off later.
            update: The update that does it; the epochs stay if that is empty.
            durable: True if it must be on the disk now, instead of with the first barrier.
        """
        execute = self._connection.execute
        with translated(self.file):
            if durable:
                execute("PRAGMA synchronous=FULL")
            with self.transaction():
                for batch, owner, notes in packed(intents):
                    sql = "SELECT count(*) FROM intents WHERE batch = ? AND owner = ?"
                    part = execute(sql, (batch, owner)).fetchone()[0]
                    execute("INSERT INTO intents VALUES (?, ?, ?, ?)", (batch, owner, part, notes))
                sql = "UPDATE owners SET batches = iif(epoch = ?, batches, 0) + 1, epoch = ?"
                for owner in owners if update else ():
                    execute(f"{sql} WHERE identity = ?", (update, update, owner))
            if durable:
                execute(f"PRAGMA synchronous={self._synchronous}")

    def commit(self, rows: Iterable[Row], gone: Iterable[Name], batch: str | None = None) -> None:
        """Stores and removes rows, and ends a batch, in one transaction.

        Args:
            rows: The rows to be stored.
            gone: The names whose rows are removed.
            batch: The batch whose notes are removed.
        """
        written = list(rows)
        with self.transaction():
            execute = self._connection.executemany
            self._note_losses(written)
            execute(f"DELETE FROM rows WHERE name = {GIVEN}", ((external(name),) for name in gone))
            sql = f"INSERT OR REPLACE INTO rows ({FIELDS}) VALUES ({_MARKS})"
            try:
                execute(sql, map(astuple, written))
            except UnicodeEncodeError:  # Slower, and rarely needed.
                execute(sql, ([*map(external, astuple(row))] for row in written))
            if batch is not None:
                self._connection.execute("DELETE FROM intents WHERE batch = ?", (batch,))

    def _note_losses(self, written: list[Row]) -> None:
        """Gives each owner that loses a path to another one an epoch that fits no memory.

        So its next update declares all of its paths again, and meets the other one.
        """
        if len(self.owners()) > 1:
            before = self.rows_named(row.name for row in written)
            now = {row.name: row.owner for row in written}
            declared = [row for row in before.values() if row.declared]
            losers = {row.owner for row in declared if row.owner != now[row.name]}
            sql = "UPDATE owners SET epoch = hex(randomblob(16)), batches = 0 WHERE identity = ?"
            self._connection.executemany(sql, ((owner,) for owner in losers))

    def distrust(self) -> None:
        """Marks every file as one that has to be read before it counts as unchanged."""
        with translated(self.file):
            self._connection.execute("UPDATE rows SET recorded_ns = 0")

    def set_owner(self, owner: Owner) -> None:
        """Stores an owner."""
        values = (*owner[:2], *owner.declarer, *owner.epoch, owner.in_doubt)
        sql = f"INSERT OR REPLACE INTO owners VALUES (?, ?, {GIVEN}, ?, {GIVEN}, ?, ?, ?)"
        with translated(self.file):
            self._connection.execute(sql, [*map(external, values)])

    def room_for(self, count: int) -> int:
        """Returns the number of bytes that storing some rows may add to the write-ahead log."""
        pages = int(self._select("PRAGMA page_count")[0][0])
        # A page of 4 KiB for each row, or all pages and those of rows that are new.
        return _ROOM + min(count * 4096, pages * 4096 + count * 512)

    def save_room(self) -> None:
        """Folds the write-ahead log into the file, now and after each transaction to come."""
        self.is_crowded = True
        with contextlib.suppress(sqlite3.Error):  # A reader may still need the log.
            self._connection.execute("PRAGMA wal_autocheckpoint=1")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def set_policies(self, owner: str, policies: Mapping[str, Policies]) -> None:
        """Stores the policies of some containers of an owner."""
        with self.transaction():
            sql = f"INSERT OR REPLACE INTO policies VALUES (?, {GIVEN}, ?, ?)"
            values = ((owner, external(each), *policies[each]) for each in policies)
            self._connection.executemany(sql, values)

    def set_copied(self, names: Iterable[Name], copied: bool) -> None:
        """Records for some paths if their content has a copy."""
        with self.transaction():
            sql = f"UPDATE rows SET copied = ? WHERE name = {GIVEN}"
            self._connection.executemany(sql, ((+copied, external(name)) for name in names))

    def referred(self, digests: Collection[bytes] = ()) -> set[bytes]:
        """Returns the digests that rows with a copy have; by default of all, else among some."""
        if not digests:
            return {d for (d,) in self._select("SELECT DISTINCT digest FROM rows WHERE copied")}
        sql = "SELECT 1 FROM rows WHERE copied AND digest = ? LIMIT 1"
        return {digest for digest in digests if self._select(sql, digest)}

    def forget_copies(self, digests: Collection[bytes] | None = None) -> None:
        """Records that some contents have no copy; by default that none has."""
        with self.transaction():
            if digests is None:
                self._connection.execute("UPDATE rows SET copied = 0 WHERE copied")
            else:
                sql = "UPDATE rows SET copied = 0 WHERE copied AND digest = ?"
                self._connection.executemany(sql, ((digest,) for digest in digests))

    def set_displaced(self, added: Iterable[Displaced], ended: Iterable[Displaced]) -> None:
        """Stores and removes notes of declarations that had to give way."""
        with self.transaction():
            execute = self._connection.executemany
            given = f"name = {GIVEN} AND owner = ? AND container = {GIVEN}"
            ends = ([*map(external, note[:3])] for note in ended)
            execute(f"DELETE FROM displaced WHERE {given}", ends)
            given = f"{GIVEN}, ?, {GIVEN}, {GIVEN}, {GIVEN}, ?"
            sql = f"INSERT OR REPLACE INTO displaced VALUES ({given})"
            execute(sql, ([*map(external, note)] for note in added))

    def forget(self, owner: str) -> None:
        """Drops the rows and all notes of an owner."""
        with self.transaction():
            for table in ("rows", "displaced", "intents", "policies"):
                self._connection.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,))
            self._connection.execute("DELETE FROM owners WHERE identity = ?", (owner,))

    def set_seen(self, names: Iterable[Name], seen: bool) -> None:
        """Marks rows of declared paths whose drift an update has seen, or removes that mark."""
        with self.transaction():
            sql = f"UPDATE rows SET seen = ? WHERE name = {GIVEN} AND declared"
            self._connection.executemany(sql, ((+seen, external(name)) for name in names))
