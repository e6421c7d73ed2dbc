"""Backups are listed, put back and removed for good, and no link is ever followed."""

from __future__ import annotations

import calendar
import contextlib
import errno
import inspect
import itertools
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import (
    ApplyError,
    BarrierError,
    ConflictError,
    FsMirrorError,
    InvalidNameError,
    Mirror,
    PathError,
    RootError,
)
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror import exits as _exits
from cocoindex_fsmirror._mirror.backups import (
    Backup,
    find,
    find_backups,
    parse_age,
    purge,
    restore,
)
from tests.disk.test_names_on_disk import NASTY
from tests.steps import crashes, recorded, run_failing, run_with_event
from tests.support import Mount, exact_state, failing, snapshot, write

_T = TypeVar("_T")
STAMP = "2026-11-23T222812Z"
AREA = f".fsmirror/backup/{STAMP}"

pytestmark = pytest.mark.usefixtures("no_waiting")


def _locked(mirror: Mirror, act: Callable[[Tree], _T]) -> _T:
    """What comes of something that is done with the root locked."""
    return mirror.session.run(lambda tree, _ledger: act(tree), create=True)


def _listed(mirror: Mirror, *homes: str) -> list[Backup]:
    """The backups of a mirror."""
    return _locked(mirror, lambda tree: find_backups(tree, map(Name, homes)))


def _restore(mirror: Mirror, backup: Backup, to: str | None = None) -> None:
    """Puts a backup back."""
    _locked(mirror, lambda tree: restore(tree, backup, backup.name if to is None else Name(to)))


def _purge(mirror: Mirror, backups: Iterable[Backup]) -> tuple[int, int]:
    """Removes backups for good."""
    return _locked(mirror, lambda tree: purge(tree, backups))


def _files(backups: Iterable[Backup]) -> list[Backup]:
    """Those that are files, and not folders that a crash or another mount left empty."""
    return [backup for backup in backups if backup.kind == "file"]


def _wheres(backups: Iterable[Backup]) -> list[str]:
    """Where backups are, below the backup area."""
    return [backup.where.removeprefix(".fsmirror/backup/") for backup in backups]


def _ours(root: Path) -> dict[str, bytes | str]:
    """What is in the backup area, itself included; it is the only thing of ours that lasts."""
    found = snapshot(root, ours=True)
    return {name: state for name, state in found.items() if name.partition("/")[0] == "backup"}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the time by which the next backups are called."""
    return lambda stamp: monkeypatch.setattr(_exits, "stamp_now", lambda: stamp)


@pytest.fixture(autouse=True)
def _one_moment(at: Callable[[str], None]) -> None:
    """Unless a test says otherwise, all happens in one second."""
    at(STAMP)


def _displace(mirror: Mirror, *names: str, content: bytes = b"foreign") -> None:
    """Has foreign files make way for declared ones."""
    for name in names:
        path = Path(mirror.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    mirror.apply([write(name, b"ours " + os.urandom(8), durable=False) for name in names])


def _displace_tree(mirror: Mirror, name: str) -> None:
    """Moves a whole folder to the backup area, as recovery does with what it finds."""
    _locked(mirror, lambda tree: tree.back_up(Name(name), STAMP))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder next to the root, with files under the names that are used here."""
    top = tmp_path / "outside"
    for name in ("x", f"{STAMP}/x", f"{STAMP}/d/x", f"backup/{STAMP}/x"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"outside")
    (top / STAMP / "empty").mkdir()
    return top


def _tries(tmp_path: Path) -> Iterator[tuple[int, Path, Mirror, Backup]]:
    """One root with one backup after the other, each with a number."""
    for k in itertools.count():
        root = tmp_path / f"root{k}"
        with Mirror(root) as mirror:
            mirror.create()
            _displace(mirror, "d/e/x", content=b"foreign%d" % k)
            yield k, root, mirror, _listed(mirror)[0]


def _disturbed(
    mirror: Mirror, act: Callable[[Tree], None], event: Callable[[], object], k: int
) -> bool:
    """Does something with an event before its k-th call; false if it has fewer."""

    def happen() -> None:
        event()

    return _locked(mirror, lambda tree: run_with_event(partial(act, tree), happen, k))


def _copies(root: Path, content: bytes) -> list[str]:
    """Where a content is, anywhere in a root."""
    ours = {f".fsmirror/{name}": state for name, state in snapshot(root, ours=True).items()}
    return sorted(n for n, state in (snapshot(root) | ours).items() if state == content)


