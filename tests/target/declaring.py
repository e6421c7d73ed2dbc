"""Builds the declarations of ``Flow.wanted``, and checks their outputs."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import cocoindex as coco

import cocoindex_fsmirror as fsmirror
from tests.support import exact_state, snapshot
from tests.target.flows import Declare, Flow, ran

MakeFlow: TypeAlias = Callable[..., Flow]
Out: TypeAlias = fsmirror.DirTarget[Any]
Wanted: TypeAlias = dict[str, Declare]


def file(content: bytes, **options: Any) -> Declare:
    """Returns the declaration of a file."""

    async def declare(out: Out, name: str) -> None:
        out.declare_file(name, content, **options)

    return declare


def copy(source: Any, **options: Any) -> Declare:
    """Returns the declaration of a copy."""

    async def declare(out: Out, name: str) -> None:
        await out.declare_copy(name, source, **options)

    return declare


def link(target: Any, **options: Any) -> Declare:
    """Returns the declaration of a link."""

    async def declare(out: Out, name: str) -> None:
        out.declare_symlink(name, target, **options)

    return declare


def folder(**options: Any) -> Declare:
    """Returns the declaration of a directory target that stays empty."""

    async def declare(out: Out, name: str) -> None:
        out.declare_dir_target(name, **options)

    return declare


def dress(path: Path) -> tuple[int, int]:
    """Returns the permission bits and the mtime of a path."""
    seen = path.lstat()
    return stat.S_IMODE(seen.st_mode), seen.st_mtime_ns


def displaced(flow: Flow) -> list[bytes | str]:
    """Returns the files and links that were backed up as foreign."""
    found = snapshot(flow.root, ours=True)
    return [shown for name, shown in found.items() if name.startswith("backup/") and shown != "dir"]


def assert_converged(flow: Flow) -> None:
    """Asserts that further updates change nothing, not even an mtime."""
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before
    flow.close()
    flow.update(reprocess=True)
    assert exact_state(flow.root) == before


@coco.fn(memo=True)
async def piece(item: tuple[str, str, int], out: fsmirror.DirTarget) -> None:
    """Declares one link, written as ``-> target``, or one copy, in a memoized component."""
    name, said, _ = item
    ran.append(name)
    if said.startswith("-> "):
        out.declare_symlink(name, said.removeprefix("-> "))
    else:
        await out.declare_copy(name, Path(said))


async def apart(items: list[tuple[str, str]], out: Out) -> None:
    """Declares each copy or link in a component of its own."""
    sums = [0 if said.startswith("-> ") else crc32(Path(said).read_bytes()) for _, said in items]
    pieces = [(name, (name, said, n)) for (name, said), n in zip(items, sums, strict=True)]
    await coco.mount_each(piece, pieces, out)


@coco.fn
def declare_sub(
    out: fsmirror.DirTarget, name: str, mode: int | None = None, mtime_ns: int | None = None
) -> fsmirror.DirTarget[coco.PendingS]:
    """Declares a directory target below another."""
    return out.declare_dir_target(name, mode=mode, mtime_ns=mtime_ns)
