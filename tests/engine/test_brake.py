"""``max_delete`` and ``exact`` in real flows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import _open_mirrors
from cocoindex_fsmirror._brake import allowance
from tests.engine.flows import OUT, Flow, memoized, page, plain
from tests.support import backups, contents

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
def test_a_fraction_is_rounded_down_but_not_below_what_it_says(
    limit: float, managed: int, allowed: int
) -> None:
    assert allowance(limit, managed) == allowed


def _files(count: int) -> dict[str, bytes]:
    """Files in three folders."""
    return {f"{number % 3}/{number}": b"%d" % number for number in range(count)}


@MAINS
@pytest.mark.parametrize("limit", [0, 5, 0.25])
def test_an_update_that_would_remove_too_much_removes_nothing_and_says_how_to_allow_it(
    make_flow: MakeFlow, main: object, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    flow = make_flow(main)
    flow.files = _files(24)
    flow.update()
    before = contents(flow.tree)
    flow.options = {"max_delete": limit}
    flow.files = _files(12) | {"new": b"new"}
    told = flow.attempt() + caplog.text
    assert {name: flow.tree.get(name) for name in before} == before
    if main is plain:
        allowed = 6 if isinstance(limit, float) else limit
        assert "12 of 24 files would be removed" in told
        assert f"max_delete={limit!r} allows {allowed}: nothing was removed" in told
        assert "allow 12 once" in told
    flow.options = {"max_delete": 12}
    flow.update()
    assert contents(flow.tree) == flow.files


@MAINS
def test_up_to_the_limit_files_go_as_always(make_flow: MakeFlow, main: object) -> None:
    flow = make_flow(main)
    flow.options = {"max_delete": 0.5}
    flow.files = _files(24)
    flow.update()
    flow.files = _files(12)
    flow.update()
    assert contents(flow.tree) == flow.files


def test_an_empty_source_of_many_components_removes_nothing(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.files = _files(300)
    flow.update()
    flow.options = {"max_delete": 0.5}
    flow.files = {}
    flow.attempt()
    assert contents(flow.tree) == _files(300)
    flow.attempt()  # Nor the next one, which tries again.
    assert contents(flow.tree) == _files(300)
    flow.files = _files(300)
    flow.update()
    assert contents(flow.tree) == _files(300)


def test_what_is_replaced_or_moved_to_another_component_is_not_removed(
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


def test_dropping_the_directory_is_not_held_up(make_flow: MakeFlow) -> None:
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
def test_what_is_no_limit_is_refused(tmp_path: Path, limit: Any, error: type[Exception]) -> None:
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


def test_a_lost_ledger_does_not_make_everything_be_written_anew(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.options = {"exact": True}
    flow.files = _files(9)
    flow.update()
    inodes = {name: (flow.root / name).stat().st_ino for name in flow.files}
    flow.close()
    for path in (flow.root / ".fsmirror").glob("ledger*"):
        path.unlink()
    _open_mirrors.close_all()
    flow.update()
    assert contents(flow.tree) == flow.files
    assert {name: (flow.root / name).stat().st_ino for name in flow.files} == inodes


def test_exact_needs_a_look(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exact=True needs verify"):
        fsmirror.dir_target(tmp_path, exact=True, verify="none")
