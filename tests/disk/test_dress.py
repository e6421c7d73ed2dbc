"""Attributes are set on the very file or folder that was looked at, and on no other."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.states import signature_of
from cocoindex_fsmirror._disk import dress as _dress
from cocoindex_fsmirror._disk.tree import Tree

WANTED = Attributes(mode=0o600, mtime_ns=10**18)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """An open directory with a file and a folder."""
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "d").mkdir(mode=0o755)
    with contextlib.closing(Tree(os.open(tmp_path, os.O_RDONLY), str(tmp_path))) as tree:
        yield tree


def test_linked_file_is_left_alone(tree: Tree, tmp_path: Path) -> None:
    """A link that is made in one tick of the clock with the look changes no signature."""
    (tmp_path / "other").hardlink_to(tmp_path / "x")
    before = (tmp_path / "x").stat()
    expected = signature_of(before)
    assert _dress.dress(tree, Name("x"), WANTED, expected) == expected
    assert (tmp_path / "other").stat() == before


def test_file_that_can_not_be_opened_is_not_taken_for_a_link(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(_dress, "open_file", refuse)
    before = (tmp_path / "x").stat()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        _dress.dress(tree, Name("x"), WANTED, signature_of(before))
    assert (tmp_path / "x").stat() == before


def test_folder_that_was_moved_away_is_left_alone(tree: Tree, tmp_path: Path) -> None:
    tree.folder(Name("d"))  # Stays open.
    (tmp_path / "d").rename(tmp_path / "moved")
    (tmp_path / "d").mkdir(mode=0o755)
    assert _dress.dress_folder(tree, Name("d"), WANTED) == WANTED.mtime_ns
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == WANTED.mode
    assert stat.S_IMODE((tmp_path / "moved").stat().st_mode) == 0o755
