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
from cocoindex_fsmirror._disk.staging import Slot, Staging
from tests.steps import CHANGES, crashes, recorded
from tests.support import OWNER, delete, failing, ledger_rows, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting")

# What is declared by one component, what then takes its place by another.
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
    """Two declarations that can't both be true."""
    return CONTESTS[request.param]


def _components(mirror: Mirror) -> set[str]:
    """The components that are to be run again."""
    return {component for _, component in mirror.observe().components}


def _apply(root: Path, *intents: Intent) -> None:
    """Applies a batch in a mirror of its own, which is left open as by a process that dies."""
    Mirror(root).apply(intents)


def test_who_gave_way_is_declared_again_wherever_the_batch_was_interrupted(
    tmp_path: Path, contest: tuple[Intent, Intent]
) -> None:
    """Else nobody would tell that a declared file is gone: its component is not run again."""
    first, second = contest
    for k in itertools.count():
        root = tmp_path / str(k)
        root.mkdir()
        with Mirror(root) as mirror:
            mirror.apply([first])
        interrupted = crashes(partial(_apply, root, second), k)
        with Mirror(root) as mirror:
            drift = mirror.observe()
            mirror.prepare(OWNER, drift)  # Recovers.
            rows = {(row.name, row.container) for row in ledger_rows(mirror)}
            stands = (first.name, first.container) in rows and first.name not in mirror.verify()
            assert stands or "/one" in _components(mirror), k
        shutil.rmtree(root)
        if not interrupted:
            break
    assert k > 5


def test_a_refused_declaration_and_its_rival_are_declared_again_until_one_of_them_goes(
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


def test_a_note_ends_when_the_declaration_comes_again_though_nothing_is_to_be_done(
    mirror: Mirror,
) -> None:
    mirror.apply([write("a", b"1", component="/one")])
    with pytest.raises(ApplyError):
        mirror.apply([write("a", b"1", component="/one", rival=Name("a/b"))])
    assert _components(mirror) == {"/one"}
    mirror.apply([write("a", b"1", component="/one")])
    assert _components(mirror) == set()


def test_a_note_ends_with_the_directory_target_of_the_declaration(mirror: Mirror) -> None:
    mirror.apply([write("d/a", b"1", component="/one", container="d//")])
    mirror.apply([write("d/a", b"2", component="/two")])
    assert _components(mirror) == {"/one", "/two"}
    mirror.apply([], closed=[(OWNER, "d//")])
    assert mirror.observe().names == set()
    assert mirror.managed() == ["d/a"]


def test_a_declaration_and_one_that_could_not_take_its_place_are_both_declared_again(
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


def test_a_batch_of_which_all_is_refused_makes_no_barrier(mirror: Mirror) -> None:
    mirror.apply([write("a", b"1")])
    with recorded() as calls, pytest.raises(ApplyError):
        mirror.apply([write("a/b", b"2", rival=Name("a"))])
    assert not (CHANGES - {"mkdir"}) & {name for name, _ in calls}
