"""Cases of programs that mirror a folder, look for differences, or copy a large file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import peers, trees
from .cases import FRESH, Step, afresh, prepared
from .measure import Case, call
from .trees import Files

__all__ = ["large", "looks", "syncs"]


def syncs(
    step: Step,
    files: Files,
    folder: Path,
    *,
    make: Callable[[Path], object] | None = None,
    programs: Iterable[str] = peers.SYNCS,
) -> list[Case]:
    """Returns the case of each program that mirrors a folder.

    Args:
        step: What happens.
        files: What is in the source.
        folder: Where all of it lies.
        make: Makes the source, if it is another than ``files``.
        programs: Which, of those that are here.
    """
    source = folder / "source"
    folder.mkdir(parents=True, exist_ok=True)
    (make or partial(trees.write, files=files))(source)
    return [
        _sync(peer, step, files, source, folder / str(number))
        for number, peer in enumerate(_mirroring(step, programs))
        if peers.is_here(peer)
    ]


def _mirroring(step: Step, programs: Iterable[str]) -> list[str]:
    """Returns the programs that take part in a step; only some can do more than a first run."""
    if step == "first":
        return list(programs)
    if step == "drop":
        return [peers.FSMIRROR, "rm -r"]
    return [peer for peer in programs if peer in peers.LATER]


def _sync(peer: str, step: Step, files: Files, source: Path, folder: Path) -> Case:
    """Returns the case of one program that mirrors a folder."""
    fill_with = "cp -a" if peer == "rm -r" else peer

    def alter(number: int) -> None:
        if step == "changed":
            trees.rewrite(source, replace(files, generation=number + 1))
        elif step == "tampered":
            trees.tamper(folder, files)

    def argv(_number: int) -> list[str]:
        if step == "drop":
            return ["rm", "-r", str(folder)] if peer == "rm -r" else peers.drop(folder)
        if step == "deleted":
            return peers.sync(peer, source, folder, delete=True)
        return peers.sync(peer, source, folder)

    prepare = prepared(step, folder, peers.sync(fill_with, source, folder), alter)
    if step == "deleted":
        prepare = _with_source_emptied(source, prepare)
    return Case(
        peer=peer,
        files=files.count,
        prepare=prepare,
        command=argv,
        count_wrong=lambda _: (
            len(trees.paths_in(folder)) if step == "drop" else trees.count_different(source, folder)
        ),
        finish=partial(shutil.rmtree, folder, ignore_errors=True) if step in FRESH else None,
        heals=step != "tampered" or peer.startswith("fsmirror"),
    )


def _with_source_emptied(source: Path, prepare: Callable[[int], None]) -> Callable[[int], None]:
    """Prepares with a full source, and leaves an empty one."""
    aside = source.with_name("aside")

    def prepare_and_empty(number: int) -> None:
        if aside.exists():
            source.rmdir()
            aside.rename(source)
        prepare(number)
        source.rename(aside)
        source.mkdir()

    return prepare_and_empty


def looks(files: Files, folder: Path) -> list[Case]:
    """Returns the case of each program that looks for differences, where there are none."""
    source = folder / "source"
    trees.write(source, files)
    return [
        _look(peer, files, source, folder / peer.split()[0])
        for peer in peers.LOOKS
        if peers.is_here(peer)
    ]


def _look(peer: str, files: Files, source: Path, folder: Path) -> Case:
    """Returns the case of one program that looks for differences."""
    fill_with = peers.FSMIRROR if peer.startswith("fsmirror") else "rsync -a"

    def prepare(_number: int) -> None:
        if not folder.exists():
            afresh(folder)
            call(peers.sync(fill_with, source, folder))

    return Case(
        peer=peer,
        files=files.count,
        prepare=prepare,
        command=lambda _: peers.look(peer, source, folder),
    )


def large(size: int, folder: Path) -> list[Case]:
    """Returns the case of each program that copies one large file, which is in memory."""
    source = folder / "source"
    trees.write_large(source, size)
    return [
        _large(peer, source, folder / str(number))
        for number, peer in enumerate(peers.LARGE)
        if peers.is_here(peer)
    ]


def _large(peer: str, source: Path, folder: Path) -> Case:
    """Returns the case of one program that copies a large file."""

    def prepare(_number: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        trees.read(source / trees.LARGE)

    return Case(
        peer=peer,
        files=1,
        prepare=prepare,
        command=lambda _: peers.copy(peer, source, folder),
        count_wrong=lambda _: trees.count_different(source, folder),
        finish=partial(shutil.rmtree, folder),
    )
