"""Teardown takes what we made, and only that."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from tests.steps import run_failing
from tests.support import OWNER, backups, contents, folder, snapshot, write

OTHER = "owner-b"


def test_teardown_removes_files_root_and_parents_that_we_made(
    tmp_path: Path,
) -> None:
    (tmp_path / "kept").mkdir()
    with Mirror(tmp_path / "kept" / "made" / "root") as mirror:
        mirror.create()
        mirror.apply([write("x", b"1"), write("d/e/y", b"2"), folder("f"), folder("f/g")])
        mirror.tear_down(OWNER)
    assert snapshot(tmp_path) == {"kept": "dir"}


def test_root_that_was_there_stays(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("d/x", b"1")])
    mirror.tear_down(OWNER)
    assert list(root.iterdir()) == []


def test_parents_that_others_use_meanwhile_stay(tmp_path: Path) -> None:
    with Mirror(tmp_path / "a" / "b" / "root") as mirror:
        mirror.create()
        mirror.apply([write("x", b"1")])
        (tmp_path / "a" / "theirs").write_bytes(b"foreign")
        mirror.tear_down(OWNER)
    assert snapshot(tmp_path) == {"a": "dir", "a/theirs": b"foreign"}


@pytest.mark.parametrize("take", [shutil.copytree, os.rename], ids=["copied", "moved"])
def test_folders_above_a_mirror_that_came_from_elsewhere_stay(
    tmp_path: Path, take: Callable[[Path, Path], object]
) -> None:
    """Checks that the original's count of folders is not applied to those of somebody else."""
    there, here = tmp_path / "a" / "b" / "root", tmp_path / "theirs" / "empty" / "root"
    with Mirror(there) as mirror:
        mirror.create()
        mirror.apply([write("x", b"1")])
    here.parent.mkdir(parents=True)
    take(there, here)
    with Mirror(here) as mirror:
        mirror.tear_down(OWNER)
    assert snapshot(tmp_path / "theirs") == {"empty": "dir"}


def test_foreign_files_stay_and_are_named_in_one_line(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "adopted").write_bytes(b"adopted")
    (root / "there").mkdir()
    mirror.apply([write("adopted", b"adopted"), write("edited", b"1"), write("d/x", b"1")])
    mirror.apply([write("there/y", b"1"), write("touched", b"1"), write("relinked", b"1")])
    (root / "edited").write_bytes(b"edited")
    (root / "d" / "foreign").write_bytes(b"foreign")
    os.utime(root / "touched", ns=(1, 1))
    (root / "relinked").unlink()
    (root / "relinked").symlink_to("no/where")
    caplog.clear()
    with caplog.at_level(logging.INFO, "cocoindex_fsmirror"):
        mirror.tear_down(OWNER)
    assert snapshot(root) == {
        "adopted": b"adopted",
        "edited": b"edited",
        "relinked": "-> no/where",
        "d": "dir",
        "d/foreign": b"foreign",
        "there": "dir",
    }
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    (line,) = lines
    for name in ("adopted", "edited", "relinked", "d/foreign"):
        assert f"'{name}'" in line
    assert "touched" not in line
    assert "d/x" not in line


def test_line_about_very_many_foreign_files_is_short(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(300):
        (root / f"{number:03}").write_bytes(b"foreign")
    mirror.apply([write("x", b"1")])
    mirror.tear_down(OWNER)
    (line,) = caplog.messages
    assert "290 more" in line
    assert len(line) < 1_000


def test_root_with_backups_stays(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Mirror(root) as mirror:
        mirror.create()
        (root / "x").write_bytes(b"foreign")
        mirror.apply([write("x", b"1")])
        mirror.tear_down(OWNER)
    assert snapshot(root) == {}
    assert backups(root) == [b"foreign"]
    assert not list((root / ".fsmirror").glob("ledger*"))


def test_ledger_that_was_set_aside_stays_and_does_no_harm(root: Path) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"1")])
    (root / ".fsmirror" / "ledger.sqlite3").write_bytes(b"garbage" * 1_000)
    with Mirror(root) as mirror:
        mirror.apply([write("y", b"1")])
        mirror.tear_down(OWNER)
    assert [path for path in (root / ".fsmirror").iterdir() if "corrupt" in path.name]
    assert snapshot(root) == {"x": b"1"}


def test_owners_do_not_touch_each_others_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Mirror(root) as mirror, Mirror(root) as other:
        mirror.create()
        mirror.apply([write("shared/a", b"1"), write("mine/x", b"1")])
        other.apply([write("shared/b", b"2", owner=OTHER), write("theirs/x", b"2", owner=OTHER)])
        mirror.tear_down(OWNER)
        assert contents(snapshot(root)) == {"shared/b": b"2", "theirs/x": b"2"}
        assert "mine" not in snapshot(root)
        assert other.verify() == []
        other.tear_down(OTHER)
    assert not root.exists()


def test_files_of_another_owner_are_foreign(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    with pytest.raises(ApplyError, match="'x'"):
        mirror.apply([write("x", b"2", owner=OTHER, on_conflict="error")])
    assert (root / "x").read_bytes() == b"1"
    mirror.tear_down(OTHER)
    assert (root / "x").read_bytes() == b"1"


def test_second_teardown_does_nothing(mirror: Mirror, root: Path) -> None:
    (root / "foreign").write_bytes(b"foreign")
    mirror.apply([write("d/x", b"1")])
    mirror.tear_down(OWNER)
    before = snapshot(root)
    mirror.tear_down(OWNER)
    assert snapshot(root) == before == {"foreign": b"foreign"}
    assert [path.name for path in root.iterdir()] == ["foreign"]


def test_teardown_of_a_missing_root_makes_nothing(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("d/x", b"1")])
    shutil.rmtree(root)
    mirror.tear_down(OWNER)
    assert not root.exists()


def test_teardown_of_an_unused_mirror_leaves_no_trace(root: Path) -> None:
    root.mkdir()
    (root / "foreign").write_bytes(b"foreign")
    with Mirror(root) as mirror:
        mirror.tear_down(OWNER)
    assert [path.name for path in root.iterdir()] == ["foreign"]


def test_teardown_that_failed_for_a_file_can_be_repeated(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("x", b"1"), write("y", b"1")])

    def tear_down() -> None:
        with pytest.raises(ApplyError, match="'x'"):
            mirror.tear_down(OWNER)

    def takes_x(call: str, args: tuple[object, ...]) -> bool:
        return call == "rename" and args[0] == "x"

    assert run_failing(tear_down, takes_x, 1) == 1
    assert snapshot(root) == {"x": b"1"}
    assert "not ours" not in caplog.text
    mirror.tear_down(OWNER)
    assert list(root.iterdir()) == []


def test_a_mirror_can_be_used_again_after_its_teardown(root: Path) -> None:
    with Mirror(root) as mirror:
        for _ in range(3):
            mirror.create()
            mirror.apply([write("d/x", b"1")])
            assert snapshot(root) == {"d": "dir", "d/x": b"1"}
            mirror.tear_down(OWNER)
            assert not root.exists()


def test_nested_folders_are_handed_to_who_still_has_files_in_them(
    mirror: Mirror, root: Path
) -> None:
    mirror.apply([write("d/e/a", b"1")])
    mirror.apply([write("d/e/b", b"1", owner="owner-b")])
    mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == {"d/e/b": b"1"}
    mirror.tear_down("owner-b")
    assert not root.exists() or snapshot(root) == {}
