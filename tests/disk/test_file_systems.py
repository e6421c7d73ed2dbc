"""The life of a mirror on each file system: it is right, stays right, and settles."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._mirror.backups import list_backups
from tests.command.commands import run, told
from tests.crash import disks
from tests.disk.grounds import KINDS, Ground, Kind, laid_out
from tests.steps import crashes
from tests.support import delete, failing, write

pytestmark = [pytest.mark.slow, pytest.mark.root]

_TIME = 1_700_000_001_123_456_789  # ns
_COARSE = 2 * 10**9  # ns


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """A kind of file system."""
    assert isinstance(request.param, Kind)
    return request.param


@pytest.fixture
def ground(kind: Kind, tmp_path: Path) -> Iterator[Ground]:
    """A file system of that kind."""
    with laid_out(kind, tmp_path / "ground") as made:
        yield made


@pytest.fixture
def source(tmp_path: Path, kind: Kind) -> Path:
    """A folder to be mirrored, with a part beyond the edge, if there is one."""
    path = tmp_path / "source"
    names = ["f", "g", "d/x", "d/e/y", "gone", "keep"]
    names += [f"{kind.apart}/{name}" for name in ("f", "d/x", "gone")] if kind.apart else []
    for name in names:
        _write(path / name, f"1 of {name}")
    (path / "g").chmod(0o640)
    if kind.symlinks:
        (path / "l").symlink_to("f")
    return path


def _write(path: Path, content: str) -> None:
    """Writes a file with a time that no coarse file system can keep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, ns=(_TIME, _TIME))


def _sync(source: Path, root: Path) -> dict[str, Any]:
    """Mirrors the source; returns the figures of the run, in which nothing may have failed."""
    figures = told("sync", source, root)
    assert figures["failures"] == []
    return figures


def _tree(top: Path) -> dict[str, str]:
    """Returns what is in a folder, by path: bytes, and targets of links."""
    found = {}
    for at, folders, files in os.walk(top):
        if ".fsmirror" in folders:
            folders.remove(".fsmirror")
        for path in (Path(at) / name for name in (*folders, *files)):
            name = str(path.relative_to(top))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            else:
                found[name] = "dir" if path.is_dir() else path.read_text()
    return found


def _assert_right(kind: Kind, source: Path, root: Path) -> None:
    """Fails unless the mirror holds what the source does, as far as the file system can."""
    assert _tree(root) == _tree(source)
    for name in _tree(source):
        wanted, found = (source / name).lstat(), (root / name).lstat()
        if kind.modes and not stat.S_ISLNK(wanted.st_mode):
            assert stat.S_IMODE(found.st_mode) == stat.S_IMODE(wanted.st_mode), name
    for options in ((), ("--content",)):
        verified = run("verify", root, *options)
        assert verified.exit_code == 0, verified.output
    staged = list(root.rglob(".fsmirror/tmp/*"))
    assert staged == []


def _assert_settled(kind: Kind, source: Path, root: Path) -> None:
    """Fails unless another run has nothing to do."""
    before = {name: (root / name).lstat() for name in _tree(root)}
    figures = _sync(source, root)
    done = {key: figures[key] for key in ("written", "adopted", "healed", "deleted", "backed_up")}
    assert set(done.values()) == {0}, done
    for name, was in before.items():
        now = (root / name).lstat()
        assert (now.st_mtime_ns, now.st_ctime_ns) == (was.st_mtime_ns, was.st_ctime_ns), name
    _assert_right(kind, source, root)


def test_mirror_follows_its_source_and_settles(kind: Kind, ground: Ground, source: Path) -> None:
    root = ground.root
    _sync(source, root)
    _assert_right(kind, source, root)
    _assert_settled(kind, source, root)
    for name in _tree(source):
        path = source / name
        if path.name in ("f", "x"):
            _write(path, f"2 of {name}")
        elif path.name == "gone":
            path.unlink()
    (source / "g").chmod(0o600)
    _write(source / "new" / "er" / "z", "new")
    if kind.apart:
        _write(source / kind.apart / "new" / "z", "new")
    if kind.symlinks:
        (source / "l").unlink()
        (source / "l").symlink_to("keep")
    _sync(source, root)
    _assert_right(kind, source, root)
    _assert_settled(kind, source, root)


def test_edits_are_found_and_healed(kind: Kind, ground: Ground, source: Path) -> None:
    root = ground.root
    _sync(source, root)
    edited = ["f", f"{kind.apart}/f"] if kind.apart else ["f"]
    for name in edited:
        path = root / name
        was = path.stat()
        path.write_text("9" + path.read_text()[1:])
        with contextlib.suppress(OSError):  # Where times can't be set, this needs no trick.
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    (root / "keep").unlink()
    drifted = [*edited, "keep"]
    if kind.modes:
        (root / "g").chmod(0o444)
        drifted.append("g")
    verified = run("verify", root)
    assert verified.exit_code == 1
    assert [name for name in drifted if name not in verified.stdout] == []
    figures = _sync(source, root)
    assert (figures["healed"], figures["backed_up"]) == (len(drifted), len(edited))
    _assert_right(kind, source, root)
    _assert_settled(kind, source, root)
    listed = run("backups", root).stdout
    assert [name for name in edited if name not in listed] == []


