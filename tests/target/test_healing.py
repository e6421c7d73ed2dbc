"""Drift is healed from copies when a root is mounted, before any component could run for it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import copies as _copies
from tests.command.commands import edit_unseen
from tests.support import backups, contents, exact_state
from tests.target import flows
from tests.target.declaring import MakeFlow, assert_converged, dress
from tests.target.flows import IS_NEW, OUT, Flow, failing_step, memoized, ran
from tests.target.projects import anew, copy_over, end

DRESSED = 0o640
THEN = 1_000_000_000 * 10**9


@coco.fn(memo=True)
async def dressed_page(item: tuple[str, bytes], out: fsmirror.DirTarget) -> None:
    """Declares a file with a mode and a time, in a memoized component."""
    ran.append(item[0])
    out.declare_file(*item, mode=DRESSED, mtime_ns=THEN)


async def dressed(flow: Flow) -> None:
    """Declares every file with a mode and a time, in a memoized component of its own."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    await coco.mount_each(dressed_page, [(n, (n, flow.files[n])) for n in flow.files], out)


def replaced(path: Path) -> None:
    """Replaces a file by a folder that is empty."""
    path.unlink()
    path.mkdir()


def renamed(path: Path) -> None:
    """Gives a file another name."""
    path.rename(path.with_name(f"{path.name} renamed"))


def edited(path: Path) -> None:
    """Edits a file, which another program may do."""
    path.write_bytes(b"edited " + path.name.encode())


def redressed(path: Path) -> None:
    """Gives a file another mode and time."""
    path.chmod(0o600)
    os.utime(path, ns=(1, 1))


TAMPERS: list[Callable[[Path], None]] = [edited, Path.unlink, renamed, redressed]


@pytest.fixture
def flow(make_flow: MakeFlow) -> Flow:
    """A flow that has written forty files, each in a memoized component."""
    flow = make_flow(dressed)
    flow.files = {f"d{n % 4}/{n}": b"content %d" % n * 20 for n in range(40)}
    flow.update()
    assert len(ran) == 40
    return flow


def assert_healed(flow: Flow) -> None:
    """Asserts that an update heals, without running any body, and that the next does nothing."""
    end(flow)
    flow.update()
    assert ran == []
    tree = contents(flow.tree)
    assert {name: tree.get(name) for name in flow.files} == flow.files
    for name in flow.files:
        assert dress(flow.root / name) == (DRESSED, THEN)
    flow.update()  # It may read once more what was written in the tick of the last look.
    assert ran == []
    before = exact_state(flow.root)
    flow.update()
    assert ran == []
    assert exact_state(flow.root) == before


def test_no_body_runs_for_a_hundred_of_1000_outputs(make_flow: MakeFlow) -> None:
    flow = make_flow(dressed)
    flow.files = {f"d{n % 10}/{n}": b"content %d" % n for n in range(1000)}
    flow.update()
    for number, name in enumerate([*flow.files][:100]):
        TAMPERS[number % len(TAMPERS)](flow.root / name)
    assert_healed(flow)
    assert len(backups(flow.root)) == 25


def test_no_body_runs_after_the_output_was_emptied(flow: Flow) -> None:
    for path in flow.root.iterdir():
        if path.name != ".fsmirror":
            shutil.rmtree(path)
    assert_healed(flow)


