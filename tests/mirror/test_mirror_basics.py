"""A mirror on a real disk writes and removes what a batch asks, and then has nothing to do."""

from __future__ import annotations

from pathlib import Path

from cocoindex_fsmirror import Mirror
from tests.support import delete, exact_state, snapshot, write


def test_batch_writes_files_and_the_folders_above_them(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a.txt", b"1"), write("deep/er/b.txt", b"2")])
    assert snapshot(root) == {"a.txt": b"1", "deep": "dir", "deep/er": "dir", "deep/er/b.txt": b"2"}


def test_second_batch_changes_nothing_on_the_disk(mirror: Mirror, root: Path) -> None:
    intents = [write("a.txt", b"1"), write("deep/b.txt", b"2")]
    mirror.apply(intents)
    before = exact_state(root)
    mirror.apply(intents)
    assert exact_state(root) == before


def test_batch_removes_files_and_the_folders_that_it_made(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("keep", b"1"), write("deep/er/b.txt", b"2")])
    mirror.apply([delete("deep/er/b.txt")])
    assert snapshot(root) == {"keep": b"1"}
