"""Others write at our paths, at any step of a batch: their bytes survive somewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.ownership import OnConflict
from cocoindex_fsmirror._core.states import Actual
from cocoindex_fsmirror._disk import calls
from cocoindex_fsmirror._disk.staging import Staging
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror.place import Exits
from tests.steps import identity, run_with_event, watched
from tests.support import OWNER, backups, contents, delete, failing, snapshot, staged, write

POLICIES: tuple[OnConflict, ...] = ("backup", "overwrite", "error")
Event = Callable[[Path, bytes], None]
STEPS = 130  # More than a batch here has calls.
OLD, NEW = b"old", b"new"


def _appears(path: Path, foreign: bytes) -> None:
    """Replaces the path by a new foreign file."""
    other = path.with_name(path.name + ".other")
    other.write_bytes(foreign)
    os.replace(other, path)


def _appears_old(path: Path, foreign: bytes) -> None:
    """Replaces the path by a foreign file with an old mtime."""
    other = path.with_name(path.name + ".other")
    other.write_bytes(foreign[:3])
    os.utime(other, (1, 1))
    os.replace(other, path)


def _edited(path: Path, foreign: bytes) -> None:
    """Writes foreign bytes into the file, or into a new one if none is there."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(foreign)
        file.truncate()


def _edited_same_size(path: Path, foreign: bytes) -> None:
    """Writes foreign bytes of the size that the file has."""
    if path.exists():
        assert len(foreign[:3]) == path.stat().st_size
    _edited(path, foreign[:3])


def _edited_same_times(path: Path, foreign: bytes) -> None:
    """Writes foreign bytes, and keeps size and times, as if the clock had not ticked."""
    times = path.stat() if path.exists() else None
    _edited_same_size(path, foreign)
    if times is not None:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _becomes_folder(path: Path, foreign: bytes) -> None:
    """Replaces the path by a folder with a foreign file."""
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").write_bytes(foreign)


def _becomes_link(path: Path, foreign: bytes) -> None:
    """Replaces the path by a link whose text stands for the bytes."""
    path.unlink(missing_ok=True)
    path.symlink_to(foreign.decode())


def _vanishes(path: Path, foreign: bytes) -> None:
    """Removes the path."""
    path.unlink(missing_ok=True)


EVENTS: list[Event] = [
    _appears,
    _appears_old,
    _edited,
    _edited_same_size,
    _becomes_folder,
    _becomes_link,
    _vanishes,
]


def _batch(operation: str, name: str, policy: OnConflict) -> list[Intent]:
    """Returns the intents of an operation on one path."""
    if operation == "delete":
        return [delete(name, durable=False, on_conflict=policy)]
    return [write(name, NEW, durable=False, on_conflict=policy)]


def _everything(root: Path) -> set[bytes]:
    """Returns all bytes and link texts, in place and in the backup area."""
    places = [snapshot(root), snapshot(root, ours=True)]
    return {
        found if isinstance(found, bytes) else found.removeprefix("-> ").encode()
        for place in places
        for name, found in place.items()
        if not name.startswith("tmp/")
    }


def _foreign(event: Event, k: int) -> bytes:
    """Returns three bytes that tell the step at which they appeared."""
    return b"%03d" % k + (b"" if event in (_edited_same_size, _appears_old) else b" foreign")


def _prepare(mirror: Mirror, operation: str) -> None:
    """Makes a folder for each step, with a neighbour and with the file of the batch."""
    for k in range(STEPS):
        (Path(mirror.root) / f"{k}").mkdir()
        (Path(mirror.root) / f"{k}" / "neighbour").touch()
    if operation != "write new":
        mirror.apply([write(f"{k}/x", OLD, durable=False) for k in range(STEPS)])


@pytest.mark.parametrize(
    ("policy", "event"),
    [
        *((policy, event) for policy in ("backup", "error") for event in EVENTS),
        *(("overwrite", event) for event in (_edited, _becomes_folder, _vanishes)),
    ],
)
@pytest.mark.parametrize("operation", ["write new", "replace", "delete"])
def test_foreign_bytes_at_any_step_survive_and_the_next_run_converges(
    mirror: Mirror, root: Path, operation: str, policy: OnConflict, event: Event
) -> None:
    _prepare(mirror, operation)
    appeared, names = set(), []
    for k in range(STEPS):
        name, foreign, failed = f"{k}/x", _foreign(event, k), list[str]()
        batch = partial(_apply, mirror, _batch(operation, name, policy), failed)
        if not run_with_event(batch, partial(event, root / name, foreign), k):
            break
        names.append(name)
        appeared.add(foreign)
        assert set(failed) <= {name}
        if not failed and operation != "delete" and not _is_right(root / name):
            assert name in mirror.observe().names, f"drift at step {k} was not noticed"
    assert STEPS - 1 > k > 15
    if policy != "error" and event is not _becomes_folder:
        mirror.apply([write(name, NEW, on_conflict=policy) for name in names])
        assert [name for name in names if not _is_right(root / name)] == []
        assert mirror.verify(content=True) == []
    mirror.apply([write("last", b"1")])
    if policy != "overwrite" and event is not _vanishes:
        assert appeared <= _everything(root)
    assert staged(root) == []
    assert event is not _vanishes or backups(root) == []


