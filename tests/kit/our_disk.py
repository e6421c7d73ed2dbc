"""The actual state of a directory, read without code of the package."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["DIR", "Disk", "Entry", "File", "look"]


@dataclass(frozen=True, eq=False)
class File:
    """A regular file; ``None`` as mode or time equals any."""

    content: bytes
    mode: int | None = None
    mtime_ns: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, File) or self.content != other.content:
            return False
        pairs = ((self.mode, other.mode), (self.mtime_ns, other.mtime_ns))
        return all(None in pair or pair[0] == pair[1] for pair in pairs)

    def __hash__(self) -> int:
        return hash(self.content)


DIR = "an empty folder"
Entry: TypeAlias = File | str
"""A file, where a symbolic link leads to, or :data:`DIR`."""


def look(top: Path) -> dict[str, Entry]:
    """Reads the files, links and empty folders below a folder, by relative path."""
    found: dict[str, Entry] = {}
    for at, folders, files in os.walk(top):
        if at == str(top) and ".fsmirror" in folders:
            folders.remove(".fsmirror")
        elif not folders and not files and at != str(top):
            found[os.path.relpath(at, top)] = DIR
        for path in (os.path.join(at, entry) for entry in (*folders, *files)):
            there = os.lstat(path)
            if stat.S_ISLNK(there.st_mode):
                found[os.path.relpath(path, top)] = f"-> {os.readlink(path)}"
            elif not stat.S_ISDIR(there.st_mode):
                found[os.path.relpath(path, top)] = _file(path, there)
    return found


def _file(path: str, there: os.stat_result) -> File:
    """Reads a regular file."""
    with open(path, "rb") as file:
        return File(file.read(), stat.S_IMODE(there.st_mode), there.st_mtime_ns)


class Disk:
    """A directory, and foreign paths in it.

    Attributes:
        root: The directory.
        outside: A folder that links in it lead to.
        foreign: By path, what somebody else put there, until the path is declared.
        unique: All that somebody else put anywhere, is there once only, and was not
            taken away by somebody else again.
    """

    def __init__(self, at: Path) -> None:
        self.root, self.outside = at / "root", at / "outside"
        self.outside.mkdir()
        self.foreign: dict[str, Entry] = {}
        self.unique: set[Entry] = set()

    @property
    def residue(self) -> list[str]:
        """The paths that are left in the staging area."""
        return [*look(self.root / ".fsmirror" / "tmp")]

    def everything(self) -> set[Entry]:
        """Reads all paths, also in the backup and staging areas."""
        ours = (self.root / ".fsmirror" / name for name in ("backup", "tmp"))
        return {entry for top in (self.root, *ours) for entry in look(top).values()}

    def observe(self) -> dict[Any, Entry]:
        """Reads files and links, empty foreign folders, and names lost bytes.

        What had to make way is still there if it is in the backup area under its path,
        or, before an interrupted batch is recovered, in the staging area.
        """
        tree, kept, foreign = look(self.root), self._kept(), self.foreign
        seen: dict[Any, Entry] = {
            path: e for path, e in tree.items() if e is not DIR or foreign.get(path) is DIR
        }
        displaced = {path: e for path, e in foreign.items() if path not in seen}
        seen |= {path: e for path, e in displaced.items() if (path, e) in kept or ("", e) in kept}
        there = {*tree.values(), *(entry for _, entry in kept)}
        seen |= {("lost", str(entry)): entry for entry in self.unique - there}
        return seen | {("outside", path): entry for path, entry in look(self.outside).items()}

    def _kept(self) -> set[tuple[str, Entry]]:
        """Reads the backup area, by original path, and the staging area."""
        ours = self.root / ".fsmirror"
        backups = look(ours / "backup").items()
        staged = look(ours / "tmp").values()
        return {(path.partition("/")[2], e) for path, e in backups} | {("", e) for e in staged}
