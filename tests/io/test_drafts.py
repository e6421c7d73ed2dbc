"""Copies that are begun before they are known to be needed: used if proven, and never seen."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from cocoindex_fsmirror import Mirror, _draft, _fs, _source
from cocoindex_fsmirror._draft import Draft
from cocoindex_fsmirror._source import Source, fingerprint
from tests.io.conftest import Mount
from tests.support import copy, failing, snapshot, write

SIZE = (1 << 20) + 17


@pytest.fixture(autouse=True)
def drafts_of_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_source, "LARGE", SIZE)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that was not changed for long."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    _let_the_clock_tick(path)
    return path


@pytest.fixture
def mirror(root: Path) -> Iterator[Mirror]:
    with Mirror(root) as mirror:
        mirror.create()
        yield mirror


@pytest.fixture
def copies() -> Iterator[mock.Mock]:
    """Copies in the usual way, which are made as ever, and counted."""
    with mock.patch.object(_fs, "_copy", side_effect=_fs._copy) as counted:
        yield counted
        counted.reset_mock(side_effect=True)  # It remembers what was copied.


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    """There is room for all drafts before each test, and again after it."""
    yield
    gc.collect()  # What is raised refers to the frames that refer to it.
    for _ in range(1000):
        if _draft._held._value == 8 and not _nameless():
            return
        time.sleep(0.01)  # A thread may still be at work.
    pytest.fail("a draft is left over")


def _let_the_clock_tick(path: Path) -> None:
    """Waits until the clock that stamps files is past the last change of one."""
    while _fs.coarse_now_ns() <= path.stat().st_ctime_ns:
        pass


def drafted(mirror: Mirror, source: Path, name: str = "copy") -> Source:
    """A fingerprint of a file, with a draft of it under way."""
    return fingerprint(str(source), partial(mirror.draft, name))


def finished(found: Source) -> Source:
    """The same once its draft is done."""
    assert found._draft is not None
    found._draft._thread.join()
    return found


def _nameless() -> list[str]:
    """The files without a name that are open, and what drafts are made of."""
    folder, shown = "/proc/self/fd", list[str]()
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # It was the folder's own.
            shown.append(os.readlink(f"{folder}/{fd}"))
    return [path for path in shown if "/.fsmirror/#" in path or path.endswith("/source")]


def test_a_draft_is_put_in_place_and_nothing_is_copied_again(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock
) -> None:
    found = drafted(mirror, source)
    mirror.apply([copy("copy", found), copy("folder/again", drafted(mirror, source, "other"))])
    assert snapshot(root) == {
        "copy": source.read_bytes(),
        "folder": "dir",
        "folder/again": source.read_bytes(),
    }
    assert copies.call_count == 0
    assert not mirror.verify(content=True)


def test_it_replaces_another_version(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock
) -> None:
    mirror.apply([write("copy", b"old")])
    mirror.apply([copy("copy", drafted(mirror, source), mode=0o600, mtime_ns=5)])
    assert snapshot(root) == {"copy": source.read_bytes()}
    now = (root / "copy").stat()
    assert (stat.S_IMODE(now.st_mode), now.st_mtime_ns, now.st_nlink) == (0o600, 5, 1)
    assert copies.call_count == 0


def test_it_has_the_mode_of_any_other_new_file(mirror: Mirror, root: Path, source: Path) -> None:
    before = os.umask(0o027)
    try:
        mirror.apply([copy("copy", drafted(mirror, source)), write("written", b"")])
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "copy").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "written").stat().st_mode) == 0o640


def test_nobody_sees_a_draft_and_nothing_is_left_of_one_that_is_not_needed(
    mirror: Mirror, root: Path, source: Path
) -> None:
    before = snapshot(root, ours=True)
    found = finished(drafted(mirror, source))
    assert len(_nameless()) == 2
    assert snapshot(root, ours=True) == before
    del found
    assert _nameless() == []


def test_no_draft_is_begun_of_what_is_small_or_has_the_size_of_what_is_there(
    mirror: Mirror, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(bytes(SIZE - 1))
    assert drafted(mirror, tmp_path / "small")._draft is None
    assert drafted(mirror, source)._draft is not None
    mirror.apply([copy("copy", fingerprint(str(source)))])
    assert drafted(mirror, source)._draft is None
    assert drafted(mirror, source, "elsewhere")._draft is not None


def test_no_draft_is_begun_where_there_is_no_mirror(tmp_path: Path, source: Path) -> None:
    assert drafted(Mirror(tmp_path / "none"), source)._draft is None
    (tmp_path / "plain").mkdir()
    assert drafted(Mirror(tmp_path / "plain"), source)._draft is None
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".fsmirror").symlink_to(tmp_path / "plain")
    assert drafted(Mirror(tmp_path / "linked"), source)._draft is None


def test_no_draft_is_begun_where_a_ledger_can_t_be_read(
    mirror: Mirror, root: Path, source: Path
) -> None:
    mirror.close()
    (root / ".fsmirror" / "ledger.sqlite3").write_bytes(b"nonsense" * 1000)
    assert drafted(mirror, source)._draft is None


def test_a_draft_takes_no_room_that_others_may_need(
    tmpfs: Callable[[str], Path], source: Path
) -> None:
    with Mirror(tmpfs("40m") / "root") as mirror:
        mirror.create()
        free = os.statvfs(mirror.root)
        os.truncate(source, free.f_bavail * free.f_frsize // 4 + 4096)
        assert drafted(mirror, source)._draft is None
        os.truncate(source, free.f_bavail * free.f_frsize // 8)
        assert drafted(mirror, source)._draft is not None


def test_there_are_never_more_than_a_few(mirror: Mirror, source: Path) -> None:
    many = [drafted(mirror, source, f"copy {number}") for number in range(10)]
    assert [found._draft is not None for found in many] == [True] * 8 + [False] * 2
    for found in many[:8]:
        finished(found)
    del many, found
    assert drafted(mirror, source)._draft is not None


def test_a_system_that_starts_no_thread_has_no_drafts(mirror: Mirror, source: Path) -> None:
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError):
        many = [drafted(mirror, source) for _ in range(10)]
    assert [found._draft for found in many] == [None] * 10
    assert drafted(mirror, source)._draft is not None


@pytest.mark.parametrize("missing", ["O_TMPFILE", "copy_file_range"])
def test_it_works_on_other_systems(
    mirror: Mirror, root: Path, source: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, missing)
    found = drafted(mirror, source)
    assert (found._draft is None) == (missing == "O_TMPFILE")
    mirror.apply([copy("copy", found)])
    assert snapshot(root) == {"copy": source.read_bytes()}


# What must not be believed


def test_a_source_that_changed_between_draft_and_fingerprint_is_copied_anew(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock
) -> None:
    def begin(fd: int) -> Draft | None:
        draft = mirror.draft("copy", fd)
        assert draft is not None
        draft._thread.join()
        source.write_bytes(os.urandom(SIZE))
        return draft

    found = fingerprint(str(source), begin)
    _let_the_clock_tick(source)
    mirror.apply([copy("copy", found)])
    assert snapshot(root) == {"copy": source.read_bytes()}
    assert copies.call_count == 1


def test_a_source_that_was_replaced_after_its_draft_was_begun_is_copied_anew(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock
) -> None:
    old = os.open(source, os.O_RDONLY)
    draft = mirror.draft("copy", old)
    os.close(old)
    source.unlink()
    source.write_bytes(os.urandom(SIZE))
    mirror.apply([copy("copy", fingerprint(str(source), lambda _fd: draft))])
    assert snapshot(root) == {"copy": source.read_bytes()}
    assert copies.call_count == 1


def test_a_source_that_changed_after_its_fingerprint_fails_by_name(
    mirror: Mirror, root: Path, source: Path
) -> None:
    found = finished(drafted(mirror, source))
    source.write_bytes(os.urandom(SIZE))
    with failing("changed while it was read"):
        mirror.apply([copy("copy", found), write("other", b"other")])
    assert snapshot(root) == {"other": b"other"}


@pytest.mark.parametrize("is_right", [True, False])
def test_what_is_not_proven_is_read(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock, is_right: bool
) -> None:
    """As if the source had last changed in the very tick in which the draft was begun."""
    found = finished(drafted(mirror, source))
    assert found._draft is not None
    found._draft._begun_ns = source.stat().st_ctime_ns
    if not is_right:
        os.pwrite(found._draft._target, b"torn", 100)
    mirror.apply([copy("copy", found)])
    assert snapshot(root) == {"copy": source.read_bytes()}
    assert copies.call_count == (0 if is_right else 1)


def test_what_is_proven_is_not_read(mirror: Mirror, root: Path, source: Path) -> None:
    with mock.patch.object(_draft, "holds", side_effect=AssertionError("it was read again")):
        mirror.apply([copy("copy", drafted(mirror, source))])
    assert snapshot(root) == {"copy": source.read_bytes()}


def test_it_does_not_move_the_place_at_which_others_read(mirror: Mirror, source: Path) -> None:
    with source.open("rb") as file:
        draft = mirror.draft("copy", file.fileno())
        assert draft is not None
        draft._thread.join()
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0


def test_a_draft_that_failed_halfway_is_not_used(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock
) -> None:
    is_told = threading.Event()

    def halfway(_source: int, target: int, _size: int, _at_once: int) -> Iterator[int]:
        os.write(target, b"half")
        yield 4
        is_told.wait(60)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def tell(count: int) -> None:
        told.append(count)
        if count == 4:
            is_told.set()

    told: list[int] = []
    with mock.patch.object(_draft, "copied", halfway), Mirror(root, on_bytes=tell) as again:
        again.apply([copy("copy", drafted(mirror, source))])
    assert 4 in told
    assert snapshot(root) == {"copy": source.read_bytes()}
    assert copies.call_count == 1
    assert sum(told) == SIZE


def test_a_draft_is_used_once_and_copied_if_it_is_asked_for_again(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock
) -> None:
    found = drafted(mirror, source)
    mirror.apply([copy("one", found)])
    mirror.apply([copy("two", found)])
    assert snapshot(root) == {"one": source.read_bytes(), "two": source.read_bytes()}
    assert (root / "one").stat().st_ino != (root / "two").stat().st_ino
    assert copies.call_count == 1


def test_a_draft_that_can_t_be_named_is_copied_and_each_byte_told_once(
    mirror: Mirror, root: Path, source: Path, copies: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without ``/proc``."""
    told: list[int] = []
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=FileNotFoundError))
    with Mirror(root, on_bytes=told.append) as again:
        again.apply([copy("copy", drafted(mirror, source))])
    assert snapshot(root) == {"copy": source.read_bytes()}
    assert copies.call_count == 1
    assert sum(told) == SIZE


