"""Exact mirrors: what is not managed goes to the backup area, and nothing is lost."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._observe import Drift
from tests.io.conftest import Mount
from tests.support import OWNER, backups, delete, exact_state, folder, link, snapshot, write


def _lay_out(mirror: Mirror, root: Path) -> None:
    """Managed files and folders, and foreign ones of every kind between them."""
    mirror.apply([write("a", b"1"), write("d/e/b", b"2"), folder("empty"), link("l", "a")])
    (root / "foreign").write_bytes(b"foreign")
    (root / "d" / "-rf\n").write_bytes(b"nasty")
    (root / "theirs" / "deep").mkdir(parents=True)
    (root / "theirs" / "deep" / "file").write_bytes(b"deep")
    (root / "theirs" / "link").symlink_to("/etc")
    os.mkfifo(root / "d" / "fifo")


def test_what_is_foreign_is_moved_and_what_is_managed_stays(mirror: Mirror, root: Path) -> None:
    _lay_out(mirror, root)
    moved = mirror.sweep()
    assert set(moved) == {"foreign", "d/-rf\n", "theirs/deep/file", "theirs/link", "d/fifo"}
    assert snapshot(root) == {
        "a": b"1",
        "d": "dir",
        "d/e": "dir",
        "d/e/b": b"2",
        "empty": "dir",
        "l": "-> a",
    }
    assert backups(root) == sorted([b"foreign", b"nasty", b"deep"])
    for name, where in moved.items():
        assert where.endswith(name)
        assert os.path.lexists(root / where)
    assert mirror.verify() == []
    before = exact_state(root)
    assert mirror.sweep() == {}
    assert exact_state(root) == before


def test_what_other_owners_manage_is_not_foreign(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a", b"1"), write("d/b", b"2", owner="another")])
    assert mirror.sweep() == {}
    assert snapshot(root) == {"a": b"1", "d": "dir", "d/b": b"2"}


def test_a_mirror_inside_is_left_alone_with_all_that_is_in_it(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a", b"1")])
    (root / "sub" / "inner").mkdir(parents=True)
    (root / "sub" / "theirs").write_bytes(b"beside")
    with Mirror(root / "sub" / "inner") as inner:
        inner.create()
        inner.apply([write("b", b"2")])
    (root / "sub" / "inner" / "edited by hand").write_bytes(b"3")
    assert list(mirror.sweep()) == ["sub/theirs"]
    with Mirror(root / "sub" / "inner") as inner:
        assert inner.verify() == []
    assert (root / "sub" / "inner" / "edited by hand").exists()


@pytest.mark.root
def test_what_somebody_mounted_is_left_alone(mirror: Mirror, root: Path, mount: Mount) -> None:
    mirror.apply([write("a", b"1")])
    point = mount(root / "disk", "-t", "tmpfs", "tmpfs")
    (point / "theirs").write_bytes(b"2")
    with Mirror(root) as seeing:
        assert seeing.sweep() == {}
    assert (point / "theirs").read_bytes() == b"2"


@pytest.mark.root
def test_on_a_mount_that_holds_files_of_ours_what_is_foreign_goes_to_its_own_backups(
    mirror: Mirror, root: Path, mount: Mount
) -> None:
    point = mount(root / "disk", "-t", "tmpfs", "tmpfs")
    with Mirror(root) as seeing:
        seeing.apply([write("disk/ours", b"1")])
        (point / "theirs").write_bytes(b"2")
        moved = seeing.sweep()
    assert (root / moved["disk/theirs"]).read_bytes() == b"2"
    assert (point / "ours").read_bytes() == b"1"


def test_a_link_is_moved_and_not_followed(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"1")
    mirror.create()
    (root / "link").symlink_to(outside)
    before = exact_state(outside)
    assert list(mirror.sweep()) == ["link"]
    assert exact_state(outside) == before


def test_a_socket_that_is_listened_at_can_still_be_moved(mirror: Mirror, root: Path) -> None:
    mirror.create()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        assert list(mirror.sweep()) == ["s"]


def test_two_sweeps_within_a_second_lose_nothing(mirror: Mirror, root: Path) -> None:
    mirror.create()
    for number in range(3):
        (root / "x").write_bytes(b"%d" % number)
        mirror.sweep()
    assert backups(root) == [b"0", b"1", b"2"]


# What is declared after all


def test_what_was_swept_and_is_then_declared_is_adopted_without_a_write(
    mirror: Mirror, root: Path
) -> None:
    (root / "d").mkdir()
    for name, content in (("same", b"1"), ("d/same", b"2"), ("d/other", b"3"), ("gone", b"4")):
        (root / name).write_bytes(content)
    (root / "link").symlink_to("same")
    inodes = {name: (root / name).lstat().st_ino for name in ("same", "d/same", "link")}
    mirror.prepare(OWNER, Drift(), exact=True)
    assert snapshot(root) == {}
    outcome = mirror.apply(
        [write("same", b"1"), write("d/same", b"2"), write("d/other", b"new"), link("link", "same")]
    )
    assert outcome.written == ["d/other"]
    assert inodes == {name: (root / name).lstat().st_ino for name in inodes}
    assert snapshot(root) == {
        "same": b"1",
        "d": "dir",
        "d/same": b"2",
        "d/other": b"new",
        "link": "-> same",
    }
    assert backups(root) == [b"3", b"4"]


def test_what_was_swept_and_is_declared_absent_stays_in_the_backups(
    mirror: Mirror, root: Path
) -> None:
    (root / "x").write_bytes(b"1")
    mirror.prepare(OWNER, Drift(), exact=True)
    mirror.apply([delete("x")])
    assert snapshot(root) == {}
    assert backups(root) == [b"1"]


def test_what_took_the_place_meanwhile_is_not_replaced(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"1")
    mirror.prepare(OWNER, Drift(), exact=True)
    (root / "x").write_bytes(b"new and foreign")
    mirror.apply([write("x", b"1")])
    assert (root / "x").read_bytes() == b"1"
    assert backups(root) == [b"1", b"new and foreign"]


def test_without_being_asked_nothing_is_swept(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"1")
    mirror.prepare(OWNER, Drift())
    assert snapshot(root) == {"x": b"1"}


@pytest.fixture
def deep_root(root: Path) -> Iterator[Path]:
    """A root that may become too deep for pytest to clean up."""
    yield root
    subprocess.run(["rm", "-rf", root], check=True)


def test_deep_trees_are_swept_file_by_file_with_few_descriptors(
    mirror: Mirror, deep_root: Path
) -> None:
    """Each file keeps its bytes, however many folders have to be opened."""
    root = deep_root
    mirror.create()
    deep = root
    for number in range(1100):
        deep = deep / "f"
        deep.mkdir()
        (deep / "x").write_bytes(b"%d" % number)
    moved = mirror.sweep()
    assert snapshot(root) == {}
    assert len(moved) == 1100
    for name, where in moved.items():
        assert (root / where).read_bytes() == b"%d" % (name.count("/") - 1)
