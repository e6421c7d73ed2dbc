"""Everything works without renameat2 or syncfs, and the lack is logged."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.ownership import OnConflict
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk.calls import closing
from cocoindex_fsmirror._mirror.place import Placement
from tests.steps import crashes, overheard
from tests.support import backups, contents, delete, snapshot, staged, write


def _refuses(*_args: object, **_options: object) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.fixture(params=["missing", "refuses"])
def no_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes renameat2 from the C library, or makes the file system refuse its flags."""
    monkeypatch.setattr(_calls, "renameat2", None if request.param == "missing" else _refuses)
    _calls.say_once.cache_clear()


@pytest.fixture
def no_syncfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes syncfs from the C library."""
    monkeypatch.setattr(_calls, "syncfs", None)
    _calls.say_once.cache_clear()


FIRST = [write("x", b"1"), write("gone", b"1"), write("edited", b"1"), write("kind/z", b"1")]


def _second(policy: OnConflict = "backup") -> list[Intent]:
    """Returns a batch with every kind of work, with foreign bytes in its way."""
    writes = [write(name, b"2", on_conflict=policy) for name in ("x", "d/new", "edited", "kind")]
    return [*writes, delete("gone"), delete("kind/z")]


AFTER = {"x": b"2", "d/new": b"2", "edited": b"2", "kind": b"2"}


@pytest.mark.usefixtures("no_exchange")
def test_batch_is_applied_without_an_exchange(mirror: Mirror, root: Path) -> None:
    mirror.apply(FIRST)
    (root / "edited").write_bytes(b"foreign")
    mirror.apply(_second())
    assert contents(snapshot(root)) == AFTER
    assert backups(root) == [b"foreign"]
    assert not staged(root)
    assert mirror.verify() == []
    os.unlink(root / "x")
    (root / "x").symlink_to("no/where")
    os.mkfifo(root / "fifo")
    mirror.apply([write("x", b"3"), write("fifo", b"3")])
    assert contents(snapshot(root)) == AFTER | {"x": b"3", "fifo": b"3"}


@pytest.mark.usefixtures("no_exchange")
def test_foreign_bytes_are_refused_without_an_exchange(mirror: Mirror, root: Path) -> None:
    mirror.apply(FIRST)
    (root / "edited").write_bytes(b"foreign")
    with pytest.raises(ApplyError, match="'edited'"):
        mirror.apply(_second("error"))
    assert contents(snapshot(root)) == AFTER | {"edited": b"foreign"}


@pytest.mark.slow
def test_crash_at_any_step_loses_nothing_without_an_exchange(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "renameat2", None)
    root.mkdir()
    _apply_in(root, [_below(k, intent) for k in range(250) for intent in FIRST])
    for k in range(250):
        top = root / f"{k}"
        (top / "edited").write_bytes(b"foreign%d" % k)
        batch = [_below(k, intent) for intent in _second()]
        more = crashes(partial(_apply_in, root, batch), k)
        assert (top / "x").read_bytes() in (b"1", b"2")
        _apply_in(root, batch)
        assert contents(snapshot(top)) == AFTER
        if not more:
            break
    assert 249 > k > 50
    assert set(backups(root)) == {b"foreign%d" % number for number in range(k + 1)}
    assert not staged(root)


def _below(k: int, intent: Intent) -> Intent:
    """Moves intents below a folder; without barriers, which a crash of a process does not need."""
    return msgspec.structs.replace(intent, name=Name(f"{k}/{intent.name}"), durable=False)


def _apply_in(root: Path, intents: list[Intent]) -> None:
    """Applies a batch with a mirror of its own."""
    with Mirror(root) as mirror:
        mirror.apply(intents)


def test_lack_of_an_exchange_is_logged_once(
    mirror: Mirror, no_exchange: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cocoindex_fsmirror"):
        for number in range(4):
            mirror.apply([write("x", b"%d" % number)])
    assert [record for record in caplog.messages if "exchange" in record] == caplog.messages
    assert len(caplog.messages) == 1


def test_lack_of_syncfs_is_logged_once_with_the_root(
    root: Path, no_syncfs: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cocoindex_fsmirror"), Mirror(root) as mirror:
        mirror.create()
        for number in range(4):
            mirror.apply([write("x", b"%d" % number)])
    (message,) = caplog.messages
    assert "syncfs" in message
    assert str(root) in message


class _Disk:
    """A record of the paths that a disk without syncfs was told to keep."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.unsynced_files: set[str] = set()
        self.touched: set[str] = set()
        self.too_early: list[str] = []

    def hear(self, name: str, args: tuple[Any, ...], folders: dict[str, int | None]) -> None:
        """Records one call; ``folders`` are the descriptors of its folders."""
        if name == "write":
            self.unsynced_files.add(_path_of(args[0]))
        elif name == "fsync":
            self.unsynced_files.discard(_path_of(args[0]))
            self.touched.discard(_path_of(args[0]))
        elif name == "renameat2":
            self.too_early.extend(self.unsynced_files)
            self._touch(args[0])
            self._touch(args[2])
        elif name in ("mkdir", "unlink", "rmdir") and folders.get("dir_fd") is not None:
            self._touch(folders["dir_fd"])

    def _touch(self, fd: int | None) -> None:
        """Records that a folder changed, unless it is in the staging area, which need not last."""
        path = _path_of(fd)
        if not path.startswith(f"{self._root}/.fsmirror/tmp"):
            self.touched.add(path)


