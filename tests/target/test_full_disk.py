"""Flows on a full disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror._target.sink import close_all
from tests.disk.test_turns import KIB, files_of, fill
from tests.support import contents, staged
from tests.target.flows import Flow

Tmpfs = Callable[[str], Path]


@pytest.fixture
def flow(tmp_path: Path, tmpfs: Tmpfs) -> Iterator[Flow]:
    """A flow whose root is on a small disk, and its database elsewhere."""
    flow = Flow(tmp_path)
    flow.root = tmpfs("8m") / "root"
    yield flow
    flow.close()
    close_all()  # Else the disk could not be unmounted.


@pytest.mark.root
def test_flow_replaces_most_of_a_full_disk_in_one_update(flow: Flow) -> None:
    flow.files = files_of(200, 30_000, 0)
    flow.update()
    fill(flow.root.parent, 200 * KIB)
    flow.files = files_of(200, 30_000, 1, 0.6)
    flow.update()
    assert contents(flow.tree) == flow.files
    assert staged(flow.root) == []


@pytest.mark.root
def test_flow_names_what_does_not_fit_and_the_next_update_writes_it(flow: Flow) -> None:
    flow.files = {**files_of(20, 30_000, 0), "huge": b"1"}
    flow.update()
    fill(flow.root.parent, 200 * KIB)
    flow.files = {**files_of(20, 30_000, 1), "huge": b"2" * (4 << 20)}
    said = flow.attempt()
    assert "write 'huge'" in said
    assert "free some space" in said
    assert contents(flow.tree) == {**flow.files, "huge": b"1"}
    (flow.root.parent / "filler").unlink()
    flow.update()
    assert contents(flow.tree) == flow.files