# Listing


def test_where_nothing_had_to_make_way_there_is_nothing_to_list(mirror: Mirror) -> None:
    assert _listed(mirror, "no/such") == []
    mirror.apply([write("x", b"1", durable=False)])
    assert _listed(mirror) == []


def test_whatever_made_way_is_listed_with_all_that_is_known_of_it(
    mirror: Mirror, root: Path
) -> None:
    (root / "link").symlink_to("no/wheré")
    os.mkfifo(root / "fifo")
    (root / "tree" / "empty").mkdir(parents=True)
    (root / "tree" / "inner").write_bytes(b"12")
    _displace(mirror, "docs/a.md", content=b"12345")
    mirror.apply([write("link", b"1"), write("fifo", b"1")])
    _displace_tree(mirror, "tree")
    time_ns = calendar.timegm((2026, 11, 23, 22, 28, 12)) * 1_000_000_000
    expected = [
        ("docs/a.md", "file", 5),
        ("fifo", "other", 0),
        ("link", "link", len("no/wheré".encode())),
        ("tree/empty", "dir", 0),
        ("tree/inner", "file", 2),
    ]
    assert _listed(mirror) == [
        Backup(Name(f"{AREA}/{name}"), Name(name), STAMP, time_ns, kind, size)  # type: ignore[arg-type]
        for name, kind, size in expected
    ]


