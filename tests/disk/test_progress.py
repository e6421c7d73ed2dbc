"""``on_bytes`` is called with the bytes that are written, and may end the batch."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk import calls as _calls
from tests.disk.copied import settled
from tests.support import copy, delete, snapshot, write


@pytest.mark.parametrize("is_sparse", [False, True], ids=["full", "sparse"])
def test_on_bytes_is_called_with_all_bytes_as_they_are_written(
    root: Path, source: Path, is_sparse: bool
) -> None:
    told: list[int] = []
    if is_sparse:
        os.truncate(source, 1 << 24)
    with (
        mock.patch.object(_calls, "_CHUNK", 1 << 18),
        Mirror(root, on_bytes=told.append) as mirror,
    ):
        mirror.create()
        mirror.apply([write("a", b"123"), copy("b", settled(source))])
        mirror.apply([write("a", b"123"), copy("b", settled(source))])
    assert told[0] == 0
    assert sum(told) == 3 + source.stat().st_size
    assert len(told) > 5


def test_error_of_on_bytes_ends_the_batch_before_anything_is_placed(
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
