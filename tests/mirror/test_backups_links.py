"""Listing, restoring and purging backups never follow a link."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import FsMirrorError, Mirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror.backups import Backup, restore
from tests.mirror.displacing import (
    AREA,
    STAMP,
    backup_area,
    copies_of,
    displace,
    disturbed,
    listed,
    purged,
    put_back,
    tries,
)
from tests.support import contents, exact_state, failing, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")


@pytest.mark.parametrize("swapped", ["d", "d/e", "d/e/new", ".fsmirror", ".fsmirror/backup", AREA])
def test_folder_that_becomes_a_link_at_any_step_is_not_followed(
    tmp_path: Path, outside: Path, swapped: str
) -> None:
    before = exact_state(outside)
    for k, root, mirror, backup in tries(tmp_path):

        def act(tree: Tree, backup: Backup = backup) -> None:
            with contextlib.suppress(FsMirrorError):
                restore(tree, backup, Name("d/e/new/y"))

        more = disturbed(mirror, act, partial(_swap, root, swapped, outside), k)
        assert exact_state(outside) == before, f"changed by a swap before call {k}"
        assert len(copies_of(root, b"foreign%d" % k)) == 1
        if not more:
            break
    assert k > 15


def _swap(root: Path, swapped: str, outside: Path) -> None:
    """Puts a link where a folder was; the folder stays inside the root."""
    with contextlib.suppress(FileNotFoundError):
        (root / swapped).rename(root / "aside")
        (root / swapped).symlink_to(outside)


@pytest.mark.parametrize("planted", [".fsmirror/backup", AREA, f"{AREA}/d", f"{AREA}/x"])
def test_planted_link_is_not_followed(
    mirror: Mirror, root: Path, outside: Path, planted: str
) -> None:
    displace(mirror, "x", "d/x")
    found = listed(mirror)
    path = root / planted
    path.rename(root / "aside")
    path.symlink_to(outside / STAMP if planted == f"{AREA}/d" else outside)
    before = exact_state(outside)
    seen = {backup.where: backup.kind for backup in listed(mirror)}
    if planted.startswith(f"{AREA}/"):
        assert seen.pop(Name(planted)) == "link"
    assert set(seen.values()) <= {"file"}
    assert all(not Path(root, where).resolve().is_relative_to(outside) for where in seen)
    for backup in [*found, *(replace(backup, size=len(b"outside")) for backup in found)]:
        with contextlib.suppress(FsMirrorError):
            purged(mirror, [backup])
        with contextlib.suppress(FsMirrorError):
            put_back(mirror, backup, f"new/{backup.name}")
    assert exact_state(outside) == before


def test_purge_removes_a_link_and_not_its_target(mirror: Mirror, root: Path, outside: Path) -> None:
    (root / "link").symlink_to(outside)
    mirror.apply([write("link", b"1")])
    before = exact_state(outside)
    assert purged(mirror, listed(mirror)) == (1, len(str(outside)))
    assert exact_state(outside) == before
    assert backup_area(root) == {}


def test_file_in_the_place_of_the_backup_area_is_named_as_the_cause(
    mirror: Mirror, root: Path
) -> None:
    mirror.apply([write("y", b"1")])
    (root / ".fsmirror" / "backup").write_bytes(b"theirs")
    (root / "x").write_bytes(b"foreign")
    with failing("Not a directory"):
        mirror.apply([write("x", b"1")])
    assert b"foreign" in contents(snapshot(root, ours=True)).values()
