"""An unusable root is one error that names it and says what to do."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import LedgerError, LockedError, Mirror, RootError
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import ROOT
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.states import ABSENT
from cocoindex_fsmirror._disk.roots import lock, open_root
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._target.actions import Single
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.sink import apply_actions
from tests.steps import watched
from tests.support import OWNER, Mount, answer_of_child, snapshot, told_by, write


def _without_privileges(act: Callable[[], object]) -> str:
    """Calls a function in a process without root's privileges; returns its error."""

    def drop_privileges_and_act() -> str:
        # capset(2): version 3, for this process, with no capability left.
        if ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), b"\0" * 24) != 0:
            return "capset failed"
        try:
            act()
        except BaseException as error:
            return told_by(error)
        return ""

    return answer_of_child(drop_privileges_and_act)


def _break_for(patch: pytest.MonkeyPatch, call: str, end: str) -> None:
    """Makes a look of module ``os`` fail with a read error, for paths with an end."""
    real = getattr(os, call)

    def fail(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).endswith(end):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        found: os.stat_result = real(path, *args, **options)
        return found

    patch.setattr(os, call, fail)


def _write_in(root: Path) -> None:
    """Applies a batch with a mirror of its own."""
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"2"), write("d/y", b"2"), write("open/z", b"2")])


def test_root_that_is_a_file_is_an_error(root: Path) -> None:
    root.write_bytes(b"file")
    for act in ("create", "verify"):
        with Mirror(root) as mirror, pytest.raises(RootError, match=f"{root}: .*") as error:
            getattr(mirror, act)()
        assert error.value.hint
    with Mirror(root) as mirror, pytest.raises(RootError, match="not a directory"):
        mirror.apply([write("x")])
    assert root.read_bytes() == b"file"


def test_root_below_a_file_is_an_error(root: Path) -> None:
    root.write_bytes(b"file")
    with Mirror(root / "below") as mirror, pytest.raises(RootError, match="not a directory"):
        mirror.create()


def test_root_without_its_parent_is_an_error_if_none_may_be_made(root: Path) -> None:
    with Mirror(root / "below") as mirror, pytest.raises(RootError, match="missing"):
        mirror.prepare(Owner(OWNER), mirror.observe(), parents=False)
    assert not root.exists()


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o300])
def test_root_without_permission_is_an_error(root: Path, mode: int) -> None:
    root.mkdir(mode=mode)
    said = _without_privileges(lambda: _write_in(root))
    assert said.startswith(f"RootError: {root}: ")
    assert "access" in said
    assert list(root.iterdir()) == []


def test_own_folder_without_permission_is_an_error(root: Path) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"1")])
    (root / ".fsmirror").chmod(0o500)
    (root / ".fsmirror" / "ledger.sqlite3").chmod(0o400)
    said = _without_privileges(lambda: _write_in(root))
    assert str(root) in said
    assert "access" in said
    assert (root / "x").read_bytes() == b"1"


def test_folder_without_permission_stops_only_its_files(root: Path) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write("x", b"1"), write("d/y", b"1"), write("open/z", b"1")])
    (root / "d").chmod(0o000)
    said = _without_privileges(lambda: _write_in(root))
    (root / "d").chmod(0o755)
    assert said.startswith("ApplyError: ")
    assert "'d/y'" in said
    assert "grant this user" in said
    assert [(root / name).read_bytes() for name in ("x", "d/y", "open/z")] == [b"2", b"1", b"2"]


def test_unreadable_file_in_the_way_is_moved(root: Path) -> None:
    root.mkdir()
    (root / "x").write_bytes(b"secret")
    (root / "x").chmod(0o000)
    assert _without_privileges(lambda: _write_in(root)) == ""
    assert (root / "x").read_bytes() == b"2"
    (moment,) = (root / ".fsmirror" / "backup").iterdir()
    assert (moment / "x").read_bytes() == b"secret"


