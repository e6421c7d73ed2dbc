"""Our own folder belongs to who runs, or to root, and nobody else may have written there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import FsMirrorError, LedgerError, Mirror
from cocoindex_fsmirror._disk import ours as _ours
from tests.support import (
    answer_of_child,
    backups,
    exact_state,
    ledger_rows,
    snapshot,
    told_by,
    write,
)

OTHER = 65534
ALL_OF_OURS = ["ledger.sqlite3", "abilities.json", ".gitignore", "lock", "tmp", "backup", ""]
BESIDE = ["-wal", "-shm", "-journal"]


@pytest.fixture
def ours(mirror: Mirror, root: Path) -> Path:
    """Our folder in a mirror of the file ``x``, with all that may be in it."""
    mirror.apply([write("x", b"1")])
    mirror.close()
    folder = root / ".fsmirror"
    for name in ("tmp", "backup"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    (folder / "lock").touch(mode=0o600)
    return folder


def _refusals(mirror: Mirror) -> list[str]:
    """Returns the messages of what writes and of what only looks."""
    said = []
    for act in (partial(mirror.apply, [write("x", b"2")]), mirror.status, mirror.verify):
        with pytest.raises(LedgerError) as caught:
            act()
        said.append(told_by(caught.value))
    return said


def _as_other(act: Callable[[], object]) -> str:
    """Calls a function as another user, in a child; returns the messages of its error."""

    def answer() -> str:
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        try:
            return repr(act())
        except FsMirrorError as error:
            return told_by(error)

    return answer_of_child(answer)


@pytest.fixture
def as_root(tmp_path: Path) -> None:
    """Skips the test if this user can't give files away; lets others reach its folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == 0 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)


@pytest.mark.root
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", ALL_OF_OURS)
def test_folder_of_another_user_is_refused(
    mirror: Mirror, root: Path, ours: Path, name: str
) -> None:
    os.chown(ours / name, OTHER, OTHER)
    before = exact_state(root)
    for said in _refusals(mirror):
        assert f"{ours / name}".rstrip("/") in said
        assert "belongs to user 65534, who may have put anything there" in said
        assert "run as that user; or chown -R 0" in said
    assert exact_state(root) == before
    os.chown(ours / name, 0, 0)
    mirror.apply([write("x", b"2")])
    assert mirror.verify() == []


@pytest.mark.parametrize("name", ALL_OF_OURS)
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_folder_that_others_may_write_to_is_refused(
    mirror: Mirror, root: Path, ours: Path, name: str, bits: int
) -> None:
    mode = (ours / name).stat().st_mode
    (ours / name).chmod(mode | bits)
    before = exact_state(root)
    for said in _refusals(mirror):
        assert f"{ours / name}".rstrip("/") in said
        assert "others may write to it (if nobody has, chmod go-w it; else remove" in said
    assert exact_state(root) == before
    (ours / name).chmod(mode)
    mirror.apply([write("x", b"2")])
    assert mirror.verify() == []


