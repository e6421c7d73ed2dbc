"""Expiry: backups that are older than a mirror keeps them go for good."""

from __future__ import annotations

import logging
import time
from typing import Final

from .._core.ages import ALL, parse_age
from .._core.errors import ApplyError
from .._disk.tree import Tree
from .backups import older_backups, purge
from .ledger import Ledger
from .reader import LedgerReader

__all__ = ["expire", "kept_for"]

_KEEP: Final = "keep-backups"  # the key of a note in the ledger
_NS: Final = 1_000_000_000
_log = logging.getLogger("cocoindex_fsmirror")


def expire(tree: Tree, ledger: Ledger, keep: str = "") -> None:
    """Removes the backups that are older than a mirror keeps them.

    Those on further mounts are left, since they may be those of other mirrors. What can't be
    removed is logged.

    Args:
        tree: The locked root.
        ledger: Its ledger, which keeps the age.
        keep: The age from now on, or ``all``; empty for what it was told before.
    """
    told = ledger.noted(_KEEP)
    if keep and keep != told:
        ledger.note(_KEEP, told := keep)
    try:
        age_ns = parse_age(told)
    except ValueError:  # All are kept.
        return
    try:
        purge(tree, older_backups(tree, (time.time_ns() - age_ns) // _NS))
    except ApplyError as error:
        for failure in error.exceptions:
            _log.warning("%s: %s", tree.path, failure)


def kept_for(ledger: LedgerReader) -> str:
    """Returns the age up to which a mirror keeps backups; ``all`` for any."""
    return ledger.noted(_KEEP) or ALL
