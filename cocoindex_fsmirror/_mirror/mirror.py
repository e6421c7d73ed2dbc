"""Mirror: one root directory that is kept in its desired state. Knows no engine.

The public face of the room, for programs and for the connector. Each method that changes the root
locks it for that time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import PurePath
from typing import get_args

import msgspec

from .._core.ages import ALL, checked_age
from .._core.attributes import check_choice
from .._core.drift_report import DriftReport
from .._core.errors import ApplyError
from .._core.intents import Durability
from .._core.names import Name, ancestors, parse_name
from .._core.ownership import CopyPolicy, OnConflict, Policies
from .._core.states import Kind
from .._core.text import encoded
from .._disk.locations import Location
from .backups import Backup, list_backups
from .batch import begin
from .brake import Limit, check_limit
from .comparison import Comparison, check_removals
from .copies import size_of_copies
from .drift import differences, find_drift, observe
from .expiry import expire
from .heal import Healing, foresee, in_doubt
from .known import located, mirrored, noted
from .outcome import Outcome
from .session import PATIENCE
from .turns import apply_all
from .update import Update
from .writer import Writer

__all__ = ["DriftReport", "Healing", "Mirror", "Outcome", "Status", "Update"]


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
        copied: Files of whose content a copy is kept.
        copies_size: Bytes that the copies take, blocks that clones share included.
    """

    root: str
    owners: int
    files: int
    folders: int
    size: int
    updated_ns: int = 0
    copied: int = 0
    copies_size: int = 0


