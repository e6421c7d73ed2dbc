"""Writer: changes one root, batch by batch. Knows no engine.

What the connector needs of a mirror. Each method locks the root for its time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Self

from .._core.drift_report import DriftReport
from .._core.intents import Intent
from .._core.names import Name
from .._core.owners import NOBODY, Declarer, Epoch, Owner
from .._core.ownership import NO_COPIES, Policies
from .._disk.locations import Location
from .._disk.tree import Tree
from .batch import apply_intents, prepare
from .brake import Brake
from .copies import set_policies
from .exact import Known
from .expiry import expire
from .heal import Healing, heal
from .ledger import Ledger
from .outcome import Outcome
from .owners import check_database
from .session import PATIENCE, Session
from .teardown import tear_down
from .turns import apply_one

__all__ = ["Writer"]


class Writer:
    """One root directory and its ledger.

    Args:
        root: The directory, which need not exist yet, or its location.
        patience: The longest time to wait for another writer, in seconds.
        on_outcome: Called with the outcome of each batch, also if some of its paths failed.
        on_bytes: Called with 0 when a batch begins, and then with the number of bytes that
            were staged. An exception of it stops the batch: nothing of it is applied.

    Attributes:
        location: Where the mirror is.
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
        here = root if isinstance(root, Location) else Location(os.path.abspath(root))
        self.location, self.root = here, here.root
        self.session = Session(here, patience)
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
        exact: Known | None = None,
        begins: bool = False,
        policies: Policies = NO_COPIES,
        keep_backups: str = "",
    ) -> Epoch:
        """Makes a missing root, recovers, and records an owner and the drift that was found.

        Args:
            owner: The owner, with the epoch of its update. One in doubt has every file read.
            drift: The result of :meth:`observe`.
            parents: True to make missing folders above the root.
            durable: True if a root that was made has to survive a power cut.
            exact: Tells what stays when what is not managed is moved to the backup area, if
                the owner is known and not in doubt; by default nothing is moved.
            begins: True if the epoch changes now, and not with the first batch.
            policies: By which what it declares is kept and healed.
            keep_backups: As of :func:`~.expiry.expire`.

        Returns:
            The epoch of the owner now.

        Raises:
            RootError: The root can't be used, or the owner belongs to another database.
        """

        def act(tree: Tree, ledger: Ledger) -> Epoch:
            expire(tree, ledger, keep_backups)
            return prepare(
                tree, ledger, owner, drift, exact=exact, begins=begins, policies=policies
            )

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
        policies: Mapping[str, Policies] | None = None,
    ) -> Outcome:
        """Brings paths to their desired states.

        Args:
            intents: One or more paths, in any order.
            closed: Owner and container of directory targets that are gone, with all in them.
            brake: Stops the batch if it removes too much.
            update: The identity of the update, with which the owner's epoch advances.
            policies: Those of directory targets of the owner, by container.

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
        batch = list(intents)
        if policies:
            self.session.run(partial(set_policies, owner=batch[0].owner, policies=policies))
        return apply_one(act, batch, self.root)

    def _apply(
        self,
        batch: list[Intent],
        choose: Callable[[Tree, Ledger], list[Intent]] | None = None,
        **options: Any,
    ) -> Outcome:
        """Applies one batch, or what a function chooses of it under the lock.

        The outcome lists failures of single paths.
        """
        self._on_bytes(0)

        def act(tree: Tree, ledger: Ledger) -> Outcome:
            chosen = batch if choose is None else choose(tree, ledger)
            try:
                return apply_intents(tree, ledger, chosen, on_bytes=self._on_bytes, **options)
            finally:
                self.epochs = {each.identity: each.epoch for each in ledger.owners().values()}

        outcome = self.session.run(act)
        self._on_outcome(outcome)
        return outcome

    def heal_paths(self, names: Collection[Name]) -> Healing:
        """Restores the last-written states of paths; as :meth:`heal`, but without a look.

        Args:
            names: The paths.
        """
        return heal(self.session, names, partial(self._apply, read=True))

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
