"""A restored backup is on the disk, at one of its two places at every instant."""

from __future__ import annotations

import errno
import itertools
import os
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import BarrierError, Mirror
from cocoindex_fsmirror._disk import calls as _calls
from tests.mirror.displacing import (
    AREA,
    call_of,
    copies_of,
    displace,
    files_of,
    listed,
    put_back,
    tries,
)
from tests.steps import crashes, recorded, run_failing

pytestmark = pytest.mark.usefixtures("no_waiting", "one_moment")


@pytest.mark.slow
@pytest.mark.parametrize("exchange", [True, False])
def test_death_at_any_step_leaves_the_backup_at_one_of_two_places(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(_calls, "renameat2", None)
    before, after = f"{AREA}/d/e/x", "d/e/new/y"
    seen: list[list[str]] = []
    for k, root, mirror, backup in tries(tmp_path):
        mirror.close()
        more = crashes(partial(put_back, mirror, backup, after), k)
        seen.append(copies_of(root, b"foreign%d" % k))
        known = [backup.where for backup in files_of(listed(mirror))]
        assert known == [name for name in seen[-1] if name == before]
        if after not in seen[-1]:
            put_back(mirror, backup, after)
        assert (root / after).read_bytes() == b"foreign%d" % k
        if not more:
            break
    # A link and an unlink instead of the rename leave two names for a moment.
    between = [] if exchange else [[before, after]]
    assert [places for places, _ in itertools.groupby(seen)] == [[before], *between, [after]]


def test_restore_returns_once_the_move_is_on_the_disk(mirror: Mirror) -> None:
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    displace(mirror, "d/x")
    (backup,) = listed(mirror)
    with recorded() as calls:
        put_back(mirror, backup, "new/y")
    names = [name for name, _ in calls if name in ("mkdir", "renameat2", "rmdir", "syncfs")]
    assert names[-1] == "syncfs"
    assert names.count("syncfs") == names.count("renameat2") == 1


def test_new_name_is_synced_first_without_syncfs(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", None)
    _calls.say_once.cache_clear()
    displace(mirror, "d/x", "d/stays")
    backup = listed(mirror)[1]
    folders = {path.stat().st_ino: str(path.relative_to(root)) for path in [root, root / "d"]}
    for path in (root / AREA, root / AREA / "d"):
        folders[path.stat().st_ino] = str(path.relative_to(root))
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(folders.get(os.fstat(fd).st_ino, "?"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    (root / "d" / "x").unlink()
    put_back(mirror, backup)
    assert synced[:2] == ["d", "."]
    assert synced[-1] == f"{AREA}/d"


def test_failed_sync_is_reported_though_the_file_is_there(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    displace(mirror, "x")
    (backup,) = listed(mirror)
    with pytest.raises(BarrierError, match="'y' was restored, but syncing failed"):
        run_failing(partial(put_back, mirror, backup, "y"), call_of("syncfs"), errno.EIO)
    assert (root / "y").read_bytes() == b"foreign"
