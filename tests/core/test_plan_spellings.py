"""Two spellings of one name, where names fold."""

from __future__ import annotations

from cocoindex_fsmirror._core.names import Folding
from tests.core.simulation import World, dir_row, file_row
from tests.support import delete, folder, write

FOLDING = Folding(case=True)


def test_old_spelling_of_a_declared_file_is_only_forgotten() -> None:
    """A crash between the two left both rows, and only the old one is in the batch."""
    rows = {"A": file_row("A", b"1"), "a": file_row("a", b"1")}
    world = World({"A": b"1", "a": b"1"}, rows, folding=FOLDING)
    plan = world.plan(delete("A"))
    assert (plan.clear, plan.remove, plan.forget) == ((), (), ("A",))
    both = world.plan(delete("A"), delete("a"))
    assert [step.name for step in both.clear] == ["A"]


def test_old_spelling_of_a_declared_folder_is_only_forgotten() -> None:
    rows = {"D": dir_row("D", declared=True)}
    world = World({"D": "dir", "d": "dir"}, rows, folding=FOLDING)
    plan = world.plan(delete("D"), folder("d"))
    assert (plan.prune, plan.forget) == ((), ("D",))
    assert [row.name for row in world.plan(delete("D")).prune] == ["D"]


def test_emptied_folder_goes_though_a_spelling_of_it_is_declared_no_more() -> None:
    rows = {"D": dir_row("D"), "D/x": file_row("D/x", b"1"), "d/y": file_row("d/y", b"1")}
    world = World({"D": "dir", "d": "dir", "D/x": b"1", "d/y": b"1"}, rows, folding=FOLDING)
    stays = world.plan(delete("D/x"), write("d/y", b"2"))
    assert (stays.prune, [step.name for step in stays.clear]) == ((), ["D/x"])
    goes = world.plan(delete("D/x"), delete("d/y"))
    assert [row.name for row in goes.prune] == ["D"]
