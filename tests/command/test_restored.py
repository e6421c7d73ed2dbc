"""Mirrors of ``fsmirror sync`` that are copied, moved, or put back from another time."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command.commands import run, told
from tests.command.syncing import sync
from tests.support import Mount, backups, beside_ours, contents, snapshot
from tests.target.projects import Put, anew, copy_over, sync_in_place, sync_over, tar_over

PUTS = pytest.mark.parametrize("put", [copy_over, tar_over, sync_over, sync_in_place, anew])


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source with two files, which a mirror holds."""
    source = tmp_path / "src"
    (source / "deep").mkdir(parents=True)
    (source / "changed").write_bytes(b"1")
    (source / "deep" / "gone").write_bytes(b"2")
    return source


def change(src: Path) -> None:
    """Changes every file of the source."""
    (src / "changed").write_bytes(b"one")
    (src / "deep" / "gone").unlink()
    (src / "added").write_bytes(b"3")


@PUTS
def test_restored_mirror_is_not_in_order_until_the_next_run(
    src: Path, tmp_path: Path, put: Put
) -> None:
    dst = tmp_path / "dst"
    sync(src, dst)
    copy_over(dst, tmp_path / "backup")
    change(src)
    sync(src, dst)
    put(tmp_path / "backup", dst)
    if put is not sync_in_place:  # It writes into the very file of the ledger.
        for command in ("verify", "status"):
            assert told(command, dst)["restored"]
            shown = run(command, dst)
            assert shown.exit_code == 1
            assert "copied or put back" in shown.stdout
    sync(src, dst)
    assert contents(snapshot(dst)) == contents(snapshot(src))
    assert "in order" in run("verify", dst, "--content").stdout
    assert not told("status", dst)["restored"]


@pytest.mark.parametrize("put", [copy_over, sync_over])
def test_copied_mirror_leaves_the_original_alone(src: Path, tmp_path: Path, put: Put) -> None:
    dst, copy = tmp_path / "dst", tmp_path / "copy"
    sync(src, dst)
    put(dst, copy)
    before = beside_ours(dst)
    change(src)
    sync(src, copy)
    assert_follows(src, copy)
    assert run("drop", copy, "--yes").exit_code == 0
    assert beside_ours(dst) == before
    assert run("verify", dst, "--content").exit_code == 0


@pytest.mark.parametrize("is_mounted", [False, True])
def test_mirror_in_another_place_knows_its_files(
    src: Path, tmp_path: Path, mount: Mount, is_mounted: bool
) -> None:
    dst, there = tmp_path / "dst", tmp_path / "elsewhere" / "dst"
    sync(src, dst)
    if is_mounted:
        mount(there, "--bind", str(dst))
    else:
        there.parent.mkdir()
        shutil.move(dst, there)
    assert run("verify", there).exit_code == 0
    change(src)
    sync(src, there)
    assert_follows(src, there)


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    """Mounts an image for a block."""
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mirror_on_a_copied_image_is_brought_up_to_date(src: Path, tmp_path: Path) -> None:
    """As after a snapshot that was rolled back, which nothing in the file system shows."""
    image, at = tmp_path / "image", tmp_path / "at"
    at.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted(image, at):
        sync(src, at / "dst")
    shutil.copy(image, tmp_path / "old")
    with mounted(image, at):
        change(src)
        sync(src, at / "dst")
    with mounted(tmp_path / "old", at):
        sync(src, at / "dst")
        assert_follows(src, at / "dst")


def assert_follows(src: Path, dst: Path) -> None:
    """Checks that a mirror holds what its source holds, and nothing had to be backed up."""
    assert contents(snapshot(dst)) == contents(snapshot(src))
    assert backups(dst) == []
