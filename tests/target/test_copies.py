"""Copies have content, mode and time of their sources, whatever kind of file those are."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocoindex as coco
import pytest
from cocoindex.connectors import localfs

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._target import dir_target as _target
from tests.support import contents, exact_state, snapshot
from tests.target.declaring import (
    MakeFlow,
    Wanted,
    assert_converged,
    copy,
    displaced,
    dress,
    file,
    link,
)
from tests.target.flows import OUT, Flow, ran
from tests.target.sources import LARGE, LOCAL, SIZES, SMALL, THEN, Blob, fill


@SIZES
@pytest.mark.parametrize("given", LOCAL.values(), ids=LOCAL)
def test_copy_has_content_and_mode_of_its_source(
    flow: Flow, wanted: Wanted, source: Path, given: Callable[[Path], object], size: int
) -> None:
    content, copied = fill(source, size), given(source)
    wanted["deep/x"] = copy(copied)
    flow.update()
    assert flow.tree == {"deep": "dir", "deep/x": content}
    assert dress(flow.root / "deep/x")[0] == 0o640
    assert_converged(flow)
    assert getattr(copied, "_cached_content", None) is None


@pytest.mark.parametrize("size", [0, 5, SMALL, SMALL + 1, LARGE])
def test_remote_file_is_read_once_and_not_kept_in_memory(
    flow: Flow, wanted: Wanted, size: int
) -> None:
    blob = Blob(os.urandom(size))
    wanted.update(x=copy(blob, preserve=("mode", "mtime")), plain=file(b""))
    flow.update()
    assert contents(flow.tree) == {"x": blob.content, "plain": b""}
    assert dress(flow.root / "x")[0] == dress(flow.root / "plain")[0]
    assert blob.reads == 1
    assert_converged(flow)
    assert blob._cached_content is None
    wanted["x"] = copy(Blob(blob.content + b"more"), mode=0o600)
    flow.update()
    assert (flow.root / "x").read_bytes() == blob.content + b"more"
    assert dress(flow.root / "x")[0] == 0o600


@coco.fn(memo=True)
async def walked(found: localfs.File, out: fsmirror.DirTarget) -> None:
    """Copies a file of a walk, in a memoized component."""
    ran.append(found.file_path.name)
    await out.declare_copy(found.file_path.name, found)


def test_walk_copies_a_folder(make_flow: MakeFlow, tmp_path: Path) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount_each(walked, localfs.walk_dir(tmp_path / "from").items(), out)

    flow = make_flow(main)
    (tmp_path / "from").mkdir()
    for name, size in (("small", 5), ("large", LARGE), ("goes", 7)):
        fill(tmp_path / "from" / name, size)
    flow.update()
    assert flow.tree == snapshot(tmp_path / "from")
    (tmp_path / "from/goes").unlink()
    (tmp_path / "from/large").write_bytes(os.urandom(LARGE))
    (tmp_path / "from/new").write_bytes(os.urandom(SMALL + 1))
    flow.update()
    assert sorted(ran) == ["large", "new"]
    assert flow.tree == snapshot(tmp_path / "from")
    assert_converged(flow)


@pytest.mark.parametrize(
    ("options", "mode", "has_time"),
    [
        ({}, 0o640, False),
        ({"preserve": ("mode", "mtime")}, 0o640, True),
        ({"preserve": ("mtime",)}, None, True),
        ({"preserve": ()}, None, False),
        ({"mode": 0o604}, 0o604, False),
        ({"mode": 0o604, "preserve": ("mtime", "mode")}, 0o604, True),
    ],
    ids=str,
)
def test_copy_preserves_what_was_asked_for(
    flow: Flow, wanted: Wanted, source: Path, options: Any, mode: int | None, has_time: bool
) -> None:
    fill(source, 5)
    wanted.update(x=copy(source, **options), plain=file(b""))
    flow.update()
    found, plain = dress(flow.root / "x"), dress(flow.root / "plain")
    assert found[0] == (plain[0] if mode is None else mode)
    assert (found[1] == THEN) is has_time
    assert_converged(flow)


@SIZES
def test_copy_and_file_with_the_same_content_are_interchangeable(
    flow: Flow, wanted: Wanted, source: Path, size: int
) -> None:
    content = fill(source, size)
    wanted["x"] = copy(source)
    flow.update()
    before = exact_state(flow.root)
    for same in (file(content, mode=0o640), copy(Blob(content), mode=0o640), copy(source)):
        wanted["x"] = same
        flow.update()
        assert exact_state(flow.root) == before


def test_copies_and_links_stay_ours_without_a_ledger(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    fill(source, LARGE)
    wanted.update(l=link("old"), m=link("m"), x=copy(source))
    flow.update()
    shutil.rmtree(flow.root / ".fsmirror")
    content = fill(source, LARGE)
    wanted["l"] = link("new")
    flow.update()
    assert flow.tree == {"l": "-> new", "m": "-> m", "x": content}
    assert displaced(flow) == []


@pytest.mark.parametrize(("step", "is_blob"), [("look_at_source", False), ("spool", True)])
def test_event_loop_stays_free_while_a_source_is_read(
    make_flow: MakeFlow, source: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_blob: bool
) -> None:
    content, begun, ticked = fill(source, LARGE), threading.Event(), threading.Event()
    real = getattr(_target, step)

    def waits(*args: Any) -> Any:
        begun.set()
        assert ticked.wait(30), "the event loop is blocked"
        return real(*args)

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        given = Blob(content) if is_blob else source
        copying = asyncio.create_task(out.declare_copy("x", given))
        while not begun.is_set() and not copying.done():
            await asyncio.sleep(0)
        ticked.set()
        await copying

    monkeypatch.setattr(_target, step, waits)
    flow = make_flow(main)
    flow.update()
    assert begun.is_set()
    assert flow.tree == {"x": content}


@pytest.mark.root
def test_copy_has_no_set_user_id_of_another_user(flow: Flow, wanted: Wanted, source: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    fill(source, 5)
    os.chown(source, 65534, 65534)
    source.chmod(0o6755)
    wanted.update(plain=copy(source), asked=copy(source, mode=0o4711))
    flow.update()
    assert [dress(flow.root / name)[0] for name in ("plain", "asked")] == [0o755, 0o4711]
    assert_converged(flow)
