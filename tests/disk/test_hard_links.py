"""A file with further names is never changed in its place: the other names keep their state."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.intents import Intent
from tests.command.syncing import sync
from tests.support import (
    OWNER,
    backups,
    delete,
    exact_state,
    ledger_rows,
    link,
    snapshot,
    staged,
    write,
)

MODES_AND_TIMES = [{"mode": 0o604}, {"mtime_ns": 5}, {"mode": 0o604, "mtime_ns": 5}]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The path of a further name of the file ``x``."""
    return tmp_path / "outside"


def _state(path: Path) -> tuple[object, ...]:
    """Returns all of a file but its ctime and link count, which any other name may change."""
    found = path.lstat()
    content = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return content, found.st_mode, found.st_mtime_ns, found.st_ino, found.st_uid


@pytest.mark.parametrize("asked", MODES_AND_TIMES)
@pytest.mark.parametrize("is_ours", [True, False])
def test_mode_and_time_are_those_of_a_copy(
    mirror: Mirror, root: Path, outside: Path, asked: dict[str, int], is_ours: bool
) -> None:
    if is_ours:
        mirror.apply([write("x", b"1")])
        os.link(root / "x", outside)
    else:
        outside.write_bytes(b"1")
        os.link(outside, root / "x")
    before = _state(outside)
    mirror.apply([write("x", b"1", **asked)])
    assert _state(outside) == before
    found = (root / "x").stat()
    assert (root / "x").read_bytes() == b"1"
    assert found.st_ino != outside.stat().st_ino
    assert found.st_mode & 0o777 == asked.get("mode", found.st_mode & 0o777)
    assert found.st_mtime_ns == asked.get("mtime_ns", found.st_mtime_ns)
    assert [row.made for row in ledger_rows(mirror)] == [is_ours]
    assert mirror.verify(content=True) == staged(root) == []
    assert backups(root) == []


def test_time_of_a_link_is_that_of_a_copy(mirror: Mirror, root: Path, outside: Path) -> None:
    mirror.apply([link("x", "target")])
    os.link(root / "x", outside, follow_symlinks=False)
    before = _state(outside)
    mirror.apply([link("x", "target", mtime_ns=5)])
    assert _state(outside) == before
    assert (root / "x").lstat().st_mtime_ns == 5


def test_adopted_file_that_lacks_nothing_stays_linked(
    mirror: Mirror, root: Path, outside: Path
) -> None:
    outside.write_bytes(b"1")
    os.link(outside, root / "x")
    mirror.apply([write("x", b"1", mode=outside.stat().st_mode & 0o777)])
    assert os.path.samefile(root / "x", outside)


WORK: dict[str, Callable[[], list[Intent]]] = {
    "write": lambda: [write("x", b"2")],
    "delete": lambda: [delete("x")],
    "overwrite": lambda: [write("x", b"2", on_conflict="overwrite")],
    "write below": lambda: [write("x/y", b"2")],
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("is_ours", [True, False])
def test_other_name_keeps_its_bytes_whatever_is_done(
    mirror: Mirror, root: Path, outside: Path, work: str, is_ours: bool
) -> None:
    if is_ours:
        mirror.apply([write("x", b"1")])
        os.link(root / "x", outside)
    else:
        outside.write_bytes(b"1")
        os.link(outside, root / "x")
    before = _state(outside)
    mirror.apply(WORK[work]())
    mirror.tear_down(OWNER)
    assert _state(outside) == before


def test_snapshot_by_hard_links_keeps_modes_and_times(tmp_path: Path) -> None:
    src, dst, before = tmp_path / "src", tmp_path / "dst", tmp_path / "snapshot"
    (src / "d").mkdir(parents=True)
    (src / "d" / "x").write_bytes(b"1")
    (src / "y").symlink_to("d")
    sync(src, dst)
    (before / "d").mkdir(parents=True)
    for name in ("d/x", "y"):
        os.link(dst / name, before / name, follow_symlinks=False)
    known = exact_state(before)
    (src / "d" / "x").chmod(0o604)
    os.utime(src / "d" / "x", ns=(5, 5))
    os.utime(src / "y", ns=(5, 5), follow_symlinks=False)
    result = sync(src, dst)
    assert (result.exit_code, "2 healed" in result.stdout) == (0, True), result.output
    assert [(path, seen[:3], seen[4]) for path, seen in exact_state(before).items()] == [
        (path, seen[:3], seen[4]) for path, seen in known.items()
    ]
    assert snapshot(dst) == snapshot(src)
    assert (dst / "d" / "x").stat().st_mtime_ns == (dst / "y").lstat().st_mtime_ns == 5
    assert "2 unchanged" in sync(src, dst).stdout
