"""``fsmirror heal --watch``: what somebody changes in a mirror comes back at once."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.command.following import Follower
from tests.support import backups, contents, snapshot
from tests.target.flows import Flow, memoized, ran
from tests.target.projects import end

FILES = {"a": b"A", "d/b": b"B" * 5000, "d/deep/c": b"", "e": b"E"}


@pytest.fixture
def flow(make_flow: Callable[..., Flow], state: Path) -> Flow:
    """A flow that has written four files; its state is elsewhere."""
    flow = make_flow(memoized)
    flow.files, flow.options = dict(FILES), {"state": state}
    flow.update()
    end(flow)
    return flow


@pytest.fixture
def healer(flow: Flow, state: Path) -> Iterator[Follower]:
    """A process that heals the mirror of the flow, and has looked at it once."""
    (flow.root / "a").unlink()
    with Follower(flow.root, "--state", state, command="heal") as started:
        assert started.run()["healed"] == ["a"]
        yield started


def test_each_change_is_undone(flow: Flow, healer: Follower, state: Path) -> None:
    (flow.root / "d" / "b").write_bytes(b"edited")
    figures = healer.run()
    assert (figures["healed"], figures["backed_up"]) == (["d/b"], ["d/b"])
    (flow.root / "e").unlink()
    assert healer.run()["healed"] == ["e"]
    os.utime(flow.root, ns=(1, 1))
    shutil.rmtree(flow.root / "d" / "deep")
    assert healer.run()["healed"] == ["d/deep/c"]
    assert contents(flow.tree) == FILES
    assert backups(flow.root, state) == [b"edited"]
    flow.update()
    assert ran == []


def test_root_that_is_removed_whole_comes_back(flow: Flow, healer: Follower) -> None:
    for _ in range(2):
        os.rename(flow.root, flow.root.with_name("aside"))
        assert healer.run()["healed"] == sorted(FILES)
        shutil.rmtree(flow.root.with_name("aside"))
    assert contents(flow.tree) == FILES


def test_updates_of_the_flow_are_left_alone(flow: Flow, healer: Follower) -> None:
    for number in range(3):
        flow.files["a"] = b"new %d" % number
        flow.files[f"more {number}"] = b"more"
        flow.update()
        del flow.files[f"more {number}"]
    flow.update()
    (flow.root / "e").unlink()
    assert healer.run()["healed"] == ["e"]
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == []


def test_path_without_a_copy_is_told_once(source: Path, dst: Path) -> None:
    run("sync", source, dst)
    (source / "a").write_bytes(b"another")
    (dst / "a").unlink()
    with Follower(dst, command="heal") as healer:
        figures = healer.run()
        assert [each["path"] for each in figures["left"]] == ["a"]
        (dst / "d" / "b").unlink()
        figures = healer.run()
        assert "d/b" in figures["healed"]
        assert [each["path"] for each in figures["left"]] == ["a"]
        (dst / "foreign").write_bytes(b"1")
        (dst / "d" / "b").write_bytes(b"edited")
        assert "d/b" in healer.run()["healed"]


def test_fight_with_another_program_ends_by_name(flow: Flow, healer: Follower) -> None:
    is_over = threading.Event()

    def fight() -> None:
        while not is_over.wait(0.05):
            (flow.root / "a").write_bytes(b"theirs")

    other = threading.Thread(target=fight)
    other.start()
    try:
        status, told = healer.ended()
    finally:
        is_over.set()
        other.join()
    assert status == 3
    assert f"{flow.root}/a" in told
    assert "end the other program" in told


def test_mirror_that_is_dropped_and_made_anew_is_healed(source: Path, dst: Path) -> None:
    run("sync", source, dst, "--copies", "all")
    (dst / "a").unlink()
    with Follower(dst, command="heal") as healer:
        assert "a" in healer.run()["healed"]
        run("drop", dst, "--yes")
        assert "is no mirror" in healer.run()["error"]
        run("sync", source, dst, "--copies", "all")
        (dst / "a").write_bytes(b"edited")
        assert healer.run()["healed"] == ["a"]
    assert contents(snapshot(dst)) == {"a": b"a", "d/b": b"bb"}


def test_interrupt_ends_it(healer: Follower) -> None:
    status, _, errors = healer.rest()
    assert (status, errors) == (130, "")


def test_watch_takes_no_dry_run(source: Path, target: Path) -> None:
    assert run("heal", target, "--watch", "-n").exit_code == 2
