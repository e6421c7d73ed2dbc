"""A file becomes a folder, and a folder a file; paths and containers that contest each other."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import ApplyError, ConflictError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.states import Actual
from cocoindex_fsmirror._disk.tree import Tree
from tests.steps import stamps
from tests.support import OWNER, backups, contents, delete, failing, folder, snapshot, write

DEEP = "a/b/c/d/e"


def _failed(error: pytest.ExceptionInfo[ApplyError]) -> set[str]:
    """Returns the paths of a group's failures; all must be conflicts."""
    assert all(isinstance(failure, ConflictError) for failure in error.value.exceptions)
    return {
        failure.path for failure in error.value.exceptions if isinstance(failure, ConflictError)
    }


def _settles(mirror: Mirror, root: Path, intents: Sequence[Intent]) -> None:
    """Asserts that the batch, applied again, changes nothing in the tree."""
    before = stamps(root)
    mirror.apply(intents)
    assert stamps(root) == before


@pytest.mark.parametrize("below", ["a/b", DEEP])
def test_a_file_becomes_a_folder_and_a_file_again_in_single_batches(
    mirror: Mirror, root: Path, below: str
) -> None:
    mirror.apply([write("a", b"file")])
    into_folder = [write(below, b"below"), delete("a")]
    mirror.apply(into_folder)
    assert contents(snapshot(root)) == {below: b"below"}
    _settles(mirror, root, into_folder)
    into_file = [write("a", b"again"), delete(below)]
    mirror.apply(into_file)
    assert snapshot(root) == {"a": b"again"}
    _settles(mirror, root, into_file)
    assert backups(root) == []


@pytest.mark.parametrize("below", ["a/b", DEEP])
def test_a_file_becomes_a_folder_and_a_file_again_in_separate_batches(
    mirror: Mirror, root: Path, below: str
) -> None:
    for batch in ([write("a", b"1")], [delete("a")], [write(below, b"2")], [delete(below)]):
        mirror.apply(batch)
    assert snapshot(root) == {}
    mirror.apply([write("a", b"3")])
    assert snapshot(root) == {"a": b"3"}
    assert backups(root) == []


