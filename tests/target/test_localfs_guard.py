"""Paths that are safe from a release of ``localfs`` that can't be kept from deleting."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._target import localfs_guard as _guard
from tests.support import link, write


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a mirror, a foreign file, and two directories."""
    with fsmirror.Mirror(tmp_path / "mirror") as mirror:
        mirror.create()
        mirror.apply([write("d/x", b"1"), link("d/l", "../../full/y")])
    (tmp_path / "mirror" / "theirs").write_bytes(b"1")
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "y").write_bytes(b"1")
    monkeypatch.setattr(_guard, "_is_guarded", False)
    monkeypatch.setattr(_guard, "_declared", set())
    return tmp_path


SAFE = ["new", "new/er", "empty", "mirror", "mirror/d", "mirror/d/x"]
UNSAFE = ["file", "full", "full/y", "mirror/theirs"]


@pytest.mark.parametrize("name", SAFE)
def test_path_that_is_new_or_in_a_mirror_is_taken_over(there: Path, name: str) -> None:
    _guard.take_over(str(there / name), name)


@pytest.mark.parametrize("name", [*UNSAFE, None])
def test_path_that_may_be_deleted_is_not_taken_over(there: Path, name: str | None) -> None:
    with pytest.raises(fsmirror.RootError, match="may be deleted by this release of localfs"):
        _guard.take_over(None if name is None else str(there / name), "shown")


@pytest.mark.parametrize(
    ("name", "kind", "is_ours"),
    [
        ("mirror", "dir", True),
        ("mirror/d", "dir", True),
        ("mirror/d/x", "file", True),
        ("mirror/d/l", "file", True),
        ("mirror/theirs", "file", False),
        ("", "dir", True),  # a mirror is in it
        ("full", "dir", False),
        ("full/y", "file", False),
        ("file/below", "file", False),
        ("declared/file", "file", True),
        ("declared", "dir", True),
        ("link", "file", True),  # declared itself
    ],
)
def test_path_is_ours_if_declared_or_in_a_mirror(
    there: Path, name: str, kind: str, is_ours: bool
) -> None:
    (there / "declared").mkdir()
    (there / "link").symlink_to(there / "nowhere")
    for declared in ("declared/file", "link"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_guard, "_is_guarded", True)
            _guard.take_over(str(there / declared), declared)
    assert _guard._is_ours(str(there / name), kind) is is_ours


def test_path_that_can_not_be_looked_at_counts_as_ours(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "lstat", refuse)
    assert _guard._is_mirrored(str(there / "full" / "y"), "file")
