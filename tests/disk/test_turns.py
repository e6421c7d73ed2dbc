"""A full disk: what fits once the old versions are gone is written by the same update."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import LedgerError, Mirror, TooManyRemovalsError
from cocoindex_fsmirror._mirror.brake import Brake
from tests.support import (
    OWNER,
    Mount,
    backups,
    contents,
    delete,
    failing,
    snapshot,
    staged,
    write,
)

KIB = 1 << 10
Tmpfs = Callable[[str], Path]
Disk = Callable[[str], Path]


def files_of(count: int, size: int, version: int, changed: float = 1.0) -> dict[str, bytes]:
    """Returns contents that can't be compressed; a share of them is of a version above 0."""
    ages = (version if number < changed * count else 0 for number in range(count))
    return {
        f"d{number % 3}/{number:03}": random.Random(f"{number} {age}").randbytes(size)
        for number, age in enumerate(ages)
    }


def fill(disk: Path, leave: int) -> None:
    """Fills a file system up to a number of bytes."""
    with (disk / "filler").open("ab") as file:
        size, step = file.seek(0, os.SEEK_END), 64 << 20
        while step >= 4 * KIB:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
        file.truncate(max(0, size - leave))


def update(mirror: Mirror, files: dict[str, bytes], **options: Any) -> None:
    """Declares files, and nothing else; by default without copies, which would give way."""
    with mirror.update(**{"copies": "none", **options}) as update:
        for name, content in files.items():
            update.write(name, content)


@pytest.mark.root
@pytest.mark.parametrize("durability", ["batch", "none"])
def test_most_of_a_full_disk_is_replaced_in_one_update(tmpfs: Tmpfs, durability: str) -> None:
    disk = tmpfs("8m")
    with Mirror(disk / "root") as mirror:
        update(mirror, files_of(200, 30_000, 0))
        fill(disk, 200 * KIB)
        update(mirror, files_of(200, 30_000, 1, 0.6), durability=durability)
        assert snapshot(disk / "root").items() >= files_of(200, 30_000, 1, 0.6).items()
        assert staged(disk / "root") == []
        assert mirror.verify(content=True) == []


