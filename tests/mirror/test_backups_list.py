"""Backups are listed with what is known of each, the oldest first."""

from __future__ import annotations

import calendar
import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, RootError
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk import homes as _homes
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import place as _place
from cocoindex_fsmirror._mirror.backups import Backup, find_backups
from tests.mirror.displacing import (
    AREA,
    STAMP,
    call_of,
    displace,
    displace_tree,
    disturbed,
    extend,
    listed,
    places,
    purged,
    put_back,
    tries,
)
from tests.steps import run_failing
from tests.support import failing, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")


def test_mirror_without_conflicts_lists_no_backups(mirror: Mirror) -> None:
    assert listed(mirror) == []
    mirror.apply([write("x", b"1", durable=False)])
    assert listed(mirror) == []


def test_every_displaced_path_is_listed_with_kind_size_and_time(mirror: Mirror, root: Path) -> None:
    (root / "link").symlink_to("no/wheré")
    os.mkfifo(root / "fifo")
    (root / "tree" / "empty").mkdir(parents=True)
    (root / "tree" / "inner").write_bytes(b"12")
    displace(mirror, "docs/a.md", content=b"12345")
    mirror.apply([write("link", b"1"), write("fifo", b"1")])
    displace_tree(mirror, "tree")
    time_ns = calendar.timegm((2026, 11, 23, 22, 28, 12)) * 1_000_000_000
    expected = [
        ("docs/a.md", "file", 5),
        ("fifo", "other", 0),
        ("link", "link", len("no/wheré".encode())),
        ("tree/empty", "dir", 0),
        ("tree/inner", "file", 2),
    ]
    assert listed(mirror) == [
        Backup(Name(f"{AREA}/{name}"), Name(name), STAMP, time_ns, kind, size)  # type: ignore[arg-type]
        for name, kind, size in expected
    ]


def test_listed_time_is_that_of_the_stamp(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_place, "stamp_now", _homes.stamp_now)
    displace(mirror, "x")
    (backup,) = listed(mirror)
    seconds = time.gmtime(backup.time_ns // 1_000_000_000)
    assert time.strftime("%Y-%m-%dT%H%M%SZ", seconds) == backup.stamp


def test_oldest_backup_is_listed_first_then_names_decide(
    mirror: Mirror, at: Callable[[str], None]
) -> None:
    for stamp, names in (
        ("2027-01-01T000000Z", ["b", "a"]),
        ("2026-12-31T235959Z", ["z"]),
        ("2026-12-31T090000Z", ["y/x", "y-x", "b"]),
    ):
        at(stamp)
        displace(mirror, *names)
    assert places(listed(mirror)) == [
        "2026-12-31T090000Z/b",
        "2026-12-31T090000Z/y-x",
        "2026-12-31T090000Z/y/x",
        "2026-12-31T235959Z/z",
        "2027-01-01T000000Z/a",
        "2027-01-01T000000Z/b",
    ]


def test_backups_of_one_path_in_one_second_are_distinct_and_in_order(
    mirror: Mirror, root: Path
) -> None:
    for number in range(12):
        displace(mirror, "d/x", content=b"%d" % number)
    found = listed(mirror)
    assert [(root / backup.where).read_bytes() for backup in found] == [
        b"%d" % n for n in range(12)
    ]
    assert {backup.name for backup in found} == {"d/x"}
    assert len({backup.time_ns for backup in found}) == 1
    (root / "d" / "x").unlink()
    put_back(mirror, found[10])
    assert (root / "d" / "x").read_bytes() == b"10"
    assert listed(mirror) == [*found[:10], found[11]]


def test_foreign_files_in_the_backup_area_are_not_listed_and_stay(
    mirror: Mirror, root: Path
) -> None:
    area = root / ".fsmirror" / "backup"
    stray = ["mine", "2026-13-45T000000Z", f"{STAMP}.0", f"{STAMP}.x", "٢٠٢٦-11-23T222812Z"]
    for name in stray:
        (area / name).mkdir(parents=True)
        (area / name / "x").write_bytes(b"1")
    (area / "2026-11-23T222813Z").write_bytes(b"a file")
    (area / "2026-11-23T222814Z").mkdir()
    before = snapshot(root, ours=True).keys()
    displace(mirror, "x")
    found = listed(mirror)
    assert places(found) == [f"{STAMP}/x"]
    assert purged(mirror, found) == (1, len(b"foreign"))
    assert before <= snapshot(root, ours=True).keys()


@pytest.mark.parametrize("vanishing", [".fsmirror/backup", f"{AREA}/d/e", f"{AREA}/d/e/x"])
def test_listing_survives_a_path_that_vanishes_at_any_step(tmp_path: Path, vanishing: str) -> None:
    for k, root, mirror, _ in tries(tmp_path):

        def act(tree: Tree) -> None:
            found = {(backup.name, backup.kind) for backup in find_backups(tree)}
            assert found <= {("d", "dir"), ("d/e", "dir"), ("d/e/x", "file")}

        gone = partial((root / vanishing).rename, root / "gone")
        if not disturbed(mirror, act, gone, k):
            break
    assert k > 8


def test_unreadable_folder_is_listed_as_one_and_can_be_restored(mirror: Mirror, root: Path) -> None:
    (root / "closed" / "in").mkdir(parents=True)
    (root / "closed" / "in" / "x").write_bytes(b"1")
    displace_tree(mirror, "closed")
    found: list[Backup] = []
    act = partial(extend, found, mirror)
    assert run_failing(act, call_of("open", "in"), errno.EACCES) == 1
    assert [(backup.name, backup.kind) for backup in found] == [("closed/in", "dir")]
    with failing(r"something in it.*closed to this user"):
        purged(mirror, found)
    put_back(mirror, found[0])
    assert (root / "closed" / "in" / "x").read_bytes() == b"1"


def test_path_without_lstat_is_listed_with_kind_other(mirror: Mirror) -> None:
    displace(mirror, "d/x", "y")
    found: list[Backup] = []
    run_failing(partial(extend, found, mirror), call_of("stat", "x"), errno.EACCES)
    assert [(backup.name, backup.kind) for backup in found] == [("d/x", "other"), ("y", "file")]


def test_failing_disk_is_not_taken_for_an_empty_one(mirror: Mirror) -> None:
    displace(mirror, "d/x")
    with pytest.raises(RootError, match="Input/output error"):
        run_failing(partial(extend, [], mirror), call_of("listdir"), errno.EIO)
