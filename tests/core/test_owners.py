"""Epochs that fit, and databases that are copies."""

from __future__ import annotations

import pytest

from cocoindex_fsmirror._core.owners import Declarer, Epoch, Owner, fits


@pytest.mark.parametrize(
    ("epoch", "settled", "begun", "before", "expected"),
    [
        (Epoch("u1", 2), Epoch("u1", 2), ["u1"], "", True),  # nothing happened since
        (Epoch("u1", 2), Epoch("u1", 2), ["u2"], "u1", True),  # an update changed nothing
        (Epoch("u1", 3), Epoch("u1", 2), ["u1"], "", True),  # components were removed at its end
        (Epoch("u1", 1), Epoch("u1", 2), ["u1"], "", False),  # the ledger is of its middle
        (Epoch("u2", 1), Epoch("u1", 2), ["u2"], "u1", True),  # it was interrupted
        (Epoch("u2", 1), Epoch("u1", 2), ["u2", "u3"], "u1", True),  # and so was the next one
        (Epoch("u2", 1), Epoch("u1", 2), ["u3"], "u2", True),  # or the first after its removals
        (Epoch("u0", 2), Epoch("u1", 2), ["u3"], "u2", False),  # the ledger was put back
        (Epoch("u1", 2), Epoch("u2", 1), ["u2"], "u1", False),
        (Epoch("u2", 1), Epoch("u1", 2), ["u1"], "", False),  # the database was put back
        (Epoch("u2", 1), None, ["u2"], "u1", True),  # the end is not remembered
        (Epoch("u1", 2), None, ["u2"], "u1", True),
        (Epoch("u3", 1), None, ["u2"], "u1", False),
        (Epoch("u3", 1), Epoch("u1", 1), ["", "u2"], "u1", True),  # of an earlier release
    ],
)
def test_epochs_fit_if_no_side_is_of_another_time(
    epoch: Epoch, settled: Epoch | None, begun: list[str], before: str, expected: bool
) -> None:
    assert fits(epoch, settled, begun, before) is expected


@pytest.mark.parametrize(
    ("known", "acting", "expected"),
    [
        (Declarer("/p/db", "1 2"), Declarer("/p/db", "1 2"), True),
        (Declarer("/p/db", "1 2"), Declarer("/p/db", "1 3"), True),  # put back in its place
        (Declarer("/p/db", "1 2"), Declarer("/q/db", "1 2"), True),  # moved
        (Declarer("/p/db", "1 2"), Declarer("/q/db", "1 3"), False),
        (Declarer("/p/db", "1 2 3"), Declarer("/q/db", "1 2 4"), False),  # the inode came back
        (Declarer("db"), Declarer("/p/db", "1 2"), True),  # of format 3, beside the root
        (Declarer("sub/db"), Declarer("/p/sub/db", "1 2"), True),
        (Declarer("db"), Declarer("/q/db", "1 2"), False),
        (Declarer("db"), Declarer("/p/odb", "1 2"), False),
        (Declarer("db", "1 2"), Declarer("/p/db", "1 3"), False),
        (Declarer("/p/db"), Declarer("/q/db", "1 3"), False),
        (Declarer("/p/db"), Declarer("/q/db"), False),
    ],
)
def test_database_is_recognized_by_path_or_inode(
    known: Declarer, acting: Declarer, expected: bool
) -> None:
    assert Owner("o", declarer=known).is_of(acting, "/p/out") is expected


@pytest.mark.parametrize(
    ("known", "acting", "expected"),
    [
        (Declarer("/p/db", "1 2 3", "out"), Declarer("/p/db", "1 4 5", "out"), True),  # anew
        (Declarer("/p/db", "1 2 3", "out"), Declarer("/p/db", "1 2 5", "out"), True),
        (Declarer("/p/db", "1 2", "out"), Declarer("/p/db", "1 4 5", "out"), True),
        (Declarer("/p/db", "1 2 3", "out"), Declarer("/p/db", "1 2 3", "out"), False),  # other app
        (Declarer("/p/db", "1 2 3", "out"), Declarer("/p/db", "7 2 3", "out"), False),  # remounted
        (Declarer("/p/db", "1 2", "out"), Declarer("/p/db", "1 2 3", "out"), False),
        (Declarer("/p/db", "1 2 3", "/p/o"), Declarer("/q/db", "7 2 3", "/q/o"), True),  # moved
        (Declarer("/p/db", "1 2", "/p/o"), Declarer("/q/db", "1 2 3", "/q/o"), True),
        (Declarer("/p/db", "1 2 3", "/p/o"), Declarer("/q/db", "1 2 4", "/q/o"), False),
        (Declarer("/p/db", "", "/p/out"), Declarer("/p/db", "1 3", "/p/out"), False),  # perhaps
        (Declarer("/p/db", "1 2", "out"), Declarer("/q/db", "1 3", "out"), False),
        (Declarer("/p/db", "1 2", "/p/out"), Declarer("/q/db", "1 3", "/q/out"), False),
        (Declarer(place="out"), Declarer("/q/db", "1 3", "out"), True),  # copied
        (Declarer(place="/p/out"), Declarer("/q/db", "1 3", "/q/out"), True),
        (Declarer("/p/db", "1 2", "/p/out"), Declarer("/q/db", "1 2", "/q/out"), True),  # moved
        (Declarer("/p/db", "1 2", "/p/out"), Declarer("/p/db", "1 3", "/p/new"), True),
        (Declarer("/p/db", "1 2", "/p/out"), Declarer("/q/db", "1 2", "out"), True),
        (Declarer("/p/db", "1 2", "/p/out"), Declarer("/q/db", "1 2", "other"), False),
        (Declarer("/p/db", "1 2", "/p/out"), Declarer("/q/db", "1 2", "ut"), False),
        (Declarer("/p/db", "1 2", "out"), Declarer("/q/db", "1 2", "/q/out"), False),
    ],
)
def test_owner_passes_to_a_new_database_or_with_one_that_moved(
    known: Declarer, acting: Declarer, expected: bool
) -> None:
    assert Owner("o", declarer=known).passes_to(acting) is expected
