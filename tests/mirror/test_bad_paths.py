"""One path that fails at every system call stops only itself, and what lies in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._mirror.exact import sweep
from tests.steps import CHANGES, LOOKS, crashes, failing_at, overheard, touched
from tests.support import (
    OWNER,
    Mount,
    backups,
    contents,
    delete,
    failing,
    folder,
    link,
    snapshot,
    staged,
    write,
)

pytestmark = pytest.mark.usefixtures("no_waiting")

BEFORE = {
    "edited": b"1",
    "same/x": b"1",
    "same/y": b"1",
    "gone/a": b"1",
    "gone/b": b"1",
    "emptied/deep/x": b"1",
    "now-a-file/x": b"1",
    "now-a-folder": b"1",
}
AFTER = {
    "edited": b"2",
    "same/x": b"2",
    "same/y": b"1",
    "gone/a": b"1",
    "now-a-file": b"2",
    "now-a-folder/x": b"2",
    "new/deep/x": b"2",
    "new/deep/y": b"2",
    "new/z": b"2",
    "foreign/x": b"2",
    "declared/x": b"2",
}
FOLDERS = ["declared", "foreign", "gone", "new", "new/deep", "now-a-folder", "same"]
PATHS = sorted(
    {
        *(str(path) for name in {**BEFORE, **AFTER} for path in (name, *Path(name).parents)),
        "link",
    }
    - {"."}
)


def _batch() -> list[Intent]:
    """Returns a batch with a step of every kind."""
    return [
        *(write(name, content) for name, content in AFTER.items() if name != "same/y"),
        write("same/y", b"1", mode=0o600),
        folder("declared", mode=0o750),
        link("link", "edited"),
        *(delete(name) for name in BEFORE.keys() - AFTER.keys()),
        delete("emptied"),
    ]


def _failed(act: Callable[[], object]) -> set[str]:
    """Calls a function; returns the paths that failed."""
    try:
        act()
    except ApplyError as error:
        return {getattr(each, "path", "?") for each in error.exceptions}
    return set()


@pytest.fixture
def busy(mirror: Mirror, root: Path) -> Mirror:
    """A mirror with files of ours, and a foreign one in the way."""
    mirror.apply([*(write(name, content) for name, content in BEFORE.items()), folder("emptied")])
    (root / "foreign").mkdir()
    (root / "foreign" / "x").write_bytes(b"foreign")
    return mirror


@pytest.mark.parametrize("fails", [CHANGES | LOOKS, CHANGES], ids=["looks", "changes"])
@pytest.mark.parametrize("bad", PATHS)
def test_bad_path_stops_only_itself(
    busy: Mirror, root: Path, bad: str, fails: frozenset[str]
) -> None:
    with failing_at(root / bad, errno.EIO, fails):
        failed = _failed(lambda: busy.apply(_batch()))
    assert staged(root) == []
    inside = {name for name in (*BEFORE, *AFTER, *PATHS) if f"{name}/".startswith(f"{bad}/")}
    assert failed <= inside | ({"now-a-file"} if bad == "now-a-file/x" else set())
    tree = snapshot(root)
    assert {name: tree.get(name) for name in AFTER.keys() - failed} == {
        name: content for name, content in AFTER.items() if name not in failed
    }
    assert not contents(tree).keys() & (BEFORE.keys() - AFTER.keys() - failed)
    busy.apply(_batch())
    assert busy.verify() == []
    assert snapshot(root) == AFTER | dict.fromkeys(FOLDERS, "dir") | {"link": "-> edited"}
    assert backups(root) == [b"foreign"]


@pytest.mark.parametrize("fails", [CHANGES | LOOKS, CHANGES - {"unlink"}], ids=["looks", "changes"])
@pytest.mark.parametrize("slot", [*map(str, range(14)), "*/x", "*/z", "*/deep"])
def test_bad_slot_stops_only_its_path(
    busy: Mirror, root: Path, slot: str, fails: frozenset[str]
) -> None:
    with failing_at(root / ".fsmirror/tmp/*" / slot, errno.EIO, fails):
        failed = _failed(lambda: busy.apply(_batch()))
    tree = snapshot(root)
    assert {name: tree.get(name) for name in AFTER.keys() - failed} == {
        name: content for name, content in AFTER.items() if name not in failed
    }
    busy.apply(_batch())
    assert staged(root) == []
    assert busy.verify() == []
    assert snapshot(root) == AFTER | dict.fromkeys(FOLDERS, "dir") | {"link": "-> edited"}
    assert backups(root) == [b"foreign"]


@pytest.mark.parametrize("fails", [CHANGES | LOOKS, CHANGES], ids=["looks", "changes"])
@pytest.mark.parametrize("bad", ["edited", "same", "same/x", "emptied", "emptied/deep"])
def test_bad_path_stops_only_itself_at_teardown(
    busy: Mirror, root: Path, bad: str, fails: frozenset[str]
) -> None:
    with failing_at(root / bad, errno.EPERM, fails):
        failed = _failed(lambda: busy.tear_down(OWNER))
    inside = {name for name in (*BEFORE, *PATHS) if f"{name}/".startswith(f"{bad}/")}
    assert failed
    assert failed <= inside
    left = contents(snapshot(root)).keys() - {"foreign/x"}
    assert left == BEFORE.keys() & failed
    busy.tear_down(OWNER)
    assert snapshot(root) == {"foreign": "dir", "foreign/x": b"foreign"}


@pytest.mark.parametrize("bad", ["theirs", "theirs/a", "theirs/deep", "theirs/deep/b", "z"])
def test_bad_path_stops_only_itself_in_a_sweep(busy: Mirror, root: Path, bad: str) -> None:
    theirs = ["theirs/a", "theirs/deep/b", "z"]
    (root / "theirs" / "deep").mkdir(parents=True)
    for name in theirs:
        (root / name).write_bytes(b"2")
    with failing_at(root / bad, errno.EIO):
        outcome = busy.session.run(sweep)
    failed = {each.path for each in outcome.failures}
    inside = {name for name in (*theirs, *PATHS, "theirs/deep") if f"{name}/".startswith(f"{bad}/")}
    above = {"theirs", "theirs/deep"}  # They stay with what is in them, and can't be listed whole.
    assert failed <= inside | {bad} | above
    assert {name for name in theirs if (root / name).exists()} <= inside | {bad}
    assert busy.session.run(sweep).failures == []
    assert contents(snapshot(root)) == BEFORE
    assert backups(root) == [b"2", b"2", b"2", b"foreign"]


def test_folder_that_can_not_be_listed_is_named_by_a_sweep(busy: Mirror, root: Path) -> None:
    (root / "theirs").mkdir()
    (root / "theirs" / "a").write_bytes(b"2")
    with failing_at(root / "theirs", errno.EACCES, ["open"]):
        outcome = busy.session.run(sweep)
    assert [each.path for each in outcome.failures] == ["theirs"]
    assert list(outcome.backed_up) == ["foreign/x"]


def test_folder_whose_entry_can_not_be_looked_at_keeps_the_others(busy: Mirror, root: Path) -> None:
    with failing_at(root / "same" / "x", errno.EIO):
        assert _failed(lambda: busy.apply([write("same", b"2")])) == {"same"}
    assert snapshot(root).items() >= {("same/x", b"1"), ("same/y", b"1")}


def test_file_in_a_folder_that_can_not_be_made_fails_with_its_cause(
    mirror: Mirror, root: Path
) -> None:
    places = ["mkdir", "renameat2", "rename"]
    with (
        failing_at(root / "new", errno.ENOSPC, places),
        failing(r"PathError: write 'new/d/x': No space left on device \(free some") as caught,
    ):
        mirror.apply([write("new/d/x", b"1"), write("y", b"1")])
    assert len(caught.value.exceptions) == 1
    assert contents(snapshot(root)) == {"y": b"1"}


def test_update_tries_a_file_again_whose_folder_did_not_fit(mirror: Mirror, root: Path) -> None:
    hits = 0

    def hear(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        nonlocal hits
        if name in ("mkdir", "renameat2") and str(root / "new") in touched(name, args, options):
            hits += 1
            if hits <= 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with overheard(hear), mirror.update() as files:
        files.write("new/x", b"1")
        files.write("y", b"1")  # Without any progress, there would be no second attempt.
    assert hits > 2
    assert contents(snapshot(root)) == {"new/x": b"1", "y": b"1"}


def test_file_that_can_not_be_staged_fails_with_the_first_error(mirror: Mirror) -> None:
    """Nor can what was staged of it be removed."""
    mirror.apply([write("y", b"1")])

    def hear(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if name in ("write", "unlink") and "/tmp/" in touched(name, args, options)[0]:
            code = errno.ENOSPC if name == "write" else errno.EIO
            raise OSError(code, os.strerror(code))

    with overheard(hear), failing("write 'x': No space left on device"):
        mirror.apply([write("x", b"1")])
    mirror.apply([write("x", b"1")])
    assert mirror.verify() == []


def test_staging_area_that_may_not_be_removed_fails_no_batch(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("y", b"0")])
    with failing_at(root / ".fsmirror/tmp/*", errno.EPERM, ["rmdir"]):
        for content in (b"1", b"2"):
            mirror.apply([write("x", content)])
            assert (root / "x").read_bytes() == content
    mirror.apply([write("y", b"1")])
    assert staged(root) == []


@pytest.mark.parametrize("k", range(20, 100, 10))
def test_bad_path_stops_only_itself_in_a_recovery(busy: Mirror, root: Path, k: int) -> None:

    def apply() -> None:
        busy.apply(_batch())

    assert crashes(apply, k)
    busy.close()
    for bad in ("edited", ".fsmirror/tmp/*/1", ".fsmirror/tmp/*/*/x"):
        with failing_at(root / bad, errno.EIO):
            busy.apply([write("other", b"3")])
    busy.apply(_batch())
    assert staged(root) == []
    assert busy.verify() == []
    tree = AFTER | dict.fromkeys(FOLDERS, "dir") | {"link": "-> edited", "other": b"3"}
    assert snapshot(root) == tree
    assert set(backups(root)) == {b"foreign"}


def test_name_that_the_file_system_can_not_hold_fails_alone(mirror: Mirror, root: Path) -> None:
    """Some file systems, such as eCryptfs, hold names of 143 bytes."""
    long = "n" * 144

    def hear(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if any(len(os.path.basename(path)) > 143 for path in touched(name, args, options)):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    intents = [
        *(write(name, b"1") for name in (long, f"new/{long}", "new/x", "y", f"{long}s/a/x")),
        link(f"new/{long}l", "x"),
        folder(f"{long}d"),
        delete(f"{long}gone"),
    ]
    with overheard(hear):
        with pytest.raises(ApplyError) as caught:
            mirror.apply(intents)
        assert {
            getattr(each, "path", "?"): str(each).partition(": ")[2]
            for each in caught.value.exceptions
        } == dict.fromkeys(
            (long, f"new/{long}", f"{long}s/a/x", f"new/{long}l", f"{long}d"),
            "File name too long (this file system can't hold the name)",
        )
    assert snapshot(root) == {"new": "dir", "new/x": b"1", "y": b"1"}
    assert staged(root) == []
    assert mirror.verify() == []


@pytest.mark.root
def test_mount_that_is_read_only_stops_only_what_lies_in_it(
    mirror: Mirror, root: Path, mount: Mount
) -> None:
    mount(root / "ro", "-t", "tmpfs", "-o", "ro", "tmpfs")
    intents = [write("ro/x", b"1"), write("ro/d/x", b"1"), folder("ro/e"), write("x", b"1")]
    assert _failed(lambda: mirror.apply(intents)) == {"ro/x", "ro/d/x", "ro/e"}
    assert snapshot(root) == {"ro": "dir", "x": b"1"}
    assert staged(root) == []
    assert mirror.verify() == []
