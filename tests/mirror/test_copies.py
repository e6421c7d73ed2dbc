"""Contents are kept once, as long as a path holds them, and no longer."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tracemalloc
from pathlib import Path
from typing import get_args

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.errors import BarrierError
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.ownership import CopyPolicy, Policies
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import copies as _files
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._disk.sources import look_at_source
from cocoindex_fsmirror._mirror import shelf as _shelf
from tests.disk.copied import refuse_clones
from tests.mirror.keeping import (
    FILES,
    SMALL,
    copies,
    database,
    declare,
    names_of,
    recorded,
    small_copies,
)
from tests.support import OWNER, answer_of_child, copy, exact_state, failing, ledger_rows, write

BOTH = Policies("all", "backup")


def prepare(mirror: Mirror, owner: str = OWNER, policies: Policies = BOTH) -> None:
    """Begins an update of an owner."""
    mirror.prepare(Owner(owner), DriftReport(), policies=policies)


def agree(root: Path) -> bool:
    """True if the ledger tells of the copies that there are, and of no others."""
    return copies(root) == recorded(root)


@pytest.mark.parametrize("policy", get_args(CopyPolicy))
def test_policy_says_which_contents_are_kept(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, policy: CopyPolicy
) -> None:
    refuse_clones(monkeypatch)
    declare(mirror, FILES, copies=policy)
    small = [content for content in FILES.values() if len(content) <= SMALL]
    kept = {"none": set(), "auto": names_of(*small), "all": names_of(*FILES.values())}
    assert copies(root) == recorded(root) == kept[policy]
    assert mirror.status().copied == len(kept[policy])


@pytest.mark.parametrize("before", get_args(CopyPolicy))
@pytest.mark.parametrize("after", get_args(CopyPolicy))
def test_changed_policy_fills_or_drops(
    mirror: Mirror,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: CopyPolicy,
    after: CopyPolicy,
) -> None:
    refuse_clones(monkeypatch)
    declare(mirror, FILES, copies=before)
    stamps = {path: path.lstat().st_ctime_ns for path in root.rglob("[a-d]")}
    declare(mirror, FILES, copies=after)
    expected = {"none": 0, "auto": 3, "all": 4}[after]
    assert len(copies(root)) == expected
    assert agree(root)
    assert {path: path.lstat().st_ctime_ns for path in stamps} == stamps
    at_rest = exact_state(root)
    declare(mirror, FILES, copies=after)
    assert exact_state(root) == at_rest


def test_changed_policy_keeps_the_copies_that_both_ask_for(mirror: Mirror, root: Path) -> None:
    declare(mirror, FILES, copies="auto")
    (root / "a").unlink()
    prepare_as_declared = Policies("all", "backup")
    owner = ledger_rows(mirror)[0].owner
    prepare(mirror, owner, prepare_as_declared)
    assert mirror.heal().healed == ["a"]


def test_drifted_content_is_not_taken_for_the_last_written_one(mirror: Mirror, root: Path) -> None:
    declare(mirror, {"a": b"one", "b": b"two"}, copies="none")
    (root / "a").write_bytes(b"own")
    prepare(mirror, ledger_rows(mirror)[0].owner)
    assert copies(root) == recorded(root) == names_of(b"two")


@pytest.mark.parametrize("content", [b"small", b"large" * 20_000], ids=["small", "large"])
def test_content_is_kept_once_and_goes_with_its_last_path(
    mirror: Mirror, root: Path, content: bytes
) -> None:
    declare(mirror, dict.fromkeys("abc", content))
    assert copies(root) == names_of(content)
    declare(mirror, {"a": content, "b": b"replaced"})
    assert copies(root) == names_of(content, b"replaced")
    declare(mirror, {"a": b"replaced"})
    assert copies(root) == names_of(b"replaced")
    declare(mirror, {})
    assert copies(root) == set()
    assert agree(root)


def test_copies_of_one_of_two_owners_go_with_it(mirror: Mirror, root: Path) -> None:
    for owner in ("one", "two"):
        prepare(mirror, owner)
        mirror.apply([write(f"{owner}/{n}", b"%d" % n, owner=owner) for n in range(2)])
        mirror.apply([write(f"{owner}/own", owner.encode(), owner=owner)])
    (root / "one" / "own").write_bytes(b"edited")  # It stays, and nobody knows it any more.
    mirror.tear_down("one")
    assert copies(root) == recorded(root) == names_of(b"0", b"1", b"two")
    mirror.tear_down("two")
    assert not (root / ".fsmirror").exists()


def test_owner_without_copies_keeps_none_of_what_it_takes_over(mirror: Mirror, root: Path) -> None:
    prepare(mirror, "one")
    mirror.apply([write("x", b"x", owner="one")])
    prepare(mirror, "two", Policies("none", "overwrite"))
    mirror.apply([write("x", b"x", owner="two")])
    assert ledger_rows(mirror)[0].owner == "two"
    assert copies(root) == recorded(root) == set()


def test_changed_mode_keeps_the_copy(mirror: Mirror, root: Path) -> None:
    prepare(mirror)
    mirror.apply([write("x", b"x", mode=0o600)])
    mirror.apply([write("x", b"x", mode=0o640)])
    assert copies(root) == recorded(root) == names_of(b"x")


def test_adopted_file_gets_a_copy(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"x")
    declare(mirror, {"x": b"x"})
    assert copies(root) == recorded(root) == names_of(b"x")


def test_copied_source_gets_a_copy(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    prepare(mirror)
    for size in (3000, SMALL + 1):
        source = tmp_path / str(size)
        source.write_bytes(os.urandom(size))
        mirror.apply([copy(str(size), look_at_source(str(source)))])
        assert names_of(source.read_bytes()) <= copies(root)
    assert agree(root)


def test_contents_are_compressed_only_where_that_helps(mirror: Mirror, root: Path) -> None:
    files = {"text": b"text " * 10_000, "random": os.urandom(50_000)}
    declare(mirror, files)
    with contextlib.closing(sqlite3.connect(database(root))) as stored:
        sql = "SELECT is_packed, length(content) FROM contents ORDER BY length(content)"
        (packed, little), (plain, much) = stored.execute(sql).fetchall()
    assert (packed, plain, much) == (1, 0, 50_000)
    assert little < 1000
    for name, content in files.items():
        (root / name).unlink()
        assert mirror.heal().healed == [name]
        assert (root / name).read_bytes() == content


def test_path_that_failed_leaves_no_copy(mirror: Mirror, root: Path) -> None:
    prepare(mirror, policies=Policies("all", "error"))
    (root / "x").write_bytes(b"foreign")
    with failing("x"):
        mirror.apply([write("x", b"x", on_conflict="error"), write("y", b"y")])
    assert copies(root) == recorded(root) == names_of(b"y")


@pytest.mark.parametrize("barrier", [1, 2])
def test_batch_that_the_disk_did_not_confirm_leaves_no_orphans(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, barrier: int
) -> None:
    prepare(mirror)
    mirror.apply([write("x", b"old")])
    calls = []

    def fail(*_args: object, **_options: object) -> None:
        calls.append(1)
        if len(calls) == barrier:
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_tree.Tree, "sync", fail)
        with pytest.raises(BarrierError):
            mirror.apply([write("x", b"new")])
    assert copies(root) == recorded(root) == names_of(b"old" if barrier == 1 else b"new")
    mirror.apply([write("x", b"newer")])
    assert copies(root) == recorded(root) == names_of(b"newer")


def test_interrupted_batch_leaves_no_orphans(mirror: Mirror, root: Path) -> None:
    prepare(mirror)
    mirror.apply([write("x", b"old")])

    class StoppedError(Exception):
        """Ends a batch."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _tree.Tree, "sync", lambda *_args, **_options: (_ for _ in ()).throw(StoppedError)
        )
        with pytest.raises(StoppedError):
            mirror.apply([write("x", b"new")])
    mirror.create()
    assert copies(root) == recorded(root) == names_of(b"old")


