"""Symbolic links that are declared: put in place, kept, healed and removed, never followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.states import LinkState
from tests.steps import watched
from tests.support import backups, delete, exact_state, failing, folder, link, snapshot, write


@pytest.mark.parametrize("target", ["a", "../x/y", "/abs", "no such", "a\nb", "é", "x" * 1000])
def test_link_is_made_and_recorded_as_declared(mirror: Mirror, root: Path, target: str) -> None:
    mirror.apply([link("deep/l", target)])
    assert os.readlink(root / "deep" / "l") == target
    assert mirror.managed() == ["deep/l"]
    assert mirror.verify() == mirror.verify(content=True) == []
    before = exact_state(root)
    mirror.apply([link("deep/l", target)])
    assert exact_state(root) == before


def test_changed_link_is_replaced_and_deleted_one_comes_back(mirror: Mirror, root: Path) -> None:
    mirror.apply([link("l", "old"), link("m", "m")])
    (root / "m").unlink()
    assert mirror.verify() == ["m"]
    mirror.apply([link("l", "new", ours=(LinkState("old").digest,)), link("m", "m")])
    assert snapshot(root) == {"l": "-> new", "m": "-> m"}
    assert backups(root) == []
    mirror.apply([delete("l"), delete("m")])
    assert snapshot(root) == {}


def test_foreign_change_of_a_link_is_drift_and_is_backed_up(mirror: Mirror, root: Path) -> None:
    mirror.apply([link("l", "ours")])
    (root / "l").unlink()
    (root / "l").symlink_to("theirs")
    assert mirror.verify() == ["l"]
    outcome = mirror.apply([link("l", "ours")])
    assert os.readlink(root / "l") == "ours"
    assert os.readlink(root / outcome.backed_up[next(iter(outcome.backed_up))]) == "theirs"


def test_right_foreign_link_is_adopted_and_stays_at_teardown(mirror: Mirror, root: Path) -> None:
    (root / "l").symlink_to("x")
    before = (root / "l").lstat()
    outcome = mirror.apply([link("l", "x"), link("made", "x")])
    assert outcome.kept == ["l"]
    assert (root / "l").lstat().st_ino == before.st_ino
    mirror.tear_down("owner-a")
    assert snapshot(root) == {"l": "-> x"}


KINDS = [write("x", b"-> t"), link("x", "t"), folder("x"), write("x/below", b"1")]


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("then", KINDS)
def test_a_path_becomes_another_kind_without_a_trace(
    mirror: Mirror, root: Path, first: object, then: object
) -> None:
    if first is then:
        return
    shown = {KINDS[0]: {"x": b"-> t"}, KINDS[1]: {"x": "-> t"}, KINDS[2]: {"x": "dir"}}
    shown[KINDS[3]] = {"x": "dir", "x/below": b"1"}
    mirror.apply([first])  # type: ignore[list-item]
    gone = [delete("x/below")] if first is KINDS[3] else [delete("x")]
    same_path = first is not KINDS[3] and then is not KINDS[3]
    mirror.apply([then] if same_path else [then, *gone])  # type: ignore[list-item]
    assert snapshot(root) == shown[then]  # type: ignore[index]
    assert backups(root) == []
    assert mirror.verify(content=True) == []


def test_target_of_a_link_is_never_touched(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    before = exact_state(outside)
    mirror.apply([link("d", "../outside", mtime_ns=5), link("f", "../outside/file", mtime_ns=6)])
    with failing("'d/file' is declared below it"):
        mirror.apply([link("d", "../outside"), write("d/file", b"ours")])
    mirror.apply([write("d/file", b"ours"), delete("d")])  # The link makes way for a folder.
    mirror.apply([write("f", b"ours")])
    assert snapshot(root) == {"d": "dir", "d/file": b"ours", "f": b"ours"}
    assert exact_state(outside) == before


def test_link_keeps_its_declared_time(mirror: Mirror, root: Path) -> None:
    mirror.apply([link("l", "x", mtime_ns=1_234_567_890_123_456_789)])
    assert (root / "l").lstat().st_mtime_ns == 1_234_567_890_123_456_789
    os.utime(root / "l", ns=(7, 7), follow_symlinks=False)
    assert mirror.verify() == ["l"]
    before = (root / "l").lstat().st_ino
    mirror.apply([link("l", "x", mtime_ns=1_234_567_890_123_456_789)])
    assert (root / "l").lstat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (root / "l").lstat().st_ino == before  # Not made anew.
    assert mirror.verify() == []


def test_link_that_appears_before_its_time_is_set_keeps_its_own(mirror: Mirror, root: Path) -> None:
    mirror.apply([link("l", "ours", mtime_ns=5)])
    os.utime(root / "l", ns=(6, 6), follow_symlinks=False)

    def replace(name: str, args: tuple[object, ...]) -> None:
        if name == "open" and args[0] == "l":
            (root / "l").unlink()
            (root / "l").symlink_to("theirs")
            os.utime(root / "l", ns=(7, 7), follow_symlinks=False)

    with watched(replace):
        mirror.apply([link("l", "ours", mtime_ns=5)])
    assert (root / "l").lstat().st_mtime_ns == 7