def test_a_file_on_another_mount_is_copied(
    mirror: Mirror, root: Path, mount: Mount, source: Path, copies: mock.Mock
) -> None:
    mount(root / "mounted", "-t", "tmpfs", "tmpfs")
    found = drafted(mirror, source, "mounted/copy")
    assert found._draft is not None
    mirror.apply([copy("mounted/copy", found)])
    assert (root / "mounted" / "copy").read_bytes() == source.read_bytes()
    assert copies.call_count == 1


# While it is under way


def test_what_waits_for_a_draft_is_told_of_its_bytes_and_may_give_up(
    mirror: Mirror, root: Path, source: Path
) -> None:
    go_on, told = threading.Event(), list[int]()

    def slow(_source: int, _target: int, _size: int, _at_once: int) -> Iterator[int]:
        yield 10
        go_on.wait(60)
        yield 30

    class EnoughError(Exception):
        """Raised while it waits."""

    def tell(count: int) -> None:
        told.append(count)
        if count == 10:
            raise EnoughError

    with mock.patch.object(_draft, "copied", slow):
        found = drafted(mirror, source)
        assert found._draft is not None
        thread = found._draft._thread
        with pytest.raises(EnoughError), Mirror(root, on_bytes=tell) as again:
            again.apply([copy("copy", found), write("other", b"other")])
        assert snapshot(root) == {}
        del found
        go_on.set()
        thread.join()
    mirror.create()  # It recovers.
    assert not list((root / ".fsmirror" / "tmp").iterdir())
    assert told[-1] == 10


def test_the_last_of_its_bytes_may_be_what_somebody_gives_up_at(
    mirror: Mirror, root: Path, source: Path
) -> None:
    """Nothing stays open then; the fixture looks."""

    class EnoughError(Exception):
        """Raised when all is there."""

    def tell(count: int) -> None:
        if count:
            raise EnoughError

    found = finished(drafted(mirror, source))
    with pytest.raises(EnoughError), Mirror(root, on_bytes=tell) as again:
        again.apply([copy("copy", found)])
    assert snapshot(root) == {}
    mirror.create()


def test_a_draft_that_nobody_wants_any_more_ends_soon(mirror: Mirror, source: Path) -> None:
    def endless(_source: int, _target: int, _size: int, _at_once: int) -> Iterator[int]:
        while True:
            time.sleep(0.001)
            yield 1

    with mock.patch.object(_draft, "copied", endless):
        found = drafted(mirror, source)
        assert found._draft is not None
        thread = found._draft._thread
        del found
        thread.join(60)
    assert not thread.is_alive()
