"""Copies: which contents are kept, by the policies of those who declare them, and until when.

Rows say which paths have a copy. Contents that no row refers to are removed with the batch that
ended their use; a cut in between is made good by recovery, or by the next update.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from .._core.layout import COPIES_FILES, LARGE_COPIES
from .._core.names import Name, leaf
from .._core.ownership import Policies, PolicyTable
from .._core.rows import Row
from .._core.states import Kind, same_content
from .._disk.calls import DIRECTORY, closing, names_at
from .._disk.locations import Root
from .._disk.ours import opened_ours
from .._disk.staging import reserved
from .._disk.tree import Tree
from .contents import SMALL
from .known import find
from .ledger import Ledger
from .look import look_at
from .shelf import Copyable, drop_orphans, found_copies, keep, remove
from .stage import Stage

__all__ = [
    "copied",
    "drop_damaged",
    "keep_staged",
    "release",
    "restock",
    "set_policies",
    "size_of_copies",
]

_PAGE: Final = 1024  # rows that are recorded together


def keep_staged(tree: Tree, ledger: Ledger, stage: Stage) -> dict[Name, bytes]:
    """Copies what a batch has staged, or found right; returns the digests with a copy, by path."""
    policies = ledger.policies()
    if not policies.keeps_copies:
        return {}
    held, asked, elsewhere = dict[bytes, bytes](), dict[Name, bytes](), list[Copyable]()
    for put in stage.plan.files:
        row, content = stage.rows[put.name], put.intent.content
        policy = policies.copies(row.owner, row.container)
        if not row.digest or policy == "none" or put.name not in stage.written:
            continue  # A link has no digest.
        asked[put.name] = row.digest
        if isinstance(content, bytes) and row.size <= SMALL:
            held[row.digest] = content
        else:
            at = stage.staging.path(stage.slots[put.name])
            declared = None if isinstance(content, bytes) else content
            elsewhere.append(Copyable(row.digest, row.size, at, policy, declared))
    kept = _kept_rows((keep.row for keep in stage.plan.keep if not keep.row.copied), policies)
    asked |= {name: each.digest for name, each in kept.items()}
    done = keep(tree, ledger, [*elsewhere, *kept.values()], held)
    return {name: digest for name, digest in asked.items() if digest in done}


def copied(ledger: Ledger, rows: Collection[Row], kept: Mapping[Name, bytes]) -> Collection[Name]:
    """Returns the paths among some rows whose content has a copy.

    Args:
        ledger: The ledger, which does not have the rows yet.
        rows: The rows; one of a path that was right says what it said when the batch began.
        kept: The paths whose content was copied since.
    """
    before = [row for row in rows if row.copied]
    if not before:
        return kept.keys()
    still = ledger.referred({row.digest for row in before if row.digest})
    policies = ledger.policies()  # All copies may have given way.
    return kept.keys() | {
        row.name
        for row in before
        if row.digest in still and policies.copies(row.owner, row.container) != "none"
    }


def _kept_rows(rows: Iterable[Row], policies: PolicyTable) -> dict[Name, Copyable]:
    """Returns the contents to be copied of files that are in place, by path."""
    found = {}
    for row in rows:
        policy = policies.copies(row.owner, row.container)
        if row.kind == Kind.FILE and row.digest and policy != "none":
            found[row.name] = Copyable(row.digest, row.size, row.name, policy)
    return found


def release(tree: Tree, ledger: Ledger, rows: Iterable[Row]) -> None:
    """Records that rows have no copy, and removes all copies that no row refers to.

    All: an earlier call may have been cut off in between.
    """
    ledger.set_copied([row.name for row in rows if row.copied], False)
    if (found := found_copies(tree, ledger)) is not None:
        drop_orphans(tree, ledger, found)


def restock(tree: Tree, ledger: Ledger) -> None:
    """Brings rows and copies into agreement after a batch that was cut off."""
    if (found := found_copies(tree, ledger)) is None:
        return
    if lost := ledger.referred() - found:
        ledger.forget_copies(lost)
    lacking = ledger.rows("digest IS NOT NULL AND NOT copied") if found else []
    wanted = _kept_rows(lacking, ledger.policies())
    ledger.set_copied([n for n, each in wanted.items() if each.digest in found], True)
    drop_orphans(tree, ledger, found)


def set_policies(tree: Tree, ledger: Ledger, owner: str, policies: Mapping[str, Policies]) -> None:
    """Records the policies of some containers of an owner; drops and makes copies as they ask.

    They are recorded last, so that the next update goes on with what was cut off. What has
    drifted keeps its copy, from which it may be about to be healed.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        owner: The identity of the owner.
        policies: The policies, by container.
    """
    before = ledger.policies()
    changed = {at: each for at, each in policies.items() if before.told(owner, at) != each}
    if not changed:
        return
    now = before.changed(owner, changed)
    rows = [
        row
        for row in ledger.rows("owner = ? AND digest IS NOT NULL", owner)
        if before.copies(owner, row.container) != now.copies(owner, row.container)
        and same_content(row.state, look_at(tree, row.name, row).state)
    ]
    most = {"none": -1, "auto": SMALL, "all": sys.maxsize}
    gone = {row.name for row in rows if row.size > most[now.copies(owner, row.container)]}
    if unwanted := [row for row in rows if row.copied and row.name in gone]:
        release(tree, ledger, unwanted)
    _fill(tree, ledger, [row for row in rows if row.name in gone or not row.copied], now)
    ledger.set_policies(owner, changed)


def _fill(tree: Tree, ledger: Ledger, rows: list[Row], policies: PolicyTable) -> None:
    """Copies what is in place already."""
    for start in range(0, len(rows), _PAGE):
        some = rows[start : start + _PAGE]
        wanted = _kept_rows(some, policies)
        try:
            with reserved(tree, 2 * ledger.room_for(len(some))):  # To record them.
                done = keep(tree, ledger, wanted.values())
        except OSError:
            return
        ledger.set_copied([name for name, each in wanted.items() if each.digest in done], True)


def drop_damaged(tree: Tree, ledger: Ledger, rows: Collection[Row]) -> None:
    """Removes the copies of contents that could not be restored from them."""
    digests = {row.digest for row in rows if row.digest}
    remove(tree, ledger, digests)
    ledger.forget_copies(digests)


def size_of_copies(root: Root) -> int:
    """Returns the number of bytes that copies take, blocks that clones share included.

    Raises:
        LedgerError: Somebody else may have written to the state folder, or it can't be read.
    """
    size = 0
    gone = (FileNotFoundError, NotADirectoryError)
    with contextlib.suppress(*gone), opened_ours(find(root).spot, {}) as (folder, _):
        for name in map(leaf, COPIES_FILES[:2]):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        with closing(os.open(leaf(LARGE_COPIES), DIRECTORY, dir_fd=folder)) as fd:
            found = (os.stat(name, dir_fd=fd, follow_symlinks=False) for name in names_at(fd))
            size += sum(each.st_size for each in found)
    return size
