"""Owners in the ledger: their databases, their epochs, and what they lose to each other."""

from __future__ import annotations

import os
import shutil
from errno import EPERM
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror, RootError
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.owners import Declarer, Epoch, Owner
from cocoindex_fsmirror._disk.calls import identity_of
from cocoindex_fsmirror._mirror.known import known
from cocoindex_fsmirror._mirror.teardown import remove_undeclared
from tests.steps import run_failing
from tests.support import OWNER, contents, snapshot, write

OTHER = "owner-b"


def owner_at(root: Path, identity: str = OWNER) -> Owner:
    """Returns an owner as the ledger remembers it."""
    with known(str(root)) as ledger:
        return ledger.owners()[identity]


def prepare(mirror: Mirror, by: Path, database: str = "1 2", place: str = "out") -> Epoch:
    """Begins an update of an owner."""
    owner = Owner(OWNER, declarer=Declarer(str(by), database, place), epoch=Epoch("u1"))
    return mirror.prepare(owner, DriftReport())


def test_epoch_counts_the_batches_that_changed_something(mirror: Mirror, root: Path) -> None:
    assert prepare(mirror, root) == Epoch("u1")
    mirror.apply([write("a", b"1")], update="u2")
    assert owner_at(root).epoch == Epoch("u2", 1)
    mirror.apply([write("b", b"1")], update="u2")
    mirror.apply([write("b", b"1")], update="u2")
    assert mirror.epochs[OWNER] == owner_at(root).epoch == Epoch("u2", 2)
    assert prepare(mirror, root) == Epoch("u2", 2)


def test_update_whose_end_is_not_noticed_stores_its_epoch_at_once(
    mirror: Mirror, root: Path
) -> None:
    prepare(mirror, root)
    began = mirror.prepare(Owner(OWNER, epoch=Epoch("u2")), DriftReport(), begins=True)
    assert began == owner_at(root).epoch == Epoch("u2")
    assert owner_at(root).since_ns > 0


def test_owner_that_loses_a_path_gets_an_epoch_that_fits_nothing(
    mirror: Mirror, root: Path
) -> None:
    prepare(mirror, root)
    mirror.prepare(Owner(OTHER), DriftReport())
    mirror.apply([write("a", b"1")], update="u1")
    mirror.apply([write("b", b"1", owner=OTHER)], update="u2")
    assert owner_at(root).epoch == Epoch("u1", 1)
    mirror.apply([write("a", b"2", owner=OTHER)], update="u2")
    lost = owner_at(root).epoch
    assert len(lost.update) == 32
    assert lost.batches == 0


