"""A ledger that is lost, copied or older than its root is not believed, and nothing is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from tests.mirror.files import FILES, INTENTS
from tests.steps import identity
from tests.support import OWNER, backups, contents, delete, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_ledger_of_no_length_is_carried_on_from(ledger: Path, root: Path, suffix: str) -> None:
    Path(f"{ledger}{suffix}").write_bytes(b"")
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
        assert mirror.managed() == sorted(FILES)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


def test_after_a_lost_ledger_nothing_counts_as_ours(ledger: Path, root: Path) -> None:
    ledger.write_bytes(b"garbage" * 1_000)
    with Mirror(root) as mirror:
        mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


@pytest.mark.parametrize("what", ["ledger", "folder"])
def test_a_deleted_ledger_makes_everything_adopted_and_nothing_ours(
    ledger: Path, root: Path, what: str
) -> None:
    ledger.unlink() if what == "ledger" else shutil.rmtree(ledger.parent)
    before = {name: identity(root / name) for name in FILES}
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
        assert {name: identity(root / name) for name in FILES} == before
        assert mirror.managed() == sorted(FILES)
        mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


@pytest.mark.parametrize("what", ["ledger", "folder"])
def test_a_ledger_that_vanishes_while_a_mirror_is_open_is_made_anew(
    ledger: Path, root: Path, what: str
) -> None:
    with Mirror(root) as mirror:
        mirror.apply([write("new", b"4")])
        if what == "folder":
            shutil.rmtree(ledger.parent)
        else:
            for path in ledger.parent.glob("ledger*"):
                path.unlink()
        mirror.apply([*INTENTS, write("new", b"4"), write("later", b"5")])
        assert mirror.managed() == sorted([*FILES, "new", "later"])
    with Mirror(root) as other:
        assert other.managed() == sorted([*FILES, "new", "later"])


def test_an_edit_is_found_though_the_ledger_was_copied_with_its_root(
    ledger: Path, root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "x").write_bytes(b"7")
    with Mirror(copy) as mirror:
        assert mirror.verify() == ["x"]
        assert OWNER not in mirror.observe().known
        mirror.apply(INTENTS)
        assert mirror.verify() == []
    assert contents(snapshot(copy)) == FILES | {"d/theirs": b"foreign"}
    assert backups(copy) == [b"7"]


def test_a_restored_ledger_is_not_believed_blindly(
    ledger: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = ledger.with_name("old")
    shutil.copy2(ledger, old)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"newer"), delete("d/y"), write("z", b"4")])
    (root / "d" / "y").write_bytes(b"foreign y")
    for path in ledger.parent.glob("ledger*"):
        path.unlink()
    os.rename(old, ledger)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"newest"), write("z", b"4"), delete("d/y")])
        assert mirror.verify() == []
    assert any("copied or restored" in message for message in caplog.messages)
    assert contents(snapshot(root)).items() >= {"x": b"newest", "z": b"4"}.items()
    assert set(backups(root)) == {b"newer", b"foreign y"}


def test_an_older_ledger_put_back_into_the_same_file_loses_nothing(
    ledger: Path, root: Path
) -> None:
    old = ledger.read_bytes()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"7"), delete("d/y")])
    (root / "d" / "y").write_bytes(b"8")
    ledger.write_bytes(old)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"9"), delete("d/y")])
    assert (root / "x").read_bytes() == b"9"
    assert backups(root) == [b"7", b"8"]
