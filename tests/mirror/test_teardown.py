"""Teardown takes what we made, and only that."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.layout import LOCK, RESERVE
from cocoindex_fsmirror._core.owners import Declarer, Owner
from cocoindex_fsmirror._disk.roots import is_there
from cocoindex_fsmirror._mirror import teardown as _teardown
from cocoindex_fsmirror._mirror.outcome import Outcome
from cocoindex_fsmirror._mirror.teardown import tear_down
from tests.steps import run_failing
from tests.support import (
    OWNER,
    backups,
    contents,
    exact_state,
    folder,
    ledger_rows,
    snapshot,
    write,
)

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
    # Still out of Git's sight, and nothing else of ours is there.
    assert sorted(os.listdir(root / ".fsmirror")) == [".gitignore", "backup"]


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


def test_owners_do_not_touch_each_others_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    with Mirror(root) as mirror, Mirror(root) as other:
        mirror.create()
        mirror.apply([write("shared/a", b"1"), write("mine/x", b"1")])
        other.apply([write("shared/b", b"2", owner=OTHER), write("theirs/x", b"2", owner=OTHER)])
        mirror.tear_down(OWNER)
        assert contents(snapshot(root)) == {"shared/b": b"2", "theirs/x": b"2"}
        assert "mine" not in snapshot(root)
        assert "left in place" not in caplog.text
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


@pytest.mark.parametrize("owner", [OWNER, None])
def test_teardown_of_a_missing_root_makes_nothing(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture, owner: str | None
) -> None:
    mirror.apply([write("d/x", b"1")])
    shutil.rmtree(root)
    with caplog.at_level(logging.INFO, "cocoindex_fsmirror"):
        assert tear_down(mirror.session, owner) == Outcome()
    assert not root.exists()
    assert caplog.messages == [f"{root}: is gone already"]


def test_owner_tears_nothing_down_by_a_damaged_ledger(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("x", b"1")])
    mirror.close()
    ledger = root / ".fsmirror" / "ledger.sqlite3"
    ledger.write_bytes(b"garbage" * 1_000)
    before = exact_state(root)
    mirror.tear_down(OWNER)
    assert exact_state(root) == before
    (line,) = caplog.messages
    assert line.startswith(f"{root}: nothing was removed, since the ledger is damaged: ")


def test_owner_that_got_another_database_meanwhile_is_not_torn_down(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.apply([write("x", b"1")])

    def admits_another(path: str) -> bool:
        monkeypatch.setattr(_teardown, "_may_begin", lambda *_given: True)
        with Mirror(root) as another:
            another.prepare(Owner(OWNER, declarer=Declarer(str(root), "1 2")), DriftReport())
        return is_there(path)

    monkeypatch.setattr(_teardown, "is_there", admits_another)
    mirror.tear_down(OWNER, Declarer("/copy/db", "1 3"))
    assert contents(snapshot(root)) == {"x": b"1"}


def test_teardown_removes_what_interrupted_runs_left_of_ours(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    mirror.close()
    for name in (LOCK, RESERVE):
        (root / name).touch(mode=0o600)
    mirror.tear_down(OWNER)
    assert list(root.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors can't be listed")
def test_no_ledger_stays_open_after_its_teardown(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    mirror.tear_down(OWNER)
    with contextlib.suppress(FileNotFoundError):
        opened = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.startswith(f"{root}/")]


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

    def attempt() -> None:
        with pytest.raises(ApplyError, match="'x'"):
            mirror.tear_down(OWNER)

    def takes_x(call: str, args: tuple[object, ...]) -> bool:
        return call == "rename" and args[0] == "x"

    assert run_failing(attempt, takes_x, 1) == 1
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


def test_found_folder_is_handed_to_nobody(mirror: Mirror, root: Path) -> None:
    (root / "d").mkdir()
    mirror.apply([folder("d"), write("d/mine", b"1")])
    mirror.apply([write("d/theirs", b"1", owner="owner-b")])
    mirror.tear_down(OWNER)
    assert [row.name for row in ledger_rows(mirror)] == ["d/theirs"]
