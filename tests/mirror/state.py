"""Mirrors whose state is elsewhere."""

from __future__ import annotations

from pathlib import Path

from cocoindex_fsmirror import Mirror
from tests.mirror.keeping import FILES, declare
from tests.support import contents, snapshot

NEW = FILES | {"a": b"new", "more": b"more"}


def update(
    root: Path, state: Path | None, files: dict[str, bytes] = FILES, *, is_noted: bool = False
) -> None:
    """Brings files to the disk."""
    with Mirror(root, state=state, state_note=is_noted) as mirror:
        declare(mirror, files)


def healed(root: Path, state: Path | None) -> list[str]:
    """Heals a mirror; returns what was healed."""
    with Mirror(root, state=state) as mirror:
        return mirror.heal().healed


def drifted(root: Path, state: Path | None) -> list[str]:
    """Lists what differs in a mirror."""
    with Mirror(root, state=state) as mirror:
        return mirror.verify(content=True)


def folders(state: Path) -> list[str]:
    """Lists the state folders in a state directory, by the names of their roots."""
    return sorted(each.name.rpartition("-")[0] for each in state.iterdir())


def folder(state: Path) -> Path:
    """Returns the only state folder in a state directory."""
    (found,) = state.iterdir()
    return found


def written(root: Path) -> dict[str, int]:
    """Returns the inode numbers of all files, which a file that is written anew does not keep."""
    return {name: (root / name).stat().st_ino for name in contents(snapshot(root))}