def test_mirror_is_in_order_after_a_remount(
    kind: Kind, ground: Ground, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = ground.root
    _sync(source, root)
    ground.remount()
    _assert_right(kind, source, root)
    _assert_settled(kind, source, root)
    ground.remount()
    _write(source / "f", "2 of f")
    (source / "gone").unlink()
    assert _sync(source, root)["backed_up"] == 0
    _assert_right(kind, source, root)
    _assert_settled(kind, source, root)
    if not kind.name.startswith("overlay"):  # Which copies the ledger up to another layer.
        assert "copied or restored" not in caplog.text


def test_foreign_files_are_backed_up(kind: Kind, ground: Ground, source: Path) -> None:
    root = ground.root
    names = ["f", "keep", *([f"{kind.apart}/d/x"] if kind.apart else [])]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"foreign {name}")
    assert _sync(source, root)["backed_up"] == len(names)
    _assert_right(kind, source, root)
    kept = {path.read_text() for path in root.rglob(".fsmirror/backup/**/*") if path.is_file()}
    assert kept == {f"foreign {name}" for name in names}
    listed = run("backups", root).stdout
    assert [name for name in names if name not in listed] == []
    _assert_settled(kind, source, root)


def test_change_of_case_alone_loses_no_file(kind: Kind, ground: Ground, source: Path) -> None:
    root = ground.root
    _write(source / "Read.txt", "read")
    _write(source / "Folder" / "in.txt", "in")
    _sync(source, root)
    (source / "Read.txt").rename(source / "read.txt")
    (source / "Folder").rename(source / "folder")
    for _ in range(2):  # A folder may take a second run.
        figures = told("sync", source, root)
        assert (root / "read.txt").read_text() == "read"
    assert figures["failures"] == []
    assert (root / "folder" / "in.txt").read_text() == "in"
    assert sorted(map(str.lower, _tree(root))) == sorted(_tree(source))
    (source / "folder" / "in.txt").rename(source / "folder" / "IN.txt")
    shutil.rmtree(root / "d")
    _sync(source, root)
    assert (root / "folder" / "IN.txt").read_text() == "in"
    assert run("verify", root).exit_code == 0


def test_exact_run_moves_away_what_is_foreign_alone(
    kind: Kind, ground: Ground, source: Path
) -> None:
    root = ground.root
    _write(source / "Read" / "Me.txt", "read")
    _sync(source, root)
    (root / "theirs").write_text("foreign")
    for moved in (1, 0):
        figures = told("sync", source, root, "--exact")
        assert (figures["failures"], figures["backed_up"]) == ([], moved)
        assert (root / "Read" / "Me.txt").read_text() == "read"
    assert not (root / "theirs").exists()
    assert [line.name for line in list_backups(str(root))] == ["theirs"]


def test_two_spellings_are_refused_where_they_are_one(kind: Kind, ground: Ground) -> None:
    ground.root.mkdir(exist_ok=True)
    with Mirror(ground.root) as mirror:
        mirror.apply([write("A", b"1")])
        if kind.folds:
            with failing("'a' and 'A' for one name"):
                mirror.apply([write("a", b"2")])
        else:
            mirror.apply([write("a", b"2")])
        assert (ground.root / "A").read_bytes() == b"1"
        mirror.apply([delete("A"), write("a", b"2")])
        assert (ground.root / "a").read_bytes() == b"2"
        assert mirror.verify() == []


def test_crash_at_any_step_is_recovered_from(kind: Kind, ground: Ground) -> None:
    """A path holds one version or the other at each moment, also where nothing is exchanged."""
    root, apart = ground.root, kind.apart or "d"
    root.mkdir(exist_ok=True)
    names = ["f", "d/x", f"{apart}/y"]
    _apply(root, [write(name, b"0") for name in names])
    last = b"0"
    for k in range(0, 300, 9):
        now = b"%d" % (k + 1)
        batch = [*(write(name, now) for name in names), write(f"{apart}/new/{k}", now)]
        if not k % 2:  # An edge has to be found again.
            (root / ".fsmirror" / "abilities.json").unlink()
        has_died = crashes(partial(_apply, root, batch), k)
        if k % 2:
            ground.remount()
        found = {(root / name).read_bytes() for name in names}
        assert found <= {last, now}
        _apply(root, batch)
        assert {(root / name).read_bytes() for name in names} == {now}
        _apply(root, [delete(f"{apart}/new/{k}")])
        assert not (root / apart / "new").exists()
        assert list(root.rglob(".fsmirror/tmp/*")) == []
        assert list(root.rglob(".fsmirror/backup")) == []
        last = now
        if not has_died:
            break
    assert 299 > k > 20


def _apply(root: Path, intents: list[Intent]) -> None:
    """Applies a batch, without syncs: no power is cut here."""
    with Mirror(root) as mirror:
        mirror.apply([replace(intent, durable=False) for intent in intents])
        assert mirror.verify() == []


def test_snapshot_of_a_mirror_and_its_original_live_apart(tmp_path: Path) -> None:
    """A snapshot has the inode numbers and times of its original."""
    kind = next(kind for kind in KINDS if kind.name == "btrfs with a subvolume")
    source = tmp_path / "source"
    _write(source / "f", "1 of f")
    _write(source / "gone", "1 of gone")
    with laid_out(kind, tmp_path / "ground") as ground:
        root, copy = ground.root, ground.point / "copy"
        (root / "apart").rmdir()
        _sync(source, root)
        snapshot = ("btrfs", "subvolume", "snapshot")
        disks.run(*snapshot, str(root), str(copy))
        before = _tree(root)
        _write(source / "f", "2 of f")
        (source / "gone").unlink()
        assert _sync(source, copy)["backed_up"] == 0
        _assert_settled(kind, source, copy)
        assert _tree(root) == before
        assert run("verify", root).exit_code == 0
        disks.run("btrfs", "subvolume", "delete", str(copy))
        disks.run(*snapshot, str(root), str(copy))
        _sync(source, root)
        disks.run("btrfs", "subvolume", "delete", str(root))
        disks.run(*snapshot, str(copy), str(root))  # It is put back.
        _sync(source, root)
        _assert_settled(kind, source, root)
