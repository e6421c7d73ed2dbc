"""Adopt: claim files that were found right, so that they count as written by us.

A declared file that was there already, with the right bytes, stays the user's until it is first
rewritten. After a move from another target, or with a new ledger, such files were made for the
mirror; once claimed, they are replaced and removed as all others are.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from .._core.names import Name, ancestors
from .._core.rows import Row
from .._core.states import Kind, same_content
from .._disk.locations import Root
from .._disk.tree import Tree
from .database import GIVEN
from .known import mirrored, opened
from .ledger import Ledger
from .look import look_at
from .reader import LedgerReader
from .session import Session

__all__ = ["claim", "claimable"]

_PAGE = 4096  # rows that are stored in one transaction


def claimable(root: Root) -> dict[Name, bool]:
    """Looks for paths that were found and not written; changes nothing.

    Returns:
        The paths, each with true if it still holds what it was found with.

    Raises:
        RootError: The directory is no mirror, or can't be read.
    """
    with mirrored(root) as ledger, opened(root) as tree:
        ledger.check()
        return {row.name: is_right for page in _judged(tree, ledger) for row, is_right in page}


def claim(session: Session) -> dict[Name, bool]:
    """Claims all paths of a mirror that were found and not written, and the folders above them.

    Args:
        session: The session of the root.

    Returns:
        The paths, each with true if it was claimed. The others hold something else by now, or
        can't be read, and stay the user's.

    Raises:
        RootError: The root can't be used.
    """

    def act(tree: Tree, ledger: Ledger) -> dict[Name, bool]:
        told: dict[Name, bool] = {}
        for page in _judged(tree, ledger):
            rows = [replace(row, made=True) for row, is_right in page if is_right]
            owners = {above: row.owner for row in rows for above in ancestors(row.name)}
            known = ledger.rows_named(owners)
            # Without rows these folders would stay when their last file goes.
            new = (name for name in owners if name not in known)
            folders = [Row(name, Kind.DIR, owners[name], "", declared=False) for name in new]
            ledger.commit([*folders, *rows], ())
            told |= {row.name: is_right for row, is_right in page}
        return told

    return session.run(act)


def _judged(tree: Tree, ledger: LedgerReader) -> Iterator[list[tuple[Row, bool]]]:
    """Yields the rows of found paths in pages, each row with true if its path still holds that."""
    last = ""
    while page := ledger.rows(f"NOT made AND name > {GIVEN}", last, limit=_PAGE):
        states = (look_at(tree, row.name, row, read=True).state for row in page)
        yield [
            (row, same_content(row.state, state)) for row, state in zip(page, states, strict=True)
        ]
        last = page[-1].name
