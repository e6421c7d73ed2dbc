"""Sources are fingerprinted and spooled, or refused by name."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
import warnings
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, SourceChangedError, SourceError
from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.states import Content, digest_of
from cocoindex_fsmirror._disk import sources as _source
from cocoindex_fsmirror._disk.sources import look_at_source, spool
from tests.disk.copied import LARGE, SMALL
from tests.support import copy


@pytest.fixture(autouse=True)
def nothing_is_held() -> None:
    """Releases what earlier tests left in cycles, which the command freezes in this process."""
    gc.unfreeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, LARGE])
def test_fingerprint_holds_the_content_of_small_files_only(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "x").chmod(0o641)
    os.utime(tmp_path / "x", ns=(5, 7))
    found = look_at_source(str(tmp_path / "x"))
    assert (found.digest, found.size) == (digest_of(content), size)
    assert found.attributes == Attributes(0o641, 7)
    assert found.held == (content if size <= SMALL else None)


def test_memory_for_held_contents_is_bounded_and_released(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * SMALL)
    carried = [look_at_source(str(tmp_path / "x")) for _ in range(_source._HELD // SMALL + 3)]
    assert [each.held is None for each in carried].count(True) >= 3
    assert carried[-1].held is None
    del carried
    gc.collect()
    assert look_at_source(str(tmp_path / "x")).held is not None


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "socket", "loop"])
def test_unreadable_source_is_refused_by_name_without_hanging(tmp_path: Path, kind: str) -> None:
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
        look_at_source(str(path))
    assert isinstance(caught.value, OSError)
    assert caught.value.source == str(path)
    assert not isinstance(caught.value, SourceChangedError)


def test_file_that_changes_while_it_is_read_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(fd: int) -> bytes:
        with source.open("ab") as file:
            file.write(b"more")
        return b""

    monkeypatch.setattr(_source, "digest_of_file", edit)
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        look_at_source(str(source))


@pytest.mark.parametrize("size", [0, 5, SMALL, SMALL + 1, LARGE])
def test_remote_content_waits_in_a_file_without_a_name(
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


def test_remote_content_waits_in_memory_without_descriptors(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert spool("s3://bucket/x", b"x" * LARGE) == b"x" * LARGE


@pytest.mark.parametrize("path", ["/nul\0", "/surrogate\udfff"])
def test_impossible_path_is_a_source_error(path: str) -> None:
    with pytest.raises(SourceError, match="can't be read"):
        look_at_source(path)


def test_small_source_that_is_read_in_part_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal, or a network file system, may end a read early."""
    (tmp_path / "x").write_bytes(b"whole")
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, _size: real(fd, 3))
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        look_at_source(str(tmp_path / "x"))
