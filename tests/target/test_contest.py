"""Declarations of one update that can't both be true are noticed."""

from __future__ import annotations

import pytest

from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._target.declarations import Declarations

A, AB, ABC = Name("a"), Name("a/b"), Name("a/b/c")


def _declare(
    declared: Declarations, name: Name, component: str, place: str = "", *, is_file: bool = True
) -> Name:
    """Declares one path; returns its rival."""
    return declared.add(name, place, component, is_file=is_file)


@pytest.mark.parametrize(("first", "second"), [(A, AB), (AB, A), (A, ABC), (ABC, A), (ABC, AB)])
def test_file_and_path_below_it_are_rivals(first: Name, second: Name) -> None:
    declared = Declarations()
    assert _declare(declared, first, "one") == ROOT
    assert _declare(declared, second, "two") == first


def test_neighbours_are_no_rivals() -> None:
    declared = Declarations()
    for name in ("a", "a-b", "b/a", "b/c", "ab"):
        assert _declare(declared, Name(name), name) == ROOT


def test_one_path_in_two_directory_targets_is_a_rival() -> None:
    declared = Declarations()
    assert _declare(declared, AB, "one") == ROOT
    assert _declare(declared, AB, "two", "a//") == AB


def test_directory_is_the_rival_of_files_only() -> None:
    declared = Declarations()
    assert _declare(declared, A, "one", is_file=False) == ROOT
    assert _declare(declared, A, "two", is_file=False) == ROOT
    assert _declare(declared, AB, "two") == ROOT
    assert _declare(declared, AB, "three", "a//", is_file=False) == AB


def test_component_that_declares_again_is_not_its_own_rival() -> None:
    declared = Declarations()
    _declare(declared, A, "one")
    assert _declare(declared, A, "one") == ROOT
    assert _declare(declared, AB, "one") == ROOT


@pytest.mark.parametrize(("first", "second"), [(A, AB), (AB, A), (ABC, A)])
def test_withdrawn_path_is_no_longer_a_rival(first: Name, second: Name) -> None:
    declared = Declarations()
    _declare(declared, first, "one")
    declared.withdraw(first, "another//")
    assert _declare(declared, second, "two") == first
    declared.withdraw(first, "")
    assert _declare(declared, second, "two") == ROOT


def test_neighbour_of_a_withdrawn_path_holds_the_folder() -> None:
    declared = Declarations()
    _declare(declared, AB, "one")
    declared.withdraw(AB, "")
    assert _declare(declared, Name("a/z"), "one") == ROOT
    assert _declare(declared, A, "two") == Name("a/z")


@pytest.mark.parametrize("names", [(AB, A), (A, AB)])
def test_folder_that_its_component_made_a_file_is_a_rival_of_others(
    names: tuple[Name, Name],
) -> None:
    declared = Declarations()
    for name in names:
        assert _declare(declared, name, "one") == ROOT
    assert _declare(declared, Name("a/z"), "two") == A


@pytest.mark.parametrize("other", [AB, ABC])
def test_rival_is_found_right_after_a_neighbour_was_declared(other: Name) -> None:
    declared = Declarations()
    assert _declare(declared, other, "another", "elsewhere//") == ROOT
    assert _declare(declared, Name("a/c"), "one") == ROOT
    assert _declare(declared, AB, "one") == other


def test_folder_that_became_a_file_is_a_rival_of_files_below_it() -> None:
    declared = Declarations()
    assert _declare(declared, Name("a/y"), "one") == ROOT
    assert _declare(declared, ABC, "two") == ROOT
    assert _declare(declared, A, "one") == ROOT
    assert _declare(declared, Name("a/b/d"), "two") == A
