"""Who has declared what, in one update: what can't be there together is noticed."""

from __future__ import annotations

import pytest

from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._target.specs import Watch

A, AB, ABC = Name("a"), Name("a/b"), Name("a/b/c")


def _declare(
    watch: Watch, name: Name, component: str, place: str = "", *, is_file: bool = True
) -> Name:
    """Declares one path; tells what contradicts it."""
    return watch.declare(name, place, component, is_file=is_file)


@pytest.mark.parametrize(("first", "second"), [(A, AB), (AB, A), (A, ABC), (ABC, A), (ABC, AB)])
def test_a_file_and_what_is_below_it_are_rivals(first: Name, second: Name) -> None:
    watch = Watch()
    assert _declare(watch, first, "one") == ROOT
    assert _declare(watch, second, "two") == first


def test_neighbours_are_no_rivals() -> None:
    watch = Watch()
    for name in ("a", "a-b", "b/a", "b/c", "ab"):
        assert _declare(watch, Name(name), name) == ROOT


def test_one_path_in_two_directory_targets_is_a_rival() -> None:
    watch = Watch()
    assert _declare(watch, AB, "one") == ROOT
    assert _declare(watch, AB, "two", "a//") == AB


def test_a_directory_is_the_rival_of_files_only() -> None:
    watch = Watch()
    assert _declare(watch, A, "one", is_file=False) == ROOT
    assert _declare(watch, A, "two", is_file=False) == ROOT
    assert _declare(watch, AB, "two") == ROOT
    assert _declare(watch, AB, "three", "a//", is_file=False) == AB


def test_a_component_that_declares_again_is_not_its_own_rival() -> None:
    watch = Watch()
    _declare(watch, A, "one")
    assert _declare(watch, A, "one") == ROOT
    assert _declare(watch, AB, "one") == ROOT


@pytest.mark.parametrize(("first", "second"), [(A, AB), (AB, A), (ABC, A)])
def test_what_is_withdrawn_is_no_rival_any_more(first: Name, second: Name) -> None:
    watch = Watch()
    _declare(watch, first, "one")
    watch.withdraw(first, "another//")
    assert _declare(watch, second, "two") == first
    watch.withdraw(first, "")
    assert _declare(watch, second, "two") == ROOT


def test_a_neighbour_of_what_was_withdrawn_holds_the_folder() -> None:
    watch = Watch()
    _declare(watch, AB, "one")
    watch.withdraw(AB, "")
    assert _declare(watch, Name("a/z"), "one") == ROOT
    assert _declare(watch, A, "two") == Name("a/z")


@pytest.mark.parametrize("names", [(AB, A), (A, AB)])
def test_a_folder_that_its_own_component_made_a_file_is_a_rival_of_others(
    names: tuple[Name, Name],
) -> None:
    watch = Watch()
    for name in names:
        assert _declare(watch, name, "one") == ROOT
    assert _declare(watch, Name("a/z"), "two") == A


@pytest.mark.parametrize("other", [AB, ABC])
def test_a_rival_is_found_also_right_after_a_neighbour_was_declared(other: Name) -> None:
    watch = Watch()
    assert _declare(watch, other, "another", "elsewhere//") == ROOT
    assert _declare(watch, Name("a/c"), "one") == ROOT
    assert _declare(watch, AB, "one") == other


def test_a_folder_that_became_a_file_is_a_rival_of_those_who_go_on_below_it() -> None:
    watch = Watch()
    assert _declare(watch, Name("a/y"), "one") == ROOT
    assert _declare(watch, ABC, "two") == ROOT
    assert _declare(watch, A, "one") == ROOT
    assert _declare(watch, Name("a/b/d"), "two") == A
