"""A record of the engine is no proof: bytes are ours if we wrote them, or equal a record."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import cocoindex_fsmirror as fsmirror
from tests.support import backups, contents
from tests.target.flows import Flow, Main, failing_sink
from tests.target.projects import by_context, end, in_main

MAINS = pytest.mark.parametrize("main", [in_main, by_context])
THEIRS = {"a": b"theirs", "sub/b": b"theirs, too"}


def block(flow: Flow) -> None:
    """Puts foreign files where the flow will declare its own."""
    (flow.root / "sub").mkdir(parents=True)
    for name, content in THEIRS.items():
        (flow.root / name).write_bytes(content)


@MAINS
@pytest.mark.parametrize("how", ["error", "failure"])
@pytest.mark.parametrize("loses_ledger", [False, True])
def test_foreign_files_that_blocked_declarations_stay_when_these_end(
    make_flow: Callable[..., Flow], main: Main, how: str, loses_ledger: bool
) -> None:
    flow = make_flow(main)
    block(flow)
    flow.options = {"on_conflict": "error"} if how == "error" else {}
    for content in (b"1", b"22"):  # The engine remembers both, and that they may be missing.
        flow.files = {"a": content, "sub/b": content, "c": content}
        if how == "error":
            assert "foreign bytes are in the way" in flow.attempt()
        else:
            with failing_sink(after=False):
                assert "BoomError" in flow.attempt()
    end(flow)
    if loses_ledger:
        shutil.rmtree(flow.root / ".fsmirror", ignore_errors=True)
    flow.files = {}
    flow.update()
    assert {name: contents(flow.tree).get(name) for name in THEIRS} == THEIRS
    assert backups(flow.root) == []
    flow.drop()
    assert {name: contents(flow.tree).get(name) for name in THEIRS} == THEIRS


@MAINS
def test_dropped_app_leaves_foreign_files_that_blocked_it(
    make_flow: Callable[..., Flow], main: Main
) -> None:
    flow = make_flow(main)
    block(flow)
    flow.options, flow.files = {"on_conflict": "error"}, {"a": b"1", "c": b"1"}
    assert flow.attempt()
    flow.drop()
    assert contents(flow.tree) == THEIRS


def test_edited_file_that_blocked_a_new_version_stays(make_flow: Callable[..., Flow]) -> None:
    """Its first version was ours; the edit is not, and the second one was never written."""
    flow = make_flow(in_main)
    flow.options, flow.files = {"on_conflict": "error"}, {"a": b"1"}
    flow.update()
    (flow.root / "a").write_bytes(b"edited")
    flow.files = {"a": b"2"}
    assert "foreign bytes are in the way" in flow.attempt()
    flow.files = {}
    assert "was edited since we wrote it" in flow.attempt()
    assert contents(flow.tree) == {"a": b"edited"}


def test_single_file_that_was_blocked_leaves_the_foreign_one(
    make_flow: Callable[..., Flow], tmp_path: Path
) -> None:
    path = tmp_path / "alone" / "a"

    async def main(flow: Flow) -> None:
        for content in flow.files.values():
            fsmirror.declare_file(path, content, on_conflict="error")

    path.parent.mkdir()
    path.write_bytes(b"theirs")
    flow = make_flow(main)
    flow.files = {"a": b"1"}
    assert "foreign bytes are in the way" in flow.attempt()
    flow.files = {}
    flow.update()
    assert path.read_bytes() == b"theirs"
