"""Files whose content is that of other files: cloned, copied or streamed, and never a wrong one."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import shutil
import subprocess
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cocoindex_fsmirror import ApplyError, Mirror, SourceChangedError, SourceError
from cocoindex_fsmirror._core.states import Content, digest_of
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import copying as _copying
from cocoindex_fsmirror._disk import sources as _source
from cocoindex_fsmirror._disk import staging as _staging
from cocoindex_fsmirror._disk.sources import Source, fingerprint, look_at_source, spool
from tests.support import (
    Elsewhere,
    Mount,
    backups,
    copy,
    delete,
    exact_state,
    failing,
    ledger_rows,
    snapshot,
    write,
)

SMALL, LARGE = 1 << 16, (1 << 20) + 17


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that is too large to be carried along; long unchanged."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, ns=(5, 5))
    return path


def settled(path: Path, look: Callable[[str], Source] = fingerprint) -> Source:
    """Looks at a source once the clock that stamps files has gone on."""
    while _calls.coarse_now_ns() <= path.stat().st_ctime_ns:
        pass
    found = look(str(path))
    assert found.is_provable
    return found


LOOKS = [fingerprint, look_at_source]


# Fingerprints


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, LARGE])
def test_a_fingerprint_is_that_of_the_content_and_only_small_ones_are_carried(
    tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "x").chmod(0o641)
    os.utime(tmp_path / "x", ns=(5, 7))
    found = fingerprint(str(tmp_path / "x"))
    assert (found.digest, found.size) == (digest_of(content), size)
    assert (found.mode, found.mtime_ns) == (0o641, 7)
    assert found.held == (content if size <= SMALL else None)


def test_what_is_carried_along_has_a_limit_that_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * SMALL)
    carried = [fingerprint(str(tmp_path / "x")) for _ in range(_source._HELD // SMALL + 3)]
    assert [each.held is None for each in carried].count(True) >= 3
    assert carried[-1].held is None
    del carried
    gc.collect()
    assert fingerprint(str(tmp_path / "x")).held is not None


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "socket", "loop"])
def test_what_can_not_be_read_is_refused_by_name_and_nothing_hangs(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "x"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, 0o140644)
        case "loop":
            path.symlink_to("x")
    with pytest.raises(SourceError, match=r"its source '.*/x' ") as caught:
        fingerprint(str(path))
    assert isinstance(caught.value, OSError)
    assert caught.value.source == str(path)
    assert not isinstance(caught.value, SourceChangedError)


def test_a_file_that_changes_while_it_is_read_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(fd: int) -> bytes:
        with source.open("ab") as file:
            file.write(b"more")
        return b""

    monkeypatch.setattr(_source, "digest_of_file", edit)
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        fingerprint(str(source))


# Copies


def _hide(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Takes ways to copy away."""
    if "clone" in names:
        real = fcntl.ioctl

        def ioctl(fd: int, request: int, *rest: Any) -> Any:
            if request == _calls._FICLONE:
                raise OSError(errno.EOPNOTSUPP, "no clones here")
            return real(fd, request, *rest)

        patch.setattr(fcntl, "ioctl", ioctl)


WAYS = [("clone",), ()]


@pytest.mark.parametrize("hidden", WAYS)
@pytest.mark.parametrize("look", LOOKS, ids=["hashed", "not read yet"])
@pytest.mark.parametrize("size", [0, 1, SMALL + 1, LARGE])
def test_a_copy_holds_what_its_source_held(
    mirror: Mirror,
    root: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    hidden: tuple[str, ...],
    look: Callable[[str], Source],
    size: int,
) -> None:
    source.write_bytes(source.read_bytes()[:size])
    _hide(monkeypatch, *hidden)
    mirror.apply([copy("d/x", look(str(source)), mtime_ns=7)])
    assert (root / "d" / "x").read_bytes() == source.read_bytes()
    assert (root / "d" / "x").stat().st_mtime_ns == 7
    assert mirror.verify(content=True) == []
    before = exact_state(root)
    mirror.apply([copy("d/x", fingerprint(str(source)), mtime_ns=7)])
    assert exact_state(root) == before


