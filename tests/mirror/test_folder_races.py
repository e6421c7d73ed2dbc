"""Folders that are needed, when others make them first or stand in their way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk.staging import Slot, Staging
from tests.steps import watched
from tests.support import backups, delete, failing, folder, snapshot, write


def _before_placing(act: Callable[[], object]) -> Callable[[str, tuple[Any, ...]], None]:
    """Calls a function once, right before a batch places something."""
    left = [act]

    def before(call: str, _args: tuple[Any, ...]) -> None:
        if call == "renameat2" and left:
            left.pop()()

    return before


def test_foreign_folder_in_the_place_of_our_file_does_not_become_ours(
    mirror: Mirror, root: Path
) -> None:
    mirror.apply([write("a", b"1")])
    with watched(_before_placing((root / "a").mkdir)):
        mirror.apply([write("a/b", b"2"), delete("a")])
    assert snapshot(root) == {"a": "dir", "a/b": b"2"}
    assert mirror.status().folders == 0
    mirror.apply([delete("a/b")])
    assert snapshot(root) == {"a": "dir"}


def test_declared_folder_that_was_adopted_does_not_become_ours(mirror: Mirror, root: Path) -> None:
    """Simulates an owner who makes it again after the batch looked."""
    (root / "d").mkdir()
    mirror.apply([folder("d")])
    (root / "d").rmdir()
    with watched(_before_placing((root / "d").mkdir)):
        mirror.apply([folder("d")])
    mirror.apply([delete("d")])
    assert snapshot(root) == {"d": "dir"}


def test_folder_that_we_made_stays_ours_if_it_comes_back(mirror: Mirror, root: Path) -> None:
    mirror.apply([folder("d")])
    (root / "d").rename(root / "aside")
    with watched(_before_placing(lambda: (root / "aside").rename(root / "d"))):
        mirror.apply([folder("d")])
    mirror.apply([delete("d")])
    assert snapshot(root) == {}


def test_file_in_the_way_of_two_goes_though_the_first_of_them_fails(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").write_bytes(b"foreign")
    real = Staging.write

    def fill_disk(staging: Staging, slot: Slot, content: Any, *args: Any) -> Any:
        if content == b"too large":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(staging, slot, content, *args)

    monkeypatch.setattr(Staging, "write", fill_disk)
    with failing("'a/x'.*No space"):
        mirror.apply([write("a/x", b"too large"), write("a/y", b"1")])
    assert snapshot(root) == {"a": "dir", "a/y": b"1"}
    assert backups(root) == [b"foreign"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_folder_whose_name_another_kind_takes_fails(mirror: Mirror, root: Path, kind: str) -> None:
    """Without a file in it, nothing else would notice."""
    path = root / "d"

    def take() -> None:
        path.symlink_to(root) if kind == "link" else path.write_bytes(b"foreign")

    mirror.create()
    with watched(_before_placing(take)), failing("make 'd'"):
        mirror.apply([folder("d")])
    assert snapshot(root) == {"d": b"foreign" if kind == "file" else f"-> {root}"}
    assert mirror.status().folders == 0
