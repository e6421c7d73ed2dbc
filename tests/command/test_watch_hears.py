"""``--watch`` hears of changes, or looks, whatever happens to the events of the system."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.sync import _more_room
from tests.command.commands import run
from tests.command.following import PROGRAM, Follower, small_source
from tests.command.syncing import sync
from tests.crash.disks import need
from tests.support import Mount, contents, snapshot

_QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A small source."""
    return small_source(tmp_path / "src")


def is_same(src: Path, dst: Path) -> bool:
    """True if a mirror holds what its source does."""
    return dst.is_dir() and snapshot(dst) == snapshot(src)


def test_reads_are_no_events(src: Path, dst: Path, follower: Follower) -> None:
    for number in range(100):
        (src / "d" / f"{number}").write_bytes(b"read")
    follower.waits_until(lambda: is_same(src, dst))
    with follower.stopped():
        for _ in range(int(_QUEUE.read_text()) // 100 + 1):
            for number in range(100):
                (src / "d" / f"{number}").read_bytes()
        (src / "saved").write_bytes(b"after all that")
    follower.waits_until(lambda: is_same(src, dst))
    assert "faster" not in follower.rest()[2]


def test_overflow_of_the_queue_is_said_once_and_nothing_is_missed(
    src: Path, dst: Path, follower: Follower
) -> None:
    for new in ("one", "two"):
        with follower.stopped():
            for number in range(int(_QUEUE.read_text()) + 1):
                (src / "d" / f"{number % 2}").write_bytes(b"%d" % number)
            (src / new).mkdir()  # Its event is lost.
        follower.waits_until(lambda: is_same(src, dst))
        (src / new / "late").write_bytes(b"in a new folder")
        follower.waits_until(lambda: is_same(src, dst))
    status, _, errors = follower.rest()
    assert status == 130
    assert errors.count("changes came faster than they were read") == 1


def test_folder_that_is_moved_out_and_removed_ends_nothing(
    src: Path, dst: Path, follower: Follower, tmp_path: Path
) -> None:
    (src / "d").rename(tmp_path / "out")
    follower.waits_until(lambda: is_same(src, dst))
    (src / "d").mkdir()
    follower.waits_until(lambda: is_same(src, dst))
    (tmp_path / "out").rmdir()
    (src / "d").rmdir()
    follower.waits_until(lambda: is_same(src, dst))
    (src / "saved").write_bytes(b"saved")
    follower.waits_until(lambda: is_same(src, dst))
    assert "Traceback" not in follower.rest()[2]


def test_change_in_a_folder_that_was_moved_within_is_heard(
    src: Path, dst: Path, follower: Follower
) -> None:
    (src / "e").mkdir()
    (src / "d").rename(src / "e" / "d")
    follower.waits_until(lambda: is_same(src, dst))
    (src / "e" / "d" / "f").write_bytes(b"f")
    follower.waits_until(lambda: is_same(src, dst))


def _limited(limit: str, value: int) -> list[str]:
    """Returns a command that limits inotify for what it runs, in a user namespace of its own."""
    script = f'echo {value} > /proc/sys/user/{limit}; exec "$@"'
    return ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", PROGRAM]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_limit_of_the_system_is_said_and_the_rest_is_looked_at(
    src: Path, dst: Path, limit: str
) -> None:
    need("unshare")
    value = 8 if limit == "max_inotify_watches" else 0
    with Follower(src, dst, program=_limited(limit, value)) as running:
        assert running.run()["written"] == 1
        for number in range(10):  # The limit is reached after the start.
            (src / f"{number}").mkdir()
        running.waits_until(lambda: is_same(src, dst))
        for number in range(10):
            (src / f"{number}" / "f").write_bytes(b"f")
        running.waits_until(lambda: is_same(src, dst))
        status, _, errors = running.rest()
    assert status == 130
    assert errors.count("sysctl; all is looked at every 10 s") == 1


@pytest.mark.parametrize("which", ["src", "dst"])
def test_switched_link_is_followed(src: Path, tmp_path: Path, which: str) -> None:
    (tmp_path / "dst").mkdir()
    shutil.copytree(src, other := tmp_path / "other")
    (other / "a").write_bytes(b"other")
    link = tmp_path / "link"
    link.symlink_to(which)
    places = (link, tmp_path / "dst") if which == "src" else (src, link)
    with Follower(*places) as running:
        running.run()
        (tmp_path / "new link").symlink_to("other" if which == "src" else "new")
        (tmp_path / "new").mkdir()
        (tmp_path / "new link").rename(link)
        running.waits_until(lambda: is_same(*places))
        (src / "b").write_bytes(b"b")
        (other / "c").write_bytes(b"c")
        running.waits_until(lambda: is_same(*places))
        assert running.rest()[0] == 130
    if which == "dst":
        assert contents(snapshot(tmp_path / "dst")) == {"a": b"a"}