@pytest.mark.parametrize("hidden", WAYS)
def test_a_sparse_file_stays_sparse(
    mirror: Mirror,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hidden: tuple[str, ...],
) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"front")
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    _hide(monkeypatch, *hidden)
    mirror.apply([copy("x", fingerprint(str(tmp_path / "sparse")))])
    assert (root / "x").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (root / "x").stat().st_blocks * 512 <= 2 << 20  # Two chunks hold data.


def _edit_secretly(path: Path) -> None:
    """As many other bytes, with the time put back."""
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, ns=(5, 5))


def _becomes(path: Path, make: Callable[[Path], None]) -> None:
    """A file gives way to something else."""
    path.unlink()
    make(path)


EDITS: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_bytes(os.urandom(LARGE)),
    "edited, with its time put back": _edit_secretly,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "shorter": lambda path: os.truncate(path, LARGE - 1),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "a folder": lambda path: _becomes(path, Path.mkdir),
    "a fifo": lambda path: _becomes(path, os.mkfifo),
    "a loop": lambda path: _becomes(path, lambda at: at.symlink_to(at)),
}


@pytest.mark.parametrize("hidden", [(), ("clone",)])
@pytest.mark.parametrize("look", LOOKS, ids=["hashed", "not read yet"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_source_that_changed_fails_its_file_by_name_and_nothing_else(
    mirror: Mirror,
    root: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Path], object],
    look: Callable[[str], Source],
    hidden: tuple[str, ...],
) -> None:
    mirror.apply([write("x", b"old")])
    found = settled(source, look)
    edit(source)
    _hide(monkeypatch, *hidden)
    ours = (digest_of(b"old"),)
    with pytest.raises(ApplyError) as caught:
        mirror.apply([copy("x", found, ours=ours), write("y", b"neighbour")])
    (failure,) = caught.value.exceptions
    assert str(failure).startswith(f"write 'x': its source {str(source)!r} ")
    assert snapshot(root) == {"x": b"old", "y": b"neighbour"}
    assert [name for name in snapshot(root, ours=True) if name.startswith("tmp/")] == []
    assert mirror.verify(content=True) == []


@pytest.mark.parametrize("hidden", WAYS[:-1])  # A clone is made in one step.
@pytest.mark.parametrize("look", LOOKS, ids=["hashed", "not read yet"])
def test_a_source_that_changes_while_it_is_copied_never_leaves_a_wrong_file(
    mirror: Mirror,
    root: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[str], Source],
    hidden: tuple[str, ...],
) -> None:
    found = settled(source, look)
    _hide(monkeypatch, *hidden)
    real = _copying.buffer

    def edit() -> mmap.mmap:
        with source.open("r+b") as file:
            file.write(b"changed")
        return real()

    monkeypatch.setattr(_copying, "buffer", edit)
    with failing("changed while it was read"):
        mirror.apply([copy("x", found)])
    assert snapshot(root) == {}


def test_a_copy_that_no_longer_fits_fails_alone_and_the_old_version_stays(
    tmpfs: Callable[[str], Path], source: Path
) -> None:
    with Mirror(tmpfs("2m") / "root") as mirror:
        mirror.create()
        mirror.apply([write("x", b"old"), write("y", b"old")])
        large = source.with_name("large")
        large.write_bytes(os.urandom(4 << 20))
        with failing("write 'x': No space left"):
            mirror.apply([copy("x", fingerprint(str(large))), write("y", b"new")])
        assert snapshot(Path(mirror.root)) == {"x": b"old", "y": b"new"}


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_clone_shares_its_blocks(mount: Mount, tmp_path: Path, kind: str) -> None:
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)
    top = mount(tmp_path / "disk", "-o", "loop", str(image))
    large = top / "large"
    large.write_bytes(os.urandom(64 << 20))
    os.sync()
    before = shutil.disk_usage(top).free
    with Mirror(top / "root") as mirror:
        mirror.create()
        mirror.apply([copy(f"{i}", settled(large)) for i in range(4)])
        assert before - shutil.disk_usage(top).free < 32 << 20
        assert mirror.verify(content=True) == []


