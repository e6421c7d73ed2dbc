"""The nouns of ``fsmirror`` agree with their counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, TooManyRemovalsError
from cocoindex_fsmirror._core.errors import counted
from tests.command.commands import run


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder with a source of one file in one folder, beside a FIFO, and its mirror."""
    (tmp_path / "src" / "d").mkdir(parents=True)
    (tmp_path / "src" / "d" / "a").write_bytes(b"a")
    os.mkfifo(tmp_path / "src" / "pipe")
    with Mirror(tmp_path / "dst") as mirror:
        mirror.create()
    (tmp_path / "dst" / "mine").write_bytes(b"mine")
    assert run("sync", tmp_path / "src", tmp_path / "dst", "--exact").exit_code == 0
    return tmp_path


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("status dst", "\n  1 file or link, 1 B, in 1 folder\n"),
        ("status dst", "fsmirror sync {here}/src, 1 file, since"),
        ("verify dst", "in order (1 file)\n"),
        ("verify dst --exact", "1 path differs (1 file)\n"),
        ("backups dst", "1 backup, 4 B\n"),
        ("backups dst purge --older-than 1d", "0 backups purged, 0 B\n"),
        ("sync src dst", "skipped 1 special file: pipe\n"),
        ("sync src dst -n", "1 change would be made; nothing was done\n"),
        ("sync src dst --exact", "1 foreign file was moved to"),
        ("sync none dst --max-delete 0", "1 of 1 file would be removed"),
        ("drop dst --yes", "0 files deleted, 1 path left that is not ours\n"),
        ("drop dst", "Remove 1 file from"),
    ],
)
def test_single_item_is_counted_in_the_singular(
    one: Path, monkeypatch: pytest.MonkeyPatch, command: str, shown: str
) -> None:
    monkeypatch.chdir(one)
    (one / "none").mkdir()
    if command != "verify dst":
        (one / "dst" / "d" / "a").chmod(0o600)
    if command == "sync src dst --exact":
        (one / "dst" / "theirs").touch()
    if command == "drop dst --yes":
        (one / "dst" / "d" / "a").write_bytes(b"edited")
    assert shown.format(here=one) in run(*command.split()).output


def test_several_items_are_counted_in_the_plural() -> None:
    assert counted(1, "file") == "1 file"
    assert [counted(count, "file") for count in (0, 2, 1000)] == [
        "0 files",
        "2 files",
        "1,000 files",
    ]
    assert [counted(count, "path differs", "paths differ") for count in (1, 2)] == [
        "1 path differs",
        "2 paths differ",
    ]


def test_removed_files_are_counted_in_the_singular_and_plural() -> None:
    one, two = (TooManyRemovalsError("root", 9, 9, 2, "limit", removed=count) for count in (1, 2))
    assert ": no more than 1 was removed (" in str(one)
    assert ": no more than 2 were removed (" in str(two)
