"""Copies hold what their sources hold, cloned or copied, sparse or full."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import staging as _staging
from cocoindex_fsmirror._disk.sources import Source, look_at_source
from tests.disk.copied import LARGE, LOOKS, SMALL, look_unread, refuse_clones, settled
from tests.steps import watched
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
    staged,
    write,
)


@pytest.mark.parametrize("clones", [True, False], ids=["clones", "no clones"])
@pytest.mark.parametrize("look", LOOKS, ids=["hashed", "not read yet"])
@pytest.mark.parametrize("size", [0, 1, SMALL + 1, LARGE])
def test_copy_holds_the_bytes_of_its_source(
    mirror: Mirror,
    root: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    clones: bool,
    look: Callable[[str], Source],
    size: int,
) -> None:
    source.write_bytes(source.read_bytes()[:size])
    if not clones:
        refuse_clones(monkeypatch)
    mirror.apply([copy("d/x", look(str(source)), mtime_ns=7)])
    assert (root / "d" / "x").read_bytes() == source.read_bytes()
    assert (root / "d" / "x").stat().st_mtime_ns == 7
    assert mirror.verify(content=True) == []
    before = exact_state(root)
    mirror.apply([copy("d/x", look_at_source(str(source)), mtime_ns=7)])
    assert exact_state(root) == before


@pytest.mark.parametrize("clones", [True, False], ids=["clones", "no clones"])
def test_sparse_file_stays_sparse(
    mirror: Mirror,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clones: bool,
) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"front")
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    if not clones:
        refuse_clones(monkeypatch)
    mirror.apply([copy("x", look_at_source(str(tmp_path / "sparse")))])
    assert (root / "x").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (root / "x").stat().st_blocks * 512 <= 2 << 20  # Two chunks hold data.


def test_copy_that_does_not_fit_fails_alone_and_keeps_the_old_one(
    tmpfs: Callable[[str], Path], source: Path
) -> None:
    with Mirror(tmpfs("2m") / "root") as mirror:
        mirror.create()
        mirror.apply([write("x", b"old"), write("y", b"old")])
        large = source.with_name("large")
        large.write_bytes(os.urandom(4 << 20))
        with failing("write 'x': No space left"):
            mirror.apply([copy("x", look_at_source(str(large))), write("y", b"new")])
        assert snapshot(Path(mirror.root)) == {"x": b"old", "y": b"new"}


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_clone_shares_its_blocks(mount: Mount, tmp_path: Path, kind: str) -> None:
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


def test_large_file_is_never_held_in_memory(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    tracemalloc.start()
    try:
        mirror.apply([copy("x", look_at_source(str(tmp_path / "large")))])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (root / "x").stat().st_size == 64 << 20


def test_copy_cut_off_before_its_hash_claims_no_foreign_file(
    mirror: Mirror, root: Path, tmp_path: Path, source: Path
) -> None:
    mirror.create()
    child = os.fork()
    if child == 0:
        with mock.patch.object(_staging, "copy", side_effect=lambda *_: os._exit(42)):
            mirror.apply([copy("x", look_unread(str(source)))])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    os.mkfifo(root / "x")  # A fifo has no digest either.
    mirror.create()
    assert ledger_rows(mirror) == []
    assert os.listdir(root / ".fsmirror" / "tmp") == []


def test_copy_buffer_begins_at_a_page() -> None:
    """Some processors copy far more slowly to any other place in a page."""
    begin = ctypes.c_char.from_buffer(_calls.buffer())
    assert ctypes.addressof(begin) % mmap.PAGESIZE == 0


def test_copy_hashed_while_staged_is_known_after_a_death(mirror: Mirror, root: Path) -> None:
    """The digest is noted before the file is placed, so that recovery recognises it."""

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


def test_copy_hashed_while_staged_that_is_not_placed_goes(mirror: Mirror, root: Path) -> None:
    """Checks that its staged bytes count as ours, not as a foreign file for the backups."""

    def appear(call: str, _args: tuple[object, ...]) -> None:
        if call == "renameat2":
            (root / "a").write_bytes(b"foreign")

    mirror.create()
    with watched(appear), failing("'a'.*appeared"):
        mirror.apply([copy("a", Elsewhere(b"1", is_hashed=False), on_conflict="error")])
    assert snapshot(root) == {"a": b"foreign"}
    assert staged(root) == []
    assert backups(root) == []