def test_a_large_file_is_never_held_in_memory(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    tracemalloc.start()
    try:
        mirror.apply([copy("x", fingerprint(str(tmp_path / "large")))])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (root / "x").stat().st_size == 64 << 20


# From elsewhere


@pytest.mark.parametrize("size", [0, 5, SMALL, SMALL + 1, LARGE])
def test_what_comes_from_elsewhere_waits_in_a_file_without_a_name(
    mirror: Mirror, root: Path, size: int
) -> None:
    content = os.urandom(size)
    waiting = spool("s3://bucket/x", content)
    assert isinstance(waiting, bytes) == (size <= SMALL)
    if not isinstance(waiting, bytes):
        spooled: Content = waiting
        assert (spooled.digest, spooled.size) == (digest_of(content), size)
        for _ in range(2):  # A batch may come again.
            mirror.apply([copy("x", spooled)])
            assert (root / "x").read_bytes() == content
            (root / "x").unlink()


def test_where_no_more_files_can_be_opened_what_comes_from_elsewhere_waits_in_memory(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert spool("s3://bucket/x", b"x" * LARGE) == b"x" * LARGE


@pytest.mark.parametrize("path", ["/nul\0", "/surrogate\udfff"])
def test_a_path_that_no_system_takes_is_a_source_error(path: str) -> None:
    with pytest.raises(SourceError, match="can't be read"):
        fingerprint(path)


def test_a_copy_that_died_before_it_was_hashed_claims_nothing_of_others(
    mirror: Mirror, root: Path, tmp_path: Path, source: Path
) -> None:
    mirror.create()
    child = os.fork()
    if child == 0:
        with mock.patch.object(_staging, "_copy", side_effect=lambda *_: os._exit(42)):
            mirror.apply([copy("x", look_at_source(str(source)))])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    os.mkfifo(root / "x")  # It has no digest either.
    mirror.create()
    assert ledger_rows(mirror) == []
    assert os.listdir(root / ".fsmirror" / "tmp") == []


# While it goes on


@pytest.mark.parametrize("is_sparse", [False, True], ids=["full", "sparse"])
def test_it_is_told_of_all_bytes_as_they_are_written(
    root: Path, source: Path, is_sparse: bool
) -> None:
    told: list[int] = []
    if is_sparse:
        os.truncate(source, 1 << 24)
    with (
        mock.patch.object(_copying, "_CHUNK", 1 << 18),
        Mirror(root, on_bytes=told.append) as mirror,
    ):
        mirror.create()
        mirror.apply([write("a", b"123"), copy("b", settled(source))])
        mirror.apply([write("a", b"123"), copy("b", settled(source))])
    assert told[0] == 0
    assert sum(told) == 3 + source.stat().st_size
    assert len(told) > 5


def test_what_it_raises_ends_the_batch_before_anything_is_in_place(
    root: Path, source: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(size: int) -> None:
        if size > 3:
            raise StoppedError

    with Mirror(root) as mirror:
        mirror.create()
        mirror.apply([write("a", b"1"), write("c", b"3")])
    before = snapshot(root)
    with Mirror(root, on_bytes=stop) as mirror:
        for _ in range(2):
            with pytest.raises(StoppedError):
                mirror.apply([write("a", b"2"), copy("b", settled(source)), delete("c")])
            assert snapshot(root) == before
        mirror.apply([write("c", b"4")])
    assert snapshot(root) == {**before, "c": b"4"}
    assert os.listdir(root / ".fsmirror" / "tmp") == []


def test_files_are_read_to_where_a_page_begins() -> None:
    """To any other place in a page some processors copy far more slowly."""
    begin = ctypes.c_char.from_buffer(_copying.buffer())
    assert ctypes.addressof(begin) % mmap.PAGESIZE == 0


def test_a_copy_that_was_hashed_while_it_was_staged_is_known_after_a_death(
    mirror: Mirror, root: Path
) -> None:
    """Its digest is noted before it is placed, so that recovery can tell that it was."""

    def dies(*_args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cocoindex_fsmirror._mirror.batch.record", dies)
        with pytest.raises(KeyboardInterrupt):
            mirror.apply([copy("a", Elsewhere(b"1", is_hashed=False))])
    assert (root / "a").read_bytes() == b"1"
    mirror.apply([write("b")])
    assert mirror.managed() == ["a", "b"]
    mirror.apply([delete("a")])
    assert snapshot(root) == {"b": b""}
    assert backups(root) == []
