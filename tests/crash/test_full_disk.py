"""Full disks of several kinds, and processes that die while there is no room."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from tests.crash.disks import Cut, made_disk, need, run
from tests.crash.harness import die_at, leave_out_barriers
from tests.disk.test_turns import KIB, files_of, fill, update
from tests.support import Mount, contents, failing, snapshot, staged

pytestmark = pytest.mark.root


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of each kind."""
    with made_disk(Cut(request.param, "copy"), tmp_path / "disks") as made:
        yield made.at


def test_most_of_a_full_disk_is_replaced_in_one_update(disk: Path) -> None:
    size = min(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize // 3, 20 << 20)
    old, new = files_of(size // 40_000, 40_000, 0), files_of(size // 40_000, 40_000, 1, 0.6)
    with Mirror(disk / "root") as mirror:
        update(mirror, old)
        fill(disk, 500 * KIB)
        update(mirror, new)
        assert contents(snapshot(disk / "root")) == new
        assert mirror.verify(content=True) == []
        assert staged(disk / "root") == []


def test_replaced_files_need_few_inodes_at_a_time(mount: Mount, tmp_path: Path) -> None:
    need("mkfs.ext4")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    run("mkfs.ext4", "-q", "-N", "64", str(image))
    disk = mount(tmp_path / "disk", "-o", "loop", str(image))
    with Mirror(disk / "root") as mirror:
        update(mirror, files_of(30, 10, 0))
        while os.statvfs(disk).f_ffree > 5:
            (disk / f"filler{os.statvfs(disk).f_ffree}").touch()
        update(mirror, files_of(30, 10, 1))
        assert contents(snapshot(disk / "root")) == files_of(30, 10, 1)


def test_full_quota_is_a_full_disk(tmp_path: Path) -> None:
    need("btrfs")
    with made_disk(Cut("btrfs", "copy"), tmp_path / "disks") as made:
        limited = made.at / "limited"
        run("btrfs", "subvolume", "create", str(limited))
        run("btrfs", "quota", "enable", str(made.at))
        run("btrfs", "qgroup", "limit", "8M", str(limited))
        with Mirror(limited / "root") as mirror:
            with failing("free some of the quota"):
                update(mirror, {"huge": files_of(1, 9 << 20, 0)["d0/000"]})
            update(mirror, files_of(120, 40_000, 0))
            update(mirror, files_of(120, 40_000, 1, 0.6))
            assert contents(snapshot(limited / "root")) == files_of(120, 40_000, 1, 0.6)


_FILLING = """
import os, sys
from pathlib import Path
from cocoindex_fsmirror import ApplyError, LedgerError, Mirror
from tests.disk.test_turns import files_of, fill, update
disk = Path(sys.argv[1])
with Mirror(disk / "root") as mirror:
    update(mirror, files_of(100, 30_000, 0))
    os.sync()
    for leave in (300_000, 0):
        fill(disk, leave)
        os.sync()
        for version in (1, 2):
            try:
                update(mirror, files_of(100, 30_000, version))
            except (ApplyError, LedgerError):
                print("full")
            os.sync()
print("alive")
"""


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_full_disk_kills_no_process_that_has_the_ledger_open(kind: str, tmp_path: Path) -> None:
    with made_disk(Cut(kind, "copy"), tmp_path / "disks") as made:
        command = [sys.executable, "-c", _FILLING, str(made.at)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("alive\n")
        assert "full" in done.stdout


_UPDATING = """
import sys
from cocoindex_fsmirror import LedgerError, Mirror
try:
    with Mirror(sys.argv[1]) as mirror, mirror.update() as files:
        files.write("a", sys.argv[2].encode())
except LedgerError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_nearly_full_disk_with_small_blocks_kills_no_process(kind: str, tmp_path: Path) -> None:
    with made_disk(Cut(kind, "copy", block=1024), tmp_path / "disks") as made:
        root, said = made.at / "root", []
        for left in (None, *range(12), 16, 20):
            if left is not None:
                fill(made.at, left * KIB)
                os.sync()
            command = [sys.executable, "-c", _UPDATING, str(root), f"left {left}" * 200]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (left, done.stderr)
            said.append(done.stdout)
            (made.at / "filler").unlink(missing_ok=True)
        assert said[0] == ""
        assert all("No space left" in each for each in said[2:])


_OLD, _NEW = files_of(3, 100_000, 0), files_of(3, 100_000, 1)


def _replace(root: Path) -> None:
    """Replaces all files."""
    with Mirror(root) as mirror:
        update(mirror, _NEW)


@pytest.mark.parametrize("part", range(4))
def test_death_at_any_step_on_a_full_disk_is_completed_by_the_next_run(
    part: int,
    tmpfs: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave_out_barriers(monkeypatch)
    caplog.set_level("CRITICAL")
    disk, deaths = tmpfs("4m"), 0
    root = disk / "root"
    for step in itertools.count(part + 1, 4):
        with Mirror(root) as mirror:
            update(mirror, _OLD)
        fill(disk, 300 * KIB)
        name = die_at(step, lambda: _replace(root))
        found = contents(snapshot(root))
        assert all(found[each] in (_OLD[each], _NEW[each]) for each in _OLD), (step, name)
        _replace(root)
        assert contents(snapshot(root)) == _NEW, (step, name)
        assert staged(root) == [], (step, name)
        if name is None:
            break
        deaths += 1
        shutil.rmtree(root)
        (disk / "filler").unlink()
    assert deaths > 10
