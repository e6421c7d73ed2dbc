"""One root for one batch at a time: locks it, opens its ledger and recovers.

Two threads, or two processes, that work on one root take turns. A corrupt ledger is set aside.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from .._core.errors import RootError
from .._core.layout import FOLDER, GITIGNORE, LEDGER, LEDGER_FILES, LOCK, corrupt_ledger
from .._core.names import ROOT, Name, leaf
from .._core.states import ABSENT
from .._disk.calls import stamp_now
from .._disk.roots import hold, lock, open_root, sync_above
from .._disk.tree import Tree
from .formats import CorruptLedgerError
from .ledger import Ledger
from .recover import recover

__all__ = ["PATIENCE", "Session", "held"]

_log = logging.getLogger("cocoindex_fsmirror")
_T = TypeVar("_T")
PATIENCE: Final = 10.0
"""Seconds to wait for another writer."""
"""The file that is locked for longer than a batch."""


class Session:
    """The way to change a root; its ledger stays open between batches.

    Args:
        root: The root.
        patience: How long to wait for another writer, in seconds.

    Attributes:
        root: The root.
        ledger: Its ledger, while it is open.
    """

    def __init__(self, root: str, patience: float = PATIENCE) -> None:
        self.root = root
        self.ledger: Ledger | None = None
        self._patience = patience
        self._mutex = threading.RLock()

    def close(self) -> None:
        """Closes the ledger. The session can be used again afterwards."""
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
        """Does something with the root locked, and the ledger open and recovered.

        Args:
            act: What to do; done once more, with a new ledger, if the ledger is corrupt.
            create: True to make the root if it is missing.
            parents: True to make missing folders above it as well.
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
            problem = f"can't be worked on: {error.strerror or error}"
            raise RootError(self.root, problem, "see the cause, then update again") from error

    def _recovered(self, tree: Tree, made: int, *, durable: bool) -> Ledger:
        """Opens the ledger, and settles what an interrupted batch left."""
        ledger = self._open_ledger(tree)
        if made:
            ledger.set_meta("made", made)  # Folders that we made: the root, and those above it.
            if durable:
                tree.sync((), (), (ROOT,))
                if not tree.can_syncfs:
                    sync_above(tree.path, made)
        recover(tree, ledger)
        return ledger

    @contextlib.contextmanager
    def _locked(self, *, create: bool, parents: bool) -> Iterator[tuple[Tree, int]]:
        """Opens and locks the root, and counts the folders that were made for it."""
        made = 0
        while True:
            tree, now = open_root(self.root, create=create, parents=parents)
            made += now
            with contextlib.closing(tree):
                try:
                    lock(tree, self._patience)
                    is_same = os.path.samestat(os.fstat(tree.fd), os.stat(self.root))
                    if is_same:
                        _prepare_folder(tree)
                except FileNotFoundError:
                    is_same = False
                    if not create:
                        hint = "update again; the root is made anew then"
                        problem = "vanished while we waited for it"
                        raise RootError(self.root, problem, hint) from None
                if is_same:  # Else it was replaced while we waited.
                    yield tree, made
                    return

    def _open_ledger(self, tree: Tree) -> Ledger:
        """Opens the ledger that is in the root now, which need not be that of the last batch."""
        there = tree.look(LEDGER).signature
        if self.ledger is not None and (there is None or there.inode != self.ledger.inode):
            self.close()
        if self.ledger is not None:
            self.ledger.check_format()
        else:
            tree.make_file(LEDGER)
            self.ledger = Ledger.open(self.root, tree.folder(FOLDER), network=not tree.can_syncfs)
        return self.ledger


@contextlib.contextmanager
def held(session: Session) -> Iterator[None]:
    """Keeps others that ask for the same out, for longer than a batch.

    Raises:
        LockedError: Another process holds it; the message says which.
    """
    fd = session.run(lambda tree, _ledger: hold(tree, LOCK))
    try:
        yield
    finally:
        os.close(fd)


def _prepare_folder(tree: Tree) -> None:
    """Makes sure that the root can be written, and that our folder is there."""
    hint = "choose another root, or give this user write access"
    if os.fstatvfs(tree.fd).f_flag & os.ST_RDONLY:
        raise RootError(tree.path, "is on a read-only file system", "remount it writable")
    try:
        tree.make_folder(FOLDER, 0o700)
        if tree.look(LEDGER).state is ABSENT:  # The ledger is made last.
            tree.remove_file(GITIGNORE)  # It may be torn.
            tree.make_file(GITIGNORE, b"*\n")
        tree.folder(FOLDER)
    except OSError as error:
        raise RootError(tree.path, f"can't be written: {error.strerror}", hint) from error


def _set_aside(tree: Tree, error: CorruptLedgerError) -> None:
    """Moves a corrupt ledger out of the way; an empty one takes its place."""
    stamp = stamp_now()
    for attempt in itertools.count():
        aside = corrupt_ledger(stamp, attempt)
        if tree.look(aside).state is ABSENT:
            break
    for name in LEDGER_FILES:
        with contextlib.suppress(FileNotFoundError):
            tree.move(name, Name(aside + name.removeprefix(LEDGER)))
    _log.warning(
        "%s: the ledger was corrupt (%s) and was set aside as %s; identical files are adopted",
        tree.path,
        error,
        leaf(aside),
    )
