"""Memories that are copied, put back, moved, damaged or lost: nothing is destroyed, all converges.

Random histories, and an oracle that shares no decision with the package.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.crash.disks import Cut, made_disk
from tests.disk.grounds import KINDS, Kind, laid_out
from tests.target.copying import How, take_away
from tests.target.declarers import DATABASE, STYLES, Style
from tests.target.flows import Interruption
from tests.target.histories import World
from tests.target.keeping import PLACES, Place
from tests.target.knowledge import Memory
from tests.target.users import Edit, Move
from tests.target.witness import EVERYWHERE, NAMES

Step: TypeAlias = tuple[Any, ...]
Traits: TypeAlias = dict[str, Any]
"""The arguments of :meth:`Users.make_project`."""

_index = st.integers(0, 3)
_memory = st.sampled_from(get_args(Memory))
_name = st.sampled_from((*EVERYWHERE, "d"))
_declared = st.sampled_from([(owner, name) for owner in NAMES for name in NAMES[owner]])
_place = st.sampled_from(PLACES)
_version = st.integers(0, 2)
_cut = st.one_of(
    st.builds(Interruption, st.just("inside"), st.integers(0, 15)),
    st.just(Interruption("after")),
)
_damage = st.sampled_from([bytes(4096), b"\xa5" * 4096, b"\xff" * 7])

TRAITS: Final = st.fixed_dictionaries(
    {
        "style": st.sampled_from(STYLES),
        "place": _place,
        "is_memoized": st.booleans(),
        "is_noted": st.booleans(),
    }
)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("update"), _index),
        st.tuples(st.sampled_from(["sync", "run_program", "drop"]), _index),
        st.tuples(st.sampled_from(["switch", "nest", "tidy", "verify"]), _index),
        st.tuples(st.just("move"), _index, st.sampled_from(get_args(Move))),
        st.tuples(st.just("keep"), _index, _place),
        st.tuples(st.sampled_from(["update", "sync", "run_program", "drop"]), _index, _cut),
        st.tuples(st.just("declare"), _index, _declared, _version),
        st.tuples(st.just("edit"), _index, _name, st.sampled_from(get_args(Edit))),
        st.tuples(st.just("delete"), _index, _name),
        st.tuples(st.sampled_from(["back_up", "lose"]), _index, _memory),
        st.tuples(st.just("restore"), _index, st.sampled_from(get_args(How))),
        st.tuples(st.just("copy"), _index, st.sampled_from(["cp", "rsync"]), st.booleans()),
        st.tuples(st.just("damage"), _index, st.integers(0, 12), _damage),
        st.tuples(st.just("update"), _index),
        st.tuples(st.just("restore"), _index, st.sampled_from(get_args(How))),
        st.tuples(st.just("back_up"), _index, _memory),
    ),
    min_size=2,
    max_size=9,
)


def carry_out(world: World, step: Step) -> None:
    """Does one step."""
    what, index, *more = step
    if what == "restore":
        if world.backups:
            world.restore(world.backups[index % len(world.backups)], *more)
        return
    project = world.projects[index % len(world.projects)]
    if what == "declare":
        more = [*more[0], more[1]]
    if what == "copy":
        world.copy(project, more[0], is_edited=more[1])
    else:
        getattr(world, what)(project, *more)


def play(traits: Traits, steps: list[Step], at: Path | None = None) -> None:
    """Plays a history of a project in a new folder, and checks what came of it."""
    top = Path(tempfile.mkdtemp(dir=at))
    world = World(top)
    try:
        world.update(world.make_project(**traits))
        for step in steps:
            carry_out(world, step)
        world.conclude()
    finally:
        take_away(top)


def examples(count: int) -> settings:
    """Returns settings with a number of examples, equal ones in each run."""
    return settings(
        settings.get_profile("brief"),
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],  # An explanation takes minutes.
    )


@examples(40)
@given(TRAITS, STEPS)
def test_memories_that_disagree(traits: Traits, steps: list[Step]) -> None:
    play(traits, steps)


_UPDATE: Final = ("update", 0)
_STATES: Final[dict[str, list[Step]]] = {
    "moves to and fro": [
        step for place in (*PLACES, "root", "shared") for step in (("keep", 0, place), _UPDATE)
    ],
    "moves with sync": [("keep", 0, "shared"), ("sync", 0), _UPDATE],
    "outlives its root": [("lose", 0, "root"), _UPDATE, ("lose", 0, "root")],
    "follows its project": [("move", 0, "rename"), _UPDATE, ("lose", 0, "root")],
    "follows a mount": [("move", 0, "bind"), _UPDATE, ("move", 0, "rename")],
    "is copied, or is not": [("copy", 0, "cp", True), ("update", 1), ("drop", 1), _UPDATE],
    "is put back elsewhere": [
        ("back_up", 0, "ledger"),
        ("declare", 0, ("flow", "a"), 2),
        ("keep", 0, "project"),
        _UPDATE,
        ("restore", 0, "replace"),
    ],
    "is left by a project that is put back": [
        ("back_up", 0, "project"),
        ("keep", 0, "shared"),
        _UPDATE,
        ("restore", 0, "rsync --delete"),
    ],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("steps", _STATES.values(), ids=_STATES)
def test_state_that_is_kept_elsewhere(place: Place, steps: list[Step]) -> None:
    for style in STYLES:
        play({"style": style, "place": place}, steps)


@pytest.mark.parametrize("step", range(0, 16, 3))
def test_state_whose_move_is_cut_off(step: int) -> None:
    for place in ("project", "root", "shared"):
        cut = ("update", 0, Interruption("inside", step))
        play({"style": "relative"}, [("keep", 0, "shared"), _UPDATE, ("keep", 0, place), cut])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [k for k in KINDS if k.name in {"ext4", "overlay"}], ids=str)
def test_memories_that_disagree_on_a_disk(kind: Kind, tmp_path: Path) -> None:
    with laid_out(kind, tmp_path / "ground") as ground:

        @examples(150)
        @given(TRAITS, STEPS)
        def run(traits: Traits, steps: list[Step]) -> None:
            play(traits, steps, ground.point)

        run()


_CALM: Final = {
    "update",
    "sync",
    "run_program",
    "declare",
    "edit",
    "delete",
    "drop",
    "switch",
    "nest",
    "tidy",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rolled", ["root", "database"])
def test_memory_is_rolled_back_to_a_snapshot(rolled: str, tmp_path: Path) -> None:
    """The other memory stays as it is; inode numbers and all times come back."""
    with made_disk(Cut("ext4", "copy"), tmp_path / "image") as disk:
        calm = STEPS.map(lambda steps: [step for step in steps if step[0] in _CALM])
        numbers = itertools.count()

        @examples(30)
        @given(st.sampled_from(STYLES), _place, calm, calm)
        def run(style: Style, place: Place, before: list[Step], after: list[Step]) -> None:
            name = str(next(numbers))
            rolled_back, other = disk.at / name, tmp_path / name
            top, databases = (rolled_back, other) if rolled == "root" else (other, rolled_back)
            databases.mkdir(parents=True)
            world = World(top)
            # A component that is gone takes its files with it after the epoch is stored.
            project = world.make_project(style, place, is_memoized=rolled == "database")
            (project.path / DATABASE).symlink_to(databases)
            for step in (("update", 0), *before):
                carry_out(world, step)
            disk.sync()
            disk.cut_power()
            world.take_snapshot()
            for step in after:
                carry_out(world, step)
            disk.restart()
            world.roll_back(is_of_root=rolled == "root")
            world.conclude()

        run()
