"""Sources that change: between two updates, or while one of them runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._mirror.writer import Writer
from cocoindex_fsmirror._target import dir_target as _target
from tests.target.declaring import (
    MakeFlow,
    Out,
    Wanted,
    apart,
    assert_converged,
    copy,
    displaced,
    dress,
)
from tests.target.flows import OUT, Flow
from tests.target.sources import LARGE, SIZES, SMALL, THEN, Blob, fill


@SIZES
def test_a_changed_source_is_followed(flow: Flow, wanted: Wanted, source: Path, size: int) -> None:
    wanted["x"] = copy(source, preserve=("mode", "mtime"))
    for each in (size, size, 0, SMALL + 1, size):  # At first, size, mode and time stay.
        content = fill(source, each)
        flow.update()
        assert flow.tree == {"x": content}
        assert_converged(flow)
    assert displaced(flow) == []


CHANGES: dict[str, Callable[[Path], None]] = {
    "mode": lambda path: path.chmod(0o604),
    "time": lambda path: os.utime(path, ns=(5, 5)),
}


@SIZES
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_mode_or_time_of_a_source_is_followed_without_a_write(
    flow: Flow, wanted: Wanted, source: Path, change: Callable[[Path], None], size: int
) -> None:
    content, path = fill(source, size), flow.root / "x"
    wanted["x"] = copy(source, preserve=("mode", "mtime"))
    flow.update()
    before = path.stat()
    change(source)
    flow.update()
    assert dress(path) == dress(source) != (0o640, THEN)
    assert path.stat().st_ino == before.st_ino
    assert flow.tree == {"x": content}
    assert_converged(flow)


@contextlib.contextmanager
def meddling(edit: Callable[[], object]) -> Iterator[None]:
    """Edits something after ``x`` is declared and before it is applied."""
    real, todo = Writer.apply, [edit]

    def apply(mirror: fsmirror.Mirror, intents: list[Intent], *rest: Any, **options: Any) -> object:
        if todo and any(intent.name == "x" for intent in intents):
            todo.pop()()
        return real(mirror, intents, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "apply", apply)
        yield
    assert todo == []


async def alone(items: list[tuple[str, str]], out: Out) -> None:
    """Declares each copy in the main component."""
    for name, path in items:
        await out.declare_copy(name, Path(path))


@pytest.mark.parametrize("before", [b"old", None])
@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("declare", [alone, apart])
def test_source_that_changes_before_the_copy_fails_its_file_alone(
    make_flow: MakeFlow, tmp_path: Path, declare: Any, is_gone: bool, before: bytes | None
) -> None:
    sources = {name: tmp_path / f"of {name}" for name in ("a", "x", "z")}
    bad = sources["x"]

    async def main(_: Flow) -> None:
        items = [(name, str(path)) for name, path in sources.items() if path.exists()]
        await declare(items, await fsmirror.mount_dir_target(OUT))

    flow = make_flow(main)
    if before is not None:
        bad.write_bytes(before)
        flow.update()
    declared = {name: fill(path, LARGE) for name, path in sources.items()}
    with meddling(bad.unlink if is_gone else lambda: fill(bad, LARGE)):
        said = flow.attempt()
    assert f"write 'x': its source {str(bad)!r} " in said
    assert "write 'a'" not in said
    old = {} if before is None else {"x": before}
    assert flow.tree == {"a": declared["a"], "z": declared["z"]} | old
    content = fill(bad, LARGE)
    flow.update()
    assert flow.tree == declared | {"x": content}
    assert displaced(flow) == []
    assert_converged(flow)


def test_small_source_is_written_as_it_was_when_declared(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    wanted["x"] = copy(source)
    with meddling(lambda: source.write_bytes(b"later")):
        flow.update()
    assert flow.tree == {"x": b"12345"}
    flow.update()
    assert flow.tree == {"x": b"later"}


def test_blob_that_grew_after_its_size_was_read_is_not_cut_off() -> None:
    blob = Blob(b"12345")
    assert asyncio.run(blob.size()) == 5
    blob.content = b"0123456789"
    assert asyncio.run(_target._content_of(blob)) == b"0123456789"