def test_one_line_tells_what_was_healed(flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    (flow.root / "d1" / "1").unlink()
    (flow.root / "d2" / "2").unlink()
    with caplog.at_level(logging.INFO, "cocoindex_fsmirror"):
        flow.update()
    told = [line for line in caplog.messages if "healed" in line]
    assert told == [f"{flow.root}: healed from copies: 'd1/1', 'd2/2'"]


def test_source_that_changed_too_runs_its_component_once(flow: Flow) -> None:
    (flow.root / "d1" / "1").write_bytes(b"edited")
    (flow.root / "d2" / "2").unlink()
    flow.files["d1/1"] = b"new content"
    flow.update()
    assert ran == ["d1/1"]
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == [b"edited"]
    assert_converged(flow)


def test_component_that_is_gone_takes_its_healed_file_along(flow: Flow) -> None:
    (flow.root / "d1" / "1").write_bytes(b"edited")
    del flow.files["d1/1"]
    flow.update()
    assert ran == []
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == [b"edited"]


def test_edit_that_only_reading_finds_is_healed(flow: Flow) -> None:
    flow.options["verify"] = "content"
    flow.update()
    end(flow)
    edit_unseen(flow.root, "d1/1", b"x" * len(flow.files["d1/1"]))
    assert_healed(flow)


@pytest.mark.parametrize("policy", ["overwrite", "error"])
def test_edit_goes_where_the_policy_says(flow: Flow, policy: str) -> None:
    flow.options["on_conflict"] = policy
    flow.update()
    (flow.root / "d1" / "1").write_bytes(b"edited")
    (flow.root / "d2" / "2").unlink()
    said = flow.attempt()
    assert backups(flow.root) == []
    if policy == "overwrite":
        assert (said, ran) == ("", [])
        assert contents(flow.tree) == flow.files
    else:  # Nothing but the conflict is left to its owner.
        assert "foreign bytes are in the way" in said
        assert ran == ["d1/1"]
        assert contents(flow.tree) == flow.files | {"d1/1": b"edited"}


def test_folder_in_the_place_of_a_file_is_left_to_its_owner(flow: Flow) -> None:
    path = flow.root / "d1" / "1"
    replaced(path)
    (path / "theirs").write_bytes(b"1")
    assert "a directory is in the way" in flow.attempt()
    assert ran == ["d1/1"]
    assert (path / "theirs").read_bytes() == b"1"


def test_without_copies_the_owner_runs(flow: Flow) -> None:
    flow.options["copies"] = "none"
    flow.update()
    assert ran == []
    (flow.root / "d1" / "1").unlink()
    redressed(flow.root / "d2" / "2")
    flow.update()
    assert sorted(ran) == ["d1/1", "d2/2"]
    flow.options["copies"] = "auto"
    flow.update()  # Copies what is in place.
    (flow.root / "d1" / "1").unlink()
    assert_healed(flow)


@pytest.mark.parametrize("outer", ["auto", "none"])
def test_nested_target_has_its_own_policy(make_flow: MakeFlow, outer: str) -> None:
    inner = {"auto": "none", "none": "auto"}[outer]

    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT, copies=outer)  # type: ignore[arg-type]
        await coco.mount(coco.component_subpath("a"), flows.page, ("a", b"1"), out)
        nested = await coco.use_mount(coco.component_subpath("sub"), _declare, out, inner)
        await coco.mount(coco.component_subpath("b"), flows.page, ("b", b"2"), nested)

    flow = make_flow(main)
    flow.update()
    (flow.root / "a").unlink()
    (flow.root / "sub" / "b").unlink()
    flow.update()
    assert ran == ["b" if outer == "auto" else "a"]
    assert contents(flow.tree) == {"a": b"1", "sub/b": b"2"}


@coco.fn
async def _declare(out: fsmirror.DirTarget, copies: Any) -> fsmirror.DirTarget[coco.PendingS]:
    """Declares a nested target."""
    return out.declare_dir_target("sub", copies=copies)


@pytest.mark.parametrize("clones", [False, True])
@pytest.mark.parametrize("policy", ["auto", "all"])
def test_large_output_has_a_copy_where_that_is_cheap_or_asked_for(
    make_flow: MakeFlow, monkeypatch: pytest.MonkeyPatch, policy: str, clones: bool
) -> None:
    def clone(source: int, target: int) -> bool:
        is_done = clones and os.sendfile(target, source, 0, 1 << 30) > 0
        os.lseek(target, 0, os.SEEK_SET)
        return is_done

    monkeypatch.setattr(_calls, "clone", clone)
    flow = make_flow(dressed)
    flow.options, flow.files = {"copies": policy}, {"large": os.urandom(100 << 10), "small": b"1"}
    flow.update()
    for name in flow.files:
        (flow.root / name).unlink()
    if clones or policy == "all":
        assert_healed(flow)
    else:
        flow.update()
        assert ran == ["large"]
        assert contents(flow.tree) == flow.files


