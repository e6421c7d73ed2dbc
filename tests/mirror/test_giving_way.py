"""A declared path that had to give way is noted until its declaration comes again, or goes."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.rows import Displaced
from cocoindex_fsmirror._disk.staging import Slot, Staging
from tests.steps import CHANGES, crashes, recorded
from tests.support import OWNER, delete, failing, ledger_rows, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting")

# A declaration of one component, and that of another which takes its place.
CONTESTS: dict[str, tuple[Intent, Intent]] = {
    "a file, and one below it": (
        write("a", b"1", component="/one"),
        write("a/b", b"2", component="/two"),
    ),
    "a file, and a folder of its name that becomes a file": (
        write("a/b", b"1", component="/one"),
        write("a", b"2", component="/two"),
    ),
    "a file of another directory target": (
        write("a/b", b"1", component="/one"),
        write("a/b", b"2", component="/two", container="a//"),
    ),
    "the same bytes of another directory target": (
        write("a/b", b"1", component="/one"),
        write("a/b", b"1", component="/two", container="a//"),
    ),
}


@pytest.fixture(params=CONTESTS)
def contest(request: pytest.FixtureRequest) -> tuple[Intent, Intent]:
    """Two declarations that contradict each other."""
    return CONTESTS[request.param]


def _components(mirror: Mirror) -> set[str]:
    """Returns the components that have to rerun."""
    return {component for _, component in mirror.observe().components}


def _apply(root: Path, *intents: Intent) -> None:
    """Applies a batch in a mirror of its own, and leaves it open as a dying process does."""
    Mirror(root).apply(intents)


@pytest.mark.slow
def test_component_that_gave_way_reruns_after_any_interruption(
    tmp_path: Path, contest: tuple[Intent, Intent]
) -> None:
    """Without the note the declared file would stay away, since its component does not rerun."""
    first, second = contest
    for k in itertools.count():
        root = tmp_path / str(k)
        root.mkdir()
        with Mirror(root) as mirror:
            mirror.apply([first])
        interrupted = crashes(partial(_apply, root, second), k)
        with Mirror(root) as mirror:
            drift = mirror.observe()
            mirror.prepare(Owner(OWNER), drift)  # Recovers.
            rows = {(row.name, row.container) for row in ledger_rows(mirror)}
            stands = (first.name, first.container) in rows and first.name not in mirror.verify()
            assert stands or "/one" in _components(mirror), k
        shutil.rmtree(root)
        if not interrupted:
            break
    assert k > 5


def test_refused_declaration_and_its_rival_rerun_until_one_goes(
    mirror: Mirror,
) -> None:
    mirror.apply([write("a", b"1", component="/one")])
    refused = write("a/b", b"2", component="/two")
    for _ in range(3):
        with failing("'a' is declared too"):
            mirror.apply([replace(refused, rival=Name("a"))])
        assert _components(mirror) == {"/one", "/two"}
        assert mirror.observe().names == {"a", "a/b"}
    mirror.apply([delete("a"), refused])
    found = mirror.observe()  # A file that was written in the tick of the look is read again.
    assert not found.names
    assert not found.components
    assert not found.stale


def test_note_ends_with_a_repeated_declaration_that_changes_nothing(
    mirror: Mirror,
) -> None:
    mirror.apply([write("a", b"1", component="/one")])
    with pytest.raises(ApplyError):
        mirror.apply([write("a", b"1", component="/one", rival=Name("a/b"))])
    assert _components(mirror) == {"/one"}
    mirror.apply([write("a", b"1", component="/one")])
    assert _components(mirror) == set()


def test_note_ends_with_the_directory_target_of_the_declaration(mirror: Mirror) -> None:
    mirror.apply([write("d/a", b"1", component="/one", container="d//")])
    mirror.apply([write("d/a", b"2", component="/two")])
    assert _components(mirror) == {"/one", "/two"}
    mirror.apply([], closed=[(OWNER, "d//")])
    assert mirror.observe().names == set()
    assert mirror.managed() == ["d/a"]


def test_healed_winner_of_a_new_contest_makes_nobody_stale(mirror: Mirror) -> None:
    """Its drift was seen once, and says nothing of the contest, which is news."""
    mirror.apply([write("a/b", b"1", component="/one")])
    ledger = mirror.session.ledger
    assert ledger is not None
    ledger.set_seen([Name("a/b")], True)
    ledger.set_displaced([Displaced(Name("a"), OWNER, "", "/two", Name("a/b"))], [])
    assert _components(mirror) == {"/one", "/two"}
    assert mirror.observe().stale == frozenset()


def test_declaration_and_a_failed_rival_both_rerun(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.apply([write("a", b"1", component="/one")])

    def exchange(_self: Staging, _slot: Slot, _name: Name) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Staging, "exchange", exchange)
    with pytest.raises(ApplyError):
        mirror.apply([write("a", b"2", component="/two", container="x//")])
    assert snapshot(root) == {"a": b"1"}
    assert _components(mirror) == {"/one"}
    assert mirror.observe().names == {"a"}


def test_batch_that_is_refused_whole_makes_no_barrier(mirror: Mirror) -> None:
    mirror.apply([write("a", b"1")])
    with recorded() as calls, pytest.raises(ApplyError):
        mirror.apply([write("a/b", b"2", rival=Name("a"))])
    assert not (CHANGES - {"mkdir"}) & {name for name, _ in calls}


def test_note_that_was_seen_is_not_written_again(mirror: Mirror) -> None:
    mirror.apply([write("a", b"1", component="/one")])
    with failing("'a' is declared too"):
        mirror.apply([write("a/b", b"2", component="/two", rival=Name("a"))])
    ledger, counts = mirror.session.ledger, list[int]()
    assert ledger is not None
    for _ in range(2):
        told: list[str] = []
        ledger._connection.set_trace_callback(told.append)
        mirror.prepare(Owner(OWNER), mirror.observe())
        ledger._connection.set_trace_callback(None)
        counts.append(sum("INTO displaced" in line for line in told))
    assert counts == [1, 0]
