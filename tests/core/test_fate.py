"""The table of fates, in full; each line of it decides an outcome."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from cocoindex_fsmirror._core import ownership as _ownership
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.ownership import Fate, Policy, Verdict, fate_of
from tests.core.simulation import World
from tests.core.test_plan_one_path import DISKS, ROWS, one_path_intents, one_path_world

POLICIES: tuple[Policy, ...] = ("backup", "overwrite", "error", "keep")
TABLE: dict[Verdict, tuple[Fate, Fate, Fate, Fate]] = {
    Verdict.ABSENT: (Fate.NOTHING, Fate.NOTHING, Fate.NOTHING, Fate.NOTHING),
    Verdict.RIGHT: (Fate.KEEP, Fate.KEEP, Fate.KEEP, Fate.KEEP),
    Verdict.OURS: (Fate.DISCARD, Fate.DISCARD, Fate.DISCARD, Fate.DISCARD),
    Verdict.FOREIGN: (Fate.BACK_UP, Fate.DISCARD, Fate.REFUSE, Fate.LEAVE),
    Verdict.FOLDER: (Fate.LEAVE, Fate.LEAVE, Fate.LEAVE, Fate.LEAVE),
}
LINES: list[Verdict | Policy] = [v for v in Verdict if v is not Verdict.FOREIGN]
LINES += POLICIES  # Of foreign bytes.


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("verdict", Verdict)
def test_fate_of_bytes_is_that_of_the_table(verdict: Verdict, policy: Policy) -> None:
    assert fate_of(verdict, policy) is TABLE[verdict][POLICIES.index(policy)]


def test_bytes_that_stay_block_a_path_unless_they_are_desired() -> None:
    assert [fate for fate in Fate if fate.blocks] == [Fate.LEAVE, Fate.REFUSE]


def _outcomes() -> Iterator[tuple[object, ...] | str]:
    """Returns the outcomes of every intent for one path, on every disk and ledger."""
    for row, on_disk, remembers in itertools.product(ROWS, DISKS, (False, True)):
        for intent in one_path_intents(remembers):
            world = one_path_world(row, on_disk)
            yield _outcome(world, intent)


def _outcome(world: World, intent: Intent) -> tuple[object, ...] | str:
    """Returns the outcome of an intent; a wrong table may give a plan that can't be carried out."""
    try:
        plan = world.update(intent)
    except (AssertionError, KeyError) as error:
        return repr(error)
    failures = [str(failure) for failure in plan.failures]
    return world.disk, world.rows, world.backups, failures, plan.left


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_line_of_the_table_decides_an_outcome(
    line: Verdict | Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = list(_outcomes())
    table = "_FATES" if isinstance(line, Verdict) else "_FATES_OF_FOREIGN"
    right = getattr(_ownership, table)
    for fate in set(Fate) - {right[line]}:
        monkeypatch.setattr(_ownership, table, {**right, line: fate})
        assert any(a != b for a, b in zip(usual, _outcomes(), strict=True)), fate