def test_outputs_are_healed_from_the_source_that_a_link_led_to(src: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (link := tmp_path / "link").symlink_to("src")
    assert sync(link, tmp_path / "dst").exit_code == 0
    link.unlink()
    link.symlink_to("other")
    (tmp_path / "dst" / "a").unlink()
    assert run("heal", tmp_path / "dst").exit_code == 0
    assert (tmp_path / "dst" / "a").read_bytes() == b"a"


def test_change_without_an_event_is_found_by_the_next_look(
    src: Path, dst: Path, tmp_path: Path
) -> None:
    os.link(src / "a", outside := tmp_path / "outside")
    with Follower(src, dst, "--rescan", "0.5") as running:
        assert running.run()["written"] == 1
        outside.write_bytes(b"b")  # inotify(7): a folder hears of what is done by names in it.
        assert running.run()["written"] == 1
        assert is_same(src, dst)
        time.sleep(1)  # Looks that find nothing say nothing.
        assert running.rest() == (130, [], "")


def test_polling_needs_no_event(src: Path, dst: Path) -> None:
    command = _limited("max_inotify_instances", 0) if os.geteuid() == 0 else [PROGRAM]
    with Follower(src, dst, "--poll", "0.3", program=command) as running:
        assert running.run()["written"] == 1
        (src / "b").write_bytes(b"b")
        running.waits_until(lambda: is_same(src, dst))
        (dst / "b").unlink()
        running.waits_until(lambda: is_same(src, dst))
        status, _, errors = running.rest()
    assert (status, errors) == (130, "")


@pytest.mark.root
@pytest.mark.slow
def test_file_system_of_a_program_is_looked_at_more_often(
    src: Path, tmp_path: Path, mount: Mount
) -> None:
    need("bindfs")
    (tmp_path / "behind").mkdir()
    mounted = mount(tmp_path / "mounted", "-t", "fuse.bindfs", str(tmp_path / "behind"))
    with Follower(src, mounted / "dst") as running:
        assert running.run()["written"] == 1
        shutil.rmtree(tmp_path / "behind" / "dst" / "d")  # Behind its back.
        running.waits_until(lambda: is_same(src, mounted / "dst"))
        _, _, errors = running.rest()
    assert "changes from elsewhere are not told on fuse" in errors
    assert "all is looked at every 10 s" in errors


def test_rebuild_that_deletes_everything_first_empties_no_mirror(src: Path, dst: Path) -> None:
    with Follower(src, dst, "--settle", "2") as running:
        assert running.run()["written"] == 1
        for _ in range(2):
            shutil.rmtree(src / "d")
            (src / "a").unlink()
            time.sleep(0.7)
            (src / "d").mkdir()
            (src / "a").write_bytes(b"rebuilt")
        (src / "done").touch()
        runs = [running.run()]
        while not (dst / "done").exists():
            runs.append(running.run())
        assert sum(each["deleted"] for each in runs) == 0
        assert is_same(src, dst)


def test_failed_run_is_tried_again_once_what_was_in_the_way_is_gone(src: Path, dst: Path) -> None:
    (dst / "b").mkdir(parents=True)
    (dst / "b" / "theirs").write_bytes(b"theirs")
    with Follower(src, dst) as running:
        assert running.run()["failures"] == []
        (src / "b").write_bytes(b"b")
        assert len(running.run()["failures"]) == 1
        shutil.rmtree(dst / "b")
        assert running.run()["written"] == 1
        assert is_same(src, dst)
        status, _, errors = running.rest()
    assert status == 130
    assert errors.count("write 'b'") == 1


def test_second_process_that_watches_ends_at_once(src: Path, dst: Path, follower: Follower) -> None:
    with Follower(src, dst) as second:
        status, errors = second.ended()
    assert (status, f"{dst}: process " in errors) == (3, True)
    assert follower.rest()[0] == 130


def test_room_on_a_full_disk_is_noticed(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, real = 0, os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        there = [*real(path)]
        there[1], there[4] = 4096, free // 4096  # f_frsize, f_bavail
        return os.statvfs_result(there)

    assert sync(src, dst).exit_code == 0
    monkeypatch.setattr(os, "statvfs", statvfs)
    has_room = _more_room(Options(str(src), str(dst)))
    for free, answer in ((0, False), (1 << 19, False), (1 << 21, True)):  # noqa: B007
        assert has_room() is answer


def test_failure_of_the_last_run_is_the_exit_status(src: Path, dst: Path) -> None:
    (dst / "b").mkdir(parents=True)
    (dst / "b" / "theirs").write_bytes(b"theirs")
    (src / "b").write_bytes(b"b")
    with Follower(src, dst) as running:
        assert len(running.run()["failures"]) == 1
        time.sleep(4)  # Further attempts fail in silence.
        status, runs, errors = running.rest()
    assert (status, runs) == (3, [])
    assert errors.count("write 'b'") == 1


def test_each_run_tells_its_time(src: Path, dst: Path, follower: Follower) -> None:
    (src / "b").write_bytes(b"b")
    told = time.strptime(follower.run()["time"], "%Y-%m-%d %H:%M:%S UTC")
    assert abs(time.mktime(told) - time.mktime(time.gmtime())) < 3600
