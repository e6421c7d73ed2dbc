"""Defects of the ``sqlite`` target that the kit finds, and rules that it keeps."""

from __future__ import annotations

from typing import Literal

import pytest

from cocoindex_fsmirror.testing import Delivery, Disturb, Fault, Rule, Update, check_target
from tests.kit.others import DIES, Defect, update
from tests.kit.others_sqlite import (
    DATABASE,
    AlteredTables,
    CaseFoldingColumns,
    CaseFoldingRows,
    CaseFoldingTables,
    FilledTables,
    IndexedTables,
    MendedTables,
    SharedRows,
    Tables,
    UniqueRows,
    spec,
)

A, B = (DATABASE.key, "a"), (DATABASE.key, "b")
PLAIN, WITH_X = spec(), spec(x="TEXT")
IS_CONTAINER = {"container": True}

DEFECTS = {
    "a key that changes in case only goes, where the database takes it for the same": Defect(
        CaseFoldingRows,
        Rule.CONVERGES,
        "('A',) is absent and should be 1",
        [update({("a",): 1}), update({("A",): 1})],
    ),
    "a row can't take the place of another in an index of its owner": Defect(
        UniqueRows,
        Rule.CONVERGES,
        "apply raised IntegrityError: UNIQUE constraint failed",
        [update({("a1",): 1}), update({("a2",): 1})],
    ),
    "an edit is never noticed": Defect(
        SharedRows,
        Rule.CONVERGES,
        "('a',) is 'theirs' and should be 1",
        [update({("a",): 1}), Disturb(("a", False))],
        {"heals": True},
    ),
    "a table can't be made twice": Defect(
        Tables,
        Rule.IDEMPOTENT,
        'apply raised OperationalError: table "a" already exists',
        [update({A: PLAIN}, delivery=Delivery.TWICE)],
        IS_CONTAINER,
    ),
    "a column that must be set can't be added where there are rows": Defect(
        FilledTables,
        Rule.CONVERGES,
        "apply raised RuntimeError: Failed to add column 'x' to SQLite table 'a'",
        [update({A: PLAIN}), Disturb(), update({A: spec(x="TEXT!")})],
        IS_CONTAINER,
    ),
    "that a column could not be dropped is swallowed": Defect(
        AlteredTables,
        Rule.NO_SWALLOWED_FAILURE,
        f"{A} is {{'id': 'TEXT!', 'x': 'TEXT'}} and should be {{'id': 'TEXT!'}}",
        [update({A: WITH_X}), update({A: PLAIN}, Fault("fails", "inside", step=2))],
        IS_CONTAINER,
    ),
    "a column with an index stays, and nothing is said": Defect(
        IndexedTables,
        Rule.CONVERGES,
        f"{A} is {{'id': 'TEXT!', 'x': 'TEXT'}} and should be {{'id': 'TEXT!'}}",
        [update({A: WITH_X}), Disturb(), update({A: PLAIN})],
        IS_CONTAINER,
    ),
    "a column goes when its name was to change in case only, and after all was not": Defect(
        CaseFoldingColumns,
        Rule.CONVERGES,
        f"{A} is {{'id': 'TEXT!'}} and should be {{'id': 'TEXT!', 'x': 'TEXT'}}",
        [update({A: WITH_X}), update({A: spec(X="TEXT")}, DIES), update({A: WITH_X})],
        IS_CONTAINER,
    ),
    "a table goes when its name changes in case only": Defect(
        CaseFoldingTables,
        Rule.CONVERGES,
        f"{(DATABASE.key, 'A')} is absent and should be {{'id': 'TEXT!'}}",
        [update({A: PLAIN}), update({(DATABASE.key, "A"): PLAIN})],
        IS_CONTAINER,
    ),
}

# The engine's own reasons to deliver an action twice.
BEHIND = {
    "when one of two tables can't be made, the other one fails as well": Defect(
        Tables,
        Rule.IDEMPOTENT,
        'apply raised OperationalError: table "a" already exists',
        [
            Update(
                {"one": {A: PLAIN}, "two": {B: PLAIN}},
                Fault("fails", "inside", step=7),
                together=True,
            )
        ],
        IS_CONTAINER,
    ),
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_defect_of_sqlite_is_found(defect: Defect) -> None:
    assert defect.is_found()


@pytest.mark.parametrize("defect", (DEFECTS | BEHIND).values(), ids=DEFECTS | BEHIND)
def test_shortest_history_shows_the_defect_of_sqlite(defect: Defect) -> None:
    assert defect.is_told()


@pytest.mark.parametrize("deaths", ["raise", "fork"])
def test_rows_pass(deaths: Literal["raise", "fork"]) -> None:
    check_target(SharedRows, atomic=True, deaths=deaths)


@pytest.mark.parametrize("deaths", ["raise", "fork"])
def test_tables_that_may_exist_already_pass(deaths: Literal["raise", "fork"]) -> None:
    check_target(MendedTables, container=True, deaths=deaths)