@pytest.mark.root
def test_read_only_root_is_an_error(mount: Mount, tmp_path: Path) -> None:
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "tmpfs")
    (disk / "root").mkdir()
    with Mirror(disk / "root") as mirror:
        mirror.apply([write("x", b"1")])
        mirror.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(RootError, match=r"read-only.*writable") as error:
            mirror.apply([write("x", b"2")])
        assert str(disk / "root") in str(error.value)
        with pytest.raises(RootError, match="read-only"):
            Mirror(disk / "new").create()
        assert mirror.verify() == []
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        mirror.apply([write("x", b"2")])
    assert snapshot(disk / "root") == {"x": b"2"}


HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_root_that_another_process_holds_is_an_error_after_a_wait(
    mirror: Mirror, root: Path
) -> None:
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"{root}.*0.3 seconds.*end it"):
            mirror.apply([write("x", b"1")])
        holder.communicate()
    mirror.apply([write("x", b"1")])
    assert snapshot(root) == {"x": b"1"}


def test_root_that_is_replaced_during_the_wait_is_opened_again(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps = [root.with_name("moved")]

    def lock_after_a_swap(tree: Tree, patience: float) -> None:
        if swaps:
            root.rename(swaps.pop())
            root.mkdir()
        lock(tree, patience)

    monkeypatch.setattr("cocoindex_fsmirror._mirror.session.lock", lock_after_a_swap)
    mirror.apply([write("a", b"1")])
    assert snapshot(root) == {"a": b"1"}
    assert snapshot(root.with_name("moved")) == {}


def test_refused_system_call_is_one_error_that_names_the_root(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("cocoindex_fsmirror._mirror.batch.view_of", broken)
    with pytest.raises(RootError, match=f"{root}.*Input/output error"):
        mirror.apply([write("a", b"1")])


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_root_that_can_not_be_looked_at_is_not_gone(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A root that counts as gone would be forgotten, and its files would stay."""
    mirror.apply([write("x", b"1")])
    real = os.stat

    def fail(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if path == str(root):
            raise OSError(code, os.strerror(code))
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        _break_for(patch, "stat", str(root))
        with pytest.raises(RootError):
            mirror.tear_down(OWNER)
    assert snapshot(root) == {"x": b"1"}
    mirror.tear_down(OWNER)
    assert snapshot(root) == {}
    root.rmdir()
    mirror.tear_down(OWNER)  # A root that is gone is fine.


def test_batch_on_a_root_that_can_not_be_looked_at_fails(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that is skipped would leave a single file behind."""
    mirror.apply([write("x", b"1")])
    gone = Single(RootKey(None, str(root / "x")), Intent(ROOT, ABSENT, OWNER), was_dir=False)
    with monkeypatch.context() as patch:
        _break_for(patch, "stat", str(root))
        with pytest.raises(RootError):
            apply_actions(None, [gone])
    assert snapshot(root) == {"x": b"1"}


def test_ledger_is_not_read_without_a_log_that_may_be_there(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.apply([write("x", b"1")])
    _break_for(monkeypatch, "stat", "-wal")
    with pytest.raises(LedgerError):
        mirror.status()


def test_root_that_another_process_makes_meanwhile_is_used(tmp_path: Path) -> None:
    """Only the folders that we made count as ours, and go in a teardown."""
    above, root = tmp_path / "above", tmp_path / "above" / "root"

    def make(call: str, args: tuple[object, ...]) -> None:
        if call == "mkdir" and args[0] == str(above):
            above.mkdir()

    with watched(make):
        tree, made = open_root(str(root), create=True)
    tree.close()
    assert made == 1
    assert root.is_dir()


def test_root_that_begins_with_two_slashes_is_the_same_one(root: Path) -> None:
    """To SQLite, a file whose URI begins so would be one of another machine."""
    root.mkdir()
    for path in (f"/{root}", str(root)):
        with Mirror(path) as mirror:
            mirror.apply([write("x", b"1"), write("y", path.encode())])
            assert mirror.managed() == ["x", "y"]
            assert (mirror.verify(content=True), mirror.backups()) == ([], [])
    assert snapshot(root) == {"x": b"1", "y": str(root).encode()}