@pytest.mark.root
def test_new_files_leave_replaced_ones_their_room(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    with Mirror(disk / "root") as mirror:
        update(mirror, {"b": b"1" * 400 * KIB})
        fill(disk, 800 * KIB)
        update(mirror, {"a": b"2" * 600 * KIB, "b": b"2" * 400 * KIB})
    assert set(contents(snapshot(disk / "root")).values()) == {b"2" * 600 * KIB, b"2" * 400 * KIB}


@pytest.mark.root
def test_new_files_wait_though_there_is_room_for_them(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    old = {"b": b"1" * 600 * KIB, "c": b"1" * 1000 * KIB}
    new = {"a": b"2" * 500 * KIB, "b": b"2" * 600 * KIB, "c": b"2" * 1000 * KIB}
    with Mirror(disk / "root") as mirror:
        update(mirror, old)
        fill(disk, 1300 * KIB)
        update(mirror, new)  # Had "a" been written beside "b", "c" would never fit.
    assert contents(snapshot(disk / "root")) == new


@pytest.mark.root
def test_new_file_is_written_beside_one_that_does_not_fit(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    with Mirror(disk / "root") as mirror:
        update(mirror, {"huge": b"1" * 1000 * KIB})
        fill(disk, 500 * KIB)
        with failing("write 'huge': No space") as error:
            update(mirror, {"huge": b"2" * 1000 * KIB, "new": b"n"})
    assert len(error.value.exceptions) == 1
    assert (disk / "root" / "new").read_bytes() == b"n"


@pytest.mark.root
def test_log_of_the_ledger_makes_room_for_an_update(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    with Mirror(disk / "root") as mirror:
        update(mirror, files_of(300, 10, 0))
    with Mirror(disk / "root") as mirror:
        update(mirror, files_of(300, 10, 1))
        update(mirror, files_of(300, 10, 2))
        fill(disk, 0)
        update(mirror, {**files_of(300, 10, 2), "d0/000": b"2"})
    assert (disk / "root/d0/000").read_bytes() == b"2"


@pytest.mark.root
def test_path_that_fits_nowhere_is_told_once_and_all_others_are_written(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    old, new = files_of(20, 30_000, 0), files_of(20, 30_000, 1)
    with Mirror(disk / "root") as mirror:
        update(mirror, {**old, "huge": b"old"})
        fill(disk, 200 * KIB)
        with failing("free some space") as error:
            update(mirror, {**new, "huge": b"2" * (9 << 20), "new": b"n"})
        (failure,) = error.value.exceptions
        assert "write 'huge'" in str(failure)
        assert contents(snapshot(disk / "root")) == {**new, "huge": b"old", "new": b"n"}
        assert staged(disk / "root") == []
        (disk / "filler").unlink()
        update(mirror, {**new, "huge": b"fits", "new": b"n"})
        assert contents(snapshot(disk / "root")) == {**new, "huge": b"fits", "new": b"n"}


@pytest.mark.root
def test_counts_are_right_over_all_turns(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    root = disk / "root"
    with Mirror(root) as mirror:
        mirror.create()
        intents = [write(name, content) for name, content in files_of(40, 30_000, 0).items()]
        mirror.apply([*intents, write("gone")])
        fill(disk, 200 * KIB)
        (root / "mine").write_bytes(b"foreign")
        intents = [write(name, content) for name, content in files_of(40, 30_000, 1).items()]
        outcome = mirror.apply([*intents, delete("gone"), write("mine", b"new")])
    assert sorted(outcome.written) == sorted([*files_of(40, 30_000, 1), "mine"])
    assert outcome.size == 40 * 30_000 + 3
    assert outcome.removed == ["gone"]
    assert [*outcome.backed_up] == ["mine"]
    assert (outcome.failures, outcome.unfitting) == ([], [])
    assert backups(root) == [b"foreign"]


@pytest.mark.root
def test_brake_counts_no_removal_twice_in_turns(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    with Mirror(disk / "root") as mirror:
        mirror.create()
        old, new = files_of(40, 30_000, 0), files_of(40, 30_000, 1)
        mirror.apply([*(write(*pair) for pair in old.items()), write("x"), write("y"), write("z")])
        fill(disk, 200 * KIB)
        intents, brake = [write(*pair) for pair in new.items()], Brake(2)
        mirror.apply([*intents, delete("x"), delete("y")], brake=brake)
        assert contents(snapshot(disk / "root")) == {**new, "z": b""}
        with pytest.raises(TooManyRemovalsError, match="2 were removed"):
            mirror.apply([delete("z")], brake=brake)


@pytest.mark.root
def test_removed_target_and_a_lack_of_room_are_settled_together(
    tmpfs: Tmpfs, caplog: pytest.LogCaptureFixture
) -> None:
    disk = tmpfs("8m")
    with Mirror(disk / "root") as mirror:
        mirror.create()
        old, new = files_of(40, 30_000, 0), files_of(40, 30_000, 1)
        inside = [write("in/x", b"x", container="in//"), write("in/y", b"y", container="in//")]
        mirror.apply([*(write(*pair) for pair in old.items()), *inside])
        fill(disk, 200 * KIB)
        (disk / "root/in/mine").touch()
        mirror.apply([write(*pair) for pair in new.items()], [(OWNER, "in//")])
    assert contents(snapshot(disk / "root")) == {**new, "in/mine": b""}
    assert caplog.text.count("left in place, since it is not ours: 'in/mine'") == 1


@pytest.mark.root
def test_full_disk_is_no_reason_to_keep_what_goes(tmpfs: Tmpfs) -> None:
    disk = tmpfs("16m")
    with Mirror(disk / "root") as mirror:
        mirror.create()
        names = [f"d{number % 10}/{number}" for number in range(800)]
        mirror.apply([write(name, b"x", container="in//") for name in names])
    with Mirror(disk / "root") as mirror:
        fill(disk, 250 * KIB)
        mirror.apply([], [(OWNER, "in//")])
        assert snapshot(disk / "root") == {}
    with Mirror(disk / "root") as mirror:
        (disk / "filler").unlink()
        mirror.apply([write(name, b"x") for name in names])
        fill(disk, 250 * KIB)
        mirror.tear_down(OWNER)
    assert snapshot(disk).keys() == {"filler"}


@pytest.mark.root
def test_update_without_room_for_the_ledger_changes_nothing(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    files = files_of(20, 3_000, 0)
    with Mirror(disk / "root") as mirror:
        update(mirror, files)
        fill(disk, 0)
        with pytest.raises(LedgerError, match=r"can't record .* \(free some space"):
            update(mirror, files_of(20, 3_000, 1))
        assert contents(snapshot(disk / "root")) == files
        (disk / "filler").unlink()
        update(mirror, files_of(20, 3_000, 1))
        assert contents(snapshot(disk / "root")) == files_of(20, 3_000, 1)


@pytest.mark.root
def test_new_files_leave_the_ledger_its_room(tmpfs: Tmpfs) -> None:
    """Else nothing could be recorded until somebody else makes room, not even a removal."""
    disk = tmpfs("8m")
    files = files_of(600, 4_096, 0)
    with Mirror(disk / "root") as mirror:
        update(mirror, {"x": b"1"})
        fill(disk, 1000 * KIB)
        with failing("free some space"):
            update(mirror, {**files, "x": b"1"})
        done = contents(snapshot(disk / "root"))
        assert 20 < len(done) < 600
        assert mirror.verify() == []
        others = [name for name in files if name not in done][: len(done) - 20]
        update(mirror, {name: files[name] for name in others})
        assert sorted(contents(snapshot(disk / "root"))) == sorted(others)


@pytest.mark.root
def test_replaced_files_need_one_inode_at_a_time(mount: Mount, tmp_path: Path) -> None:
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "nr_inodes=40", "tmpfs")
    with Mirror(disk / "root") as mirror:
        update(mirror, {f"{number}": b"1" for number in range(20)})
        while os.statvfs(disk).f_ffree > 4:
            (disk / f"filler{os.statvfs(disk).f_ffree}").touch()
        update(mirror, {f"{number}": b"2" for number in range(20)})
        assert set(contents(snapshot(disk / "root")).values()) == {b"2"}
        assert staged(disk / "root") == []


@pytest.mark.root
def test_interrupt_between_turns_leaves_whole_files_and_the_next_completes(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")
    old, new = files_of(60, 30_000, 0), files_of(60, 30_000, 1)
    begun = 0

    def stop(size: int) -> None:
        nonlocal begun
        begun += not size
        if begun == 5:
            raise KeyboardInterrupt

    with Mirror(disk / "root") as mirror:
        update(mirror, old)
        fill(disk, 200 * KIB)
    with Mirror(disk / "root", on_bytes=stop) as mirror, pytest.raises(KeyboardInterrupt):
        update(mirror, new)
    found = contents(snapshot(disk / "root"))
    assert all(content in (old[name], new[name]) for name, content in found.items())
    assert 0 < sum(found[name] == new[name] for name in new) < 60
    with Mirror(disk / "root") as mirror:
        update(mirror, new)
        assert contents(snapshot(disk / "root")) == new


@pytest.mark.root
def test_backup_that_does_not_fit_is_told_and_nothing_foreign_is_lost(
    mount: Mount, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "nr_inodes=40", "tmpfs")
    root = disk / "root"
    with Mirror(root) as mirror:
        update(mirror, {"a": b"1", "b": b"1"})
        (root / "d").mkdir()
        (root / "d" / "mine").write_bytes(b"foreign")
        while os.statvfs(disk).f_ffree > 4:
            (disk / f"filler{os.statvfs(disk).f_ffree}").touch()
        with failing("back up 'd/mine': No space left"):
            update(mirror, {"a": b"2", "b": b"2", "d/mine": b"new"})
        for filler in disk.glob("filler*"):
            filler.unlink()
        update(mirror, {"a": b"2", "b": b"2", "d/mine": b"new"})
    assert contents(snapshot(root)) == {"a": b"2", "b": b"2", "d/mine": b"new"}
    assert backups(root) == [b"foreign"]
    assert staged(root) == []