def test_the_times_that_are_written_are_read(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_exits, "stamp_now", _calls.stamp_now)
    _displace(mirror, "x")
    (backup,) = _listed(mirror)
    seconds = time.gmtime(backup.time_ns // 1_000_000_000)
    assert time.strftime("%Y-%m-%dT%H%M%SZ", seconds) == backup.stamp


def test_the_oldest_is_first_and_names_decide_within_one_folder(
    mirror: Mirror, at: Callable[[str], None]
) -> None:
    for stamp, names in (
        ("2027-01-01T000000Z", ["b", "a"]),
        ("2026-12-31T235959Z", ["z"]),
        ("2026-12-31T090000Z", ["y/x", "y-x", "b"]),
    ):
        at(stamp)
        _displace(mirror, *names)
    assert _wheres(_listed(mirror)) == [
        "2026-12-31T090000Z/b",
        "2026-12-31T090000Z/y-x",
        "2026-12-31T090000Z/y/x",
        "2026-12-31T235959Z/z",
        "2027-01-01T000000Z/a",
        "2027-01-01T000000Z/b",
    ]


def test_backups_of_one_path_in_one_second_are_told_apart_and_in_order(
    mirror: Mirror, root: Path
) -> None:
    for number in range(12):
        _displace(mirror, "d/x", content=b"%d" % number)
    found = _listed(mirror)
    assert [(root / backup.where).read_bytes() for backup in found] == [
        b"%d" % n for n in range(12)
    ]
    assert {backup.name for backup in found} == {"d/x"}
    assert len({backup.time_ns for backup in found}) == 1
    (root / "d" / "x").unlink()
    _restore(mirror, found[10])
    assert (root / "d" / "x").read_bytes() == b"10"
    assert _listed(mirror) == [*found[:10], found[11]]


def test_what_we_never_put_into_the_backup_area_is_not_listed_and_stays(
    mirror: Mirror, root: Path
) -> None:
    area = root / ".fsmirror" / "backup"
    stray = ["mine", "2026-13-45T000000Z", f"{STAMP}.0", f"{STAMP}.x", "٢٠٢٦-11-23T222812Z"]
    for name in stray:
        (area / name).mkdir(parents=True)
        (area / name / "x").write_bytes(b"1")
    (area / "2026-11-23T222813Z").write_bytes(b"a file")
    (area / "2026-11-23T222814Z").mkdir()
    before = snapshot(root, ours=True).keys()
    _displace(mirror, "x")
    found = _listed(mirror)
    assert _wheres(found) == [f"{STAMP}/x"]
    assert _purge(mirror, found) == (1, len(b"foreign"))
    assert before <= snapshot(root, ours=True).keys()


@pytest.mark.parametrize("vanishing", [".fsmirror/backup", f"{AREA}/d/e", f"{AREA}/d/e/x"])
def test_a_listing_survives_that_something_vanishes_at_any_step(
    tmp_path: Path, vanishing: str
) -> None:
    for k, root, mirror, _ in _tries(tmp_path):

        def act(tree: Tree) -> None:
            found = {(backup.name, backup.kind) for backup in find_backups(tree)}
            assert found <= {("d", "dir"), ("d/e", "dir"), ("d/e/x", "file")}

        gone = partial((root / vanishing).rename, root / "gone")
        if not _disturbed(mirror, act, gone, k):
            break
    assert k > 8


def test_a_folder_that_may_not_be_read_is_listed_as_one_and_can_be_put_back(
    mirror: Mirror, root: Path
) -> None:
    (root / "closed" / "in").mkdir(parents=True)
    (root / "closed" / "in" / "x").write_bytes(b"1")
    _displace_tree(mirror, "closed")
    found: list[Backup] = []
    act = partial(_extend, found, mirror)
    assert run_failing(act, _call("open", "in"), errno.EACCES) == 1
    assert [(backup.name, backup.kind) for backup in found] == [("closed/in", "dir")]
    with failing(r"something in it.*closed to this user"):
        _purge(mirror, found)
    _restore(mirror, found[0])
    assert (root / "closed" / "in" / "x").read_bytes() == b"1"


def test_what_may_not_be_looked_at_is_listed_as_of_no_known_kind(mirror: Mirror) -> None:
    _displace(mirror, "d/x", "y")
    found: list[Backup] = []
    run_failing(partial(_extend, found, mirror), _call("stat", "x"), errno.EACCES)
    assert [(backup.name, backup.kind) for backup in found] == [("d/x", "other"), ("y", "file")]


def test_a_disk_that_fails_is_not_taken_for_an_empty_one(mirror: Mirror) -> None:
    _displace(mirror, "d/x")
    with pytest.raises(RootError, match="Input/output error"):
        run_failing(partial(_extend, [], mirror), _call("listdir"), errno.EIO)


def _extend(found: list[Backup], mirror: Mirror) -> None:
    """Lists the backups, and keeps what was found."""
    found += _listed(mirror)


def _call(name: str, first: str | None = None) -> Callable[[str, tuple[object, ...]], bool]:
    """Whether a call is this one, perhaps with this as its first argument."""
    return lambda called, args: called == name and first in (None, args[0])


# Putting back


def test_a_file_is_put_back_as_it_was_and_its_folders_go(mirror: Mirror, root: Path) -> None:
    (root / "docs").mkdir()
    (root / "docs" / "a").write_bytes(b"foreign")
    os.utime(root / "docs" / "a", ns=(1, 1))
    (root / "docs" / "a").chmod(0o604)
    before = (root / "docs" / "a").lstat()
    mirror.apply([write("docs/a", b"ours")])
    (root / "docs" / "a").unlink()
    (backup,) = _listed(mirror)
    _restore(mirror, backup)
    after = (root / "docs" / "a").lstat()
    kept = ("st_ino", "st_mtime_ns", "st_mode", "st_size", "st_uid")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert _ours(root) == {}
    assert mirror.managed() == mirror.verify() == ["docs/a"]  # It is foreign all the same.


@pytest.mark.parametrize("exchange", [True, False])
def test_every_kind_is_put_back(
    mirror: Mirror, root: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d" / "empty").mkdir(parents=True)
    (root / "d" / "link").symlink_to("/etc")
    os.mkfifo(root / "d" / "fifo")
    (root / "d" / "file").write_bytes(b"1")
    before = snapshot(root)
    _displace_tree(mirror, "d")
    if not exchange:
        monkeypatch.setattr(_calls, "renameat2", None)
    for backup in _listed(mirror):
        _restore(mirror, backup)
    assert snapshot(root) == before
    assert _ours(root) == {}


def test_missing_folders_are_made_as_by_anybody(mirror: Mirror, root: Path) -> None:
    _displace(mirror, "x")
    (backup,) = _listed(mirror)
    _restore(mirror, backup, "new/er/y")
    assert (root / "new" / "er" / "y").read_bytes() == b"foreign"
    umask = os.umask(0)
    os.umask(umask)
    assert (root / "new" / "er").stat().st_mode & 0o777 == 0o777 & ~umask


_IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"theirs"),
    "empty folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/etc"),
    "broken link": lambda path: path.symlink_to("no/where"),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("kind", _IN_THE_WAY)
