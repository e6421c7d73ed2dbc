"""A flow that swaps its import moves over: nothing is lost, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cocoindex_fsmirror import RootError
from cocoindex_fsmirror._target import localfs_guard as _guard
from tests.support import contents, snapshot

FLOW = """
    import logging, pathlib, types
    import cocoindex as coco
    from cocoindex.connectors import localfs
    {release}
    from {package} as target

    logging.basicConfig(level=logging.INFO)
    top = pathlib.Path({top!r})

    async def main():
        if {with_dir}:
            out = await target.mount_dir_target(top / "out")
            out.declare_file("a.txt", "A")
            out.declare_file("sub/b.txt", "B", create_parent_dirs=True)
        if {with_single}:
            target.declare_file(top / "single" / "c.txt", "C", create_parent_dirs=True)
        if {with_old}:
            out.declare_file("old.txt", "old")
            await localfs.mount_dir_target(top / "theirs")

    environment = coco.Environment(coco.Settings(db_path=top / "db"))
    coco.App(coco.AppConfig(name="moving", environment=environment), main).update_blocking()
"""


# Unknown releases

DELETES_ELSEWHERE = """
    functions = [f for f in vars(localfs._target).values() if isinstance(f, types.FunctionType)]
    for function in functions:
        names = function.__code__.co_names
        names = tuple("_new" if name == "_execute_entry_action" else name for name in names)
        function.__code__ = function.__code__.replace(co_names=names)
    localfs._target._new = vars(localfs._target).pop("_execute_entry_action")
"""
DELETES_OTHERWISE = """
    localfs._target._old = localfs._target._execute_entry_action
    localfs._target._execute_entry_action = lambda *both: localfs._target._old(*both)
"""
UNKNOWN = pytest.mark.parametrize("release", [DELETES_ELSEWHERE, DELETES_OTHERWISE])


def _update(top: Path, package: str, *, with_old: bool = False, release: str = "") -> str:
    """Runs the flow in a process of its own; returns what it logged."""
    ran = _run(top, package, with_old=with_old, release=release)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def _run(
    top: Path,
    package: str,
    *,
    with_old: bool = False,
    with_dir: bool = True,
    with_single: bool = True,
    release: str = "",
) -> subprocess.CompletedProcess[str]:
    """Runs the flow in a process of its own, with a made-up release of the engine."""
    flow = FLOW.format(
        package=package,
        top=str(top),
        with_old=with_old,
        with_dir=with_dir,
        with_single=with_single,
        release=release.strip(),
    )
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(flow)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


LOCALFS = "cocoindex.connectors import localfs"
OURS = "cocoindex_fsmirror._target import declare"


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A place where the flow ran with localfs, beside a user's own file."""
    _update(tmp_path, LOCALFS, with_old=True)
    (tmp_path / "out" / "user.txt").write_text("mine")
    return tmp_path


def _move(top: Path) -> str:
    """Runs the same flow with the import swapped."""
    return _update(top, OURS)


def test_moving_over_keeps_every_file(moved: Path) -> None:
    before = contents(snapshot(moved / "out"))
    log = _move(moved)
    assert contents(snapshot(moved / "out")) == before
    assert contents(snapshot(moved / "single")) == {"c.txt": b"C"}
    assert "localfs gave it up" in log


def test_moving_over_writes_nothing(moved: Path) -> None:
    seen = (moved / "out" / "a.txt").stat()
    _move(moved)
    now = (moved / "out" / "a.txt").stat()
    assert (now.st_ino, now.st_ctime_ns) == (seen.st_ino, seen.st_ctime_ns)


def test_localfs_still_deletes_files_outside_any_mirror(tmp_path: Path) -> None:
    _update(tmp_path, LOCALFS, with_old=True)
    assert (tmp_path / "out" / "old.txt").exists()
    _update(tmp_path, LOCALFS)
    assert not (tmp_path / "out" / "old.txt").exists()


@UNKNOWN
def test_unknown_release_moves_no_directory_over_before_a_known_one(
    tmp_path: Path, release: str
) -> None:
    _run(tmp_path, LOCALFS, with_old=True, with_single=False)
    (tmp_path / "out" / "user.txt").write_text("mine")
    before = contents(snapshot(tmp_path / "out"))
    for _ in range(2):  # A failed update is repeated.
        ran = _run(tmp_path, OURS, with_single=False, release=release)
        assert ran.returncode != 0
        assert f"RootError: {tmp_path}/out: may be deleted by this release of localfs" in ran.stderr
        assert "run this update once with cocoindex 1.0.26" in ran.stderr
        assert contents(snapshot(tmp_path / "out")) == before
    known = _run(tmp_path, OURS, with_single=False)
    assert "localfs gave it up" in known.stderr
    again = _run(tmp_path, OURS, with_single=False, release=release)
    assert (again.returncode, again.stderr) == (0, "")
    assert contents(snapshot(tmp_path / "out")) == before


@UNKNOWN
def test_unknown_release_moves_no_file_over(moved: Path, release: str) -> None:
    ran = _run(moved, OURS, with_dir=False, release=release)
    assert ran.returncode != 0
    assert f"RootError: {moved}/single/c.txt: may be deleted by this release" in ran.stderr
    assert contents(snapshot(moved / "single")) == {"c.txt": b"C"}
    assert (moved / "out" / "user.txt").read_text() == "mine"


@UNKNOWN
def test_unknown_release_works_in_a_new_directory_and_in_a_mirror(
    tmp_path: Path, release: str
) -> None:
    (tmp_path / "out").mkdir()
    for with_old in (True, False):
        _update(tmp_path, OURS, with_old=with_old, release=release)
        (tmp_path / "out" / "user.txt").write_text("mine")
        assert (tmp_path / "out" / "old.txt").exists() is with_old
        assert (tmp_path / "theirs").exists() is with_old  # A root of localfs.
    assert contents(snapshot(tmp_path / "single")) == {"c.txt": b"C"}


def test_path_without_a_ledger_is_refused_in_an_unknown_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _guard.refuse_to_adopt(None, "key:out")
    monkeypatch.setattr(_guard, "_is_guarded", False)
    with pytest.raises(RootError, match="key:out: may be deleted"):
        _guard.refuse_to_adopt(None, "key:out")


@pytest.mark.parametrize(("name", "kind"), [("", "dir"), ("x", "file")])
def test_files_beside_a_damaged_ledger_are_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / ".fsmirror").mkdir()
    (tmp_path / ".fsmirror" / "ledger.sqlite3").write_bytes(b"no ledger" * 1_000)
    assert _guard._is_mirrored(str(tmp_path / name), kind)
