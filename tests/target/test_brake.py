"""``max_delete`` and ``exact`` in real flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.rows import Row
from cocoindex_fsmirror._core.states import Kind
from cocoindex_fsmirror._mirror.brake import Brake, allowance
from cocoindex_fsmirror._mirror.reader import LedgerReader
from cocoindex_fsmirror._target import sink
from tests.support import OWNER, backups, contents, delete, folder, snapshot, write
from tests.target.flows import OUT, Flow, memoized, page, plain

MakeFlow = Callable[..., Flow]
MAINS = pytest.mark.parametrize("main", [plain, memoized])


@pytest.mark.parametrize(
    ("limit", "managed", "allowed"),
    [
        (0.29, 100, 29),
        (0.07, 100, 7),
        (0.1, 9, 0),
        (0.5, 3, 1),
        (1.0, 7, 7),
        (0.0, 7, 0),
        (3, 2, 3),
    ],
)
def test_fraction_is_rounded_down_but_never_to_nothing(
    limit: float, managed: int, allowed: int
) -> None:
    assert allowance(limit, managed) == allowed


class Ledger(LedgerReader):
    """Managed files, from which a test removes what a brake lets it remove."""

    def __init__(self, limit: float, *names: str) -> None:
        self.files = set(map(Name, names))
        self.brake = Brake(limit)

    def remove(self, *names: str) -> str:
        """Removes files in one batch; returns the message of its error."""
        planned = set(map(Name, names))
        try:
            self.brake.check("/root", planned, self, OWNER)
        except fsmirror.TooManyRemovalsError as error:
            return str(error)
        self.files -= planned
        return ""

    def count(self, owner: str = "") -> int:
        """Returns the number of rows."""
        assert owner == OWNER
        return len(self.files)

    def rows_named(self, names: Iterable[Name]) -> dict[Name, Row]:
        """Returns the rows of files that are still there."""
        return {name: Row(name, Kind.FILE, OWNER, "") for name in self.files.intersection(names)}


def test_batch_that_crosses_the_limit_is_refused_whole() -> None:
    ledger = Ledger(5, *"abcdefgh")
    assert ledger.remove("a", "b", "c") == ""
    told = ledger.remove("d", "e", "f")
    assert "6 of 8 files would be removed, and max_delete=5 allows 5" in told
    assert "no more than 3 were removed" in told
    assert ledger.files == set("defgh")


def test_parts_of_a_refused_batch_are_refused_as_well() -> None:
    ledger = Ledger(2, *"abcdefgh")
    assert "nothing was removed" in ledger.remove("a", "b", "c", "d")
    for part in ("ab", "cd", *"abcdefgh"):
        assert ledger.remove(*part), part
    assert ledger.remove() == "", "a batch that removes nothing goes through"
    assert ledger.files == set("abcdefgh")


def test_retried_batch_counts_once() -> None:
    ledger = Ledger(2, *"abcd")
    for part in ("ab", "ab", "a", "b"):
        assert ledger.remove(*part) == ""
    assert ledger.remove("c")


def test_announced_removals_of_managed_paths_count_at_once() -> None:
    ledger = Ledger(2, *"abcd")
    for name in "acxyz":
        ledger.brake.announce(Name(name))
    assert ledger.remove("a") == "", "x, y and z are not managed"
    ledger.brake.announce(Name("d"))
    assert "3 of 4" in ledger.remove("c")


def test_fraction_refers_to_what_was_managed_when_the_update_began() -> None:
    ledger = Ledger(0.5, *"abcd")
    assert ledger.remove() == ""
    ledger.files |= set(map(Name, "efghijklmnop"))
    assert ledger.remove("a", "b") == ""
    assert ledger.remove("c")


def _files(count: int) -> dict[str, bytes]:
    """Returns files in three folders."""
    return {f"{number % 3}/{number}": b"%d" % number for number in range(count)}


def _stopped(make_flow: MakeFlow) -> Flow:
    """Returns a flow of 300 files, after an update that was to remove all of them and may not."""
    flow = make_flow(memoized)
    flow.files = _files(300)
    flow.update()
    flow.options = {"max_delete": 30}
    flow.files = {}
    flow.attempt()
    return flow


@pytest.mark.parametrize("limit", [0, 5, 0.25])
def test_component_over_the_limit_removes_nothing_and_says_what_to_do(
    make_flow: MakeFlow, limit: float
) -> None:
    flow = make_flow()
    flow.files = _files(24)
    flow.update()
    flow.options = {"max_delete": limit}
    flow.files = _files(12) | {"new": b"new"}
    told = flow.attempt()
    assert contents(flow.tree).items() >= _files(24).items()
    allowed = 6 if isinstance(limit, float) else limit
    assert "12 of 24 files would be removed" in told
    assert f"max_delete={limit!r} allows {allowed}: nothing was removed" in told
    assert "allow at least 12 once" in told
    flow.options = {"max_delete": 12}
    flow.update()
    assert contents(flow.tree) == flow.files


@MAINS
def test_removals_up_to_the_limit_are_done(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.options = {"max_delete": 0.5}
    flow.files = _files(24)
    flow.update()
    flow.files = _files(12)
    flow.update()
    assert contents(flow.tree) == flow.files


@pytest.mark.parametrize("are_announced", [True, False])
def test_many_components_together_remove_no_more_than_the_limit(
    make_flow: MakeFlow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    are_announced: bool,
) -> None:
    """The engine's threads decide how many removals are announced in time; none, at worst."""
    if not are_announced:
        monkeypatch.setattr(Brake, "announce", lambda _brake, _name: None)
    flow = _stopped(make_flow)
    left = contents(flow.tree)
    assert len(left) >= 270
    assert left.items() <= _files(300).items()
    assert "max_delete=30 allows 30: no" in caplog.text
    flow.attempt()
    assert len(contents(flow.tree)) >= len(left) - 30
    flow.files = _files(300)
    flow.update()
    assert contents(flow.tree) == _files(300)


