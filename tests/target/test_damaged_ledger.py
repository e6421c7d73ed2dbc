"""After damage to its ledger a flow declares everything again, and is in order."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

import cocoindex_fsmirror as fsmirror
from tests.target.declaring import MakeFlow, assert_converged, displaced
from tests.target.flows import Flow, memoized, ran

FILES = {f"{n % 5}/file-{n:03}.txt": b"content %d" % n for n in range(150)}
TAMPERED = "3/file-003.txt"


@pytest.fixture
def filled(make_flow: MakeFlow) -> Flow:
    """A flow of many memoized components."""
    flow = make_flow(memoized)
    flow.files = dict(FILES)
    flow.update()
    flow.update()
    assert not ran
    return flow


def _let_go(flow: Flow) -> Path:
    """Closes the mirrors of this process, as its end does; returns the ledger."""
    from cocoindex_fsmirror._target.sink import close_all

    flow.close()
    close_all()
    return flow.root / ".fsmirror" / "ledger.sqlite3"


def _assert_healed(flow: Flow) -> None:
    """Asserts that one update brings the tampered file back, and backs up no other."""
    (flow.root / TAMPERED).write_bytes(b"tampered")
    flow.update()
    assert (flow.root / TAMPERED).read_bytes() == FILES[TAMPERED]
    assert fsmirror.Mirror(flow.root).managed() == sorted(FILES)
    assert set(displaced(flow)) <= {b"tampered"}
    flow.update()
    assert not ran
    assert_converged(flow)


@pytest.mark.parametrize("kind", ["zeros", "another page"])
@pytest.mark.parametrize("part", range(4))
def test_damaged_page_blinds_a_flow_for_no_update(filled: Flow, kind: str, part: int) -> None:
    ledger = _let_go(filled)
    good = ledger.read_bytes()
    pages = len(good) // 4096
    page = random.Random(part).randrange(pages * part // 4, pages * (part + 1) // 4)
    other = (page + 1) % pages
    new = bytes(4096) if kind == "zeros" else good[other * 4096 : (other + 1) * 4096]
    with ledger.open("r+b") as file:
        file.seek(page * 4096)
        file.write(new)
    _assert_healed(filled)


def test_damage_under_an_open_mirror_is_noticed_by_the_next_update(filled: Flow) -> None:
    """The connection of this process goes on with pages that it holds in memory."""
    ledger = _let_go(filled)
    filled.files["new"] = FILES["new"] = b"new"
    try:
        filled.update()
        with closing(connect(ledger)) as database:
            database.execute("UPDATE rows SET kind = 'fild' WHERE name > '3'")
            database.commit()
        filled.update()
        assert set(ran) == set(filled.files)
        assert [left for left in ledger.parent.iterdir() if "corrupt" in left.name]
        _assert_healed(filled)
    finally:
        del FILES["new"]


def test_flow_refuses_a_ledger_of_a_newer_format_before_anything_runs(filled: Flow) -> None:
    ledger = _let_go(filled)
    with closing(connect(ledger)) as database:
        database.execute("UPDATE meta SET value = 77 WHERE key = 'format'")
        database.execute("ALTER TABLE rows RENAME COLUMN made TO created")
        database.commit()
    before = ledger.read_bytes()
    filled.files["more"] = b"more"
    assert "has format 77" in filled.attempt()
    assert not ran
    assert filled.tree.keys() >= FILES.keys()
    assert "more" not in filled.tree
    assert ledger.read_bytes() == before
    _let_go(filled)


def test_single_file_beside_a_ledger_of_a_newer_format_is_refused(make_flow: MakeFlow) -> None:
    async def main(flow: Flow) -> None:
        fsmirror.declare_file(flow.root / "x", flow.files["x"])

    flow = make_flow(main)
    flow.files = {"x": b"1"}
    flow.update()
    ledger = _let_go(flow)
    with closing(connect(ledger)) as database:
        database.execute("UPDATE meta SET value = 77 WHERE key = 'format'")
        database.commit()
    flow.files = {"x": b"2"}
    assert "has format 77" in flow.attempt()
    assert (flow.root / "x").read_bytes() == b"1"
