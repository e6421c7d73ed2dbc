"""The flow that is measured, as a process: the same for each target.

``python -m benchmarks.flow --help`` lists its arguments.
"""

from __future__ import annotations

import os

# Before cocoindex is imported: it would send a usage event.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"
os.environ.setdefault("RUST_LOG", "error")

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cocoindex as coco

from benchmarks import OURS, OUTPUT, TARGETS
from benchmarks.trees import Files

_Mount: TypeAlias = Callable[[Path], Awaitable[Any]]


def _mount_of(target: str) -> tuple[_Mount, dict[str, Any]]:
    """Returns the function that mounts a target, and the arguments of its files."""
    if target == "localfs":
        from cocoindex.connectors import localfs  # noqa: PLC0415

        return localfs.mount_dir_target, {"create_parent_dirs": True}
    if target == "nothing":
        from benchmarks import nothing  # noqa: PLC0415

        return nothing.mount_dir_target, {}
    import cocoindex_fsmirror as fsmirror  # noqa: PLC0415

    durability: Literal["batch", "none"] = "none" if target == "ours-not-durable" else "batch"
    copies: Literal["auto", "none"] = "none" if target == "ours-without-copies" else "auto"
    return partial(fsmirror.mount_dir_target, durability=durability, copies=copies), {}


@coco.fn(memo=True)
async def write_one(item: tuple[str, bytes], extra: dict[str, Any], out: Any) -> None:
    """Declares one file, in a component of its own."""
    name, data = item
    out.declare_file(name, data, **extra)


def _app(target: str, root: Path, files: Files, *, one_each: bool) -> coco.App[[], None]:
    """Makes the flow."""
    mount, extra = _mount_of(target)

    async def main() -> None:
        out = await mount(root / OUTPUT)
        if one_each:
            items = [(name, (name, data)) for name, data in files.contents()]
            await coco.mount_each(write_one, items, extra, out)
        else:
            for name, data in files.contents():
                out.declare_file(name, data, **extra)

    environment = coco.Environment(coco.Settings(db_path=root / "db"))
    return coco.App(coco.AppConfig(name="benchmark", environment=environment), main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow", description=__doc__)
    parser.add_argument("target", choices=sorted({*TARGETS, *OURS}))
    parser.add_argument("root", type=Path, help="a folder, for output and database")
    parser.add_argument("--files", type=int, required=True, help="how many are declared")
    parser.add_argument("--size", type=int, required=True, help="bytes in each")
    parser.add_argument("--generation", type=int, default=0, help="of the 1 %% that changes")
    parser.add_argument("--one-each", action="store_true", help="one component for each file")
    parser.add_argument("--drop", action="store_true", help="drop the flow, instead of an update")
    given = parser.parse_args()
    files = Files(given.files, given.size, given.generation)
    app = _app(given.target, given.root, files, one_each=given.one_each)
    if given.drop:
        app.drop_blocking()
    else:
        app.update_blocking()


if __name__ == "__main__":
    _main()
