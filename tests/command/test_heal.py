"""``fsmirror heal`` restores drift from copies or from the source, and says what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command.commands import edit_unseen, run, told
from tests.command.healing import NO_COPY, heals_as_foreseen
from tests.command.syncing import state
from tests.support import backups, becomes, contents, snapshot
from tests.target.flows import Flow, memoized, ran
from tests.target.projects import end


def empty(root: Path) -> None:
    """Removes all but our own folder."""
    for path in {*root.iterdir()} - {root / ".fsmirror"}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda root: (root / "a").write_bytes(b"tampered"),
    "gone": lambda root: (root / "a").unlink(),
    "another mode": lambda root: (root / "a").chmod(0o600),
    "another time": lambda root: os.utime(root / "a", ns=(5, 5)),
    "a link": lambda root: becomes(root / "a", lambda at: at.symlink_to("d")),
    "a fifo": lambda root: becomes(root / "a", os.mkfifo),
    "a link elsewhere": lambda root: becomes(root / "link", lambda at: at.symlink_to("d/b")),
    "a folder that is gone": lambda root: shutil.rmtree(root / "d"),
    "all of it": empty,
}


@pytest.fixture
def flow(make_flow: Callable[..., Flow]) -> Flow:
    """A flow that has written four files, and has ended."""
    flow = make_flow(memoized)
    flow.files = {"a": b"A", "d/b": b"B" * 5000, "d/deep/c": b"", "e": b"E"}
    flow.update()
    end(flow)
    return flow


# From the source


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
@pytest.mark.parametrize("copies", ["auto", "all"])
def test_drift_of_a_synced_mirror_is_healed(
    source: Path, tmp_path: Path, tamper: Callable[[Path], object], copies: str
) -> None:
    root = tmp_path / "dst"
    run("sync", source, root, "--copies", copies)
    before = state(root)
    tamper(root)
    differ = [each["path"] for each in told("verify", root)["differences"]]
    if copies == "all":
        shutil.rmtree(source)
    assert heals_as_foreseen(root) == (0, differ, {})
    before.pop(".")
    now = state(root)
    now.pop(".")
    assert now == before
    assert run("verify", root, "--content").exit_code == 0
    assert heals_as_foreseen(root) == (0, [], {})


def test_edit_goes_to_the_backup_area_and_both_are_told(target: Path) -> None:
    (target / "a").write_bytes(b"tampered")
    result = run("heal", target)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "heal      a",
        "back up   a",
        f"{target}: 1 path healed, 1 backed up",
    ]
    assert result.stderr.count("\n") == 1
    assert "foreign 'a' was moved to '.fsmirror/backup/" in result.stderr
    assert backups(target) == [b"tampered"]
    assert (target / "a").read_bytes() == b"a"


def test_file_whose_source_changed_is_left_to_sync(source: Path, target: Path) -> None:
    (source / "a").write_bytes(b"changed")
    for name in ("a", "d/b"):
        (target / name).write_bytes(b"tampered")
    status, done, left = heals_as_foreseen(target)
    assert (status, done) == (1, ["d/b"])
    problem = "has changed or is gone, or a link leads to it"
    assert left == {"a": f"no copy of its content is kept, and '{source}/a' {problem}"}
    assert (target / "a").read_bytes() == b"tampered"
    result = run("heal", target)
    assert result.stdout.splitlines() == [
        f"left      a: {left['a']}",
        f"{target}: 0 paths healed, 1 left to the next update or sync",
    ]
    run("sync", source, target)
    assert heals_as_foreseen(target) == (0, [], {})


@pytest.mark.parametrize("lost", ["a", ""])
def test_file_whose_source_is_gone_is_left(source: Path, target: Path, lost: str) -> None:
    if lost:
        (source / lost).unlink()
    else:
        shutil.rmtree(source)
    for name in ("a", "link"):
        (target / name).unlink()
    status, done, left = heals_as_foreseen(target)
    assert (status, done, [*left]) == (1, ["link"], ["a"])  # A link needs no content.
    gone = str(source / lost)
    problem = "has changed or is gone, or a link leads to it"
    assert left["a"] == f"no copy of its content is kept, and {gone!r} {problem}"


def test_source_that_became_a_link_is_not_followed(source: Path, target: Path) -> None:
    (source / "d").rename(source.parent / "elsewhere")
    (source / "d").symlink_to(source.parent / "elsewhere")
    (target / "d" / "b").unlink()
    assert heals_as_foreseen(target)[0] == 1
    assert not (target / "d" / "b").exists()


# From copies


@pytest.mark.parametrize(
    "name", [name for name in TAMPERINGS if "link" not in name or name == "a link"]
)
def test_drift_of_a_flow_is_healed_without_it(flow: Flow, name: str) -> None:
    before = snapshot(flow.root)
    TAMPERINGS[name](flow.root)
    differ = [each["path"] for each in told("verify", flow.root)["differences"]]
    if name == "another time":
        assert differ == []  # The flow declares none.
    assert heals_as_foreseen(flow.root) == (0, differ, {})
    assert contents(snapshot(flow.root)) == flow.files
    assert run("verify", flow.root, "--content").exit_code == 0
    flow.update()
    assert ran == []
    assert snapshot(flow.root) == before


def test_file_without_a_copy_is_left_to_the_flow(flow: Flow) -> None:
    flow.options["copies"] = "none"
    flow.update()
    end(flow)
    (flow.root / "a").write_bytes(b"tampered")
    assert heals_as_foreseen(flow.root) == (1, [], {"a": NO_COPY})
    assert (flow.root / "a").read_bytes() == b"tampered"
    flow.update()
    assert ran == ["a"]
    assert heals_as_foreseen(flow.root) == (0, [], {})


def test_edit_stays_where_the_flow_wants_an_error(flow: Flow) -> None:
    flow.options["on_conflict"] = "error"
    flow.update()
    end(flow)
    (flow.root / "a").write_bytes(b"tampered")
    (flow.root / "e").unlink()
    status, done, failed = heals_as_foreseen(flow.root)
    assert (status, done, [*failed]) == (3, ["e"], ["a"])
    assert "foreign bytes are in the way" in failed["a"]
    assert (flow.root / "a").read_bytes() == b"tampered"
    assert f"fail      a: {failed['a']}" in run("heal", flow.root).stdout.splitlines()


def test_folder_with_foreign_files_in_the_way_fails_alone(flow: Flow) -> None:
    becomes(flow.root / "a", Path.mkdir)
    (flow.root / "a" / "theirs").write_bytes(b"1")
    (flow.root / "e").unlink()
    status, done, failed = heals_as_foreseen(flow.root)
    assert (status, done, [*failed]) == (3, ["e"], ["a"])
    assert (flow.root / "a" / "theirs").read_bytes() == b"1"


@pytest.mark.parametrize("large", [False, True])
def test_damaged_copy_is_left_and_removed(make_flow: Callable[..., Flow], large: bool) -> None:
    flow = make_flow(memoized)
    flow.options["copies"] = "all"
    flow.files = {"a": b"A" * (100_000 if large else 10), "b": b"B"}
    flow.update()
    end(flow)
    ours = flow.root / ".fsmirror"
    if large:
        (path,) = (ours / "copies").iterdir()
        path.write_bytes(b"x" * 100_000)
    else:
        with sqlite3.connect(ours / "copies.sqlite3") as database:
            database.execute("UPDATE contents SET content = x'00', is_packed = 0")
        database.close()
    for name in flow.files:
        (flow.root / name).unlink()
    left = {name: NO_COPY for name in flow.files if name == "a" or not large}
    assert heals_as_foreseen(flow.root) == (1, [n for n in flow.files if n not in left], left)
    assert told("status", flow.root)["copies"]["files"] == len(flow.files) - len(left)
    flow.update()
    assert sorted(ran) == sorted(left)
    (flow.root / "a").unlink()
    assert heals_as_foreseen(flow.root) == (0, ["a"], {})


# What is looked at


def test_only_the_given_files_and_folders_are_healed(flow: Flow) -> None:
    for name in flow.files:
        (flow.root / name).unlink()
    assert heals_as_foreseen(flow.root, "a", "d/deep/") == (0, ["a", "d/deep/c"], {})
    assert heals_as_foreseen(flow.root, "./d") == (0, ["d/b"], {})
    assert heals_as_foreseen(flow.root, "a") == (0, [], {})
    assert heals_as_foreseen(flow.root) == (0, ["e"], {})


@pytest.mark.parametrize("path", ["other", "d/other", "ab", "..", "/a", ".", ".fsmirror", ""])
def test_path_that_is_not_managed_is_refused(flow: Flow, path: str) -> None:
    (flow.root / "other").write_bytes(b"mine")
    (flow.root / "a").unlink()
    result = run("heal", flow.root, "a", path)
    assert result.exit_code == 2
    assert path in result.stderr
    assert not (flow.root / "a").exists()


def test_hint_tells_that_paths_are_relative(flow: Flow) -> None:
    stderr = run("heal", flow.root, "root/a").stderr
    assert stderr == (
        f"fsmirror: root/a: is not managed in {flow.root} (PATH is relative to that)\n"
    )


def test_path_that_is_not_utf_8_is_healed(source: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (source / name).write_bytes(b"1")
    run("sync", source, root := tmp_path / "dst")
    (root / name).unlink()
    result = run("heal", root, name, "--dry-run", "--json")
    assert json.loads(result.stdout)["healed"] == [{"bytes": "Y2Fm6Q=="}]
    result = run("heal", root, name)
    assert result.stdout.splitlines()[0] == "heal      caf\\udce9"
    assert (root / name).read_bytes() == b"1"


def test_edit_that_no_lstat_shows_is_healed_by_content(target: Path) -> None:
    edit_unseen(target, "a", b"x")
    assert heals_as_foreseen(target) == (0, [], {})
    assert heals_as_foreseen(target, "--content") == (0, ["a"], {})
    assert (target / "a").read_bytes() == b"a"


def test_directory_without_a_mirror_is_refused(tmp_path: Path) -> None:
    assert run("heal", tmp_path).exit_code == 2
    assert [*tmp_path.iterdir()] == []


def test_foreign_files_are_left_alone(target: Path) -> None:
    (target / "d" / "mine").write_bytes(b"mine")
    assert heals_as_foreseen(target) == (0, ["d"], {})  # Its time has changed.
    assert (target / "d" / "mine").read_bytes() == b"mine"
    shutil.rmtree(target / "d")
    (target / "d").write_bytes(b"mine")
    assert heals_as_foreseen(target) == (0, ["d", "d/b"], {})
    assert backups(target) == [b"mine"]
