"""Paths that the ledger remembers, and what an update in doubt knows of their declarations."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.rows import Displaced, Row
from cocoindex_fsmirror._core.states import Kind
from cocoindex_fsmirror._target.engine import Component
from cocoindex_fsmirror._target.recount import Recount
from tests.support import OWNER

RUNNING = {"/ran": Component(True, frozenset()), "/new": Component(False, frozenset())}
RUNNING["/skipped"] = Component(True, frozenset({'/"a"', '/"d"/"b"', '/"d"/"e"', r'/b"\xff"'}))


@pytest.mark.parametrize(
    ("name", "container", "component", "expected"),
    [
        ("declared", "", "/gone", True),
        ("a", "", "/gone", False),
        ("a", "", "/ran", False),
        ("a", "", "/new", None),  # has never run to its end
        ("a", "", "/skipped", True),
        ("d/b", "d//", "/skipped", True),
        ("d/b", "", "/skipped", False),
        ("d/c", "d//", "/skipped", False),
        ("\udcff", "", "/skipped", True),
        ("e", "", "/skipped", False),  # Another target has a file of that name.
    ],
)
def test_path_is_declared_by_what_runs_or_has_run(
    name: str, container: str, component: str, expected: bool | None
) -> None:
    recount = Recount(frozenset(), is_out_of_step=False, names={Name("declared"): {""}})
    row = Row(Name(name), Kind.FILE, OWNER, container, component)
    assert recount.is_declared(row, [RUNNING]) is expected
    assert recount.is_declared(row, []) is (True if name == "declared" else None)


@pytest.mark.parametrize(("container", "expected"), [("", True), ("d//", False)])
def test_declaration_that_gave_way_is_told_from_that_in_its_place(
    container: str, expected: bool
) -> None:
    recount = Recount(frozenset(), is_out_of_step=False, names={Name("d/a"): {""}})
    note = Displaced(Name("d/a"), OWNER, container, "/ran", Name("d/a"))
    assert recount.is_declared(note, [RUNNING]) is expected


@pytest.mark.parametrize(("component", "expected"), [("/ran", False), ("/skipped", None)])
def test_component_that_should_have_run_again_is_in_doubt(
    component: str, expected: bool | None
) -> None:
    recount = Recount(frozenset(), is_out_of_step=True, components={"/ran"})
    assert (
        recount.is_declared(Row(Name("c"), Kind.FILE, OWNER, "", component), [RUNNING]) is expected
    )


def test_path_is_declared_if_any_app_of_the_database_declares_it() -> None:
    recount, row = Recount(frozenset(), is_out_of_step=False), Row(Name("a"), Kind.FILE, OWNER, "")
    skipped = replace(row, component="/skipped")
    assert recount.is_declared(skipped, [{}, RUNNING]) is True
    assert recount.is_declared(replace(row, component="/new"), [{}, RUNNING]) is None
    assert recount.is_declared(skipped, [{}, {}]) is False