def test_nothing_that_is_there_is_replaced(
    mirror: Mirror, root: Path, kind: str, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "tree" / "empty").mkdir(parents=True)
    _displace(mirror, "x")
    _displace_tree(mirror, "tree")
    _IN_THE_WAY[kind](root / "taken")
    found = _listed(mirror)
    if not exchange:
        monkeypatch.setattr(_calls, "renameat2", None)
    before = exact_state(root)
    for backup in found:
        with pytest.raises(ConflictError, match=r"'taken'.*there already.*another path"):
            _restore(mirror, backup, "taken")
    assert exact_state(root).keys() == before.keys()
    assert _listed(mirror) == found
    assert snapshot(root) == {"x": (root / "x").read_bytes()} | _shown(root, "taken")


def _shown(root: Path, name: str) -> dict[str, bytes | str]:
    """One path as in a snapshot."""
    return {name: snapshot(root)[name]}


@pytest.mark.parametrize("kind", sorted(_IN_THE_WAY.keys() - {"empty folder"}))
def test_a_folder_is_not_made_where_something_else_is(
    mirror: Mirror, root: Path, outside: Path, kind: str
) -> None:
    _displace(mirror, "x")
    (root / "a").mkdir()
    if kind == "link":
        (root / "a" / "b").symlink_to(outside)
    else:
        _IN_THE_WAY[kind](root / "a" / "b")
    (backup,) = _listed(mirror)
    before = exact_state(root), exact_state(outside)
    for below in ("a/b/y", "a/b/c/y"):
        with pytest.raises(ConflictError, match=f"'{below}': 'a/b' is not a folder"):
            _restore(mirror, backup, below)
    assert (exact_state(root), exact_state(outside)) == before


@pytest.mark.parametrize(
    "name", ["", ".fsmirror/x", f"{AREA}/y", "d/.fsmirror/x", "d/.FSMirror", "../x", "d/../../x"]
)
def test_a_backup_goes_neither_outside_nor_into_our_own_folder(
    mirror: Mirror, root: Path, name: str
) -> None:
    _displace(mirror, "x")
    before = exact_state(root.parent)
    (backup,) = _listed(mirror)
    with pytest.raises(InvalidNameError):
        _restore(mirror, backup, name)
    assert exact_state(root.parent) == before


def test_a_backup_that_is_gone_is_an_error_that_makes_no_folders(
    mirror: Mirror, root: Path
) -> None:
    _displace(mirror, "x")
    (backup,) = _listed(mirror)
    _purge(mirror, [backup])
    with pytest.raises(PathError, match=r"'new/y'.*is gone.*list"):
        _restore(mirror, backup, "new/y")
    assert snapshot(root).keys() == {"x"}