def test_unreadable_file_does_not_keep_others_from_being_copied(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(mirror, {"a": b"a", "b": b"b", "c": b"c"}, copies="none")
    real = _files.read_file

    def read(tree: _tree.Tree, name: str, most: int) -> bytes:
        if name == "a":
            raise PermissionError(13, "Permission denied")
        return real(tree, name, most)  # type: ignore[arg-type]

    monkeypatch.setattr(_shelf, "read_file", read)
    declare(mirror, {"a": b"a", "b": b"b", "c": b"c"})
    assert copies(root) == recorded(root) == names_of(b"b", b"c")


@pytest.mark.slow
@pytest.mark.parametrize("begins", ["policy", "batch"])
def test_many_small_contents_are_not_held_all_at_once(
    mirror: Mirror, root: Path, tmp_path: Path, begins: str
) -> None:
    count, some = 1000, os.urandom(SMALL)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(count):
        (source / str(number)).write_bytes(number.to_bytes(8, "big") + some[8:])
    intents = [copy(str(n), look_at_source(str(source / str(n)))) for n in range(count)]
    policies = Policies("auto" if begins == "batch" else "none", "backup")
    prepare(mirror, policies=policies)
    tracemalloc.start()
    try:
        mirror.apply(intents)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        if begins == "policy":
            prepare(mirror)
        else:
            mirror.apply([each for each in intents if each.name != "0"])
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert len(small_copies(root)) == count
    assert peak < 24 << 20


def test_copies_live_with_a_database_in_journal_mode(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", None)
    declare(mirror, FILES)
    mirror.close()
    assert not database(root).with_name("copies.sqlite3-wal").exists()
    with contextlib.closing(sqlite3.connect(database(root))) as stored:
        assert stored.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    for name in FILES:
        (root / name).unlink()
    assert mirror.heal().healed == sorted(FILES)


def test_forked_process_uses_copies_of_its_own(mirror: Mirror, root: Path) -> None:
    declare(mirror, FILES)
    (root / "a").unlink()

    def heal() -> str:
        with Mirror(root) as other:
            return " ".join(other.heal().healed)

    assert answer_of_child(heal) == "a"
    declare(mirror, {"a": b"after"})
    assert copies(root) == recorded(root) == names_of(b"after")
