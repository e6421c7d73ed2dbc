"""A flow that swaps its import moves over: nothing is lost, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, RootError
from cocoindex_fsmirror._target import localfs_guard as _guard
from tests.support import backups, contents, snapshot, write

FLOW = """
    import logging, pathlib, shutil, types
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
DELETES_BESIDE = """
    functions = [f for f in vars(localfs._target).values() if isinstance(f, types.FunctionType)]
    for function in functions:
        names = function.__code__.co_names
        names = tuple("_new" if name == "_execute_entry_action" else name for name in names)
        function.__code__ = function.__code__.replace(co_names=names)
    localfs._target._new = localfs._target._execute_entry_action
    localfs._target._execute_entry_action = lambda path, action: None
"""
DELETES_ITSELF = """
    def also_deletes(path):
        shutil.rmtree(path)

    also_deletes.__module__ = localfs._target.__name__
    localfs._target.also_deletes = also_deletes
"""
RELEASES = [DELETES_ELSEWHERE, DELETES_OTHERWISE, DELETES_BESIDE, DELETES_ITSELF]
UNKNOWN = pytest.mark.parametrize("release", RELEASES)


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
    _guard.take_over(None, "key:out")
    monkeypatch.setattr(_guard, "_is_guarded", False)
    with pytest.raises(RootError, match="key:out: may be deleted"):
        _guard.take_over(None, "key:out")


@pytest.mark.parametrize(("name", "kind"), [("", "dir"), ("x", "file")])
def test_files_beside_a_damaged_ledger_are_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / ".fsmirror").mkdir()
    (tmp_path / ".fsmirror" / "ledger.sqlite3").write_bytes(b"no ledger" * 1_000)
    assert _guard._is_mirrored(str(tmp_path / name), kind)


# Other paths than before

ELSEWHERE = """
    import pathlib
    import cocoindex as coco
    from {package} as target

    top = pathlib.Path({top!r})

    async def main():
        if {root!r}:
            out = await target.mount_dir_target(top / {root!r}, create_parent_dirs=True)
            out.declare_file({name!r}, "B", create_parent_dirs=True)
        else:
            target.declare_file(top / {name!r}, "B", create_parent_dirs=True)

    environment = coco.Environment(coco.Settings(db_path=top / "db"))
    coco.App(coco.AppConfig(name="moving", environment=environment), main).update_blocking()
"""


def _declare(top: Path, package: str, root: str, name: str) -> None:
    """Runs a flow of one file in a process of its own."""
    flow = ELSEWHERE.format(package=package, top=str(top), root=root, name=name)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(flow)]
    subprocess.run(command, capture_output=True, check=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("out", "sub/b"), ("out/sub", "b")),
        (("out/sub", "b"), ("out", "sub/b")),
        (("out", "sub/b"), ("", "out/sub/b")),
        (("", "out/sub/b"), ("out", "sub/b")),
        (("", "out/sub/b"), ("", "out/sub/b")),
    ],
)
def test_moving_over_to_another_root_keeps_every_file(
    tmp_path: Path, before: tuple[str, str], now: tuple[str, str]
) -> None:
    _declare(tmp_path, LOCALFS, *before)
    (tmp_path / "out" / "mine").write_bytes(b"mine")
    (tmp_path / "out" / "sub" / "mine").write_bytes(b"mine")
    _declare(tmp_path, OURS, *now)
    for _ in range(2):
        found = contents(snapshot(tmp_path / "out"))
        mirrored = {name: found[name] for name in found if ".fsmirror" not in name}
        assert mirrored == {"mine": b"mine", "sub/mine": b"mine", "sub/b": b"B"}
        _declare(tmp_path, OURS, *now)


@pytest.mark.slow
def test_edited_single_file_is_backed_up_not_deleted(tmp_path: Path) -> None:
    """The engine has ours and theirs applied in an order that it does not promise."""
    for number in range(4):
        top = tmp_path / f"{number}"
        top.mkdir()
        _declare(top, LOCALFS, "", "single/c")
        (top / "single" / "c").write_bytes(b"edited")
        _declare(top, OURS, "", "single/c")
        assert contents(snapshot(top / "single")) == {"c": b"B"}
        assert backups(top / "single") == [b"edited"]


def test_declared_path_is_kept_whatever_links_lead_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "_declared", set[str]())
    (tmp_path / "real" / "out").mkdir(parents=True)
    (tmp_path / "real" / "link").symlink_to("nowhere")
    (tmp_path / "way").symlink_to("real")
    assert not _guard._is_ours(str(tmp_path / "real" / "out"), "dir")
    for name in ("out", "link"):
        _guard.take_over(str(tmp_path / "way" / name), name)
    for way in ("real", "way"):
        assert _guard._is_ours(str(tmp_path / way / "out"), "dir")
        assert _guard._is_ours(str(tmp_path / way / "link"), "file")
        assert not _guard._is_ours(str(tmp_path / way / "other"), "file")
    assert _guard._is_ours(str(tmp_path / "real"), "dir")


def test_mirror_of_another_process_in_a_directory_keeps_it(tmp_path: Path) -> None:
    with Mirror(tmp_path / "out" / "deep" / "mirror") as mirror:
        mirror.create()
        mirror.apply([write("d/x", b"1")])
    assert _guard._is_ours(str(tmp_path / "out"), "dir")
    assert _guard._is_ours(str(tmp_path / "out" / "deep" / "mirror" / "d"), "dir")
    assert _guard._is_ours(str(tmp_path / "out" / "deep" / "mirror" / "d" / "x"), "file")
    assert not _guard._is_ours(str(tmp_path / "out" / "deep" / "mirror" / "d" / "y"), "file")
