"""A folder that no file can be renamed into or out of is found, and gets areas of its own."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk.tree import Tree
from tests.support import backups, contents, delete, failing, snapshot, staged, write


class Edge:
    """Renames over the edge of a folder, which fail.

    Attributes:
        count: The number of them.
        crash: Raised by the next rename of the search, if any.
        code: The errno of what the search meets; that of an edge by default.
    """

    def __init__(self, inside: Path) -> None:
        self.count = 0
        self.crash: BaseException | None = None
        self.code = errno.EXDEV
        self._inside = f"{inside}/"
        assert _calls.renameat2 is not None
        self._real = _calls.renameat2

    def rename(
        self, source_fd: int, source: bytes, target_fd: int, target: bytes, flag: int
    ) -> None:
        """Stands in for ``renameat2``."""
        if source == b"made" and self.crash is not None:
            raise self.crash
        above = [os.readlink(f"/proc/self/fd/{fd}") + "/" for fd in (source_fd, target_fd)]
        if len({path.startswith(self._inside) for path in above}) > 1:
            self.count += 1
            code = self.code if source == b"made" else errno.EXDEV
            raise OSError(code, os.strerror(code))
        self._real(source_fd, source, target_fd, target, flag)


@pytest.fixture
def edge_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Edge]:
    """Gives folders an edge."""
    if _calls.renameat2 is None or not os.path.isdir("/proc/self/fd"):
        pytest.skip("renames can't be watched here")

    def make(folder: Path) -> Edge:
        edge = Edge(folder)
        monkeypatch.setattr(_calls, "renameat2", edge.rename)
        return edge

    return make


@pytest.fixture
def edge(root: Path, mirror: Mirror, edge_at: Callable[[Path], Edge]) -> Edge:
    """Gives the folder ``a/far`` of a root an edge."""
    mirror.apply([write("a/far/d/old", b"1"), write("a/near", b"1")])
    return edge_at(root / "a" / "far")


def _edges(root: Path) -> list[str]:
    """Returns the edges that are recorded in a root."""
    found: list[str] = json.loads((root / ".fsmirror" / "abilities.json").read_text())["edges"]
    return found


def _residue(root: Path) -> list[str]:
    """Returns what staging has left."""
    return [*staged(root), *(name for name in snapshot(root) if ".fsmirror" in name)]


def test_edge_is_found_once_and_kept(mirror: Mirror, root: Path, edge: Edge) -> None:
    mirror.apply([write("a/far/d/old", b"2"), write("a/far/d/x", b"2"), write("a/near", b"2")])
    files = {"a/far/d/old": b"2", "a/far/d/x": b"2", "a/near": b"2"}
    assert contents(snapshot(root)) == files
    assert (_edges(root), _residue(root)) == (["a/far"], [])
    found = edge.count
    with Mirror(root) as another:
        another.apply([write("a/far/e/y", b"3"), delete("a/far/d/old"), write("a/near", b"3")])
    assert edge.count == found > 0
    assert contents(snapshot(root)) == {"a/far/d/x": b"2", "a/far/e/y": b"3", "a/near": b"3"}
    assert _residue(root) == []


def test_edge_with_a_name_that_is_no_utf8_is_found_once(
    mirror: Mirror, root: Path, edge_at: Callable[[Path], Edge]
) -> None:
    far = os.fsdecode(b"far\xff")
    mirror.apply([write(f"{far}/old", b"1")])
    edge = edge_at(root / far)
    mirror.apply([write(f"{far}/old", b"2")])
    found = edge.count
    with Mirror(root) as another:
        another.apply([write(f"{far}/new", b"3")])
    assert edge.count == found > 0
    assert contents(snapshot(root)) == {f"{far}/old": b"2", f"{far}/new": b"3"}
    assert (_edges(root), _residue(root)) == ([far], [])


def test_edge_above_new_folders_is_found(mirror: Mirror, root: Path, edge: Edge) -> None:
    names = [f"a/far/new/er/{number}" for number in range(20)]
    mirror.apply([write(name, b"2") for name in names])
    assert edge.count > 0
    assert {*names} < {*contents(snapshot(root))}
    assert (_edges(root), _residue(root)) == (["a/far"], [])


def test_mirror_is_kept_where_the_system_knows_no_acl(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getxattr", raising=False)
    mirror.apply([write("d/x", b"1")])
    assert contents(snapshot(root)) == {"d/x": b"1"}


def test_foreign_file_beyond_an_edge_is_backed_up_there(
    mirror: Mirror, root: Path, edge: Edge
) -> None:
    (root / "a" / "far" / "d" / "old").write_bytes(b"foreign")
    mirror.apply([write("a/far/d/old", b"2")])
    assert edge.count > 0
    assert (root / "a" / "far" / "d" / "old").read_bytes() == b"2"
    assert backups(root) == []
    assert backups(root / "a" / "far") == [b"foreign"]


def test_second_edge_leaves_the_first_one_known(
    mirror: Mirror, root: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.apply([write("a/far/d/old", b"2")])
    monkeypatch.setattr(_calls, "renameat2", Edge(root / "a" / "far" / "d").rename)
    mirror.apply([write("a/far/d/old", b"3")])
    assert sorted(_edges(root)) == ["a/far", "a/far/d"]
    assert edge.count > 0
    assert contents(snapshot(root))["a/far/d/old"] == b"3"


def test_rename_that_fails_where_no_edge_is_fails_its_path(
    mirror: Mirror, root: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: int | bytes) -> None:
        if b"old" in given:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(*given)

    real: Callable[..., None] = edge._real
    monkeypatch.setattr(_calls, "renameat2", refuse)
    with failing("'a/far/d/old'"):
        mirror.apply([write("a/far/d/old", b"2"), write("a/far/d/x", b"2")])
    assert contents(snapshot(root))["a/far/d/x"] == b"2"
    assert (_edges(root), _residue(root)) == ([], [])


def test_search_for_an_edge_that_fails_stops_only_its_path(
    mirror: Mirror, root: Path, edge: Edge
) -> None:
    edge.code = errno.EIO
    with failing("'a/far/d/old'"):
        mirror.apply([write("a/far/d/old", b"2"), write("a/near", b"2")])
    assert contents(snapshot(root)) == {"a/far/d/old": b"1", "a/near": b"2"}
    assert (_edges(root), _residue(root)) == ([], [])
    edge.code = errno.EXDEV
    mirror.apply([write("a/far/d/old", b"2")])
    assert _edges(root) == ["a/far"]


def test_search_for_an_edge_that_was_cut_off_is_cleared_up(
    mirror: Mirror, root: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.crash = KeyboardInterrupt()
    with monkeypatch.context() as patch:
        patch.setattr(Tree, "remove_all", lambda *_given: None)
        with pytest.raises(KeyboardInterrupt):
            mirror.apply([write("a/far/d/old", b"2")])
    assert _residue(root)
    edge.crash = None
    with Mirror(root) as another:
        another.apply([write("a/far/d/old", b"2")])
    assert contents(snapshot(root)) == {"a/far/d/old": b"2", "a/near": b"1"}
    assert (_edges(root), _residue(root)) == (["a/far"], [])
