"""Mirror: one root directory that is kept in its desired state. Knows no engine.

The public face of the room, for programs and for the connector. Each method that changes the root
locks it for that time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self, get_args

import msgspec

from .._core.attributes import check_choice
from .._core.drift_report import DriftReport
from .._core.errors import ApplyError
from .._core.intents import Durability, Intent
from .._core.owners import NOBODY, Declarer, Epoch, Owner
from .._core.ownership import OnConflict
from .._core.states import Kind
from .._core.text import encoded
from .._disk.tree import Tree
from .backups import Backup, list_backups
from .batch import apply_intents, begin, prepare
from .brake import Brake, Limit, check_limit
from .comparison import Comparison, check_removals
from .drift import find_drift, observe
from .ledger import Ledger
from .outcome import Outcome
from .owners import check_database
from .reader import mirrored, noted
from .session import PATIENCE, Session
from .teardown import tear_down
from .turns import apply_all, apply_one
from .update import Update

__all__ = ["DriftReport", "Mirror", "Outcome", "Status", "Update"]


class Status(msgspec.Struct, frozen=True, gc=False):
    """Figures about a mirror.

    Attributes:
        root: Its path.
        owners: The number of owners that write to it.
        files: Managed files and links.
        folders: Folders that we made, or that are declared.
        size: Bytes in the managed files, as last written.
        updated_ns: The time of the last record, in nanoseconds since 1970; 0 if there is
            none.
    """

    root: str
    owners: int
    files: int
    folders: int
    size: int
    updated_ns: int = 0


class Mirror:
    """One root directory and its ledger.

    Args:
        root: The directory, which need not exist yet.
        patience: The longest time to wait for another writer, in seconds.
        on_outcome: Called with the outcome of each batch, also if some of its paths failed.
        on_bytes: Called with 0 when a batch begins, and then with the number of bytes that
            were staged. An exception of it stops the batch: nothing of it is applied.

    Attributes:
        root: The absolute path of the directory.
        session: The session in which it is changed.
        epochs: The epochs of owners after the last batch.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        patience: float = PATIENCE,
        on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
        on_bytes: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.session = Session(self.root, patience)
        self.epochs: dict[str, Epoch] = {}
        self._on_outcome = on_outcome
        self._on_bytes = on_bytes

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Closes the ledger. The mirror can be used again afterwards."""
        self.session.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def status(self) -> Status:
        """Counts what is managed.

        Raises:
            RootError: The directory is no mirror.
        """
        with mirrored(self.root) as ledger:
            return Status(self.root, *ledger.figures())

    def managed(self, owner: str = "") -> list[str]:
        """Lists the files and links that are ours, by path relative to the root, sorted.

        Args:
            owner: The identity whose paths are listed; by default all.

        Raises:
            RootError: The directory is no mirror.
        """
        with mirrored(self.root) as ledger:
            return list(ledger.names("kind <> ? AND ? IN ('', owner)", Kind.DIR, owner))

    def verify(self, *, content: bool = False) -> list[str]:
        """Lists the paths that drifted, sorted; an empty list means that all is well.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.

        Raises:
            LedgerError: The ledger can't be read.
            RootError: The directory is no mirror.
        """
        with mirrored(self.root):
            return sorted(find_drift(self.root, content=content).names, key=encoded)

    def backups(self) -> list[Backup]:
        """Lists the backups: foreign bytes that had to make way, the oldest first.

        Raises:
            RootError: The root can't be read.
        """
        return list_backups(self.root)

    def observe(self, *, content: bool = False) -> DriftReport:
        """Looks for drift; changes nothing at all.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.
        """
        return observe(self.root, content=content)

    def create(self) -> None:
        """Makes the root, our folder and an empty ledger, unless they are there.

        Raises:
            RootError: The root can't be used.
        """
        self.session.run(lambda _tree, _ledger: None, create=True)

    def prepare(
        self,
        owner: Owner,
        drift: DriftReport,
        *,
        parents: bool = True,
        durable: bool = True,
        exact: bool = False,
        begins: bool = False,
    ) -> Epoch:
        """Makes a missing root, recovers, and records an owner and the drift that was found.

        Args:
            owner: The owner, with the epoch of its update. One in doubt has every file read.
            drift: The result of :meth:`observe`.
            parents: True to make missing folders above the root.
            durable: True if a root that was made has to survive a power cut.
            exact: True to move what is not managed to the backup area, if the owner is known
                and not in doubt.
            begins: True if the epoch changes now, and not with the first batch.

        Returns:
            The epoch of the owner now.

        Raises:
            RootError: The root can't be used, or the owner belongs to another database.
        """
        act = partial(prepare, owner=owner, drift=drift, exact=exact, begins=begins)
        # A session recovers what was interrupted, and that is nothing for a copy to do either.
        check_database(drift.owners.get(owner.identity), owner.declarer, self.root)
        return self.session.run(act, create=True, parents=parents, durable=durable)

    def apply(
        self,
        intents: Iterable[Intent],
        closed: Iterable[tuple[str, str]] = (),
        brake: Brake | None = None,
        *,
        update: str = "",
    ) -> Outcome:
        """Brings paths to their desired states.

        Args:
            intents: One or more paths, in any order.
            closed: Owner and container of directory targets that are gone, with all in them.
            brake: Stops the batch if it removes too much.
            update: The identity of the update, with which the owner's epoch advances.

        Returns:
            The outcome of the batch.

        Raises:
            ApplyError: Some paths failed; all others were applied.
            BarrierError: The disk did not confirm; nothing of the batch counts.
            LedgerError: The ledger could not be read or written.
            RootError: The root can't be used.
            TooManyRemovalsError: The brake stopped it; nothing of it was applied.
        """
        act = partial(self._apply, closed=list(closed), brake=brake, update=update)
        return apply_one(act, list(intents), self.root)

    def _apply(self, batch: list[Intent], **options: Any) -> Outcome:
        """Applies one batch; the outcome lists failures of single paths."""
        self._on_bytes(0)

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            try:
                return apply_intents(tree, ledger, batch, on_bytes=self._on_bytes, **options)
            finally:
                self.epochs = {each.identity: each.epoch for each in ledger.owners().values()}

        outcome = self.session.run(act)
        self._on_outcome(outcome)
        return outcome

    @contextlib.contextmanager
    def update(
        self,
        *,
        by: str = "update",
        on_conflict: OnConflict = "backup",
        durability: Durability = "batch",
        max_delete: Limit | None = None,
    ) -> Iterator[Update]:
        """Brings the files that are declared inside a ``with`` block to the disk, at its end.

        Paths that an earlier update declared and this one does not are removed. An exception
        inside the block changes nothing.

        Args:
            by: The name of the declarer. Programs that share a mirror need different names, so
                that none removes the files of another.
            on_conflict: The policy for foreign bytes in the way of a declared file:
                ``"backup"`` moves them to ``.fsmirror/backup/``, ``"overwrite"`` destroys
                them, ``"error"`` fails that file.
            durability: ``"batch"`` returns once the update will survive a power cut;
                ``"none"`` leaves that to the system.
            max_delete: The most files that the update may remove: a count, or as a float a
                fraction of those that are managed.

        Yields:
            The object that takes the declarations.

        Raises:
            ApplyError: Some paths failed; all others were applied.
            BarrierError: The disk did not confirm; nothing of that batch counts.
            LedgerError: The ledger could not be read or written.
            RootError: The root can't be used.
            TooManyRemovalsError: Too many files would be removed; nothing was done.
            ValueError: An option has an unknown value.
        """
        check_choice("on_conflict", on_conflict, get_args(OnConflict))
        check_choice("durability", durability, get_args(Durability))
        check_limit(max_delete)
        yield (files := Update())
        self.create()
        root, note, declared = self.root, f"update: {by}", files.declared()
        check_removals(root, noted(root, note), declared, max_delete, "max_delete")
        owner = self.session.run(partial(begin, note=note, by=by))
        comparison = Comparison(root, owner, on_conflict, durability != "none")
        applied = apply_all(self._apply, comparison.batches(declared))
        if failures := [*applied, *comparison.unread.values()]:
            raise ApplyError(root, failures)

    def tear_down(
        self,
        owner: str,
        acting: Declarer = NOBODY,
        *,
        durable: bool = True,
    ) -> Outcome:
        """Removes what an owner made, and nothing else.

        Edited files stay, and so does everything foreign; one log line names it.
        With the last owner go the ledger, and the root if we made it.

        Args:
            owner: The identity whose files go.
            acting: The declarer that gives it up, which must not use a copied database.
            durable: True if the removal has to survive a power cut.

        Raises:
            ApplyError: Some paths could not be removed.
            RootError: The root can't be used; one that is gone is no error.
        """
        return tear_down(self.session, owner, acting, durable=durable)
