"""``fsmirror sync`` with ``--exact``, ``--max-delete`` and ``--dry-run``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import SourceError
from cocoindex_fsmirror._command import syncing
from cocoindex_fsmirror._command import syncing as _sync
from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk import dress as dress_module
from cocoindex_fsmirror._disk import homes
from cocoindex_fsmirror._disk import sources as _source
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import exact as _exact
from tests.command.syncing import CHANGES, state, sync, told
from tests.support import backups, beside_ours, exact_state, snapshot

# Exact, and the brake


def test_exact_moves_files_that_are_not_from_the_source_to_the_backups(
    src: Path, dst: Path
) -> None:
    sync(src, dst)
    (dst / "mine").write_bytes(b"mine")
    (dst / "docs" / "mine too").write_bytes(b"mine too")
    listed = sync(src, dst, "--exact", "-n").stdout
    assert "back up  mine  (not managed)" in listed
    assert (dst / "mine").exists()
    sync(src, dst)
    assert (dst / "mine").exists()
    assert told(src, dst, "--exact")["backed_up"] == 2
    assert state(dst) == state(src)
    assert backups(dst) == [b"mine", b"mine too"]


def test_exact_adopts_the_right_files_of_an_existing_copy(src: Path, dst: Path) -> None:
    shutil.copytree(src, dst, symlinks=True)
    (dst / "mine").write_bytes(b"mine")
    figures = told(src, dst, "--exact")
    assert (figures["adopted"], figures["backed_up"], figures["written"]) == (7, 1, 0)
    assert state(dst) == state(src)


def test_exact_backs_up_a_file_whose_name_is_not_utf8(src: Path, dst: Path) -> None:
    sync(src, dst)
    name = os.fsdecode(b"\xff")
    (dst / name).mkdir()
    (dst / name / name).write_bytes(b"mine")
    assert "not managed" in sync(src, dst, "--exact", "-n").stdout
    assert told(src, dst, "--exact")["backed_up"] == 1
    assert backups(dst) == [b"mine"]
    assert state(dst) == state(src)


def test_exact_restores_the_time_of_a_folder_that_held_an_empty_one(src: Path, dst: Path) -> None:
    sync(src, dst)
    (dst / "docs" / "empty").mkdir()
    sync(src, dst)  # Puts the time of docs right.
    assert sync(src, dst, "--exact").exit_code == 0
    assert state(dst) == state(src)


def test_exact_leaves_files_that_it_could_not_put_right(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreign bytes at a path of the source are not swept."""
    dst.mkdir()
    (dst / "index.html").write_bytes(b"foreign")
    (dst / "mine").write_bytes(b"mine")
    result = sync(src, dst, "--exact", "--on-conflict", "error")
    assert result.exit_code == 3
    assert (dst / "index.html").read_bytes() == b"foreign"
    assert backups(dst) == [b"mine"]

    def opened(path: str, *place: Any) -> tuple[int, os.stat_result]:
        raise SourceError(path, "can't be read: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(_source, "_open", opened)
        (src / "index.html").write_bytes(b"changed")
        assert sync(src, dst, "--exact").exit_code == 3
    assert (dst / "index.html").read_bytes() == b"foreign"
    assert sync(src, dst, "--exact").exit_code == 0
    assert state(dst) == state(src)
    assert backups(dst) == [b"foreign", b"mine"]


def test_files_that_exact_leaves_cause_no_rerun(src: Path, dst: Path) -> None:
    dst.mkdir()
    (dst / "index.html").write_bytes(b"foreign")
    options = Options(str(src), str(dst), on_conflict="error", exact=True)
    with (
        contextlib.closing(_sync.Syncing(options)) as syncing,
        contextlib.closing(survey(options)) as found,
    ):
        assert syncing.run(found).failures
        assert not syncing.has_drifted()
        (dst / "mine").touch()
        assert syncing.has_drifted()


def test_exact_clears_a_foreign_folder_away_in_one_run(src: Path, dst: Path) -> None:
    (dst / "index.html" / "theirs").mkdir(parents=True)
    (dst / "index.html" / "theirs" / "mine").write_bytes(b"mine")
    assert sync(src, dst).exit_code == 3
    assert sync(src, dst, "-n", "--exact").exit_code == 0
    assert sync(src, dst, "--exact").exit_code == 0
    assert state(dst) == state(src)
    assert backups(dst) == [b"mine"]


def test_incomplete_exact_run_fails_by_name(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    (dst / "theirs").write_bytes(b"1")
    real = homes.back_up

    def back_up(tree: Tree, name: Name, *more: Any) -> Name:
        if name == "theirs":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(tree, name, *more)

    monkeypatch.setattr(_exact, "back_up", back_up)
    result = sync(src, dst, "--exact")
    assert result.exit_code == 3
    assert result.stderr == (
        "fsmirror: move away 'theirs': Operation not permitted (it is not managed, and stays "
        "where it is)\n"
    )
    monkeypatch.undo()
    assert told(src, dst, "--exact")["backed_up"] == 1


def test_exact_removes_folders_that_a_foreign_file_had_kept(src: Path, dst: Path) -> None:
    sync(src, dst)
    (dst / "docs" / "deep" / "mine").write_bytes(b"mine")
    shutil.rmtree(src / "docs")
    sync(src, dst)
    assert (dst / "docs" / "deep" / "mine").exists()
    assert told(src, dst, "--exact")["backed_up"] == 1
    assert state(dst) == state(src)


@pytest.mark.parametrize(("limit", "allowed"), [("0", 0), ("2", 2), ("40%", 2)])
def test_too_many_removals_stop_the_run_before_it_begins(
    src: Path, dst: Path, limit: str, allowed: int
) -> None:
    sync(src, dst)
    before = beside_ours(dst)
    shutil.rmtree(src / "docs")
    (src / "new").touch()
    for more in ((), ("--dry-run",)):
        result = sync(src, dst, "--max-delete", limit, *more)
        assert result.exit_code == 3
        assert (
            f"3 of 7 files would be removed, and --max-delete {limit} allows {allowed}: nothing "
            "was removed" in result.stderr
        )
        assert beside_ours(dst) == before
    assert sync(src, dst, "--max-delete", "3").exit_code == 0
    assert state(dst) == state(src)


def _many(src: Path, count: int) -> None:
    """Makes some files, each with a content of its own."""
    (src / "many").mkdir()
    for number in range(count):
        (src / "many" / f"{number}").write_text(f"{number}")


def _removed(src: Path, count: int) -> None:
    """Removes some of them."""
    for number in range(count):
        (src / "many" / f"{number}").unlink()


@pytest.mark.parametrize(
    ("managed", "removed", "stops"), [(100, 51, True), (100, 50, False), (99, 98, False)]
)
def test_run_by_itself_removes_no_more_than_half_of_a_hundred_files(
    tmp_path: Path, dst: Path, managed: int, removed: int, stops: bool
) -> None:
    (src := tmp_path / "source").mkdir()
    _many(src, managed)
    sync(src, dst)
    _removed(src, removed)
    before = beside_ours(dst)
    for more in (["--dry-run"], []):
        result = sync(src, dst, *more)
        assert result.exit_code == 3 * stops
    if stops:
        assert "51 of 100 files would be removed" in result.stderr
        assert "allow it once with --max-delete 100%" in result.stderr
        assert beside_ours(dst) == before
        assert sync(src, dst, "--max-delete", "100%").exit_code == 0
    assert state(dst) == state(src)


def test_folder_that_is_renamed_is_no_removal_to_a_run_by_itself(tmp_path: Path, dst: Path) -> None:
    (src := tmp_path / "source").mkdir()
    _many(src, 100)
    sync(src, dst)
    (src / "many").rename(src / "moved")
    assert sync(src, dst, "--max-delete", "50%").exit_code == 3
    assert sync(src, dst).exit_code == 0
    assert state(dst) == state(src)


@pytest.mark.parametrize("is_folder_left", [False, True])
def test_empty_source_empties_no_mirror_by_itself(
    src: Path, dst: Path, is_folder_left: bool
) -> None:
    sync(src, dst)
    before = beside_ours(dst)
    shutil.rmtree(src)
    (src / "folder" if is_folder_left else src).mkdir(parents=True)
    result = sync(src, dst)
    assert result.exit_code == 3
    assert "7 of 7 files would be removed, and an empty source allows 0" in result.stderr
    assert beside_ours(dst) == before
    assert sync(src, dst, "--max-delete", "100%").exit_code == 0
    assert state(dst) == state(src)


def test_brake_holds_after_a_cut_off_first_run(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(tree: Tree, name: Name, *dress: Any) -> int:
        if not name:  # The root itself, which comes last.
            raise KeyboardInterrupt
        return real(tree, name, *dress)

    real = dress_module.dress_folder

    with monkeypatch.context() as patch:
        patch.setattr(syncing, "dress_folder", cut_off)
        assert sync(src, dst).exit_code == 130
    shutil.rmtree(src)
    src.mkdir()
    assert sync(src, dst, "--max-delete", "0").exit_code == 3
    assert (dst / "index.html").exists()


def test_a_file_that_becomes_a_folder_counts_as_removed(src: Path, dst: Path) -> None:
    sync(src, dst)
    (src / "index.html").unlink()
    (src / "index.html").mkdir()
    assert sync(src, dst, "--max-delete", "0").exit_code == 3
    assert sync(src, dst, "--max-delete", "1").exit_code == 0
    assert state(dst) == state(src)


@pytest.mark.parametrize("limit", ["-1", "101%", "many", "1.5", "", "%"])
def test_an_impossible_limit_is_one_line(src: Path, dst: Path, limit: str) -> None:
    result = sync(src, dst, f"--max-delete={limit}")
    assert result.exit_code == 2
    assert "neither a count nor a percentage" in result.stderr
    assert result.stderr.count("\n") == 1


def test_limit_beyond_the_digits_of_an_int_is_one_line(src: Path, dst: Path) -> None:
    result = sync(src, dst, f"--max-delete={'9' * 5000}")
    assert result.exit_code == 2
    assert "neither a count nor a percentage" in result.stderr
    assert len(result.stderr) < 200
    assert result.stderr.count("\n") == 1
    assert sync(src, dst, f"--max-delete={'9' * 18}").exit_code == 0


# Dry runs


def test_dry_run_lists_the_actions_of_the_run_and_changes_nothing(src: Path, dst: Path) -> None:
    figures = told(src, dst, "--dry-run")
    assert not dst.exists()
    listed = {(change["action"], change["path"]) for change in figures["changes"]}
    files = {"index.html", "docs/large", "docs/deep/run.sh", "nasty \n name"}
    files |= {"docs/link", "outside", "loop"}
    folders = {"docs/", "docs/deep/", "empty/"}
    folders |= {"./"}
    assert listed == {("write", f) for f in files} | {("make", f) for f in folders}
    sync(src, dst)
    (src / "index.html").write_bytes(b"changed")
    (src / "docs" / "link").unlink()
    (dst / "docs" / "large").write_bytes(b"tampered")
    (dst / "outside").unlink()
    before = exact_state(dst)
    listed = {(c["action"], c["path"]) for c in told(src, dst, "-n")["changes"]}
    assert exact_state(dst) == before
    expected = {("write", "index.html"), ("delete", "docs/link"), ("heal", "outside")}
    assert listed - {("update", "docs/"), ("update", "./")} == expected | {("heal", "docs/large")}
    figures = told(src, dst)
    counted = [figures[name] for name in ("written", "deleted", "healed", "backed_up")]
    assert counted == [1, 1, 2, 1]


def _lay_foreign(dst: Path) -> None:
    """Puts foreign files into a mirror."""
    (dst / "mine" / "deep").mkdir(parents=True)
    (dst / "mine" / "deep" / "file").write_bytes(b"mine")
    (dst / "docs" / "mine").write_bytes(b"mine")
    (dst / "index.html").write_bytes(b"tampered")


@pytest.mark.parametrize("foreign", [lambda _dst: None, _lay_foreign], ids=["clean", "foreign"])
@pytest.mark.parametrize("more", [(), ("--exact",)], ids=["plain", "exact"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_dry_run_lists_every_path_that_changes_and_no_other(
    src: Path,
    dst: Path,
    change: Callable[[Path], object],
    more: tuple[str, ...],
    foreign: Callable[[Path], object],
) -> None:
    sync(src, dst)
    foreign(dst)
    change(src)
    listed = told(src, dst, "-n", *more)["changes"]
    before = state(dst)
    result = sync(src, dst, *more, "--json")
    after, figures = state(dst), json.loads(result.stdout)
    differing = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    # A dry run can't know if a foreign file will keep a folder in place.
    stays = {c["path"].rstrip("/") for c in listed if "if it is empty" in c["note"]} & {*after}
    stays |= {c["path"] for c in listed if c["action"] == "fail"}
    assert {c["path"].rstrip("/") for c in listed} - stays == differing - stays
    assert figures["deleted"] == _count(listed, "delete")
    kept = sum(1 for c in listed if "goes to the backup area" in c["note"])
    assert figures["backed_up"] == _count(listed, "back up") + kept
    assert (result.exit_code == 3) is any(c["action"] == "fail" for c in listed)
    assert len({(c["action"], c["path"]) for c in listed}) == len(listed)


def _count(listed: list[dict[str, Any]], action: str) -> int:
    """Counts the files and links that are listed with an action."""
    return sum(1 for c in listed if c["action"] == action and not c["path"].endswith("/"))


def test_dry_run_with_watch_is_refused(src: Path, dst: Path) -> None:
    result = sync(src, dst, "-n", "--watch")
    assert result.exit_code == 2
    assert result.stderr == "fsmirror: --watch and --dry-run can't be given together\n"


def test_a_dry_run_names_conflicts(src: Path, dst: Path) -> None:
    (dst / "index.html").mkdir(parents=True)
    (dst / "index.html" / "mine").touch()
    (dst / "loop").write_bytes(b"mine")
    result = sync(src, dst, "-n")
    assert result.exit_code == 3
    assert "a directory is in the way, with foreign entries" in result.stdout
    assert "write    loop  (what is there goes to the backup area)" in result.stdout
    assert snapshot(dst) == {"index.html": "dir", "index.html/mine": b"", "loop": b"mine"}
