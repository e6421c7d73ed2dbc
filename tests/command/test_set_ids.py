"""Set-user-ID and set-group-ID of a source that belongs to somebody else are not carried."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from tests.command.syncing import sync

OTHER = 65534
MODES = [0o4755, 0o2755, 0o6711, 0o1755, 0o7755]

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _program(path: Path, mode: int, uid: int, gid: int) -> Path:
    """Makes a file with a mode and an owner."""
    path.write_bytes(b"#!/bin/sh\n")
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", MODES)
def test_set_ids_of_another_user_are_not_mirrored(tmp_path: Path, mode: int) -> None:
    (tmp_path / "src").mkdir()
    _program(tmp_path / "src" / "theirs", mode, OTHER, OTHER)
    _program(tmp_path / "src" / "their group's", mode, os.geteuid(), OTHER)
    _program(tmp_path / "src" / "user's", mode, OTHER, os.getegid())
    _program(tmp_path / "src" / "ours", mode, os.geteuid(), os.getegid())
    for _ in range(2):
        result = sync(tmp_path / "src", tmp_path / "dst")
    assert (result.exit_code, "4 unchanged" in result.stdout) == (0, True), result.output
    found = {path.name: _mode(path) for path in (tmp_path / "dst").iterdir() if path.is_file()}
    assert found == {
        "theirs": mode & 0o777,
        "user's": mode & 0o777,
        "their group's": mode & 0o5777,
        "ours": mode,
    }


def test_copies_of_an_earlier_build_lose_their_set_ids(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    source = _program(tmp_path / "src" / "theirs", 0o4755, os.geteuid(), os.getegid())
    sync(tmp_path / "src", tmp_path / "dst")
    assert _mode(tmp_path / "dst" / "theirs") == 0o4755
    os.chown(source, OTHER, OTHER)
    source.chmod(0o4755)
    sync(tmp_path / "src", tmp_path / "dst")
    assert _mode(tmp_path / "dst" / "theirs") == 0o755


def test_folders_keep_the_sticky_bit_and_lose_set_group_id(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "d"
    folder.mkdir(parents=True)
    os.chown(folder, OTHER, OTHER)
    folder.chmod(0o3777)
    sync(tmp_path / "src", tmp_path / "dst")
    assert _mode(tmp_path / "dst" / "d") == 0o1777


def test_set_user_id_that_is_asked_for_by_mode_is_set(mirror: Mirror, tmp_path: Path) -> None:
    theirs = _program(tmp_path / "theirs", 0o4755, OTHER, OTHER)
    with mirror.update() as files:
        files.copy("plain", theirs)
        files.copy("asked", theirs, mode=0o4711)
    assert [_mode(Path(mirror.root) / name) for name in ("plain", "asked")] == [0o755, 0o4711]
