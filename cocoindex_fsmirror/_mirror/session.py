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
from .._core.names import ROOT, STATE, Name, leaf
from .._core.states import ABSENT
from .._disk.homes import leave_root, mount_of, stamp_now, try_abilities
from .._disk.locations import Location, Root
from .._disk.ours import check_ours, renew
from .._disk.roots import (
    hold,
    is_mappable,
    lock,
    make_mappable,
    make_spot,
    open_root,
    read_abilities,
    set_mark,
    sync_above,
)
from .._disk.tree import Tree
from .copies import restock
from .known import Found, check_alone, find
from .ledger import Ledger
from .look import entries
from .reader import DEVICE
from .recover import recover
from .shelf import remove_misplaced
from .state_folder import end_move, enter_state, move, tell_state

__all__ = ["PATIENCE", "Session", "held"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")
PATIENCE: Final = 10.0
"""The longest time to wait for another writer, in seconds."""


class Session:
    """The only way to change a root; the ledger stays open between batches.

    Args:
        root: The root.
        patience: The longest time to wait for another writer, in seconds.

    Attributes:
        location: Where the mirror is.
        root: The path of the root.
        ledger: The ledger of the root, while it is open.
        found: Its state folder, as it was found last.
    """

    def __init__(self, root: Root, patience: float = PATIENCE) -> None:
        self.location = Location.of(root)
        self.root = self.location.root
        self.ledger: Ledger | None = None
        self._patience = patience
        self.found = Found(self.location.spot, self.location.spot)
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
                    self.found = _prepared(tree, self.location)
                    try:
                        yield tree, made
                    finally:
                        leave_root(tree)
                    return

    def _recovered(self, tree: Tree, made: int, *, durable: bool) -> Ledger:
        """Opens the ledger, and settles what an interrupted batch left."""
        ledger = self._open_ledger(tree)
        found = self.found
        if found.spot != found.goal and move(tree, ledger, self.location, found, self.close):
            self.found = self.found._replace(spot=self.found.goal)
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
        folder, path = tree.folder(STATE), self.found.spot.path
        if tree.is_apart and tree.stat(FOLDER) is not None:
            check_ours(tree.folder(FOLDER), os.path.join(self.root, FOLDER), RELIED_ON)
        if check_ours(folder, path, RELIED_ON) & {*LEDGER_FILES, *COPIES_FILES}:
            for name in (SHARED_MEMORY, COPIES_SHARED_MEMORY):  # SQLite makes them anew.
                tree.remove_file(name)
            renew(folder, (*LEDGER_FILES, *COPIES_FILES))
        there, file = tree.signature(LEDGER), os.path.join(path, leaf(LEDGER))
        ledger, inode = self.ledger, there.inode if there is not None else 0
        if ledger is not None and (inode, file) == (ledger.inode, ledger.file):
            ledger.check_format()
            return ledger
        self.close()
        tree.make_file(LEDGER)
        if wal := is_mappable(tree):
            make_mappable(tree, SHARED_MEMORY)
        root = self.root if self.found.goal == self.location.spot else ""  # A further way to it.
        self.ledger = Ledger.open(path, tree.folder(STATE), root, wal=wal)
        check_alone(self.root, self.found, self.ledger)
        if self.found.spot == self.found.goal:
            if (origin := end_move(tree, self.ledger)) is not None:
                self.found = self.found._replace(spot=origin)
                enter_state(tree, origin)
                return self._open_ledger(tree)
            tell_state(tree, self.location)
            set_mark(tree, self.location.state)
            device = os.fstat(tree.fd).st_dev
            if tree.is_apart and self.ledger.get_meta(DEVICE) != device:
                self.ledger.set_meta(DEVICE, device)
        for name in filter(is_engine, entries(tree, FOLDER)):  # Earlier releases left it.
            with contextlib.suppress(OSError):
                tree.remove_all(name)
        return self.ledger


@contextlib.contextmanager
def held(session: Session, *, create: bool = False) -> Iterator[None]:
    """Locks a root against others that call this function, for longer than a batch.

    Args:
        session: The session of the root.
        create: True to make a missing root.

    Raises:
        LockedError: Another process holds the lock; the message names it.
    """
    fd = session.run(lambda tree, _ledger: hold(tree, LOCK), create=create)
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


def _prepared(tree: Tree, location: Location) -> Found:
    """Finds the state folder of a locked root, or makes it; the root has to be writable."""
    hint = "choose another root, or give this user write access"
    if os.fstatvfs(tree.fd).f_flag & os.ST_RDONLY:
        raise RootError(tree.path, "is on a read-only file system", "remount it writable")
    found = find(location)
    if found.is_apart:
        tree.take_state(make_spot(found.spot), found.spot.path)
        read_abilities(tree)
    try:
        if not found.is_apart:
            tree.make_folder(FOLDER, 0o700)
        if tree.look(LEDGER).state is ABSENT:  # The ledger is made last.
            tree.remove_file(GITIGNORE)  # A crash may have torn it.
            tree.make_file(GITIGNORE, b"*\n")
        is_elsewhere = tree.stat(FOLDER) is not None and mount_of(tree, FOLDER) != ROOT
    except OSError as error:
        raise RootError(tree.path, f"can't be written: {error.strerror}", hint) from error
    if is_elsewhere:
        problem = f"has its {FOLDER} on another mount, from where nothing can be renamed into place"
        raise RootError(tree.path, problem, "unmount it")
    return found


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
