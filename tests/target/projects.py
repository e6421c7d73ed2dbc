"""Projects: a folder with an engine's database and an output, to be copied and put back."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cocoindex as coco

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._target import sink
from tests.target.flows import OUT, Flow, Main, page

Put: TypeAlias = Callable[[Path, Path], None]
"""Copies a folder over another one."""


def relative(files: str = "root") -> Main:
    """Returns a flow whose root is a relative path, with a memoized component a file."""

    async def main(flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(Path(files), **flow.options)
        await coco.mount_each(page, [(n, (n, flow.files[n])) for n in flow.files], out)

    return main


def absolute(root: Path) -> Main:
    """Returns a flow whose root is an absolute path."""
    return relative(str(root))


async def by_context(flow: Flow) -> None:
    """Declares the files below a root that a context provides."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    await coco.mount_each(page, [(n, (n, flow.files[n])) for n in flow.files], out)


async def in_main(flow: Flow) -> None:
    """Declares every file in the component that mounts the root."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    for name, content in flow.files.items():
        out.declare_file(name, content)


def end(*flows: Flow) -> None:
    """Closes databases and ledgers, as the end of a process does."""
    for flow in flows:
        flow.close()
    sink.close_all()


def copied(flow: Flow, to: Path, main: Main | None = None) -> Flow:
    """Copies the project of a flow, as ``cp -a`` does; returns the flow of the copy."""
    end(flow)
    copy_over(flow.database.parent, to)
    return like(flow, to, main)


def like(flow: Flow, at: Path, main: Main | None = None) -> Flow:
    """Returns a flow with the same files in another place."""
    other = Flow(at, main or flow._main)
    other.files, other.options = dict(flow.files), dict(flow.options)
    return other


def copy_over(source: Path, target: Path) -> None:
    """Copies a folder with ``cp -a``, over one that may be there."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def tar_over(source: Path, target: Path) -> None:
    """Puts a folder back from a tar archive."""
    target.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["tar", "cf", "-", "-C", str(source), "."], check=True, stdout=-1)
    subprocess.run(["tar", "xf", "-", "-C", str(target)], check=True, input=archive.stdout)


def sync_over(source: Path, target: Path, *options: str) -> None:
    """Puts a folder back with rsync."""
    # By nanoseconds: what was changed within the second of the backup is put back, too.
    command = [
        "rsync",
        "-a",
        "--delete",
        "--modify-window=-1",
        *options,
        f"{source}/",
        f"{target}/",
    ]
    subprocess.run(command, check=True)


def sync_in_place(source: Path, target: Path) -> None:
    """Puts a folder back with rsync, which writes into the files that are there."""
    sync_over(source, target, "--inplace", "--no-whole-file")


def anew(source: Path, target: Path) -> None:
    """Removes a folder, and copies another one there."""
    shutil.rmtree(target)
    copy_over(source, target)


@contextlib.contextmanager
def earlier_release() -> Iterator[None]:
    """Declares roots as releases did up to ledger format 3: by absolute paths only."""
    import pytest

    from cocoindex_fsmirror._target import declare

    real = declare._located

    def located(path: Any) -> Any:
        key, resolved = real(path)
        return (key if key.base_dir_key else key._replace(path=str(resolved))), resolved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(declare, "_located", located)
        yield