def test_copy_is_refused_only_while_the_original_is_there(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    original, copy = tmp_path / "p.db", tmp_path / "q.db"
    original.mkdir()
    prepare(mirror, original)
    mirror.apply([write("a", b"1")])
    with pytest.raises(RootError, match=r"p\.db, of which .*q\.db is a copy"):
        prepare(mirror, copy, "1 3")
    mirror.tear_down(OWNER, Declarer(str(copy), "1 3", "out"))
    assert contents(snapshot(root)) == {"a": b"1"}
    original.rmdir()
    prepare(mirror, copy, "1 3")
    assert owner_at(root).declarer == Declarer(str(copy), "1 3", "out")
    mirror.tear_down(OWNER, Declarer(str(copy), "1 3", "out"))
    assert not contents(snapshot(root))


def test_database_that_was_put_back_under_another_path_is_no_copy(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    """As where its folder is mounted elsewhere: it has another inode, but is the only one."""
    original, elsewhere = tmp_path / "p" / "db", tmp_path / "q" / "db"
    original.mkdir(parents=True)
    prepare(mirror, original)
    (tmp_path / "q").symlink_to("p")
    prepare(mirror, elsewhere, "1 3")
    assert owner_at(root).declarer.by == str(elsewhere)


def test_database_that_may_be_a_copy_tears_nothing_down(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier releases stored a relative path as it was, so nobody can tell where it leads."""
    mirror.prepare(Owner(OWNER, declarer=Declarer("lost/db", "", "out")), DriftReport())
    mirror.apply([write("a", b"1")])
    mirror.tear_down(OWNER, Declarer("/q/db", "1 3", "out"))
    assert contents(snapshot(root)) == {"a": b"1"}
    assert "the database lost/db, and /q/db is a copy of that" in caplog.text


@pytest.mark.parametrize(
    ("place", "acting", "is_removed"),
    [("new", "old", False), ("new", "new", True), ("new", "", True), ("", "new", True)],
)
def test_owner_under_another_key_is_not_torn_down(
    mirror: Mirror,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    place: str,
    acting: str,
    is_removed: bool,
) -> None:
    prepare(mirror, root, place=place)
    mirror.apply([write("a", b"1")])
    mirror.tear_down(OWNER, Declarer(str(root), "1 2", acting))
    assert contents(snapshot(root)) == ({} if is_removed else {"a": b"1"})
    assert caplog.messages == []


@pytest.mark.parametrize("is_snapshot", [True, False])
def test_database_with_the_numbers_of_its_original_is_a_copy(
    mirror: Mirror, root: Path, tmp_path: Path, is_snapshot: bool
) -> None:
    """A snapshot has the inode numbers and the times of its original, on another device."""
    one, two = tmp_path / "p.db", tmp_path / "q.db"
    one.mkdir()
    two.mkdir()
    _, inode, mtime = identity_of(str(one)).split()
    prepare(mirror, one, f"1 {inode} {mtime}")
    if not is_snapshot:  # The project was moved, and another one has come to its place.
        one.rmdir()
        one.mkdir()
        os.utime(one, ns=(1, 1))
    if is_snapshot:
        with pytest.raises(RootError, match="is a copy; nothing was changed"):
            prepare(mirror, two, f"2 {inode} {mtime}")
    else:
        prepare(mirror, two, f"2 {inode} {mtime}")
        assert owner_at(root).declarer.by == str(two)


def test_copied_ledger_belongs_to_the_database_that_comes_with_it(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    original, at = tmp_path / "p.db", tmp_path / "copy"
    original.mkdir()
    prepare(mirror, original)
    mirror.prepare(Owner(OTHER, declarer=Declarer("a program")), DriftReport())
    mirror.close()
    shutil.copytree(root, at)
    assert (owner_at(at).declarer, owner_at(at).in_doubt) == (Declarer(place="out"), True)
    assert owner_at(at, OTHER) == owner_at(root, OTHER)
    with Mirror(at) as copy:
        prepare(copy, tmp_path / "q.db", "1 3")
        assert owner_at(at).declarer.by == str(tmp_path / "q.db")
        assert owner_at(at).in_doubt


def test_copied_mirror_is_torn_down_by_the_database_that_comes_with_it(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    original, at = tmp_path / "p.db", tmp_path / "copy"
    original.mkdir()
    prepare(mirror, original)
    mirror.apply([write("a", b"1")])
    mirror.close()
    shutil.copytree(root, at)
    Mirror(at).tear_down(OWNER, Declarer(str(tmp_path / "q.db"), "1 3", "out"))
    assert contents(snapshot(root)) == {"a": b"1"}
    assert not at.exists() or not contents(snapshot(at))


def test_ledger_that_was_put_back_keeps_its_database(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    original = tmp_path / "p.db"
    original.mkdir()
    prepare(mirror, original)
    before = owner_at(root)
    mirror.close()
    shutil.copytree(root, tmp_path / "saved")
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "saved", root)
    assert owner_at(root) == before._replace(in_doubt=True)
    with pytest.raises(RootError, match=r"q\.db is a copy"):
        prepare(mirror, tmp_path / "q.db", "1 3")
    assert owner_at(root) == before._replace(in_doubt=True)


def test_owner_in_doubt_has_every_file_read(mirror: Mirror, root: Path) -> None:
    prepare(mirror, root)
    mirror.apply([write("a", b"1")])
    mirror.prepare(Owner(OWNER, in_doubt=True), DriftReport())
    assert owner_at(root).in_doubt
    with known(str(root)) as ledger:
        assert [row.recorded_ns for row in ledger.rows()] == [0]
    mirror.apply([write("a", b"1")])
    with known(str(root)) as ledger:
        assert [row.recorded_ns > 0 for row in ledger.rows()] == [True]


def test_undeclared_paths_go_and_those_in_doubt_stay(mirror: Mirror, root: Path) -> None:
    prepare(mirror, root)
    mirror.prepare(Owner(OTHER), DriftReport())
    mirror.apply([write("gone"), write("here"), write("unknown", owner=OTHER)])
    mirror.apply([write("d/gone", owner=OTHER)])
    verdicts = {"gone": False, "d/gone": False, "here": True, "unknown": None}
    epoch = Epoch("u3", 1)
    for is_known in (False, True):
        remove_undeclared(mirror.session, OWNER, epoch, {OTHER}, lambda row: verdicts.get(row.name))
        assert owner_at(root).epoch == epoch
        assert owner_at(root).in_doubt is not is_known
        verdicts["unknown"] = False
    assert snapshot(root) == {"here": b""}
    with known(str(root)) as ledger:
        assert [*ledger.owners()] == [OWNER]


def test_undeclared_path_that_stays_leaves_its_owner_in_doubt(mirror: Mirror, root: Path) -> None:
    prepare(mirror, root)
    mirror.apply([write("gone")])

    def attempt() -> None:
        with pytest.raises(ApplyError, match="'gone'"):
            remove_undeclared(mirror.session, OWNER, Epoch("u2", 1), (), lambda _row: False)

    assert (
        run_failing(attempt, lambda call, args: (call, args[0]) == ("rename", "gone"), EPERM) == 1
    )
    assert (owner_at(root).epoch, owner_at(root).in_doubt) == (Epoch("u2", 1), True)


def test_owner_that_a_lost_ledger_knew_stays_unknown(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("gone")])
    remove_undeclared(mirror.session, OWNER, Epoch("u2", 1), (), lambda _row: False)
    with known(str(root)) as ledger:
        assert ledger.owners() == {}
    assert snapshot(root) == {}