def test_stopped_update_removes_nothing_more(
    make_flow: MakeFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer engines halve a failed batch, and a part of it would be within the limit."""
    asked: list[tuple[int, bool]] = []
    real = Brake.check

    def check(brake: Brake, root: str, planned: set[Name], *more: Any) -> None:
        asked.append((len(planned), False))
        real(brake, root, planned, *more)
        asked[-1] = (len(planned), True)

    monkeypatch.setattr(Brake, "announce", lambda _brake, _name: None)
    monkeypatch.setattr(Brake, "check", check)
    _stopped(make_flow)
    verdicts = [passed for removals, passed in asked if removals]
    assert False in verdicts
    assert verdicts == sorted(verdicts, reverse=True), asked


@MAINS
def test_stopped_update_is_made_up_for_once_it_is_allowed(
    make_flow: MakeFlow, main: object
) -> None:
    flow = make_flow(main)
    flow.files = _files(24)
    flow.update()
    flow.options = {"max_delete": 3}
    flow.files = _files(6)
    flow.attempt()
    assert len(contents(flow.tree)) >= 21
    flow.options = {"max_delete": 18}
    flow.update()
    assert contents(flow.tree) == flow.files


def test_replaced_or_moved_files_do_not_count_as_removed(
    make_flow: MakeFlow,
) -> None:
    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT, max_delete=0)
        await coco.mount(coco.component_subpath(flow.options["in"]), page, ("a", b"1"), out)
        out.declare_file("b", flow.options["content"])

    flow = make_flow(main)
    for component, content in (("one", b"1"), ("two", b"2"), ("one", b"3")):
        flow.options = {"in": component, "content": content}
        flow.update()
        assert contents(flow.tree) == {"a": b"1", "b": content}


def test_writes_of_other_components_go_on(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.options = {"max_delete": 0}
    flow.files = _files(6)
    flow.update()
    flow.files = {"0/0": b"changed"}
    flow.attempt()
    assert contents(flow.tree) == _files(6) | {"0/0": b"changed"}


def test_brake_does_not_hold_up_a_drop(make_flow: MakeFlow) -> None:
    flow = make_flow()
    flow.options = {"max_delete": 0}
    flow.files = _files(6)
    flow.update()
    flow.drop()
    assert not flow.root.exists()


_WRONG = [("5", TypeError), (True, TypeError)]


@pytest.mark.parametrize(
    ("limit", "error"),
    [(-1, ValueError), (1.5, ValueError), (float("nan"), ValueError), *_WRONG],
)
def test_invalid_limit_is_refused(tmp_path: Path, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_delete"):
        fsmirror.dir_target(tmp_path, max_delete=limit)


# Exact


@MAINS
def test_foreign_files_are_moved_when_an_exact_directory_is_mounted(
    make_flow: MakeFlow, main: object
) -> None:
    flow = make_flow(main)
    flow.options = {"exact": True}
    flow.files = {"a": b"1", "d/b": b"2"}
    flow.root.mkdir()
    (flow.root / "d").mkdir()
    (flow.root / "a").write_bytes(b"1")
    (flow.root / "theirs").write_bytes(b"theirs")
    (flow.root / "d" / "b").write_bytes(b"edited")
    inode = (flow.root / "a").stat().st_ino
    flow.update()
    assert contents(flow.tree) == {**flow.files, "theirs": b"theirs"}  # Not at the first update.
    assert (flow.root / "a").stat().st_ino == inode  # Adopted, though it was foreign.
    assert backups(flow.root) == [b"edited"]
    (flow.root / "d" / "more").write_bytes(b"more")
    (flow.root / "a").write_bytes(b"tampered")
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == [b"edited", b"more", b"tampered", b"theirs"]


@MAINS
def test_exact_directory_leaves_alone_what_its_patterns_protect(
    make_flow: MakeFlow, main: object
) -> None:
    flow = make_flow(main)
    flow.options = {"exact": [".git", "*.log", "!gone.log", "/cache/"]}
    flow.files = {"a": b"1", "mine.log": b"2"}
    flow.update()
    protected = {
        name: name.encode()
        for name in (".git/config", "d/x.log", "cache/deep/theirs", "new/x.log", "sub/.git/head")
    }
    foreign = {name: name.encode() for name in ("gone.log", "new/theirs", "sub/cache/theirs")}
    for name, content in {**protected, **foreign}.items():
        (flow.root / name).parent.mkdir(parents=True, exist_ok=True)
        (flow.root / name).write_bytes(content)
    del flow.files["mine.log"]  # Patterns protect what is foreign only.
    flow.update()
    assert contents(flow.tree) == {**flow.files, **protected}
    assert backups(flow.root) == sorted(foreign.values())
    flow.options = {"exact": True}
    flow.update()
    assert contents(flow.tree) == flow.files
    assert backups(flow.root) == sorted([*foreign.values(), *protected.values()])


def test_lost_ledger_does_not_rewrite_everything(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.options = {"exact": True}
    flow.files = _files(9)
    flow.update()
    inodes = {name: (flow.root / name).stat().st_ino for name in flow.files}
    flow.close()
    for path in (flow.root / ".fsmirror").glob("ledger*"):
        path.unlink()
    sink.close_all()
    flow.update()
    assert contents(flow.tree) == flow.files
    assert {name: (flow.root / name).stat().st_ino for name in flow.files} == inodes


def test_exact_is_refused_without_a_look(tmp_path: Path) -> None:
    for exact in (True, (), ["*.log"]):
        with pytest.raises(ValueError, match="exact needs verify"):
            fsmirror.dir_target(tmp_path, exact=exact, verify="none")


def test_folder_that_is_announced_counts_as_no_file(mirror: fsmirror.Mirror, root: Path) -> None:
    mirror.apply([folder("d"), write("d/x", b"1"), write("y", b"1")])
    brake = Brake(1)
    brake.announce(Name("d"))
    mirror.apply([delete("d/x")], brake=brake)
    assert contents(snapshot(root)) == {"y": b"1"}
    brake.announce(Name("y"))
    with pytest.raises(fsmirror.TooManyRemovalsError):
        mirror.apply([delete("y")], brake=brake)
