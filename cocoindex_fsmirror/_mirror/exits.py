"""Exits: what a rename brings out of a path is judged before it goes.

It need not be what the plan had seen. The table of :mod:`._core/ownership` decides.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from .._core.names import Name
from .._core.ownership import Fate, Verdict
from .._core.plan import judge_bytes
from .._core.states import ABSENT, Actual, is_older
from .._disk.calls import stamp_now
from .._disk.staging import Slot, Staging
from .._disk.tree import Tree
from .outcome import Outcome

__all__ = ["Exits"]

_log = logging.getLogger("cocoindex_fsmirror")


class Exits:
    """Lets bytes go that were moved out of their path.

    Args:
        tree: The root.
        staging: The staging area that they are moved to.
        outcome: Is told of backups.
        looked_ns: When the plan's view was taken, by the clock that stamps files.
    """

    def __init__(self, tree: Tree, staging: Staging, outcome: Outcome, looked_ns: int) -> None:
        self._tree = tree
        self._staging = staging
        self._outcome = outcome
        self._looked_ns = looked_ns
        self._stamp = stamp_now()

    def still_expected(self, name: Name, planned: Actual) -> Actual:
        """Returns what the plan had seen, without its signature if ctime has moved since.

        Without one, the content will be read. A rename moves ctime too, so this is the
        last moment to ask for it. Where nothing was, the rename itself refuses if something is.
        """
        is_same = planned.state is ABSENT or self._tree.signature(name) == planned.signature
        return planned if is_same else replace(planned, signature=None)

    def judge(
        self, slot: Slot, planned: Verdict, expected: Actual, ours: tuple[bytes, ...] = ()
    ) -> Verdict:
        """Judges what a rename brought out, which need not be what the plan had seen."""
        if planned is Verdict.FOREIGN:
            return judge_bytes(self._staging.look(slot), ())
        if self._is_unchanged(slot, expected):
            return Verdict.OURS
        return judge_bytes(self._staging.look(slot, digest=True), (expected.state.digest, *ours))

    def _is_unchanged(self, slot: Slot, expected: Actual) -> bool:
        """True if the signature alone proves that this is what the plan had seen.

        A rename changes ctime, so mtime has to do; within one tick of the look it proves
        nothing.
        """
        seen, known = self._staging.look(slot).signature, expected.signature
        if seen is None or known is None:
            return False
        return seen.is_like(known) and is_older(seen.mtime_ns, self._looked_ns)

    def let_go(self, slot: Slot, name: Name, fate: Fate) -> bool:
        """Discards or backs up what is in a slot; returns False if it may not go."""
        if fate is Fate.BACK_UP:
            self.back_up(slot, name)
        elif fate is Fate.DISCARD:
            self._staging.discard(slot)
        return not fate.blocks

    def back_up(self, slot: Slot, name: Name) -> None:
        """Moves foreign bytes to the backup area, and says where they are."""
        where = self._staging.back_up(slot, name, self._stamp)
        self._outcome.backed_up[name] = where
        _log.warning("%s: foreign %r was moved to %r", self._tree.path, name, where)