def _damaged_row(root: Path) -> None:
    """Changes a stored content."""
    with closing(sqlite3.connect(root / ".fsmirror" / "copies.sqlite3")) as database:
        database.execute("UPDATE contents SET content = x'00', is_packed = 0")
        database.commit()


def _damaged_file(root: Path) -> None:
    """Overwrites pages of the database."""
    path = root / ".fsmirror" / "copies.sqlite3"
    path.write_bytes(b"\xff" * path.stat().st_size)


def _without_database(root: Path) -> None:
    """Removes the copies."""
    (root / ".fsmirror" / "copies.sqlite3").unlink()


@pytest.mark.parametrize("damage", [_damaged_row, _damaged_file, _without_database])
def test_damaged_or_missing_copy_means_that_its_owner_runs(
    flow: Flow, damage: Callable[[Path], None]
) -> None:
    end(flow)
    damage(flow.root)
    (flow.root / "d1" / "1").unlink()
    flow.update()
    assert ran == ["d1/1"]
    assert contents(flow.tree) == flow.files
    (flow.root / "d1" / "1").unlink()  # It has a copy again.
    assert_healed(flow)


def test_copy_that_can_not_be_kept_fails_nothing(
    make_flow: MakeFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    flow = make_flow(memoized)
    flow.options, flow.files = {"copies": "all"}, {"large": b"1" * 100_000, "small": b"1"}
    with monkeypatch.context() as patch:
        patch.setattr(_copies, "copy", fail)
        flow.update()
    assert contents(flow.tree) == flow.files
    (flow.root / "large").unlink()
    flow.update()
    assert ran == ["large"]


@pytest.mark.parametrize("step", range(0, 40, 3))
def test_healing_that_is_cut_off_converges(flow: Flow, step: int) -> None:
    for number, name in enumerate([*flow.files][:8]):
        TAMPERS[number % len(TAMPERS)](flow.root / name)
    with failing_step(step):
        flow.attempt()
    end(flow)
    flow.update()
    assert ran == []
    tree = contents(flow.tree)
    assert {name: tree.get(name) for name in flow.files} == flow.files
    assert sorted(backups(flow.root)) == [b"edited 0", b"edited 4"]
    flow.update()  # As in assert_healed.
    assert_converged(flow)


def test_ledger_of_another_time_heals_nothing(flow: Flow, tmp_path: Path) -> None:
    end(flow)
    before = tmp_path / "before"
    copy_over(flow.root, before)
    flow.files["d1/1"] = b"of a later time"
    flow.update()
    end(flow)
    anew(before, flow.root)
    (flow.root / "d2" / "2").unlink()
    flow.update()
    assert len(ran) == 40
    assert contents(flow.tree) == flow.files


@pytest.mark.skipif(not IS_NEW, reason="this engine previews no containers")
def test_preview_lists_what_would_be_healed_and_heals_nothing(flow: Flow) -> None:
    (flow.root / "d1" / "1").unlink()
    (flow.root / "d2" / "2").write_bytes(b"edited")
    before = exact_state(flow.root)
    ran.clear()
    assert flow.preview() == [f"mirror {OUT.key}, and heal 2 paths from copies"]
    assert ran == []
    assert exact_state(flow.root) == before


def test_declared_copies_links_and_folders_come_back(make_flow: MakeFlow, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"12345")
    calls: list[int] = []

    @coco.fn(memo=True)
    async def several(number: int, out: fsmirror.DirTarget) -> None:
        calls.append(number)
        await out.declare_copy("copy", source, preserve=("mode", "mtime"))
        out.declare_symlink("link", "copy")
        out.declare_dir_target("empty", mode=0o750)

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount(coco.component_subpath("several"), several, 1, out)

    flow = make_flow(main)
    flow.update()
    before, then = flow.tree, dress(flow.root / "copy")
    (flow.root / "copy").unlink()
    (flow.root / "link").unlink()
    (flow.root / "empty").rmdir()
    flow.update()
    assert flow.tree == before
    assert dress(flow.root / "copy") == then
    assert dress(flow.root / "empty")[0] == 0o750
    assert calls == [1]
