"""The strategies for files: names that a disk takes, trees that can be there, and nasty ones."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, assume, find, given, settings
from hypothesis import strategies as st

from cocoindex_fsmirror import InvalidNameError
from cocoindex_fsmirror._core.names import parse_name
from cocoindex_fsmirror.testing import edits, names, paths, trees
from cocoindex_fsmirror.testing._strategies import Files

T = TypeVar("T")

# Where a machine keeps files in memory, and, by default, where it keeps the others.
PLACES = [place for place in (None, "/dev/shm") if place is None or os.path.isdir(place)]

TREE: Files = {"a/b": b"1", "a/c": b"2", "d": b"3", "e": None}


@pytest.fixture(params=PLACES)
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder, on each kind of disk."""
    with tempfile.TemporaryDirectory(dir=request.param) as made:
        yield Path(made)


def one(strategy: st.SearchStrategy[T], condition: Callable[[T], bool], *phases: Phase) -> T:
    """Returns an example for which a condition holds, the same one in every run."""
    searching = settings(
        max_examples=3_000,
        database=None,
        phases=[Phase.generate, *phases],
        suppress_health_check=list(HealthCheck),
    )
    return find(strategy, condition, settings=searching, random=random.Random(0))


def shortest(strategy: st.SearchStrategy[T], condition: Callable[[T], bool]) -> T:
    """Returns the simplest example for which a condition holds."""
    return one(strategy, condition, Phase.shrink)


# Names


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(names(), unique=True, max_size=20))
def test_a_disk_takes_every_name_and_gives_it_back(folder: Path, some: list[str]) -> None:
    for name in some:
        assert len(os.fsencode(name)) <= 255
        (folder / name).touch(exist_ok=False)
    assert set(os.listdir(folder)) == set(some)
    for name in some:
        (folder / name).unlink()


@given(names())
def test_every_name_may_be_declared_unless_it_is_reserved(name: str) -> None:
    with contextlib.suppress(InvalidNameError):
        assert parse_name(name) == name
        return
    with pytest.raises(InvalidNameError, match="our own"):
        parse_name(name)


@pytest.mark.parametrize(
    "is_nasty",
    [
        lambda name: name.startswith("-"),
        lambda name: name.startswith("."),
        lambda name: name.startswith(" "),
        lambda name: name.endswith(" "),
        lambda name: name.endswith("."),
        lambda name: "\n" in name,
        lambda name: "\\" in name,
        lambda name: name.isascii() and len(name) == 255,
        lambda name: not name.isascii() and len(name.encode()) > 250,
        lambda name: len(name) > 1 and not name.isprintable(),
        lambda name: any(ord(character) > 0xFFFF for character in name),
        lambda name: unicodedata.normalize("NFC", name) != name,
        lambda name: unicodedata.normalize("NFD", name) != name,
    ],
)
def test_nasty_names_are_drawn(is_nasty: Callable[[str], bool]) -> None:
    assert is_nasty(one(names(), is_nasty))


# Paths


@given(paths(max_depth=4))
def test_path_is_at_most_as_deep_as_asked_for(path: str) -> None:
    assert 1 <= len(path.split("/")) <= 4
    assert not {"", ".", ".."} & set(path.split("/"))


@given(paths(st.sampled_from("xyz")))
def test_paths_are_made_of_the_given_names(path: str) -> None:
    assert set(path) <= set("xyz/")


def test_paths_nest_and_meet() -> None:
    pairs = st.tuples(paths(), paths())
    above, below = shortest(pairs, lambda pair: pair[1].startswith(f"{pair[0]}/"))
    assert below == f"{above}/{above}"  # One name is enough.
    assert one(pairs, lambda pair: pair[0] == pair[1] and "/" in pair[0])


# Trees


def is_consistent(tree: Files) -> bool:
    """True if no path is below a file or in an empty folder."""
    return not any(path.startswith(f"{other}/") for path in tree for other in tree)


