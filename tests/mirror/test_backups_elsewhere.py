"""Backups of a mirror whose state is elsewhere lie there too, if renames reach that place."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, RootError
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._mirror.backups import purge, restore
from cocoindex_fsmirror._mirror.exact import sweep
from cocoindex_fsmirror._mirror.session import Session
from cocoindex_fsmirror._mirror.teardown import tear_down
from tests.mirror.state import drifted, folder, folders, healed, update
from tests.support import Mount, backups, contents, snapshot


def edit(root: Path, state: Path, *edits: bytes) -> None:
    """Updates a mirror, then edits and heals one file again and again."""
    update(root, state)
    for edited in edits:
        (root / "a").write_bytes(edited)
        assert healed(root, state) == ["a"]


def kept(root: Path, state: Path) -> list[bytes]:
    """Returns the contents of all backups that are listed; each is where the list says."""
    with Mirror(root, state=state) as mirror:
        return [(root / each.where).read_bytes() for each in mirror.backups()]


@pytest.mark.parametrize("can_syncfs", [True, False])
def test_foreign_file_in_the_way_goes_to_the_state_folder(
    root: Path,
    state: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    can_syncfs: bool,
) -> None:
    if not can_syncfs:
        monkeypatch.setattr(_calls, "syncfs", None)
    edit(root, state, b"edited", b"edited again")
    assert kept(root, state) == [b"edited", b"edited again"]
    assert not (root / ".fsmirror").exists()
    with Mirror(root, state=state) as mirror:
        first = mirror.backups()[0]
    where = folder(state) / "backup" / first.stamp / "a"
    assert (first.name, first.where) == ("a", str(where))
    assert f"foreign 'a' was moved to {str(where)!r}" in caplog.text


def test_exact_mirror_moves_foreign_files_to_the_state_folder(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update(root, state)
    (root / "d" / "theirs").write_bytes(b"theirs")
    with closing(Session(Mirror(root, state=state).location)) as session:
        session.run(sweep)
    assert kept(root, state) == [b"theirs"]
    assert not (root / ".fsmirror").exists()
    assert str(folder(state) / "backup") in caplog.text


def test_state_on_another_disk_leaves_backups_in_the_root(
    root: Path, tmp_path: Path, mount: Mount
) -> None:
    state = mount(tmp_path / "state", "-t", "tmpfs", "tmpfs")
    edit(root, state, b"edited")
    assert kept(root, state) == backups(root) == [b"edited"]
    assert sorted(os.listdir(root / ".fsmirror")) == [".gitignore", "backup"]


def test_state_beyond_a_bind_mount_leaves_backups_in_the_root(
    root: Path, tmp_path: Path, mount: Mount
) -> None:
    (tmp_path / "volume").mkdir()
    state = mount(tmp_path / "state", "--bind", str(tmp_path / "volume"))
    edit(root, state, b"edited")
    assert kept(root, state) == backups(root) == [b"edited"]
    assert "backup" not in os.listdir(folder(state))


def test_file_in_the_place_of_the_backups_sends_them_to_the_root(root: Path, state: Path) -> None:
    update(root, state)
    (folder(state) / "backup").write_bytes(b"in the way")
    edit(root, state, b"edited")
    assert kept(root, state) == backups(root) == [b"edited"]


def test_root_that_was_renamed_keeps_its_backups(root: Path, tmp_path: Path, state: Path) -> None:
    edit(root, state, b"edited")
    moved = root.rename(tmp_path / "moved")
    with Mirror(moved) as mirror:  # The mark tells the state directory.
        assert [Path(each.where).read_bytes() for each in mirror.backups()] == [b"edited"]
        assert mirror.verify() == []
    with Mirror(moved) as mirror, mirror.update(copies="all") as files:
        files.write("a", b"new")
    assert folders(state) == ["moved"]
    assert kept(moved, state) == [b"edited"]


def test_backups_move_with_the_state(root: Path, tmp_path: Path, mount: Mount) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    mount(third, "-t", "tmpfs", "tmpfs")
    edit(root, first, b"1", b"2")
    for place in (second, first, third, second):
        update(root, place)
        assert kept(root, place) == [b"1", b"2"], place
        assert [each for each in (first, second, third) if each.exists() and folders(each)] == [
            place
        ]
    edit(root, second, b"3")
    update(root, root)
    assert kept(root, root) == backups(root) == [b"1", b"2", b"3"]
    assert folders(second) == []


def test_empty_backup_area_goes_with_the_mirror(root: Path, state: Path) -> None:
    update(root, state)
    (folder(state) / "backup").mkdir(mode=0o700)  # A crash left it.
    with closing(Session(Mirror(root, state=state).location)) as session:
        tear_down(session)
    assert folders(state) == []


def test_dropped_mirror_keeps_its_backups(root: Path, state: Path) -> None:
    edit(root, state, b"edited")
    with closing(Session(Mirror(root, state=state).location)) as session:
        tear_down(session)
        assert not root.exists()
        with Mirror(root, state=state) as mirror:
            (found,) = mirror.backups()
        session.run(lambda tree, _ledger: restore(tree, found, found.name), create=True)
        assert (root / "a").read_bytes() == b"edited"
        tear_down(session)
    assert contents(snapshot(root)) == {"a": b"edited"}
    assert folders(state) == []


def test_backups_of_a_lost_root_are_listed(root: Path, state: Path) -> None:
    edit(root, state, b"edited")
    shutil.rmtree(root)
    with Mirror(root, state=state) as mirror:
        (found,) = mirror.backups()
        assert Path(found.where).read_bytes() == b"edited"
        assert not root.exists()
    with closing(Session(mirror.location)) as session:
        with pytest.raises(RootError):
            session.run(lambda tree, _ledger: purge(tree, [found]))
        update(root, state)
        assert session.run(lambda tree, _ledger: purge(tree, [found])) == (1, len(b"edited"))
    assert "backup" not in os.listdir(folder(state))
    assert drifted(root, state) == []
