"""The commands on mirrors that hold mounts, also after ``drop``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, RootError
from tests.command.commands import run
from tests.command.syncing import sync
from tests.support import Mount, contents, snapshot, staged, write

pytestmark = pytest.mark.root


@pytest.fixture
def mounted(source: Path, dst: Path, mount: Mount) -> Path:
    """A mirror with a mount in it, where a foreign file had to make way."""
    point = mount(dst / "d", "-t", "tmpfs", "tmpfs")
    (point / "b").write_bytes(b"foreign")
    assert sync(source, dst).exit_code == 0
    return dst


def test_backup_on_a_mount_outlives_the_mirror(mounted: Path) -> None:
    dropped = run("drop", "--yes", mounted)
    assert (dropped.exit_code, dropped.stderr) == (0, "")
    assert "1 backup kept in d/.fsmirror/backup" in dropped.stdout
    assert "1 backup, 7 B" in run("backups", mounted).stdout
    restored = run("backups", mounted, "restore", "d/b")
    assert restored.exit_code == 0, restored.stderr
    assert snapshot(mounted) == {"d": "dir", "d/b": b"foreign"}
    assert os.listdir(mounted) == ["d"]


def test_backup_on_a_mount_can_be_purged_after_a_drop(mounted: Path) -> None:
    run("drop", "--yes", mounted)
    purged = run("backups", mounted, "purge", "--older-than", "0s")
    assert "1 backup purged" in purged.stdout
    assert snapshot(mounted) == {"d": "dir"}
    assert os.listdir(mounted) == ["d"]


def test_directory_without_ledger_and_backups_is_refused(mounted: Path) -> None:
    run("drop", "--yes", mounted)
    assert run("backups", mounted, "purge", "--older-than", "0s").exit_code == 0
    refused = run("backups", mounted)
    assert refused.exit_code == 2
    assert "is no mirror (it has no ledger), and holds no backups" in refused.stderr


def test_backup_on_a_mount_that_is_no_longer_declared_is_listed(
    mounted: Path, source: Path
) -> None:
    (source / "d" / "b").unlink()
    (source / "d").rmdir()
    assert sync(source, mounted).exit_code == 0
    assert "1 backup, 7 B" in run("backups", mounted).stdout


def test_state_folder_on_another_mount_is_refused(source: Path, dst: Path, mount: Mount) -> None:
    """Nothing can be renamed from there into place."""
    mount(dst / ".fsmirror", "-t", "tmpfs", "tmpfs")
    refused = sync(source, dst)
    assert refused.exit_code == 3
    assert "has its .fsmirror on another mount" in refused.stderr
    assert contents(snapshot(dst)) == {}
    assert staged(dst) == []
    with Mirror(dst) as mirror, pytest.raises(RootError, match=r"another mount.*unmount it"):
        mirror.apply([write("x", b"1")])


def test_staging_area_on_another_mount_fails_each_path_and_ends(
    source: Path, target: Path, mount: Mount
) -> None:
    """A path at the top of the root has no folder in which an edge could be looked for."""
    mount(target / ".fsmirror" / "tmp", "-t", "tmpfs", "-o", "mode=0700", "tmpfs")
    (source / "a").write_bytes(b"new")
    failed = sync(source, target)
    assert failed.exit_code == 3
    assert "write 'a': Invalid cross-device link" in failed.stderr
    assert (target / "a").read_bytes() == b"a"
