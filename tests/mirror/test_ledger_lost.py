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
def test_empty_ledger_file_is_filled_again(ledger: Path, root: Path, suffix: str) -> None:
    Path(f"{ledger}{suffix}").write_bytes(b"")
    with Mirror(root) as mirror:
        mirror.apply(INTENTS)
        assert mirror.managed() == sorted(FILES)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


def test_nothing_counts_as_ours_after_a_lost_ledger(ledger: Path, root: Path) -> None:
    ledger.write_bytes(b"garbage" * 1_000)
    with Mirror(root) as mirror:
        mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == FILES | {"d/theirs": b"foreign"}


@pytest.mark.parametrize("what", ["ledger", "folder"])
def test_files_of_a_deleted_ledger_are_adopted_and_stay_at_teardown(
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
def test_ledger_that_vanishes_while_its_mirror_is_open_is_made_anew(
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


def test_edit_is_found_in_a_root_copied_with_its_ledger(
    ledger: Path, root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "x").write_bytes(b"7")
    with Mirror(copy) as mirror:
        assert mirror.verify() == ["x"]
        assert OWNER not in mirror.observe().owners
        mirror.apply(INTENTS)
        assert mirror.verify() == []
    assert contents(snapshot(copy)) == FILES | {"d/theirs": b"foreign"}
    assert backups(copy) == [b"7"]


def test_restored_ledger_is_not_believed_blindly(
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


def test_older_ledger_put_back_into_the_same_file_loses_nothing(ledger: Path, root: Path) -> None:
    old = ledger.read_bytes()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"7"), delete("d/y")])
    (root / "d" / "y").write_bytes(b"8")
    ledger.write_bytes(old)
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"9"), delete("d/y")])
    assert (root / "x").read_bytes() == b"9"
    assert backups(root) == [b"7", b"8"]


def test_ledger_that_is_replaced_while_its_mirror_is_open_is_the_one(root: Path) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"1")])
        for path in (root / ".fsmirror").glob("ledger.sqlite3*"):
            path.unlink()
        with Mirror(root) as other:
            other.apply([write("y", b"1")])
        mirror.apply([write("z", b"1")])
    with Mirror(root) as other:
        assert other.managed() == ["y", "z"]
