"""The state of a mirror lies elsewhere: the root holds only what is declared, and may be lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import mounts as _mounts
from cocoindex_fsmirror._mirror.exact import foreign
from cocoindex_fsmirror._mirror.teardown import tear_down
from tests.mirror.keeping import FILES, declare
from tests.mirror.state import NEW, drifted, folder, folders, healed, update, written
from tests.support import Mount, backups, contents, exact_state, snapshot

FOLDERS = ["copies", "copies.sqlite3", "ledger.sqlite3"]


def test_root_holds_nothing_of_ours(root: Path, state: Path) -> None:
    update(root, state)
    assert sorted(os.listdir(root)) == ["a", "d", "large"]
    assert folders(state) == ["root"]
    assert {*FOLDERS} <= {*os.listdir(folder(state))}
    before = exact_state(root)
    update(root, state)
    assert exact_state(root) == before
    update(root, state, NEW)
    assert sorted(os.listdir(root)) == ["a", "d", "large", "more"]
    assert contents(snapshot(root)) == NEW


def test_root_that_is_lost_whole_comes_back(root: Path, state: Path) -> None:
    update(root, state)
    (root / "d" / "b").chmod(0o640)
    with Mirror(root, state=state) as mirror, mirror.update(copies="all") as files:
        for name, content in FILES.items():
            files.write(name, content, mode=0o640 if name == "d/b" else None)
    shutil.rmtree(root)
    with Mirror(root, state=state) as mirror:
        assert mirror.verify() == sorted([*FILES])
        assert mirror.status().files == len(FILES)
        assert mirror.backups() == []
        assert mirror.heal(dry_run=True).healed == sorted([*FILES])
        assert not root.exists()
        assert mirror.heal().healed == sorted([*FILES])
        assert mirror.verify(content=True) == []
    assert contents(snapshot(root)) == FILES
    assert (root / "d" / "b").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("is_on_another_disk", [False, True])
def test_state_moves_to_where_it_is_declared(
    root: Path, tmp_path: Path, mount: Mount, is_on_another_disk: bool
) -> None:
    state, second = tmp_path / "volume" / "state", tmp_path / "second"
    if is_on_another_disk:
        mount(state.parent, "-t", "tmpfs", "tmpfs")
    update(root, None)
    files = written(root)
    for place in (state, second, root, second, root / ".fsmirror"):
        update(root, place, is_noted=True)
        assert written(root) == files, place
        assert drifted(root, None) == []
        for name in ("a", "large"):
            (root / name).unlink()
        assert healed(root, None) == ["a", "large"], place
        files = written(root)
        found = [each for each in (state, second) if each.exists() and folders(each)]
        assert found == ([] if place in (root, root / ".fsmirror") else [place])
        ours = [".gitignore", "location"] if found else os.listdir(root / ".fsmirror")
        assert sorted(os.listdir(root / ".fsmirror")) == sorted(ours)
    with Mirror(root) as mirror:
        assert mirror.status().copied == len(FILES)


def test_files_that_a_move_does_not_know_stay(root: Path, state: Path) -> None:
    update(root, None)
    theirs = root / ".fsmirror" / "theirs"
    theirs.write_bytes(b"theirs")
    (root / ".fsmirror" / "ledger.sqlite3.corrupt-x").write_bytes(b"corrupt")
    (root / "a").write_bytes(b"edited")
    update(root, state)
    assert theirs.read_bytes() == b"theirs"
    assert backups(root, state) == [b"edited"]
    assert (folder(state) / "ledger.sqlite3.corrupt-x").read_bytes() == b"corrupt"


def test_state_does_not_move_while_a_command_is_at_work(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update(root, None)
    lock = root / ".fsmirror" / "lock"
    lock.touch(mode=0o600)
    with subprocess.Popen(["flock", "-x", lock, "cat"], stdin=subprocess.PIPE) as holder:
        while subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0:
            pass
        update(root, state, NEW)
        assert not state.exists()
        assert "stays in" in caplog.text
        holder.communicate()
    update(root, state, NEW)
    assert folders(state) == ["root"]
    assert drifted(root, state) == []


def test_two_roots_share_a_state_directory(tmp_path: Path, state: Path) -> None:
    for name in ("one", "two"):
        update(tmp_path / name, state, {"name": name.encode()})
    (tmp_path / "deep").mkdir()
    update(tmp_path / "deep" / "one", state, {"name": b"deep"})
    assert folders(state) == ["one", "one", "two"]
    for name in ("one", "two"):
        shutil.rmtree(tmp_path / name)
    assert healed(tmp_path / "one", state) == ["name"]
    assert (tmp_path / "one" / "name").read_bytes() == b"one"
    assert not (tmp_path / "two").exists()
    update(tmp_path / "deep" / "one", state, {})
    assert (tmp_path / "one" / "name").read_bytes() == b"one"


def test_name_of_a_root_that_no_text_can_hold(tmp_path: Path, state: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff" * 250)
    update(root, state)
    shutil.rmtree(root)
    assert healed(root, state) == sorted([*FILES])


# Teardown.


@pytest.mark.parametrize("is_gone", [False, True])
def test_teardown_leaves_nothing(root: Path, state: Path, is_gone: bool) -> None:
    with Mirror(root, state=state, state_note=True) as mirror:
        declare(mirror, FILES)
        if is_gone:
            shutil.rmtree(root)
        tear_down(mirror.session)
    assert not root.exists()
    assert list(state.iterdir()) == []


def test_teardown_keeps_backups(root: Path, state: Path) -> None:
    update(root, state)
    (root / "a").write_bytes(b"edited")
    healed(root, state)
    with Mirror(root, state=state) as mirror:
        tear_down(mirror.session)
    assert backups(root, state) == [b"edited"]
    assert not root.exists()


# Barriers.


def test_both_disks_are_synced(
    root: Path, tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = mount(tmp_path / "volume", "-t", "tmpfs", "tmpfs") / "state"
    update(root, state)
    synced: list[int] = []
    monkeypatch.setattr(_calls, "syncfs", lambda fd: synced.append(os.fstat(fd).st_dev))
    update(root, state, NEW)
    assert synced.count(root.stat().st_dev) == synced.count(state.stat().st_dev) >= 2


@pytest.mark.parametrize("is_remote", ["root", "state"])
def test_one_disk_is_remote(
    root: Path, tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch, is_remote: str
) -> None:
    state = mount(tmp_path / "volume", "-t", "ramfs", "ramfs") / "state"
    kind = "ramfs" if is_remote == "state" else _mounts.mounts_below(os.open(tmp_path, 0))[0]
    monkeypatch.setattr("cocoindex_fsmirror._disk.mounts._REMOTE", (kind,))
    synced: list[int] = []
    monkeypatch.setattr(_calls, "syncfs", lambda fd: synced.append(os.fstat(fd).st_dev))
    update(root, state)
    local = state if is_remote == "root" else root
    assert {*synced} == {local.stat().st_dev}
    wal = folder(state) / "ledger.sqlite3-wal"
    with Mirror(root, state=state) as mirror:
        mirror.create()
        assert wal.exists() is (is_remote == "root")
    assert drifted(root, state) == []


def test_mark_keeps_an_exact_mirror_around_it_away(tmp_path: Path, state: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    update(inner, state)
    update(outer, None, {"x": b"x"})
    assert foreign(str(outer)) == ([], [])
    shutil.rmtree(state)  # A mark that leads to no ledger, as that of a copy.
    assert "inner/a" in foreign(str(outer))[0]