class Mirror(Writer):
    """One root directory and its ledger.

    Args:
        root: The directory, which need not exist yet.
        state: The state directory: ledger and copies are kept in a folder of it that is named
            after the root, instead of in the root, and move there from the root. The root itself
            stands for that. By default they are where a mark or a note in the root tells, or in
            the root. Backups go there too, unless it is on another file system.
        state_note: True to leave a note in the root that tells where the state directory is, for
            file systems without extended attributes.
        patience: The longest time to wait for another writer, in seconds.
        on_outcome: Called with the outcome of each batch, also if some of its paths failed.
        on_bytes: Called with 0 when a batch begins, and then with the number of bytes that
            were staged. An exception of it stops the batch: nothing of it is applied.

    Attributes:
        location: Where the mirror is.
        root: The absolute path of the directory.
        session: The session in which it is changed.
        epochs: The epochs of owners after the last batch.

    Raises:
        LedgerError: Somebody else may have left that note.
        RootError: The state directory is inside of the root.
        ValueError: The path of the state directory is empty.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        state: str | os.PathLike[str] | None = None,
        state_note: bool = False,
        patience: float = PATIENCE,
        on_outcome: Callable[[Outcome], None] = lambda _outcome: None,
        on_bytes: Callable[[int], None] = lambda _count: None,
    ) -> None:
        if not isinstance(root, Location):
            if state == "":  # Else it would be the current directory.
                raise ValueError("state: the path is empty")
            named = None if state is None else os.path.abspath(state)
            root = located(os.path.abspath(root), named)
            if state is not None:
                root = root.declared(("",), is_noted=state_note)
        super().__init__(root, patience=patience, on_outcome=on_outcome, on_bytes=on_bytes)

    def status(self) -> Status:
        """Counts what is managed.

        Raises:
            RootError: The directory is no mirror.
        """
        with mirrored(self.location) as ledger:
            owners, files, folders, size, updated_ns, copied = ledger.figures()
        copies = size_of_copies(self.location)
        return Status(self.root, owners, files, folders, size, updated_ns, copied, copies)

    def managed(self, owner: str = "") -> list[str]:
        """Lists the files and links that are ours, by path relative to the root, sorted.

        Args:
            owner: The identity whose paths are listed; by default all.

        Raises:
            RootError: The directory is no mirror.
        """
        with mirrored(self.location) as ledger:
            return list(ledger.names("kind <> ? AND ? IN ('', owner)", Kind.DIR, owner))

    def verify(self, *, content: bool = False) -> list[str]:
        """Lists the paths that drifted, sorted; an empty list means that all is well.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.

        Raises:
            LedgerError: The ledger can't be read.
            RootError: The directory is no mirror.
        """
        with mirrored(self.location):
            return sorted(find_drift(self.location, content=content).names, key=encoded)

    def backups(self) -> list[Backup]:
        """Lists the backups: foreign bytes that had to make way, the oldest first.

        Raises:
            RootError: The root can't be read.
        """
        return list_backups(self.location)

    def observe(self, *, content: bool = False) -> DriftReport:
        """Looks for drift; changes nothing at all.

        Args:
            content: Read every file, instead of trusting an unchanged ``lstat``.
        """
        return observe(self.location, content=content)

    def heal(
        self,
        names: Iterable[str | PurePath] | None = None,
        *,
        content: bool = False,
        dry_run: bool = False,
    ) -> Healing:
        """Restores what drifted to its last-written state, without whoever declared it.

        A foreign edit goes where the policy of its declaration says: by default to the backup
        area. What has no copy is left to whoever declares it, and so is all that a mirror holds
        which was copied or put back, since its ledger may be of another time.

        Args:
            names: The paths to look at, relative to the root; a folder stands for all in it. By
                default all paths.
            content: Read every file, instead of trusting an unchanged ``lstat``.
            dry_run: Only tell what would be done.

        Raises:
            BarrierError: The disk did not confirm; nothing of that batch counts.
            InvalidNameError: A path is refused.
            LedgerError: The ledger could not be read or written.
            RootError: The directory is no mirror, or can't be used.
            TypeError: ``names`` is a string, or a path is neither text nor a path.
        """
        if isinstance(names, str):
            raise TypeError(f"names: {names!r} is a string; give a list of paths")
        wanted = None if names is None else {parse_name(name) for name in names}
        with mirrored(self.location) as ledger:
            ledger.check()
            drift = [Name(each.name) for each in differences(self.location, content=content)]
            names_above = ((name, {name, *ancestors(name)}) for name in drift)
            found = {n for n, above in names_above if wanted is None or wanted & above}
            doubted = in_doubt(ledger, found)
        sure = found - doubted.keys()
        healing = foresee(self.location, sure) if dry_run else self.heal_paths(sure)
        left = sorted((healing.left | doubted).items(), key=lambda pair: encoded(pair[0]))
        return msgspec.structs.replace(healing, left=dict(left))

    @contextlib.contextmanager
    def update(
        self,
        *,
        by: str = "update",
        on_conflict: OnConflict = "backup",
        durability: Durability = "batch",
        max_delete: Limit | None = None,
        copies: CopyPolicy = "auto",
        keep_backups: str = "",
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
            copies: The contents of which copies are kept, from which :meth:`heal` restores
                paths: ``"auto"`` keeps those of up to 64 KiB, and larger ones where the file
                system shares blocks, ``"all"`` keeps all, ``"none"`` keeps none.
            keep_backups: The age up to which each update keeps backups from now on, such as
                ``"30d"``, ``"12h"`` or ``"2w"``, or ``"all"``; by default what it was told before.

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
        check_choice("copies", copies, get_args(CopyPolicy))
        check_limit(max_delete)
        checked_age(keep_backups or ALL)
        yield (files := Update())
        self.create()
        here, note, declared = self.location, f"update: {by}", files.declared()
        check_removals(here, noted(here, note), declared, max_delete, "max_delete")
        owner = self.session.run(
            partial(begin, note=note, by=by, policies=Policies(copies, on_conflict))
        )
        comparison = Comparison(here, owner, on_conflict, durability != "none")
        applied = apply_all(self._apply, comparison.batches(declared))
        self.session.run(partial(expire, keep=keep_backups))
        if failures := [*applied, *comparison.unread.values()]:
            raise ApplyError(self.root, failures)
