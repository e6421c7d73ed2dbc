"""``--backup-deleted`` makes backups of what goes; ``--keep-backups`` lets old ones go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command.commands import run, told
from tests.support import Mount, backups, contents, snapshot

OLD, OLDER = "2026-01-02T030405Z", "2025-01-02T030405Z.1"


def age(area: Path, stamp: str = OLD) -> None:
    """Makes the only backups in an area old ones."""
    (moment,) = area.iterdir()
    moment.rename(area / stamp)


def edit(source: Path, target: Path, *options: object) -> None:
    """Edits a file, of which a run makes a backup."""
    (target / "a").write_bytes(b"edited")
    assert run("sync", source, target, *options).exit_code == 0


# Backups of what goes


@pytest.mark.parametrize("on_conflict", ["backup", "overwrite", "error"])
def test_deleted_files_go_to_the_backups(
    source: Path, target: Path, on_conflict: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--backup-deleted", "--on-conflict", on_conflict, "--max-delete", "100%")
    (source / "more").write_bytes(b"more")
    run("sync", source, target)
    gone = {name: (target / name).read_bytes() for name in ("a", "d/b")}
    (target / "more").write_bytes(b"edited")
    for name in (*gone, "link", "more"):
        (source / name).unlink()
    foreseen = told("sync", source, target, *options, "-n")["changes"]
    done = told("sync", source, target, *options, "-v")
    assert (done["deleted"], done["backed_up"], done["failures"]) == (3, 4, [])
    assert {(each["action"], each["path"]) for each in foreseen} == {
        (each["action"], each["path"]) for each in done["changes"]
    }
    assert contents(snapshot(target)) == {}
    kept = {each["path"]: target / each["where"] for each in told("backups", target)["backups"]}
    assert os.readlink(kept.pop("link")) == "a"
    assert {name: path.read_bytes() for name, path in kept.items()} == {**gone, "more": b"edited"}
    (said,) = [each for each in caplog.messages if "was moved" in each]
    assert "foreign 'more' was moved" in said


def test_next_run_removes_for_good_again(source: Path, target: Path) -> None:
    (source / "a").unlink()
    run("sync", source, target, "--backup-deleted")
    (source / "d" / "b").unlink()
    run("sync", source, target)
    assert len(backups(target)) == 1


def test_file_that_is_replaced_is_no_deleted_one(source: Path, target: Path) -> None:
    (source / "a").write_bytes(b"new")
    run("sync", source, target, "--backup-deleted")
    assert backups(target) == []


# The life of backups


def test_old_backups_go_at_each_run(source: Path, target: Path) -> None:
    edit(source, target)
    age(target / ".fsmirror" / "backup")
    run("sync", source, target)
    assert backups(target) == [b"edited"]
    run("sync", source, target, "--keep-backups", "30d")
    assert not (target / ".fsmirror" / "backup").exists()
    edit(source, target)
    run("sync", source, target)
    assert backups(target) == [b"edited"]  # It is new.
    age(target / ".fsmirror" / "backup", OLDER)
    run("sync", source, target)
    assert backups(target) == []
    assert told("status", target)["keep_backups"] == "30d"
    assert "kept for     30d" in run("status", target).stdout


def test_backups_are_kept_again(source: Path, target: Path) -> None:
    edit(source, target, "--keep-backups", "1h")
    age(target / ".fsmirror" / "backup")
    run("sync", source, target, "--keep-backups", "all")
    run("sync", source, target)
    assert backups(target) == [b"edited"]
    assert told("status", target)["keep_backups"] == "all"


def test_age_that_is_told_again_changes_nothing(source: Path, target: Path) -> None:
    run("sync", source, target, "--keep-backups", "1h")
    ledger = target / ".fsmirror" / "ledger.sqlite3"
    before = ledger.stat().st_mtime_ns
    assert told("sync", source, target, "--keep-backups", "1h")["changes"] == []
    assert ledger.stat().st_mtime_ns == before


def test_dry_run_keeps_backups(source: Path, target: Path) -> None:
    edit(source, target)
    age(target / ".fsmirror" / "backup")
    run("sync", source, target, "--keep-backups", "1h", "--dry-run")
    assert backups(target) == [b"edited"]
    assert told("status", target)["keep_backups"] == "all"


def test_old_backups_in_a_state_directory_go(source: Path, target: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    edit(source, target, "--state", state)
    (area,) = state.glob("*/backup")
    age(area)
    run("sync", source, target, "--keep-backups", "2w")
    assert not area.exists()


def test_old_backups_of_another_mirror_stay(source: Path, target: Path, mount: Mount) -> None:
    """One lies on a mount in the other, where both have backups."""
    (source / "d" / "b").rename(source / "b")
    run("sync", source, target)
    inner = mount(target / "d", "-t", "tmpfs", "tmpfs")
    (source / "b").rename(source / "d" / "b")
    other = source.parent / "other"
    (other / "d").mkdir(parents=True)
    (other / "d" / "c").write_bytes(b"c")
    for _ in range(2):
        run("sync", source, target)
        run("sync", other, inner)
        (inner / "b").write_bytes(b"of the outer one")
        (inner / "d" / "c").write_bytes(b"of the inner one")
    run("sync", source, target)
    run("sync", other, inner)
    for moment in list((inner / ".fsmirror" / "backup").iterdir()):
        moment.rename(moment.with_name(f"{OLD}.{moment.stat().st_ino % 9_000 + 1}"))
    kept = backups(inner)
    assert {*kept} == {b"of the outer one", b"of the inner one"}
    run("sync", other, inner, "--keep-backups", "30d")
    run("sync", source, target, "--keep-backups", "30d")
    assert backups(inner) == kept


def test_backup_that_can_not_go_is_told(
    source: Path, target: Path, mount: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    edit(source, target)
    area = target / ".fsmirror" / "backup"
    age(area)
    mount(area / OLD / "mount", "-t", "tmpfs", "tmpfs")
    assert run("sync", source, target, "--keep-backups", "30d").exit_code == 0
    assert "is it a mount point" in caplog.text
    assert not (area / OLD / "a").exists()


@pytest.mark.parametrize("age", ["30", "d", "1y", "-1d", "All"])
def test_text_that_is_no_age_is_refused(source: Path, target: Path, age: str) -> None:
    result = run("sync", source, target, "--keep-backups", age)
    assert result.exit_code == 2
    assert "is no age" in result.stderr