def write(tree: Files, at: Path) -> None:
    """Makes a tree."""
    for path, content in tree.items():
        if content is None:
            (at / path).mkdir(parents=True)
        else:
            (at / path).parent.mkdir(parents=True, exist_ok=True)
            (at / path).write_bytes(content)


def read(at: Path) -> Files:
    """Reads a tree from the disk."""
    found: Files = {}
    for folder, folders, files in os.walk(at):
        where = Path(folder).relative_to(at)
        found |= {str(where / file): Path(folder, file).read_bytes() for file in files}
        if not folders and not files and where != Path():
            found[str(where)] = None
    return found


@pytest.mark.parametrize("place", PLACES)
def test_a_disk_takes_every_tree_and_gives_it_back(place: str | None) -> None:
    @given(trees())
    def check(tree: Files) -> None:
        assert is_consistent(tree)
        with tempfile.TemporaryDirectory(dir=place) as at:
            write(tree, Path(at))
            assert read(Path(at)) == tree

    check()


def parts(tree: Files) -> set[str]:
    """Returns every name in a tree."""
    return {name for path in tree for name in path.split("/")}


def have_twins(some: Collection[str], fold: Callable[[str], str]) -> bool:
    """True if some file systems would take two names for one."""
    return len({fold(name) for name in some}) < len(some)


@pytest.mark.parametrize(
    "holds",
    [
        lambda tree: have_twins(parts(tree), str.lower),
        lambda tree: have_twins(parts(tree), lambda name: unicodedata.normalize("NFC", name)),
        lambda tree: None in tree.values() and len(set(tree.values())) > 2,
        lambda tree: b"" in tree.values(),
        lambda tree: any(path.count("/") == 2 for path in tree),
        lambda tree: len(tree) > 4,
    ],
)
def test_trees_of_every_kind_are_drawn(holds: Callable[[Files], bool]) -> None:
    assert holds(one(trees(), holds))


def test_a_tree_shrinks_to_nothing() -> None:
    assert shortest(trees(), lambda _: True) == {}


# Edits


@given(trees().flatmap(lambda tree: st.tuples(st.just(tree), st.just(dict(tree)), edits(tree))))
def test_edited_tree_is_consistent_and_the_first_is_unchanged(
    drawn: tuple[Files, Files, Files],
) -> None:
    tree, copy, edited = drawn
    assert tree == copy
    assert is_consistent(edited)


@pytest.mark.parametrize(
    "is_such",
    [
        lambda edited: edited.items() < TREE.items(),  # removed
        lambda edited: edited.items() > TREE.items(),  # added
        lambda edited: edited.keys() == TREE.keys() and edited["d"] not in (b"3", None),
        lambda edited: "d" not in edited and list(edited.values()).count(b"3") == 1,  # moved
        lambda edited: any(path.startswith("d/") and edited[path] == b"3" for path in edited),
        lambda edited: edited.get("a", None) is not None,  # a folder became a file
        lambda edited: "d" in edited and edited["d"] is None,  # a file became a folder
        lambda edited: edited.get("e", None) is not None,  # and the other way round
    ],
)
def test_edits_of_every_kind_are_drawn(is_such: Callable[[Files], bool]) -> None:
    assert is_such(one(edits(TREE, paths(st.sampled_from("abdx"))), is_such))


def test_edits_shrink_to_none() -> None:
    assert shortest(edits(TREE), lambda _: True) == TREE


@given(edits({}, max_size=0))
def test_empty_tree_without_edits_stays_empty(edited: Files) -> None:
    assert edited == {}


def test_limits_of_the_strategies_are_kept() -> None:
    @given(trees(paths(st.sampled_from("ab")), st.just(b"x"), max_size=2))
    def check(tree: Files) -> None:
        assume(tree)
        assert len(tree) <= 2
        assert set(tree.values()) <= {None, b"x"}

    check()
