"""Session: locks a root for one batch at a time, opens its ledger and recovers.

Threads and processes that work on one root take turns. A corrupt ledger is set aside, and the batch
is tried once more with an empty one. The lock ends with the batch, however that ends.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from .._core.errors import CorruptLedgerError, RootError
from .._core.layout import (
    COPIES_FILES,
    COPIES_SHARED_MEMORY,
    FOLDER,
    GITIGNORE,
    LARGE_COPIES,
    LEDGER,
    LEDGER_FILES,
    LOCK,
    RELIED_ON,
    SHARED_MEMORY,
    corrupt_ledger,
    is_engine,
)
from .._core.names import ROOT, Name, leaf
from .._core.states import ABSENT
from .._disk.homes import mount_of, stamp_now, try_abilities
from .._disk.ours import check_ours, renew
from .._disk.roots import hold, lock, make_mappable, open_root, sync_above
from .._disk.tree import Tree
from .copies import restock
from .ledger import Ledger
from .recover import recover
from .shelf import remove_misplaced

__all__ = ["PATIENCE", "Session", "held"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")
PATIENCE: Final = 10.0
"""The longest time to wait for another writer, in seconds."""


class Session:
    """The only way to change a root; the ledger stays open between batches.

    Args:
        root: The path of the root.
        patience: The longest time to wait for another writer, in seconds.

    Attributes:
        root: The path of the root.
        ledger: The ledger of the root, while it is open.
    """

    def __init__(self, root: str, patience: float = PATIENCE) -> None:
        self.root = root
        self.ledger: Ledger | None = None
        self._patience = patience
        self._mutex = threading.RLock()

    def close(self) -> None:
        """Closes the ledger; the session can be used again afterwards."""
        with self._mutex:
            if self.ledger is not None:
                self.ledger.close()
                self.ledger = None

    def run(
        self,
        act: Callable[[Tree, Ledger], _T],
        *,
        create: bool = False,
        parents: bool = True,
        durable: bool = True,
    ) -> _T:
        """Calls a function with the root locked, recovered, and its ledger open.

        Args:
            act: The function; called once more, with a new ledger, if the ledger is corrupt.
            create: True to make a missing root.
            parents: True to make missing folders above the root as well.
            durable: True if a root that was made has to survive a power cut.

        Raises:
            LockedError: Another writer holds the root.
            RootError: The root can't be used.
        """
        try:
            with self._mutex, self._locked(create=create, parents=parents) as (tree, made):
                try:
                    return act(tree, self._recovered(tree, made, durable=durable))
                except CorruptLedgerError as error:
                    self.close()
                    _set_aside(tree, error)
                try:
                    return act(tree, self._recovered(tree, made, durable=durable))
                except CorruptLedgerError:
                    self.close()
                    raise
        except OSError as error:
            at = f" at {error.filename!r}" if error.filename else ""
            problem = f"can't be worked on: {error.strerror or error}{at}"
            raise RootError(
                self.root, problem, "check the file system, then update again"
            ) from error

    @contextlib.contextmanager
    def _locked(self, *, create: bool, parents: bool) -> Iterator[tuple[Tree, int]]:
        """Opens and locks the root; yields the number of folders that were made for it, too."""
        made = 0
        while True:
            tree, now = open_root(self.root, create=create, parents=parents)
            made += now
            with contextlib.closing(tree):
                lock(tree, self._patience)
                if _is_at(tree, self.root):  # Else the root was replaced while we waited.
                    _prepare_folder(tree)
                    yield tree, made
                    return

    def _recovered(self, tree: Tree, made: int, *, durable: bool) -> Ledger:
        """Opens the ledger, and settles what an interrupted batch left."""
        ledger = self._open_ledger(tree)
        if made:
            ledger.set_meta("made", made)  # Teardown removes as many folders.
            if durable:
                tree.sync()
                if not tree.can_syncfs:
                    sync_above(tree.path, made)
        try_abilities(tree)
        if recover(tree, ledger):
            restock(tree, ledger)
        return ledger

    def _open_ledger(self, tree: Tree) -> Ledger:
        """Opens the ledger of the root, anew if its file is another one than at the last batch."""
        remove_misplaced(tree)
        folder = tree.folder(FOLDER)
        if check_ours(folder, tree.path, RELIED_ON) & {*LEDGER_FILES, *COPIES_FILES}:
            for name in (SHARED_MEMORY, COPIES_SHARED_MEMORY):  # SQLite makes them anew.
                tree.remove_file(name)
            renew(folder, (*LEDGER_FILES, *COPIES_FILES))
        there = tree.signature(LEDGER)
        if self.ledger is not None and there is not None and there.inode == self.ledger.inode:
            self.ledger.check_format()
            return self.ledger
        self.close()
        tree.make_file(LEDGER)
        if tree.can_syncfs:
            make_mappable(tree, SHARED_MEMORY)
        self.ledger = Ledger.open(self.root, tree.folder(FOLDER), network=not tree.can_syncfs)
        for name in filter(is_engine, tree.names_in(FOLDER)):  # Earlier releases left it.
            with contextlib.suppress(OSError):
                tree.remove_all(name)
        return self.ledger


@contextlib.contextmanager
def held(session: Session) -> Iterator[None]:
    """Locks a root against others that call this function, for longer than a batch.

    Raises:
        LockedError: Another process holds the lock; the message names it.
    """
    fd = session.run(lambda tree, _ledger: hold(tree, LOCK))
    try:
        yield
    finally:
        os.close(fd)


def _is_at(tree: Tree, path: str) -> bool:
    """True if an open root is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(tree.fd), os.stat(path))
    except FileNotFoundError:
        return False


def _prepare_folder(tree: Tree) -> None:
    """Makes our folder in a root, which has to be writable."""
    hint = "choose another root, or give this user write access"
    if os.fstatvfs(tree.fd).f_flag & os.ST_RDONLY:
        raise RootError(tree.path, "is on a read-only file system", "remount it writable")
    try:
        tree.make_folder(FOLDER, 0o700)
        if tree.look(LEDGER).state is ABSENT:  # The ledger is made last.
            tree.remove_file(GITIGNORE)  # A crash may have torn it.
            tree.make_file(GITIGNORE, b"*\n")
        is_elsewhere = mount_of(tree, FOLDER) != ROOT
    except OSError as error:
        raise RootError(tree.path, f"can't be written: {error.strerror}", hint) from error
    if is_elsewhere:
        problem = f"has its {FOLDER} on another mount, from where nothing can be renamed into place"
        raise RootError(tree.path, problem, "unmount it")


def _set_aside(tree: Tree, error: CorruptLedgerError) -> None:
    """Renames a corrupt ledger, so that an empty one can take its place."""
    names = (corrupt_ledger(stamp_now(), attempt) for attempt in itertools.count())
    aside = next(name for name in names if tree.look(name).state is ABSENT)
    for name in LEDGER_FILES:
        with contextlib.suppress(FileNotFoundError):
            tree.move(name, Name(aside + name.removeprefix(LEDGER)))
    for name in (*COPIES_FILES, LARGE_COPIES):  # Nobody knows their paths any more.
        tree.remove_all(name)
    _log.warning(
        "%s: the ledger was corrupt (%s) and was set aside as %s; identical files are adopted",
        tree.path,
        error,
        leaf(aside),
    )
