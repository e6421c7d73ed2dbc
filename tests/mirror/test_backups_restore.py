"""A backup is put back as it was, and replaces nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import ConflictError, InvalidNameError, Mirror, PathError
from cocoindex_fsmirror._disk import calls as _calls
from tests.mirror.displacing import (
    AREA,
    backup_area,
    call_of,
    displace,
    displace_tree,
    listed,
    purged,
    put_back,
)
from tests.steps import run_failing
from tests.support import exact_state, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")


def test_restored_file_is_as_it_was_and_its_backup_folders_go(mirror: Mirror, root: Path) -> None:
    (root / "docs").mkdir()
    (root / "docs" / "a").write_bytes(b"foreign")
    os.utime(root / "docs" / "a", ns=(1, 1))
    (root / "docs" / "a").chmod(0o604)
    before = (root / "docs" / "a").lstat()
    mirror.apply([write("docs/a", b"ours")])
    (root / "docs" / "a").unlink()
    (backup,) = listed(mirror)
    put_back(mirror, backup)
    after = (root / "docs" / "a").lstat()
    kept = ("st_ino", "st_mtime_ns", "st_mode", "st_size", "st_uid")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert backup_area(root) == {}
    assert mirror.managed() == mirror.verify() == ["docs/a"]  # A restored file is foreign.


@pytest.mark.parametrize("exchange", [True, False])
def test_every_kind_is_restored(
    mirror: Mirror, root: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d" / "empty").mkdir(parents=True)
    (root / "d" / "link").symlink_to("/etc")
    os.mkfifo(root / "d" / "fifo")
    (root / "d" / "file").write_bytes(b"1")
    before = snapshot(root)
    displace_tree(mirror, "d")
    if not exchange:
        monkeypatch.setattr(_calls, "renameat2", None)
    for backup in listed(mirror):
        put_back(mirror, backup)
    assert snapshot(root) == before
    assert backup_area(root) == {}


def test_missing_folders_are_made_with_the_usual_mode(mirror: Mirror, root: Path) -> None:
    displace(mirror, "x")
    (backup,) = listed(mirror)
    put_back(mirror, backup, "new/er/y")
    assert (root / "new" / "er" / "y").read_bytes() == b"foreign"
    umask = os.umask(0)
    os.umask(umask)
    assert (root / "new" / "er").stat().st_mode & 0o777 == 0o777 & ~umask


_IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"theirs"),
    "empty folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/etc"),
    "broken link": lambda path: path.symlink_to("no/where"),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("kind", _IN_THE_WAY)
def test_restore_replaces_nothing(
    mirror: Mirror, root: Path, kind: str, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "tree" / "empty").mkdir(parents=True)
    displace(mirror, "x")
    displace_tree(mirror, "tree")
    _IN_THE_WAY[kind](root / "taken")
    found = listed(mirror)
    if not exchange:
        monkeypatch.setattr(_calls, "renameat2", None)
    before = exact_state(root)
    for backup in found:
        with pytest.raises(ConflictError, match=r"'taken'.*there already.*another path"):
            put_back(mirror, backup, "taken")
    assert exact_state(root).keys() == before.keys()
    assert listed(mirror) == found
    assert snapshot(root) == {"x": (root / "x").read_bytes()} | _shown(root, "taken")


def _shown(root: Path, name: str) -> dict[str, bytes | str]:
    """Returns the part of a snapshot that shows one path."""
    return {name: snapshot(root)[name]}


@pytest.mark.parametrize("kind", sorted(_IN_THE_WAY.keys() - {"empty folder"}))
def test_restore_makes_no_folder_in_the_place_of_another_kind(
    mirror: Mirror, root: Path, outside: Path, kind: str
) -> None:
    displace(mirror, "x")
    (root / "a").mkdir()
    if kind == "link":
        (root / "a" / "b").symlink_to(outside)
    else:
        _IN_THE_WAY[kind](root / "a" / "b")
    (backup,) = listed(mirror)
    before = exact_state(root), exact_state(outside)
    for below in ("a/b/y", "a/b/c/y"):
        with pytest.raises(ConflictError, match=f"'{below}': 'a/b' is not a folder"):
            put_back(mirror, backup, below)
    assert (exact_state(root), exact_state(outside)) == before


@pytest.mark.parametrize(
    "name", ["", ".fsmirror/x", f"{AREA}/y", "d/.fsmirror/x", "d/.FSMirror", "../x", "d/../../x"]
)
def test_backup_goes_neither_outside_nor_into_our_own_folder(
    mirror: Mirror, root: Path, name: str
) -> None:
    displace(mirror, "x")
    before = exact_state(root.parent)
    (backup,) = listed(mirror)
    with pytest.raises(InvalidNameError):
        put_back(mirror, backup, name)
    assert exact_state(root.parent) == before


def test_restore_of_a_purged_backup_fails_and_makes_no_folders(mirror: Mirror, root: Path) -> None:
    displace(mirror, "x")
    (backup,) = listed(mirror)
    purged(mirror, [backup])
    with pytest.raises(PathError, match=r"'new/y'.*is gone.*list"):
        put_back(mirror, backup, "new/y")
    assert snapshot(root).keys() == {"x"}


def test_failed_restore_removes_the_folders_that_it_made(mirror: Mirror, root: Path) -> None:
    displace(mirror, "x")
    (root / "there").mkdir()
    (backup,) = listed(mirror)
    before = snapshot(root)
    act = partial(put_back, mirror, backup, "there/a/b/y")
    with pytest.raises(PathError, match=f"'there/a/b/y': No space left.*{AREA}"):
        run_failing(act, call_of("renameat2"), errno.ENOSPC)
    assert snapshot(root) == before
    assert listed(mirror) == [backup]