def test_where_the_move_fails_the_folders_that_were_made_for_it_go(
    mirror: Mirror, root: Path
) -> None:
    _displace(mirror, "x")
    (root / "there").mkdir()
    (backup,) = _listed(mirror)
    before = snapshot(root)
    act = partial(_restore, mirror, backup, "there/a/b/y")
    with pytest.raises(PathError, match=f"'there/a/b/y': No space left.*{AREA}"):
        run_failing(act, _call("renameat2"), errno.ENOSPC)
    assert snapshot(root) == before
    assert _listed(mirror) == [backup]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_death_at_any_step_leaves_the_backup_at_one_of_its_two_places(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(_calls, "renameat2", None)
    before, after = f"{AREA}/d/e/x", "d/e/new/y"
    seen: list[list[str]] = []
    for k, root, mirror, backup in _tries(tmp_path):
        mirror.close()
        more = crashes(partial(_restore, mirror, backup, after), k)
        seen.append(_copies(root, b"foreign%d" % k))
        listed = [backup.where for backup in _files(_listed(mirror))]
        assert listed == [name for name in seen[-1] if name == before]
        if after not in seen[-1]:
            _restore(mirror, backup, after)
        assert (root / after).read_bytes() == b"foreign%d" % k
        if not more:
            break
    # Where a link and an unlink take the place of the rename, it has two names for a moment.
    between = [] if exchange else [[before, after]]
    assert [places for places, _ in itertools.groupby(seen)] == [[before], *between, [after]]


@pytest.mark.parametrize("swapped", ["d", "d/e", "d/e/new", ".fsmirror", ".fsmirror/backup", AREA])
def test_a_folder_that_becomes_a_link_at_any_step_leads_nowhere(
    tmp_path: Path, outside: Path, swapped: str
) -> None:
    before = exact_state(outside)
    for k, root, mirror, backup in _tries(tmp_path):

        def act(tree: Tree, backup: Backup = backup) -> None:
            with contextlib.suppress(FsMirrorError):
                restore(tree, backup, Name("d/e/new/y"))

        more = _disturbed(mirror, act, partial(_swap, root, swapped, outside), k)
        assert exact_state(outside) == before, f"changed by a swap before call {k}"
        assert len(_copies(root, b"foreign%d" % k)) == 1
        if not more:
            break
    assert k > 15


def _swap(root: Path, swapped: str, outside: Path) -> None:
    """Puts a link where a folder was; the folder stays inside the root."""
    with contextlib.suppress(FileNotFoundError):
        (root / swapped).rename(root / "aside")
        (root / swapped).symlink_to(outside)


# Durability


def test_when_it_returns_the_move_is_on_the_disk(mirror: Mirror) -> None:
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    _displace(mirror, "d/x")
    (backup,) = _listed(mirror)
    with recorded() as calls:
        _restore(mirror, backup, "new/y")
    names = [name for name, _ in calls if name in ("mkdir", "renameat2", "rmdir", "syncfs")]
    assert names[-1] == "syncfs"
    assert names.count("syncfs") == names.count("renameat2") == 1


def test_where_folders_are_synced_one_by_one_the_new_name_comes_first(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "syncfs", None)
    _calls.say_once.cache_clear()
    _displace(mirror, "d/x", "d/stays")
    backup = _listed(mirror)[1]
    folders = {path.stat().st_ino: str(path.relative_to(root)) for path in [root, root / "d"]}
    for path in (root / AREA, root / AREA / "d"):
        folders[path.stat().st_ino] = str(path.relative_to(root))
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(folders.get(os.fstat(fd).st_ino, "?"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    (root / "d" / "x").unlink()
    _restore(mirror, backup)
    assert synced[:2] == ["d", "."]
    assert synced[-1] == f"{AREA}/d"


def test_a_disk_that_does_not_confirm_is_not_believed(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    _displace(mirror, "x")
    (backup,) = _listed(mirror)
    with pytest.raises(BarrierError, match="'y' was restored, but syncing failed"):
        run_failing(partial(_restore, mirror, backup, "y"), _call("syncfs"), errno.EIO)
    assert (root / "y").read_bytes() == b"foreign"


# Names


UNUSUAL = [*NASTY, os.fsdecode(b"not \xff text"), "d\udcff/x", f"{'n' * 255}.d"[:254] + "/y"]


def test_nasty_names_are_listed_put_back_and_removed(mirror: Mirror, root: Path) -> None:
    for name in UNUSUAL:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"1")

    def act(tree: Tree) -> None:
        for name in UNUSUAL:
            tree.back_up(Name(name), STAMP)

    for _ in range(2):
        _locked(mirror, act)
        found = _listed(mirror)
        assert sorted(backup.name for backup in found) == sorted(UNUSUAL)
        assert [find(found, name) for name in UNUSUAL] == [
            [backup for backup in found if backup.name == name] for name in UNUSUAL
        ]
        for backup in found:
            _restore(mirror, backup)
        assert {name for name, state in snapshot(root).items() if state == b"1"} == set(UNUSUAL)
        assert _ours(root) == {}
    _locked(mirror, act)
    assert _purge(mirror, _listed(mirror)) == (len(UNUSUAL), len(UNUSUAL))
    assert _ours(root) == {}


def test_the_backup_of_another_mirror_is_listed_but_goes_only_where_it_may(
    mirror: Mirror, root: Path
) -> None:
    """A whole folder that was a mirror: its own ``.fsmirror`` may not be made anew in ours."""
    inner = root / "sub" / AREA
    inner.mkdir(parents=True)
    (inner / "x").write_bytes(b"1")
    _displace_tree(mirror, "sub")
    (backup,) = _listed(mirror)
    assert backup.name == f"sub/{AREA}/x"
    with pytest.raises(InvalidNameError):
        _restore(mirror, backup)
    _restore(mirror, backup, "sub/x")
    assert snapshot(root) == {"sub": "dir", "sub/x": b"1"}
    assert _ours(root) == {}


def test_very_deep_backups_need_neither_frames_nor_descriptors(mirror: Mirror, root: Path) -> None:
    deep, usual = "/".join(["d"] * 300), sys.getrecursionlimit()
    made = os.open(root, os.O_RDONLY)
    for part in deep.split("/"):
        os.mkdir(part, dir_fd=made)
        below = os.open(part, os.O_RDONLY, dir_fd=made)
        os.close(made)
        made = below
    os.close(made)
    _displace_tree(mirror, "d")
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        (backup,) = _listed(mirror)
        _restore(mirror, backup, f"e/{deep}")
        _displace_tree(mirror, "e")
        purged = _purge(mirror, _listed(mirror))
    finally:
        sys.setrecursionlimit(usual)
    assert (backup.name, purged) == (deep, (1, 0))
    assert _ours(root) == {}


def test_with_few_descriptors_the_right_file_is_moved(mirror: Mirror, root: Path) -> None:
    _displace(mirror, "a/b/c/d/x")
    decoys = ["t", "t/u", "t/u/v", "t/u/v/w"]
    (root / decoys[-1]).mkdir(parents=True)
    for folder in decoys:
        (root / folder / "x").write_bytes(b"decoy")
    (backup,) = _listed(mirror)
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(map(int, os.listdir("/proc/self/fd"))) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, was[1]))
    try:
        _restore(mirror, backup, "t/u/v/w/y")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
    assert (root / "t/u/v/w/y").read_bytes() == b"foreign"
    assert {(root / folder / "x").read_bytes() for folder in decoys} == {b"decoy"}


def test_the_backups_of_a_mirror_inside_are_its_own(mirror: Mirror, root: Path) -> None:
    """Even if their paths there could be paths here."""
    with Mirror(root / "sub") as inner:
        inner.create()
        _displace(inner, "sub/x")
        assert _listed(mirror, "sub") == []
        assert [backup.name for backup in _listed(inner)] == ["sub/x"]


# Links


@pytest.mark.parametrize("planted", [".fsmirror/backup", AREA, f"{AREA}/d", f"{AREA}/x"])
def test_a_planted_link_is_not_followed(
    mirror: Mirror, root: Path, outside: Path, planted: str
) -> None:
    _displace(mirror, "x", "d/x")
    found = _listed(mirror)
    path = root / planted
    path.rename(root / "aside")
    path.symlink_to(outside / STAMP if planted == f"{AREA}/d" else outside)
    before = exact_state(outside)
    seen = {backup.where: backup.kind for backup in _listed(mirror)}
    if planted.startswith(f"{AREA}/"):
        assert seen.pop(Name(planted)) == "link"
    assert set(seen.values()) <= {"file"}
    assert all(not Path(root, where).resolve().is_relative_to(outside) for where in seen)
    for backup in [*found, *(replace(backup, size=len(b"outside")) for backup in found)]:
        with contextlib.suppress(FsMirrorError):
            _purge(mirror, [backup])
        with contextlib.suppress(FsMirrorError):
            _restore(mirror, backup, f"new/{backup.name}")
    assert exact_state(outside) == before


def test_a_link_is_removed_and_not_what_it_leads_to(
    mirror: Mirror, root: Path, outside: Path
) -> None:
    (root / "link").symlink_to(outside)
    mirror.apply([write("link", b"1")])
    before = exact_state(outside)
    assert _purge(mirror, _listed(mirror)) == (1, len(str(outside)))
    assert exact_state(outside) == before
    assert _ours(root) == {}


# Removing for good


def test_what_is_removed_is_counted_and_emptied_folders_go(mirror: Mirror, root: Path) -> None:
    (root / "tree" / "a" / "b").mkdir(parents=True)
    (root / "tree" / "c").write_bytes(b"123")
    _displace_tree(mirror, "tree")
    _displace(mirror, "d/x", "d/e/y", content=b"12345")
    before = snapshot(root)
    found = _listed(mirror)
    assert _purge(mirror, find(found, "d/x")) == (1, 5)
    assert "backup/" + STAMP + "/d/e/y" in _ours(root)
    assert _purge(mirror, find(found, "d/e/y")) == (1, 5)
    assert {name for name in _ours(root) if name.endswith("/d")} == set()
    assert _purge(mirror, found) == (2, 3)
    assert _ours(root) == {}
    assert _purge(mirror, found) == (0, 0)
    assert snapshot(root) == before
    assert mirror.verify() == []


def test_one_that_is_named_twice_is_counted_once(mirror: Mirror) -> None:
    _displace(mirror, "x", content=b"12")
    assert _purge(mirror, _listed(mirror) * 2) == (1, 2)


def test_only_what_is_older_goes(mirror: Mirror, root: Path, at: Callable[[str], None]) -> None:
    stamps = ["2026-10-01T000000Z", "2026-10-31T235959Z", "2026-11-01T000000Z"]
    for number, stamp in enumerate(stamps):
        at(stamp)
        _displace(mirror, "x", content=b"%d" % number)
    now_ns = calendar.timegm((2026, 12, 1, 0, 0, 0)) * 1_000_000_000
    old = [b for b in _listed(mirror) if b.time_ns < now_ns - parse_age("30d")]
    assert _purge(mirror, old) == (2, 2)
    assert _wheres(_listed(mirror)) == ["2026-11-01T000000Z/x"]
    assert [path.name for path in (root / ".fsmirror" / "backup").iterdir()] == stamps[2:]


def _becomes(path: Path, act: Callable[[Path], object]) -> None:
    """Makes something else of a file."""
    path.unlink()
    act(path)


_CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": lambda path: path.write_bytes(b"longer than it was"),
    "link": lambda path: _becomes(path, lambda path: path.symlink_to("x")),
    "folder": lambda path: _becomes(path, Path.mkdir),
    "full folder": lambda path: _becomes(path, lambda path: (path / "y").mkdir(parents=True)),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_what_changed_since_it_was_listed_stays_and_the_others_go(
    mirror: Mirror, root: Path, change: str
) -> None:
    _displace(mirror, "a", "b", "c")
    found = _listed(mirror)
    _CHANGES[change](root / AREA / "b")
    with pytest.raises(ApplyError) as error:
        _purge(mirror, found)
    (failure,) = error.value.exceptions
    assert isinstance(failure, PathError)
    assert failure.path == f"{AREA}/b"
    assert "changed since it was listed" in str(failure)
    assert os.listdir(root / AREA) == ["b"]


def test_a_folder_that_was_empty_stays_if_something_is_in_it_now(
    mirror: Mirror, root: Path
) -> None:
    (root / "empty").mkdir()
    _displace_tree(mirror, "empty")
    found = _listed(mirror)
    (root / AREA / "empty" / "x").write_bytes(b"1")
    with failing("something in it"):
        _purge(mirror, found)
    assert (root / AREA / "empty" / "x").read_bytes() == b"1"


def test_what_the_system_refuses_to_remove_stays_and_the_others_go(
    mirror: Mirror, root: Path
) -> None:
    _displace(mirror, "a", "b", "c")
    found = _listed(mirror)

    def act() -> None:
        _purge(mirror, found)

    with failing(rf"purge '{AREA}/b': Operation not permitted") as error:
        run_failing(act, _call("unlink", "b"), errno.EPERM)
    assert isinstance(error.value.exceptions[0].__cause__, PermissionError)
    assert os.listdir(root / AREA) == ["b"]


# Other mounts


@pytest.fixture
def bound(mirror: Mirror, root: Path, tmp_path: Path, mount: Mount) -> Path:
    """A folder of another place that is bound into the root, with a backup of its own."""
    (tmp_path / "elsewhere").mkdir()
    point = mount(root / "bound", "--bind", str(tmp_path / "elsewhere"))
    _displace(mirror, "bound/d/x", "y")
    return point


@pytest.mark.root
@pytest.mark.usefixtures("bound")
def test_a_backup_on_a_mount_inside_the_root_is_listed_if_its_home_is_known(
    mirror: Mirror,
) -> None:
    assert [backup.where for backup in _files(_listed(mirror))] == [f"{AREA}/y"]
    found = _files(_listed(mirror, "bound", "bound", "", "no/such"))
    assert [(backup.where, backup.name) for backup in found] == [
        (f"bound/{AREA}/bound/d/x", "bound/d/x"),
        (f"{AREA}/y", "y"),
    ]


@pytest.mark.root
def test_a_backup_on_a_mount_is_put_back_there_and_leaves_no_folder_of_ours(
    mirror: Mirror, root: Path, bound: Path
) -> None:
    (backup,) = find(_files(_listed(mirror, "bound")), "bound/d/x")
    _restore(mirror, backup, "bound/new/x")
    assert (bound / "new" / "x").read_bytes() == b"foreign"
    assert sorted(os.listdir(bound)) == ["d", "new"]


@pytest.mark.root
def test_purging_on_a_mount_leaves_no_folder_of_ours(mirror: Mirror, bound: Path) -> None:
    assert _purge(mirror, find(_files(_listed(mirror, "bound")), "bound/d/x")) == (1, 7)
    assert os.listdir(bound) == ["d"]


@pytest.mark.root
def test_another_device_that_no_list_of_mounts_tells_of_is_a_home_too(
    mirror: Mirror, root: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a subvolume of btrfs is."""
    mount(root / "disk", "-t", "tmpfs", "tmpfs")
    monkeypatch.setattr(_tree, "mounts_below", lambda _fd: ("tmpfs", frozenset()))
    _displace(mirror, "disk/x")
    assert [backup.name for backup in _files(_listed(mirror, "disk"))] == ["disk/x"]


@pytest.mark.root
def test_the_disk_of_a_mount_is_waited_for_too(mirror: Mirror, root: Path, mount: Mount) -> None:
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    mount(root / "disk", "-t", "tmpfs", "tmpfs")
    _displace(mirror, "disk/x")
    (backup,) = _files(_listed(mirror, "disk"))
    with recorded() as calls:
        _restore(mirror, backup, "disk/y")
    assert [name for name, _ in calls].count("syncfs") == 2


@pytest.mark.root
@pytest.mark.parametrize(("name", "to"), [("bound/d/x", "new/er/x"), ("y", "bound/new/y")])
def test_a_backup_does_not_go_to_another_mount(
    mirror: Mirror, root: Path, bound: Path, name: str, to: str
) -> None:
    (backup,) = find(_files(_listed(mirror, "bound")), name)
    before = snapshot(root), _listed(mirror, "bound")
    with pytest.raises(PathError, match=r"another mount.*copy '.*' there by hand") as error:
        _restore(mirror, backup, to)
    assert not isinstance(error.value, ConflictError)
    assert (snapshot(root), _listed(mirror, "bound")) == before


@pytest.mark.root
def test_the_backups_of_a_mirror_on_a_mount_are_its_own(mirror: Mirror, bound: Path) -> None:
    with Mirror(bound) as inner:
        inner.create()
        _displace(inner, "theirs")
        assert [b.name for b in _listed(mirror, "bound") if "theirs" in b.name] == []
        assert find(_listed(inner), "theirs") != []


@pytest.mark.root
def test_what_is_mounted_in_the_backup_area_is_neither_entered_nor_removed(
    mirror: Mirror, root: Path, mount: Mount
) -> None:
    (root / "tree" / "point").mkdir(parents=True)
    _displace_tree(mirror, "tree")
    point = mount(root / AREA / "tree" / "point", "-t", "tmpfs", "tmpfs")
    (point / "x").write_bytes(b"1")
    found = _listed(mirror)
    assert [(backup.name, backup.kind) for backup in found] == [("tree/point", "dir")]
    with failing("mount point"):
        _purge(mirror, found)
    with pytest.raises(PathError, match="busy"):
        _restore(mirror, found[0], "point")
    assert (point / "x").read_bytes() == b"1"


# What is asked for


def _backup(stamp: str, name: str, home: str = "") -> Backup:
    """A backup that need not exist; stamps here are numbers of seconds."""
    where = f"{home}.fsmirror/backup/{stamp}/{name}"
    time_ns = int(stamp.partition(".")[0]) * 1_000_000_000
    return Backup(Name(where), Name(name), stamp, time_ns, "file", 1)


OLD, NEW, SECOND = _backup("1", "a/x"), _backup("2", "a/x"), _backup("2.1", "a/x")
NAMED_LIKE_ONE, OTHER = _backup("3", "1/a/x"), _backup("3", "x")
ALL = [OTHER, SECOND, NEW, NAMED_LIKE_ONE, OLD]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("a/x", [OLD, NEW, SECOND]),
        ("x", [OTHER]),
        ("1/a/x", [OLD]),  # The stamp goes before the name.
        ("3/1/a/x", [NAMED_LIKE_ONE]),
        ("2.1/a/x", [SECOND]),
        (".fsmirror/backup/2/a/x", [NEW]),
        ("a", []),
        ("a/x/", []),
        ("2", []),
        ("", []),
        ("*", []),
    ],
)
def test_a_backup_is_found_by_place_by_time_or_by_name(asked: str, meant: list[Backup]) -> None:
    assert find(ALL, asked) == meant
    assert find(reversed(ALL), asked) == meant


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2_700), ("12h", 43_200), ("2w", 1_209_600), ("0s", 0), ("07d", 604_800)],
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_age(text) == seconds * 10**9


@pytest.mark.parametrize(
    "text", ["", "d", "30", "30D", "1.5d", "-1d", " 1d", "1d ", "1d\n", "1 d", "1y", "٣d", "1d2h"]
)
def test_anything_else_is_no_age(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no age: write a whole number and a unit") as error:
        parse_age(text)
    assert repr(text) in str(error.value)


def test_an_age_with_very_many_digits_is_refused_in_the_same_words() -> None:
    with pytest.raises(ValueError, match="is no age"):
        parse_age("9" * 5_000 + "d")