def _path_of(fd: int | None) -> str:
    """Returns the path of an open file."""
    return os.readlink(f"/proc/self/fd/{fd}")


@pytest.mark.usefixtures("no_syncfs")
def test_files_and_touched_folders_are_synced_without_syncfs(mirror: Mirror, root: Path) -> None:
    mirror.apply([*FIRST, write("old/x", b"1")])
    (root / "edited").write_bytes(b"foreign")
    disk = _Disk(root)
    batch = [*_second(), write("p/q/r", b"2"), delete("old/x")]
    with overheard(disk.hear):
        mirror.apply(batch)
    assert disk.too_early == []
    assert disk.unsynced_files == set()
    still_there = {path for path in disk.touched if os.path.isdir(path)}
    assert still_there - {str(root / ".fsmirror")} == set()


@pytest.mark.usefixtures("no_syncfs")
def test_batch_is_applied_without_syncfs(mirror: Mirror, root: Path) -> None:
    mirror.apply(FIRST)
    (root / "edited").write_bytes(b"foreign")
    mirror.apply(_second())
    assert contents(snapshot(root)) == AFTER
    assert mirror.verify() == []


@pytest.mark.usefixtures("no_syncfs")
def test_ledger_syncs_every_commit_without_syncfs(mirror: Mirror) -> None:
    mirror.apply([write("x", b"1")])
    ledger = mirror.session.ledger
    assert ledger is not None
    assert ledger._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.usefixtures("no_syncfs")
def test_folders_above_a_new_root_are_synced_without_syncfs(tmp_path: Path) -> None:
    synced: list[str] = []

    def hear(name: str, args: tuple[Any, ...], _: dict[str, Any]) -> None:
        if name == "fsync":
            synced.append(_path_of(args[0]))

    with overheard(hear), Mirror(tmp_path / "new" / "root") as mirror:
        mirror.prepare(Owner("an-owner"), DriftReport())
    assert {str(tmp_path), str(tmp_path / "new"), str(tmp_path / "new" / "root")} <= set(synced)


def test_lack_of_locks_is_logged_once_and_stops_no_batch(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_lock(*_args: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    _calls.say_once.cache_clear()
    mirror.apply([write("a", b"1")])
    mirror.apply([write("b", b"2")])
    assert contents(snapshot(root)) == {"a": b"1", "b": b"2"}
    said = [record.getMessage() for record in caplog.records]
    assert [str(root) in line and "can't be locked" in line for line in said] == [True]


@pytest.mark.usefixtures("no_exchange")
def test_file_is_not_moved_onto_another_without_renameat2_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").write_bytes(b"ours")
    (tmp_path / "theirs").write_bytes(b"theirs")
    monkeypatch.setattr(os, "link", _refuses)
    with closing(os.open(tmp_path, os.O_RDONLY)) as fd:
        with pytest.raises(FileExistsError):
            _calls.move("ours", fd, "theirs", fd)
        assert snapshot(tmp_path) == {"ours": b"ours", "theirs": b"theirs"}
        _calls.move("ours", fd, "free", fd)
    assert snapshot(tmp_path) == {"free": b"ours", "theirs": b"theirs"}


def test_file_is_opened_without_blocking(tmp_path: Path) -> None:
    """A FIFO may have taken the name since the look, and opening that would never end."""
    (tmp_path / "x").touch()
    with (
        closing(os.open(tmp_path, os.O_RDONLY)) as fd,
        closing(_calls.open_file("x", fd)) as opened,
    ):
        assert fcntl.fcntl(opened, fcntl.F_GETFL) & os.O_NONBLOCK


@pytest.mark.usefixtures("no_syncfs")
@pytest.mark.parametrize("becomes", ["gone", "link", "folder above is gone"])
def test_file_that_goes_before_the_barrier_does_not_fail_it_without_syncfs(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    real = Placement.look_at_renamed

    def then_changed(place: Placement) -> None:
        real(place)
        (root / "d" / "x").unlink()
        if becomes == "link":
            (root / "d" / "x").symlink_to("y")
        elif becomes != "gone":
            (root / "d").rmdir()

    monkeypatch.setattr(Placement, "look_at_renamed", then_changed)
    mirror.apply([write("d/x", b"1"), write("y", b"1")])
    monkeypatch.undo()
    assert mirror.verify() == ["d/x"]