def _is_right(path: Path) -> bool:
    """True if a path holds the desired bytes."""
    return path.is_file() and not path.is_symlink() and path.read_bytes() == NEW


def _apply(mirror: Mirror, intents: list[Intent], failed: list[str]) -> None:
    """Applies a batch; returns the paths that failed."""
    try:
        mirror.apply(intents)
    except ApplyError as error:
        failed.extend(getattr(failure, "path", "?") for failure in error.exceptions)


@pytest.mark.parametrize("policy", ["backup", "error"])
def test_edit_within_the_tick_of_our_own_write_is_noticed(
    mirror: Mirror, root: Path, policy: OnConflict
) -> None:
    _prepare(mirror, "write new")
    unnoticed = []
    for k in range(STEPS):
        name, foreign, failed = f"{k}/x", b"%03d" % k, list[str]()
        batch = partial(_apply, mirror, _batch("write new", name, policy), failed)
        if not run_with_event(batch, partial(_edited_same_times, root / name, foreign), k):
            break
        if not failed and not _is_right(root / name) and name not in mirror.observe().names:
            unnoticed.append(k)
    # Nothing could tell a change between our rename and the look that follows.
    assert len(unnoticed) <= 1


def test_path_that_never_comes_to_rest_fails_by_name(mirror: Mirror, root: Path) -> None:
    def toggle(call: str, _args: tuple[object, ...]) -> None:
        if call == "renameat2":
            if (root / "x").exists():
                (root / "x").unlink()
            else:
                (root / "x").write_bytes(b"foreign")

    (root / "x").write_bytes(b"foreign")
    with watched(toggle), failing(r"'x'.*kept changing"):
        mirror.apply([write("x", NEW)])


def test_folder_that_vanishes_at_any_step_stops_only_its_files(mirror: Mirror, root: Path) -> None:
    start = [write(f"{k}/{name}", OLD) for k in range(STEPS) for name in ("d/x", "e/y")]
    mirror.apply(start)
    for k in range(STEPS):
        names = [f"{k}/d/x", f"{k}/d/z", f"{k}/e/y"]
        failed: list[str] = []
        intents = [write(name, NEW, durable=False) for name in names]
        vanish = partial(shutil.rmtree, root / f"{k}" / "d", ignore_errors=True)
        if not run_with_event(partial(_apply, mirror, intents, failed), vanish, k):
            break
        assert set(failed) <= {f"{k}/d/x", f"{k}/d/z"}
        assert (root / f"{k}" / "e" / "y").read_bytes() == NEW
        with contextlib.suppress(FileNotFoundError):
            assert (root / f"{k}" / "d" / "x").read_bytes() in (OLD, NEW)
    assert STEPS - 1 > k > 20


@pytest.mark.parametrize("policy", POLICIES)
def test_folder_that_appears_before_an_exchange_stays_in_place(
    mirror: Mirror, root: Path, policy: OnConflict
) -> None:
    mirror.apply([write("x", OLD)])
    foreign = [b"foreign"]

    def appear(call: str, _args: tuple[object, ...]) -> None:
        if call == "renameat2" and foreign:
            _becomes_folder(root / "x", foreign.pop())

    with watched(appear), failing(r"'x'.*appeared"):
        mirror.apply([write("x", NEW, on_conflict=policy)])
    assert snapshot(root) == {"x": "dir", "x/inside": b"foreign"}
    assert backups(root) == []


@pytest.mark.parametrize(
    ("policy", "event"), [("error", _appears), *((policy, _becomes_folder) for policy in POLICIES)]
)
def test_new_foreign_path_that_may_not_be_moved_is_not_touched(
    mirror: Mirror, root: Path, policy: OnConflict, event: Event
) -> None:
    mirror.apply([write("y", OLD)])
    found: list[object] = []

    def appear(call: str, _args: tuple[object, ...]) -> None:
        if call == "renameat2" and not found:
            event(root / "x", b"foreign")
            found.append(identity(root / "x"))

    with watched(appear), failing(r"'x'.*appeared"):
        mirror.apply([write("x", NEW, on_conflict=policy)])
    assert found == [identity(root / "x")]


