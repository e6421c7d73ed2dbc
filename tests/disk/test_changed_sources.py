"""Sources that change before or while they are copied never leave a wrong file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.states import digest_of
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk.sources import Source
from tests.disk.copied import LARGE, LOOKS, refuse_clones, settled
from tests.support import becomes, copy, failing, snapshot, staged, write


def _edit_secretly(path: Path) -> None:
    """Writes other bytes of the same size, and restores the mtime."""
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, ns=(5, 5))


EDITS: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_bytes(os.urandom(LARGE)),
    "edited, with its time put back": _edit_secretly,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "shorter": lambda path: os.truncate(path, LARGE - 1),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "a folder": lambda path: becomes(path, Path.mkdir),
    "a fifo": lambda path: becomes(path, os.mkfifo),
    "a loop": lambda path: becomes(path, lambda at: at.symlink_to(at)),
}


@pytest.mark.parametrize("clones", [True, False], ids=["clones", "no clones"])
@pytest.mark.parametrize("look", LOOKS, ids=["hashed", "not read yet"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_changed_source_fails_only_its_file_by_name(
    mirror: Mirror,
    root: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Path], object],
    look: Callable[[str], Source],
    clones: bool,
) -> None:
    mirror.apply([write("x", b"old")])
    found = settled(source, look)
    edit(source)
    if not clones:
        refuse_clones(monkeypatch)
    ours = (digest_of(b"old"),)
    with pytest.raises(ApplyError) as caught:
        mirror.apply([copy("x", found, ours=ours), write("y", b"neighbour")])
    (failure,) = caught.value.exceptions
    assert str(failure).startswith(f"write 'x': its source {str(source)!r} ")
    assert snapshot(root) == {"x": b"old", "y": b"neighbour"}
    assert staged(root) == []
    assert mirror.verify(content=True) == []


@pytest.mark.parametrize("look", LOOKS, ids=["hashed", "not read yet"])
def test_source_that_changes_during_the_copy_leaves_no_wrong_file(
    mirror: Mirror,
    root: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[str], Source],
) -> None:
    found = settled(source, look)
    refuse_clones(monkeypatch)  # A clone is made in one step.
    real = _calls.buffer

    def edit() -> mmap.mmap:
        with source.open("r+b") as file:
            file.write(b"changed")
        return real()

    monkeypatch.setattr(_calls, "buffer", edit)
    with failing("changed while it was read"):
        mirror.apply([copy("x", found)])
    assert snapshot(root) == {}


def test_source_that_grows_during_the_copy_is_copied_as_it_was_hashed(
    mirror: Mirror, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy ends where the source did, also if that grows faster than we read."""
    found, declared = settled(source), source.read_bytes()
    refuse_clones(monkeypatch)
    real = _calls.buffer

    def grow() -> mmap.mmap:
        with source.open("ab") as file:
            file.write(b"more")
        return real()

    monkeypatch.setattr(_calls, "buffer", grow)
    mirror.apply([copy("x", found)])
    assert snapshot(root) == {"x": declared}