def test_a_deep_part_of_a_tree_becomes_a_file(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a/b/c/one", b"1"), write("a/b/c/two", b"2"), write("a/other", b"3")])
    mirror.apply([write("a/b", b"file"), delete("a/b/c/one"), delete("a/b/c/two")])
    assert contents(snapshot(root)) == {"a/b": b"file", "a/other": b"3"}


def test_edit_in_a_folder_that_becomes_a_file_is_not_lost(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a/b", b"1"), write("a/c", b"1")])
    (root / "a" / "b").write_bytes(b"edited")
    mirror.apply([write("a", b"file"), delete("a/b"), delete("a/c")])
    assert snapshot(root) == {"a": b"file"}
    assert backups(root) == [b"edited"]


def test_edit_that_may_not_be_moved_keeps_its_folder(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a/b", b"1"), write("a/c", b"1")])
    (root / "a" / "b").write_bytes(b"edited")
    with pytest.raises(ApplyError) as error:
        mirror.apply([write("a", b"file"), delete("a/b", on_conflict="error"), delete("a/c")])
    assert _failed(error) == {"a", "a/b"}
    assert snapshot(root) == {"a": "dir", "a/b": b"edited"}


def test_path_and_one_below_it_in_one_batch_fail_with_both_names(
    mirror: Mirror, root: Path
) -> None:
    with pytest.raises(ApplyError) as error:
        mirror.apply([write("a", b"1"), write("a/b", b"2"), write("c", b"3")])
    assert _failed(error) == {"a", "a/b"}
    assert snapshot(root) == {"c": b"3"}


@pytest.mark.parametrize("below", ["a/b", DEEP])
def test_a_path_may_be_written_before_the_one_above_is_deleted(
    mirror: Mirror, root: Path, below: str
) -> None:
    mirror.apply([write("a", b"1")])
    mirror.apply([write(below, b"2")])
    mirror.apply([delete("a")])
    assert contents(snapshot(root)) == {below: b"2"}
    _settles(mirror, root, [write(below, b"2"), delete("a")])
    assert backups(root) == []


def test_a_path_may_be_written_before_the_ones_below_are_deleted(
    mirror: Mirror, root: Path
) -> None:
    mirror.apply([write("a/b", b"1"), write("a/c/d", b"2")])
    mirror.apply([write("a", b"3")])
    mirror.apply([delete("a/b")])
    mirror.apply([delete("a/c/d")])
    assert snapshot(root) == {"a": b"3"}
    _settles(mirror, root, [write("a", b"3")])
    assert backups(root) == []


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
def test_contest_over_several_batches_reruns_both_components(
    mirror: Mirror, root: Path, first: str, second: str
) -> None:
    """Only the flow knows if both are still declared, so both components have to rerun."""
    mirror.apply([write(first, b"1", component="one")])
    mirror.apply([write(second, b"2", component="two")])
    assert contents(snapshot(root)) == {second: b"2"}
    drift = mirror.observe()
    assert drift.names == {first, second}
    assert drift.components == {(OWNER, "one"), (OWNER, "two")}
    assert not drift.stale
    mirror.prepare(Owner(OWNER), drift)
    assert mirror.observe().stale == {OWNER}


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
def test_known_rival_fails_with_both_names_and_changes_nothing(
    mirror: Mirror, root: Path, first: str, second: str
) -> None:
    mirror.apply([write(first, b"1")])
    for _ in range(2):
        with failing(f"'{second}'.*'{first}'"):
            mirror.apply([write(second, b"2", rival=first)])
        assert contents(snapshot(root)) == {first: b"1"}
        assert mirror.observe().names == {first, second}
    mirror.apply([delete(second)])
    assert mirror.verify() == []


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
def test_a_contest_ends_when_one_side_is_undeclared(
    mirror: Mirror, root: Path, first: str, second: str
) -> None:
    mirror.apply([write(first, b"1")])
    mirror.apply([write(second, b"2")])
    mirror.apply([write(first, b"1"), delete(second)])
    assert contents(snapshot(root)) == {first: b"1"}
    assert mirror.verify() == []


@pytest.mark.parametrize("content", [b"1", b"2"])
def test_path_from_two_containers_is_an_error(mirror: Mirror, root: Path, content: bytes) -> None:
    with failing(r"'one'.*'two'"):
        mirror.apply([write("x", b"1", container="one//"), write("x", content, container="two//")])
    assert snapshot(root) == {}


def test_path_from_two_containers_in_two_batches_reruns_both(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1", container="one//")])
    mirror.apply([write("x", b"2", container="two//")])
    assert snapshot(root) == {"x": b"2"}
    assert mirror.observe().names == {"x"}
    mirror.apply([delete("x", container="one//")])
    assert mirror.verify() == []
    assert snapshot(root) == {"x": b"2"}


def test_closing_a_container_takes_its_files_only(mirror: Mirror, root: Path) -> None:
    intents = [folder("docs"), write("docs/a", b"1", container="docs//"), write("docs/b", b"2")]
    mirror.apply([*intents, write("docs/sub/c", b"3", container="docs//sub//")])
    (root / "docs" / "theirs").write_bytes(b"4")
    mirror.apply([], closed=[(OWNER, "docs//")])
    assert contents(snapshot(root)) == {"docs/b": b"2", "docs/theirs": b"4"}
    assert "docs/sub" not in snapshot(root)


def test_closing_a_container_leaves_one_with_a_similar_name(mirror: Mirror, root: Path) -> None:
    mirror.apply(
        [write("doc/a", b"1", container="doc//"), write("docs/b", b"2", container="docs//")]
    )
    mirror.apply([], closed=[(OWNER, "doc//")])
    assert contents(snapshot(root)) == {"docs/b": b"2"}


@pytest.mark.parametrize("content", [b"1", b"other"])
def test_a_file_moves_between_containers(mirror: Mirror, root: Path, content: bytes) -> None:
    mirror.apply([write("x", b"1", container="one//")])
    before = (root / "x").lstat().st_ino
    mirror.apply([write("x", content, container="two//"), delete("x", container="one//")])
    assert snapshot(root) == {"x": content}
    assert ((root / "x").lstat().st_ino == before) is (content == b"1")
    mirror.apply([], closed=[(OWNER, "one//")])
    assert snapshot(root) == {"x": content}
    mirror.apply([], closed=[(OWNER, "two//")])
    assert snapshot(root) == {}


def test_a_file_moves_to_a_container_while_the_old_one_closes(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("d/x", b"1", container="one//"), write("d/y", b"2", container="one//")])
    mirror.apply([write("d/x", b"1", container="two//")], closed=[(OWNER, "one//")])
    assert contents(snapshot(root)) == {"d/x": b"1"}
    assert backups(root) == []


@pytest.mark.parametrize("made_by_us", [True, False])
def test_declared_folder_goes_once_undeclared_if_we_made_it(
    mirror: Mirror, root: Path, made_by_us: bool
) -> None:
    if not made_by_us:
        (root / "d").mkdir()
    mirror.apply([folder("d"), write("d/x", b"1")])
    mirror.apply([delete("d/x")])
    assert snapshot(root) == {"d": "dir"}
    mirror.apply([delete("d")])
    assert snapshot(root) == ({} if made_by_us else {"d": "dir"})


def test_declared_folder_replaces_a_file_of_ours(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("d", b"1")])
    mirror.apply([folder("d"), delete("d"), write("d/x", b"2")])
    assert snapshot(root) == {"d": "dir", "d/x": b"2"}


@pytest.mark.parametrize("failing", ["a", "a/b"])
def test_unreadable_folder_of_ours_stays_ours(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The folder is removed, as usual, once it is no longer declared."""
    mirror.apply([folder("a/b")])
    real = Tree.look

    def look(tree: Tree, name: Name, **options: Any) -> Actual:
        if name == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(tree, name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "look", look)
        with contextlib.suppress(ApplyError):
            mirror.apply([folder("a/b")])
    mirror.apply([delete("a/b")])
    assert snapshot(root) == {}
