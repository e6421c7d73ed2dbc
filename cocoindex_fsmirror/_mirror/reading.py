"""Reads what is known of a mirror; changes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator

import msgspec

from .._core.errors import LedgerError, RootError
from .._core.intents import Intent
from .._core.names import ROOT, Name
from .._core.plan import Plan, View
from .._core.planner import make_plan
from .._core.rows import Row
from .._disk.roots import open_root
from .._disk.tree import Tree
from .formats import CorruptLedgerError
from .look import view_of
from .reader import LedgerReader

__all__ = [
    "Owner",
    "Status",
    "count",
    "exists",
    "known",
    "middle",
    "mirrored",
    "noted",
    "opened",
    "owners",
    "preview",
    "row",
]


class Status(msgspec.Struct, frozen=True, gc=False):
    """Figures about a mirror.

    Attributes:
        root: Its path.
        owners: How many targets (of one or more apps) write to it.
        files: Managed files and links.
        folders: Folders that we made, or that are declared.
        size: Bytes in the managed files, as last written.
        updated_ns: When something was last recorded, in nanoseconds since 1970; 0 if
            nothing was.
    """

    root: str
    owners: int
    files: int
    folders: int
    size: int
    updated_ns: int = 0


class Owner(msgspec.Struct, frozen=True, gc=False):
    """A target that writes to a mirror.

    Attributes:
        identity: Its UUID.
        by: Who it is: the engine's database, and the key of the directory in it.
        since_ns: When it came, in nanoseconds since 1970.
        files: How many files and links it has.
        is_lost: True if a younger one has come in its place, since the engine's
            database was lost: nobody declares its files any more.
    """

    identity: str
    by: str
    since_ns: int
    files: int
    is_lost: bool


@contextlib.contextmanager
def mirrored(root: str) -> Iterator[LedgerReader]:
    """Opens the ledger of a mirror for reading.

    Raises:
        RootError: The directory is no mirror.
    """
    ledger = LedgerReader.peek(root)
    if ledger is None:
        raise RootError(root, "is no mirror", "it has no ledger")
    with contextlib.closing(ledger):
        yield ledger


def known(root: str) -> contextlib.closing[LedgerReader]:
    """Opens the ledger of a root for reading; an empty one where there is no mirror."""
    return contextlib.closing(LedgerReader.peek(root) or LedgerReader.empty())


@contextlib.contextmanager
def opened(root: str) -> Iterator[Tree]:
    """Opens a root, to be looked at only.

    Raises:
        RootError: The root can't be read.
    """
    with contextlib.closing(open_root(root)[0]) as tree:
        try:
            yield tree
        except OSError as error:
            problem = f"can't be looked at: {error.strerror or error}"
            raise RootError(root, problem, "see the cause") from error


def exists(root: str) -> bool:
    """True if anything was ever written here, and not given up; also if the ledger is damaged.

    Raises:
        LedgerError: A newer release wrote it, or this user may not look.
    """
    try:
        with contextlib.suppress(RootError), mirrored(root):
            return True
    except CorruptLedgerError:
        return True
    return False


def count(root: str) -> int:
    """Counts the files and links that are managed; :class:`Status` takes longer.

    Raises:
        RootError: The directory is no mirror.
    """
    with mirrored(root) as ledger:
        return ledger.count()


def owners(root: str) -> list[Owner]:
    """Lists who writes to a mirror, in the order in which they came.

    Raises:
        RootError: The directory is no mirror.
    """
    with mirrored(root) as ledger:
        found = sorted(ledger.owners(), key=lambda owner: owner[2])
        youngest = {by: identity for identity, by, _ in found if by}
        return [
            Owner(
                identity, by, since, ledger.count(identity), youngest.get(by, identity) != identity
            )
            for identity, by, since in found
        ]


def row(root: str, name: str) -> Row | None:
    """Returns what was last written at a declared path; ``None`` if it is not managed."""
    with known(root) as ledger:
        found = ledger.rows_named([Name(name)]).get(Name(name))
    return found if found is not None and found.declared else None


def noted(root: str, key: str) -> str:
    """Returns a text that was noted for whoever keeps this mirror; empty if there is none."""
    with known(root) as ledger:
        return ledger.noted(key)


def middle(root: str) -> Name:
    """Returns the path that about one half of all paths follow; empty if there is none."""
    try:
        with known(root) as ledger:
            return ledger.middle()
    except LedgerError:
        return ROOT  # Whoever reads on will be told.


def preview(
    root: str, intents: Iterable[Intent], swept: Collection[Name] = (), *, read: bool = False
) -> Plan:
    """Plans what a batch would do.

    Args:
        root: The root.
        intents: One or more paths, in any order.
        swept: What would be moved away before.
        read: True to read every file, instead of trusting an unchanged ``lstat``.

    Raises:
        RootError: The root is there, and can't be read.
    """
    wanted = list(intents)
    if not os.path.isdir(root):
        return make_plan(wanted, View({}, {}))
    with known(root) as ledger, opened(root) as tree:
        return make_plan(wanted, view_of(tree, ledger, wanted, swept, read=read))
