"""A process may end while a root is made, and while it is torn down."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.owners import Owner
from tests.crash.harness import die_at, leave_out_barriers
from tests.support import OWNER, Tree, contents, folder, snapshot, write

_USERS = {"files/user.txt": b"the user's neighbour", "top.txt": b"the user's edit"}


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out barriers and the log."""
    leave_out_barriers(monkeypatch)
    caplog.set_level("CRITICAL")


def _prepare(root: Path) -> None:
    """Makes a root that is missing, and the folder above it."""
    with Mirror(root) as mirror:
        mirror.prepare(Owner(OWNER), mirror.observe())


def _deaths_in_prepare(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yields, for each step, a half-made root; the last one is complete."""
    for step in itertools.count(1):
        root = tmp_path / str(step) / "made" / "root"
        root.parents[1].mkdir()
        name = die_at(step, lambda root=root: _prepare(root))  # type: ignore[misc]
        yield f"{step}, {name}", root
        if name is None:
            return


def test_half_made_root_is_made_by_the_next_update(tmp_path: Path) -> None:
    wrong = {}
    for step, root in _deaths_in_prepare(tmp_path):
        with Mirror(root) as mirror:
            mirror.prepare(Owner(OWNER), mirror.observe())
            mirror.apply([write("a/b.txt", b"1")])
            assert mirror.verify() == [], step
        ignored = snapshot(root, ours=True).get(".gitignore")
        if ignored != b"*\n":
            wrong[step] = ignored
        assert snapshot(root) == {"a": "dir", "a/b.txt": b"1"}, step
    assert wrong == {}


def test_teardown_of_a_half_made_root_leaves_at_most_empty_folders(tmp_path: Path) -> None:
    for step, root in _deaths_in_prepare(tmp_path):
        with Mirror(root) as mirror:
            mirror.prepare(Owner(OWNER), DriftReport())
            mirror.apply([write("a/b.txt", b"1")])
            mirror.tear_down(OWNER)
        assert contents(snapshot(root.parents[1])) == {}, step
        assert not (root / ".fsmirror").exists(), step


def test_teardown_removes_a_root_that_was_made_without_a_death(tmp_path: Path) -> None:
    for step, root in _deaths_in_prepare(tmp_path):
        if step.endswith("None"):
            with Mirror(root) as mirror:
                mirror.tear_down(OWNER)
            assert list(root.parents[1].iterdir()) == []


def _fill(root: Path, users: dict[str, bytes]) -> Tree:
    """Makes a root with our files and those of a user."""
    _prepare(root)
    with Mirror(root) as mirror:
        mirror.apply(
            [
                folder("declared"),
                write("files/a.txt", b"a"),
                write("files/b.txt", b"b"),
                write("files/deep/c.txt", b"c"),
                write("top.txt", b"top"),
            ]
        )
    for name, content in users.items():
        (root / name).write_bytes(content)
    return snapshot(root)


def _tear_down(root: Path) -> None:
    """Tears a mirror down."""
    with Mirror(root) as mirror:
        mirror.tear_down(OWNER)


@pytest.mark.parametrize("users", [{}, _USERS])
def test_cut_off_teardown_is_finished_when_it_is_repeated(
    users: dict[str, bytes], tmp_path: Path
) -> None:
    wrong: dict[str, object] = {}
    for step in itertools.count(1):
        root = tmp_path / str(step) / "made" / "root"
        root.parents[1].mkdir()
        old = _fill(root, users)
        name = die_at(step, lambda root=root: _tear_down(root))  # type: ignore[misc]
        found = contents(snapshot(root)) if root.exists() else {}
        assert found.items() <= contents(old).items(), step
        assert found.items() >= users.items(), step
        is_known = (root / ".fsmirror" / "ledger.sqlite3").exists()
        _tear_down(root)
        left = snapshot(root.parents[1])
        # Once the ledger is gone, the maker of the root is unknown.
        if left != _left(users) and (is_known or contents(left) or users):
            wrong[f"{step}, {name}"] = left
        if name is None:
            break
    assert wrong == {}


def _left(users: dict[str, bytes]) -> Tree:
    """Returns what a teardown leaves: the user's files and their folders."""
    top: Tree = {"made": "dir", "made/root": "dir", "made/root/files": "dir"} if users else {}
    return top | {f"made/root/{name}": content for name, content in users.items()}
