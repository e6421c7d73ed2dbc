"""Purging removes the backups that were listed, and nothing that changed since."""

from __future__ import annotations

import calendar
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror, PathError
from cocoindex_fsmirror._core.ages import parse_age
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk.roots import open_root
from cocoindex_fsmirror._mirror.backups import Backup, find, purge
from tests.mirror.displacing import (
    AREA,
    STAMP,
    backup_area,
    call_of,
    displace,
    displace_tree,
    listed,
    places,
    purged,
)
from tests.steps import run_failing
from tests.support import becomes, failing, snapshot

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")


def test_purge_counts_its_files_and_removes_emptied_folders(mirror: Mirror, root: Path) -> None:
    (root / "tree" / "a" / "b").mkdir(parents=True)
    (root / "tree" / "c").write_bytes(b"123")
    displace_tree(mirror, "tree")
    displace(mirror, "d/x", "d/e/y", content=b"12345")
    before = snapshot(root)
    found = listed(mirror)
    assert purged(mirror, find(found, "d/x")) == (1, 5)
    assert "backup/" + STAMP + "/d/e/y" in backup_area(root)
    assert purged(mirror, find(found, "d/e/y")) == (1, 5)
    assert {name for name in backup_area(root) if name.endswith("/d")} == set()
    assert purged(mirror, found) == (2, 3)
    assert backup_area(root) == {}
    assert purged(mirror, found) == (0, 0)
    assert snapshot(root) == before
    assert mirror.verify() == []


def test_backup_that_is_named_twice_is_counted_once(mirror: Mirror) -> None:
    displace(mirror, "x", content=b"12")
    assert purged(mirror, listed(mirror) * 2) == (1, 2)


def test_purge_removes_only_older_backups(
    mirror: Mirror, root: Path, at: Callable[[str], None]
) -> None:
    stamps = ["2026-10-01T000000Z", "2026-10-31T235959Z", "2026-11-01T000000Z"]
    for number, stamp in enumerate(stamps):
        at(stamp)
        displace(mirror, "x", content=b"%d" % number)
    now_ns = calendar.timegm((2026, 12, 1, 0, 0, 0)) * 1_000_000_000
    old = [b for b in listed(mirror) if b.time_ns < now_ns - parse_age("30d")]
    assert purged(mirror, old) == (2, 2)
    assert places(listed(mirror)) == ["2026-11-01T000000Z/x"]
    assert [path.name for path in (root / ".fsmirror" / "backup").iterdir()] == stamps[2:]


_CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": lambda path: path.write_bytes(b"longer than it was"),
    "link": lambda path: becomes(path, lambda path: path.symlink_to("x")),
    "folder": lambda path: becomes(path, Path.mkdir),
    "full folder": lambda path: becomes(path, lambda path: (path / "y").mkdir(parents=True)),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_backup_that_changed_since_it_was_listed_stays(
    mirror: Mirror, root: Path, change: str
) -> None:
    displace(mirror, "a", "b", "c")
    found = listed(mirror)
    _CHANGES[change](root / AREA / "b")
    with pytest.raises(ApplyError) as error:
        purged(mirror, found)
    (failure,) = error.value.exceptions
    assert isinstance(failure, PathError)
    assert failure.path == f"{AREA}/b"
    assert "changed since it was listed" in str(failure)
    assert os.listdir(root / AREA) == ["b"]


def test_empty_folder_that_was_filled_since_stays(mirror: Mirror, root: Path) -> None:
    (root / "empty").mkdir()
    displace_tree(mirror, "empty")
    found = listed(mirror)
    (root / AREA / "empty" / "x").write_bytes(b"1")
    with failing("something in it"):
        purged(mirror, found)
    assert (root / AREA / "empty" / "x").read_bytes() == b"1"


def test_backup_that_can_not_be_removed_stays_and_the_others_go(mirror: Mirror, root: Path) -> None:
    displace(mirror, "a", "b", "c")
    found = listed(mirror)

    def act() -> None:
        purged(mirror, found)

    with failing(rf"purge '{AREA}/b': Operation not permitted") as error:
        run_failing(act, call_of("unlink", "b"), errno.EPERM)
    assert isinstance(error.value.exceptions[0].__cause__, PermissionError)
    assert os.listdir(root / AREA) == ["b"]


def test_purge_leaves_the_folder_that_has_the_backup_area(mirror: Mirror, root: Path) -> None:
    """A subvolume, for one, is not ours, and can be removed like a folder."""
    mirror.apply([])
    where = root / "sub" / ".fsmirror" / "backup" / STAMP / "sub" / "x"
    where.parent.mkdir(parents=True)
    where.write_bytes(b"foreign")
    backup = Backup(Name(str(where.relative_to(root))), Name("sub/x"), STAMP, 0, "file", 7)
    tree, _ = open_root(str(root))
    assert purge(tree, [backup]) == (1, 7)
    tree.close()
    assert snapshot(root) == {"sub": "dir"}