def test_owners_are_not_asked_for_where_a_file_system_tells_none(
    mirror: Mirror,
    ours: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(f"{_ours.__name__}.mounts_below", lambda _fd: ("vfat", frozenset()))
    (ours / "ledger.sqlite3").chmod(0o666)
    for _ in range(2):
        mirror.apply([write("x", b"2")])
        assert mirror.verify() == []
    assert len([line for line in caplog.messages if "(vfat) tells no owners" in line]) == 1


def test_mirror_is_kept_where_descriptors_can_not_be_listed(
    mirror: Mirror, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir

    def refuse(path: str | int = ".") -> list[str]:
        if path == "/dev/fd":
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", refuse)
    mirror.apply([write("x", b"2")])
    assert mirror.verify() == []
    assert ours.is_dir()


@pytest.mark.root
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("beside", BESIDE)
def test_planted_file_beside_the_ledger_is_refused(mirror: Mirror, ours: Path, beside: str) -> None:
    planted = ours / f"ledger.sqlite3{beside}"
    planted.write_bytes(b"planted")
    os.chown(planted, OTHER, OTHER)
    for said in _refusals(mirror):
        assert f"{planted}: belongs to user 65534" in said
    assert planted.read_bytes() == b"planted"


@pytest.mark.root
@pytest.mark.usefixtures("as_root")
def test_user_uses_a_mirror_of_its_own_and_none_of_root(
    mirror: Mirror, root: Path, ours: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    root.chmod(0o777)

    def work(path: Path) -> str:
        with Mirror(path) as opened:
            opened.apply([write("x", b"theirs")])
            return f"{opened.verify()}"

    assert _as_other(partial(work, theirs)) == "'[]'"
    assert "can't be written: Permission denied" in _as_other(partial(work, root))
    assert "Permission denied (grant this user read access)" in _as_other(mirror.status)
    assert (root / "x").read_bytes() == b"1"
    # Root does not rely on what a user wrote, not even to look at it.
    for said in _refusals(Mirror(theirs)):
        assert f"{theirs}/.fsmirror: belongs to user 65534" in said
    assert snapshot(theirs) == {"x": b"theirs"}


@pytest.mark.parametrize("beside", ["", *BESIDE])
def test_linked_file_of_the_ledger_is_replaced(
    mirror: Mirror, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    file, outside = ours / f"ledger.sqlite3{beside}", tmp_path / "outside"
    if beside:
        file.write_bytes(b"\0" * 9000)
    os.link(file, outside)
    outside.chmod(0o600)
    before = outside.read_bytes(), outside.stat().st_mode, outside.stat().st_mtime_ns
    (ours / f"{file.name}.new").write_bytes(b"of a crash")
    synced, real = list[int](), os.fsync

    def sync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    mirror.apply([write("y", b"2")])
    mirror.close()
    if not beside:
        assert file.stat().st_ino in synced
    after = outside.read_bytes(), outside.stat().st_mode, outside.stat().st_mtime_ns
    assert after == before
    assert [row.name for row in ledger_rows(mirror)] == ["x", "y"]
    mirror.apply([write("x", b"2")])
    assert backups(Path(mirror.root)) == []


def test_snapshot_of_a_mirror_in_use_keeps_its_ledger(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    mirror.apply([write("x", b"1")])  # The ledger stays open, with its log.
    snapped, ours = tmp_path / "snapped", root / ".fsmirror"
    snapped.mkdir()
    for file in ours.glob("ledger.sqlite3*"):
        os.link(file, snapped / file.name)
    assert len(os.listdir(snapped)) == 3
    before = {path.name: path.read_bytes() for path in snapped.iterdir()}
    with pytest.raises(LedgerError, match="is in use, and has hard links elsewhere"):
        mirror.status()
    mirror.apply([write("x", b"2"), write("y", b"2")])
    mirror.close()
    assert {path.name: path.read_bytes() for path in snapped.iterdir()} == before
    assert [row.name for row in ledger_rows(mirror)] == ["x", "y"]
    assert (backups(root), mirror.verify(content=True)) == ([], [])


@pytest.mark.parametrize("beside", BESIDE)
def test_link_beside_the_ledger_is_not_followed(
    mirror: Mirror, ours: Path, tmp_path: Path, beside: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_bytes(b"victim")
    for target in ("victim", "new"):
        (ours / f"ledger.sqlite3{beside}").symlink_to(tmp_path / "outside" / target)
        before = exact_state(tmp_path / "outside")
        for act in (partial(mirror.apply, [write("x", b"2")]), mirror.status, mirror.close):
            with contextlib.suppress(FsMirrorError):
                act()
        assert exact_state(tmp_path / "outside") == before
        (ours / f"ledger.sqlite3{beside}").unlink()


@pytest.mark.parametrize("beside", ["", *BESIDE])
def test_pipe_in_the_place_of_a_file_is_not_waited_for(
    mirror: Mirror, ours: Path, beside: str
) -> None:
    mirror.close()
    (ours / f"ledger.sqlite3{beside}").unlink(missing_ok=True)
    os.mkfifo(ours / f"ledger.sqlite3{beside}")
    with pytest.raises(LedgerError, match=f"{ours}/ledger.sqlite3{beside}: not a regular file"):
        mirror.status()
    mirror.apply([write("x", b"1")])
    assert mirror.verify() == []


PLANTED = {
    "a trigger called as a table": "CREATE TRIGGER rows AFTER INSERT ON rows BEGIN SELECT 1; END",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
    "a view": "CREATE VIEW v AS SELECT * FROM rows",
    "an index": "CREATE INDEX i ON rows (owner)",
    "a table": "CREATE TABLE t (x)",
    "a view in the place of a table": (
        "DROP TABLE displaced; CREATE VIEW displaced AS SELECT 1 AS name"
    ),
    "a virtual table": "DROP TABLE displaced; CREATE VIRTUAL TABLE displaced USING fts5(name)",
}


@pytest.mark.parametrize("planted", PLANTED)
def test_ledger_with_a_schema_that_no_release_stores_is_set_aside(
    mirror: Mirror, root: Path, ours: Path, planted: str
) -> None:
    with sqlite3.connect(ours / "ledger.sqlite3") as connection:
        connection.executescript(PLANTED[planted])
    connection.close()
    with pytest.raises(LedgerError, match="that no release stores"):
        mirror.status()
    mirror.apply([write("x", b"1"), write("y", b"2")])
    assert [row.name for row in ledger_rows(mirror)] == ["x", "y"]
    assert len([*ours.glob("ledger.sqlite3.corrupt-*")]) == 1
    assert snapshot(root) == {"x": b"1", "y": b"2"}


def test_view_in_the_place_of_the_format_is_not_asked(mirror: Mirror, ours: Path) -> None:
    with sqlite3.connect(ours / "ledger.sqlite3") as connection:
        view = "SELECT 'format' AS key, 4 AS value"
        connection.executescript(f"DROP TABLE meta; CREATE VIEW meta AS {view}")
    connection.close()
    with pytest.raises(LedgerError, match="has no format"):
        mirror.status()
    mirror.apply([write("x", b"1")])
    assert mirror.verify() == []
