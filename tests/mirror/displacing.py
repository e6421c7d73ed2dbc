"""Makes, lists, restores and purges backups, for the tests of backups."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk.homes import back_up
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror.backups import Backup, find_backups, purge, restore
from tests.steps import run_with_event
from tests.support import snapshot, write

_T = TypeVar("_T")
STAMP = "2026-11-23T222812Z"
AREA = f".fsmirror/backup/{STAMP}"


def locked(mirror: Mirror, act: Callable[[Tree], _T]) -> _T:
    """Calls a function with the root locked; returns its result."""
    return mirror.session.run(lambda tree, _ledger: act(tree), create=True)


def listed(mirror: Mirror) -> list[Backup]:
    """Lists the backups of a mirror."""
    return locked(mirror, find_backups)


def put_back(mirror: Mirror, backup: Backup, to: str | None = None) -> None:
    """Restores a backup."""
    locked(mirror, lambda tree: restore(tree, backup, backup.name if to is None else Name(to)))


def purged(mirror: Mirror, backups: Iterable[Backup]) -> tuple[int, int]:
    """Purges backups; returns their number and size."""
    return locked(mirror, lambda tree: purge(tree, backups))


def files_of(backups: Iterable[Backup]) -> list[Backup]:
    """Returns the files among backups, without folders that a crash or another mount left empty."""
    return [backup for backup in backups if backup.kind == "file"]


def places(backups: Iterable[Backup]) -> list[str]:
    """Returns the paths of backups below the backup area."""
    return [backup.where.removeprefix(".fsmirror/backup/") for backup in backups]


def backup_area(root: Path) -> dict[str, bytes | str]:
    """Returns the snapshot of the backup area, itself included."""
    found = snapshot(root, ours=True)
    return {name: state for name, state in found.items() if name.partition("/")[0] == "backup"}


def displace(mirror: Mirror, *names: str, content: bytes = b"foreign") -> None:
    """Displaces foreign files by declared ones."""
    for name in names:
        path = Path(mirror.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    mirror.apply([write(name, b"ours " + os.urandom(8), durable=False) for name in names])


def displace_tree(mirror: Mirror, name: str) -> None:
    """Moves a whole folder to the backup area, as recovery does with what it finds."""
    locked(mirror, lambda tree: back_up(tree, Name(name), STAMP))


def tries(tmp_path: Path) -> Iterator[tuple[int, Path, Mirror, Backup]]:
    """Yields numbered roots, each with one backup."""
    for k in itertools.count():
        root = tmp_path / f"root{k}"
        with Mirror(root) as mirror:
            mirror.create()
            displace(mirror, "d/e/x", content=b"foreign%d" % k)
            yield k, root, mirror, listed(mirror)[0]


def disturbed(
    mirror: Mirror, act: Callable[[Tree], None], event: Callable[[], object], k: int
) -> bool:
    """Calls a function with an event before its k-th system call; false if it has fewer."""

    def happen() -> None:
        event()

    return locked(mirror, lambda tree: run_with_event(partial(act, tree), happen, k))


def copies_of(root: Path, content: bytes) -> list[str]:
    """Returns the paths that hold a content, anywhere in a root."""
    ours = {f".fsmirror/{name}": state for name, state in snapshot(root, ours=True).items()}
    return sorted(n for n, state in (snapshot(root) | ours).items() if state == content)


def extend(found: list[Backup], mirror: Mirror) -> None:
    """Adds the backups of a mirror to a list."""
    found += listed(mirror)


def call_of(name: str, first: str | None = None) -> Callable[[str, tuple[object, ...]], bool]:
    """Returns a predicate: true if a call has this name and, if given, this first argument."""
    return lambda called, args: called == name and first in (None, args[0])
