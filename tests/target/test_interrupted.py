"""Property: after any history of failed updates, one clean update converges."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from tests.support import contents, exact_state, snapshot, staged
from tests.target.flows import Flow, Interruption, Main, memoized, plain

FILES = ("a", "a/b", "b", "a/c/d", "a/c")
CONTENTS = (b"", b"1", b"two")
EXAMPLES = settings().max_examples * 3 // 10  # each is a few updates of a real app
Files = dict[str, bytes]


def is_possible(files: Files) -> bool:
    """True if no file is declared below another."""
    return not any(below.startswith(f"{above}/") for above in files for below in files)


class Step(NamedTuple):
    """One update of a history, and the edits of the disk before it."""

    files: Files
    interruption: Interruption = Interruption()
    restart: bool = False
    tampered: tuple[str, ...] = ()


declared = st.dictionaries(st.sampled_from(FILES), st.sampled_from(CONTENTS)).filter(is_possible)
interruptions = st.one_of(
    st.builds(Interruption, st.sampled_from(["nowhere", "before", "after"])),
    st.builds(Interruption, st.just("inside"), st.integers(0, 25)),
)
steps = st.builds(
    Step,
    declared,
    interruptions,
    restart=st.booleans(),
    tampered=st.lists(st.sampled_from(FILES), max_size=2).map(tuple),
)
histories = st.lists(steps, min_size=1, max_size=5)


class Vandal:
    """Deletes files, and writes foreign ones, each with bytes that were never there before."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._serial = itertools.count()
        self.written: set[bytes] = set()
        self.folders: set[str] = set()

    def tamper(self, name: str) -> None:
        """Puts foreign bytes at a path, or removes its file, where that is possible."""
        path, number = self._root / name, next(self._serial)
        if path.is_dir() or not path.parent.is_dir():
            return
        if path.exists():
            self.written.discard(path.read_bytes())
            path.unlink()
        if number % 2 == 0:
            path.write_bytes(b"foreign %d" % number)
            self.written.add(b"foreign %d" % number)
            self.folders |= {str(folder) for folder in Path(name).parents}

    def move_away(self, to: Path) -> None:
        """Moves foreign files out of the way of declared ones, as an error message asks."""
        to.mkdir(exist_ok=True)
        for name, content in contents(snapshot(self._root)).items():
            if content in self.written:
                (self._root / name).rename(to / str(next(self._serial)))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Numbered folders; a fixture for one test would be shared by all its examples."""
    return (tmp_path_factory.mktemp("history") for _ in itertools.count())


@pytest.mark.parametrize("main", [plain, memoized])
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@example([Step({"a": b"1"}), Step({"a/b": b"1"}, Interruption("inside", 6), restart=True)])
@example([Step({"a/c/d": b"1"}), Step({"a": b"1"}, Interruption("after")), Step({"a/b": b""})])
@example([Step({"a": b"1"}), Step({"a": b"two"}, Interruption("inside", 5), tampered=("a",))])
@given(history=histories)
def test_clean_update_converges_and_a_second_changes_nothing(
    main: Main, places: Iterator[Path], history: list[Step]
) -> None:
    at = next(places)
    flow, vandal = Flow(at, main), Vandal(at / "root")
    try:
        for step in history:
            play(flow, vandal, step)
        flow.files = history[-1].files
        vandal.move_away(at / "moved")
        flow.update()
        check(flow, vandal, at)
    finally:
        flow.close()
        shutil.rmtree(at)


def play(flow: Flow, vandal: Vandal, step: Step) -> None:
    """Tampers, then updates once."""
    for name in step.tampered:
        vandal.tamper(name)
    if step.restart:
        flow.close()
    flow.files = step.files
    with step.interruption.injected():
        said = flow.attempt()
    event(f"{step.interruption.where}: {'failed' if said else 'went through'}")


def check(flow: Flow, vandal: Vandal, at: Path) -> None:
    """Asserts that the tree is as declared, for good, and that all foreign bytes are somewhere."""
    folders = {str(folder) for name in flow.files for folder in list(Path(name).parents)[:-1]}
    assert contents(flow.tree) == flow.files
    # A folder that was kept for a foreign file stays when that file is moved away.
    assert flow.tree.keys() - vandal.folders == {*flow.files, *folders} - vandal.folders
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before
    everywhere = contents(snapshot(at)).values()
    assert vandal.written <= {*everywhere, *contents(snapshot(flow.root, ours=True)).values()}
    leftovers = staged(flow.root)
    assert leftovers == []