@pytest.mark.parametrize("policy", [*POLICIES, "keep"])
@pytest.mark.parametrize("event", [_appears, _becomes_folder])
def test_bytes_that_a_removal_takes_out_follow_the_policy(
    mirror: Mirror, root: Path, policy: OnConflict, event: Event
) -> None:
    mirror.apply([write("x", OLD)])
    foreign, failed = [b"foreign"], list[str]()

    def appear(call: str, args: tuple[object, ...]) -> None:
        if call == "rename" and args[0] == "x" and foreign:
            event(root / "x", foreign.pop())

    with watched(appear):
        _apply(mirror, [delete("x", on_conflict=policy)], failed)
    assert not foreign
    is_folder, stays = event is _becomes_folder, policy in ("error", "keep")
    there = {"x": "dir", "x/inside": b"foreign"} if is_folder else {"x": b"foreign"}
    assert snapshot(root) == (there if stays or is_folder else {})
    assert backups(root) == ([b"foreign"] if policy == "backup" and not is_folder else [])
    assert failed == (["x"] if policy == "error" and not is_folder else [])


@pytest.mark.parametrize("withdrawn", [[], [delete("a")]])
def test_folder_that_appears_where_one_is_needed_is_used(
    mirror: Mirror, root: Path, withdrawn: list[Intent]
) -> None:
    mirror.apply([write("a", OLD)])
    foreign = [b"foreign"]

    def appear(call: str, args: tuple[object, ...]) -> None:
        if call == "rename" and args[0] == "a" and foreign:
            _becomes_folder(root / "a", foreign.pop())

    with watched(appear):
        mirror.apply([write("a/b", NEW), *withdrawn])
    assert not foreign
    assert snapshot(root) == {"a": "dir", "a/b": NEW, "a/inside": b"foreign"}


@pytest.mark.parametrize("intent", [write("x", NEW), delete("x")])
def test_displaced_file_is_read_if_its_time_proves_nothing(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, intent: Intent
) -> None:
    """The file was last changed in the tick of the plan's look, or later."""
    mirror.apply([write("x", OLD)])
    real, read = Tree.look, list[bool]()

    def look(self: Tree, name: Name, *, digest: bool = False) -> Actual:
        if "/tmp/" in name:
            read.append(digest)
        return real(self, name, digest=digest)

    monkeypatch.setattr(Tree, "look", look)
    monkeypatch.setattr(calls, "coarse_now_ns", lambda: 0)
    mirror.apply([intent])
    assert True in read


@pytest.mark.parametrize("intent", [write("x", b"new"), delete("x")])
def test_edit_that_puts_size_and_times_back_is_kept(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, intent: Intent
) -> None:
    mirror.apply([write("x", b"old")])
    os.utime(root / "x", ns=(1, 1))
    mirror.prepare(Owner(OWNER), mirror.observe())
    ready = Staging.ready

    def ready_but_edited(staging: Staging) -> None:
        ready(staging)
        (root / "x").write_bytes(b"OLD")
        os.utime(root / "x", ns=(1, 1))

    monkeypatch.setattr(Staging, "ready", ready_but_edited)
    mirror.apply([intent])
    assert contents(snapshot(root)) == ({"x": b"new"} if intent.content else {})
    assert backups(root) == [b"OLD"]


def _another_alike(path: Path) -> None:
    """Replaces the file by another of its size and age."""
    other = path.with_name("other")
    other.write_bytes(b"OLD")
    os.utime(other, ns=(1, 1))
    other.replace(path)


def _longer(path: Path) -> None:
    """Appends to the file, and keeps its mtime."""
    path.write_bytes(b"LONGER")
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("happens", [_another_alike, _longer])
@pytest.mark.parametrize("intent", [write("x", b"new"), delete("x")])
def test_change_after_the_last_look_is_told_by_inode_and_size(
    mirror: Mirror,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    intent: Intent,
    happens: Callable[[Path], None],
) -> None:
    mirror.apply([write("x", b"old")])
    os.utime(root / "x", ns=(1, 1))
    mirror.prepare(Owner(OWNER), mirror.observe())
    last_look = Exits.still_expected

    def looked(exits: Exits, name: Name, planned: Actual) -> Actual:
        expected = last_look(exits, name, planned)
        happens(root / "x")
        return expected

    monkeypatch.setattr(Exits, "still_expected", looked)
    mirror.apply([intent])
    assert contents(snapshot(root)) == ({"x": b"new"} if intent.content else {})
    assert backups(root) == [b"OLD" if happens is _another_alike else b"LONGER"]
