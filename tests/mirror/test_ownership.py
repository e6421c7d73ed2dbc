"""Ownership decides the fate of bytes that are found at a path."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, ConflictError, Mirror
from cocoindex_fsmirror._core.ownership import OnConflict
from cocoindex_fsmirror._disk import homes
from tests.steps import identity, run_failing
from tests.support import OWNER, backups, contents, delete, exact_state, failing, snapshot, write

POLICIES: tuple[OnConflict, ...] = ("backup", "overwrite", "error")
Foreign = Callable[[Path], None]


def _file(path: Path) -> None:
    path.write_bytes(b"foreign")


def _link(path: Path) -> None:
    path.symlink_to("inside")


def _dangling(path: Path) -> None:
    path.symlink_to("no/where")


def _link_out(path: Path) -> None:
    outside = path.parents[2] / "outside"
    outside.write_bytes(b"outside")
    path.symlink_to(outside)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


FOREIGN: dict[str, Foreign] = {
    "file": _file,
    "link": _link,
    "dangling link": _dangling,
    "link out of the root": _link_out,
    "fifo": _fifo,
}


def _shown(path: Path) -> tuple[object, ...]:
    """Returns the state of a path, in a form that is recognised elsewhere."""
    seen = path.lstat()
    target = os.readlink(path) if stat.S_ISLNK(seen.st_mode) else None
    content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else None
    return seen.st_ino, seen.st_mode, seen.st_mtime_ns, target, content


def _backed_up(root: Path, name: str) -> list[Path]:
    """Returns the backup of a path, over all batches."""
    area = root / ".fsmirror" / "backup"
    moments = sorted(area.iterdir()) if area.exists() else []
    return [moment / name for moment in moments if os.path.lexists(moment / name)]


def _only_failure(error: pytest.ExceptionInfo[ApplyError]) -> ConflictError:
    """Returns the single conflict in a group."""
    (failure,) = error.value.exceptions
    assert isinstance(failure, ConflictError)
    return failure


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("policy", POLICIES)
def test_write_treats_foreign_bytes_by_the_policy(
    mirror: Mirror, root: Path, kind: str, policy: OnConflict
) -> None:
    path = root / "d" / "x"
    path.parent.mkdir()
    FOREIGN[kind](path)
    before = _shown(path)
    intent = write("d/x", b"new", on_conflict=policy)
    if policy == "error":
        with pytest.raises(ApplyError) as error:
            mirror.apply([intent, write("neighbour", b"1")])
        assert _only_failure(error).path == "d/x"
        assert _shown(path) == before
        assert (root / "neighbour").read_bytes() == b"1"
    else:
        mirror.apply([intent])
        assert not path.is_symlink()
        assert path.read_bytes() == b"new"
    kept = [_shown(where) for where in _backed_up(root, "d/x")]
    assert kept == ([before] if policy == "backup" else [])
    if kind == "link out of the root":
        assert (root.parent / "outside").read_bytes() == b"outside"
    assert mirror.verify() == []


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("policy", POLICIES)
def test_delete_treats_foreign_bytes_by_the_policy(
    mirror: Mirror, root: Path, kind: str, policy: OnConflict
) -> None:
    mirror.apply([write("d/x", b"ours"), write("d/keep", b"1")])
    path = root / "d" / "x"
    path.unlink()
    FOREIGN[kind](path)
    before = _shown(path)
    if policy == "error":
        with pytest.raises(ApplyError) as error:
            mirror.apply([delete("d/x", on_conflict=policy)])
        assert _only_failure(error).path == "d/x"
        assert _shown(path) == before
    else:
        mirror.apply([delete("d/x", on_conflict=policy)])
        assert not os.path.lexists(path)
    kept = [_shown(where) for where in _backed_up(root, "d/x")]
    assert kept == ([before] if policy == "backup" else [])
    if kind == "link out of the root":
        assert (root.parent / "outside").read_bytes() == b"outside"


@pytest.mark.parametrize("policy", POLICIES)
def test_edited_file_of_ours_is_foreign(mirror: Mirror, root: Path, policy: OnConflict) -> None:
    mirror.apply([write("x", b"ours")])
    (root / "x").write_bytes(b"edited")
    if policy == "error":
        with pytest.raises(ApplyError, match="'x'"):
            mirror.apply([write("x", b"new", on_conflict=policy)])
    else:
        mirror.apply([write("x", b"new", on_conflict=policy)])
    assert (root / "x").read_bytes() == (b"edited" if policy == "error" else b"new")
    assert backups(root) == ([b"edited"] if policy == "backup" else [])


@pytest.mark.parametrize("policy", POLICIES)
def test_touched_file_is_ours(mirror: Mirror, root: Path, policy: OnConflict) -> None:
    mirror.apply([write("x", b"ours"), write("y", b"ours too")])
    for name in ("x", "y"):
        os.utime(root / name, ns=(1, 1))
    mirror.apply([write("x", b"new", on_conflict=policy), delete("y", on_conflict=policy)])
    assert snapshot(root) == {"x": b"new"}
    assert backups(root) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_file_known_to_the_engine_is_ours_without_a_row(
    mirror: Mirror, root: Path, policy: OnConflict
) -> None:
    (root / "x").write_bytes(b"earlier")
    (root / "y").write_bytes(b"earlier")
    ours = (write("x", b"earlier").desired.digest,)
    mirror.apply(
        [
            write("x", b"new", ours=ours, on_conflict=policy),
            delete("y", ours=ours, on_conflict=policy),
        ]
    )
    assert snapshot(root) == {"x": b"new"}
    assert backups(root) == []


def test_delete_of_a_path_that_was_never_ours_leaves_it(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"foreign")
    for policy in POLICIES:
        mirror.apply([delete("x", on_conflict=policy)])
    assert snapshot(root) == {"x": b"foreign"}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("inside", [[], ["theirs"], ["deep/theirs"]])
def test_foreign_folder_fails_with_the_names_of_its_contents(
    mirror: Mirror, root: Path, policy: OnConflict, inside: list[str]
) -> None:
    (root / "x").mkdir()
    for name in inside:
        (root / "x" / name).parent.mkdir(exist_ok=True)
        (root / "x" / name).write_bytes(b"foreign")
    before = snapshot(root)
    with pytest.raises(ApplyError) as error:
        mirror.apply([write("x", b"new", on_conflict=policy)])
    assert all(name in str(_only_failure(error)) for name in inside)
    assert snapshot(root) == before


@pytest.mark.parametrize("policy", POLICIES)
def test_folder_of_ours_with_a_foreign_file_stays_whole(
    mirror: Mirror, root: Path, policy: OnConflict
) -> None:
    mirror.apply([write("x/ours", b"1")])
    (root / "x" / "theirs").write_bytes(b"2")
    before = snapshot(root)
    with failing("theirs"):
        mirror.apply([write("x", b"new", on_conflict=policy), delete("x/ours")])
    assert contents(snapshot(root)).items() >= {"x/theirs": b"2"}.items()
    assert set(snapshot(root)) <= set(before)


def test_folder_with_only_our_files_gives_way(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x/a", b"1"), write("x/deep/b", b"2")])
    mirror.apply([write("x", b"new"), delete("x/a"), delete("x/deep/b")])
    assert snapshot(root) == {"x": b"new"}
    assert backups(root) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_identical_foreign_file_is_adopted_without_a_write(
    mirror: Mirror, root: Path, policy: OnConflict
) -> None:
    (root / "x").write_bytes(b"same")
    before = identity(root / "x")
    mirror.apply([write("x", b"same", on_conflict=policy)])
    assert identity(root / "x") == before
    assert mirror.managed() == ["x"]
    settled = exact_state(root)
    mirror.apply([write("x", b"same", on_conflict=policy)])
    assert exact_state(root) == settled


def test_declared_mode_of_an_adopted_file_is_set(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"same")
    (root / "x").chmod(0o640)
    before = (root / "x").lstat()
    mirror.apply([write("x", b"same", mode=0o755)])
    after = (root / "x").lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert stat.S_IMODE(after.st_mode) == 0o755
    assert mirror.verify() == []


def test_adopted_file_goes_to_the_backup_area_when_it_is_replaced(
    mirror: Mirror, root: Path
) -> None:
    (root / "x").write_bytes(b"theirs")
    digest = write("x", b"theirs").desired.digest
    mirror.apply([write("x", b"theirs")])
    mirror.apply([write("x", b"new", ours=(digest,))])
    assert snapshot(root) == {"x": b"new"}
    assert backups(root) == [b"theirs"]


def test_adopted_file_stays_at_teardown(mirror: Mirror, root: Path) -> None:
    (root / "x").write_bytes(b"theirs")
    mirror.apply([write("x", b"theirs"), write("y", b"ours")])
    mirror.tear_down(OWNER)
    assert snapshot(root) == {"x": b"theirs"}


def test_backups_never_replace_each_other(mirror: Mirror, root: Path) -> None:
    for number in range(20):
        (root / "d").mkdir(exist_ok=True)
        (root / "d" / "x").write_bytes(b"foreign %d" % number)
        mirror.apply([write("d/x", b"new %d" % number)])
    assert [path.read_bytes() for path in _by_content(_backed_up(root, "d/x"))] == sorted(
        b"foreign %d" % number for number in range(20)
    )


def test_backups_of_a_file_and_of_a_path_below_it_do_not_meet(mirror: Mirror, root: Path) -> None:
    (root / "a").write_bytes(b"foreign a")
    mirror.apply([write("a/b", b"1")])
    (root / "a" / "b").write_bytes(b"foreign b")
    mirror.apply([write("a/b", b"2")])
    (root / "a" / "b").unlink()
    (root / "a").rmdir()
    (root / "a").write_bytes(b"foreign a again")
    mirror.apply([write("a/b", b"2")])
    assert backups(root) == [b"foreign a", b"foreign a again", b"foreign b"]
    assert len(_backed_up(root, "a/b")) == 1


def test_bytes_that_can_not_be_backed_up_are_not_lost(mirror: Mirror, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "x").write_bytes(b"foreign")

    def write_it() -> None:
        with pytest.raises(ApplyError, match="d/x"):
            mirror.apply([write("d/x", b"new")])

    def recover() -> None:
        mirror.apply([write("y", b"new")])

    def makes_backups(call: str, args: tuple[object, ...]) -> bool:
        return call == "mkdir" and args[0] == "backup"

    assert run_failing(write_it, makes_backups, errno.ENOSPC) > 0
    assert run_failing(recover, makes_backups, errno.ENOSPC) > 0
    mirror.apply([write("d/x", b"new")])
    assert (root / "d" / "x").read_bytes() == b"new"
    assert [path.read_bytes() for path in _backed_up(root, "d/x")] == [b"foreign"]


def test_failed_backup_leaves_no_folders_for_it(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d").mkdir()
    (root / "d" / "x").write_bytes(b"foreign")

    def fail(*_args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(homes, "move", fail)
    with failing("Input/output error"):
        mirror.apply([write("d/x", b"new")])
    assert not (root / ".fsmirror" / "backup").exists()


def _by_content(paths: list[Path]) -> list[Path]:
    """Sorts paths by their contents."""
    return sorted(paths, key=lambda path: path.read_bytes())
