"""Finds the state folders of the projects of a history, wherever these keep them.

The names of these folders are computed anew here, as ``README.md`` tells them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import xxhash

OURS: Final = ".fsmirror"
LEDGER: Final = "ledger.sqlite3"
KEYS: Final = ("out", "out2")
"""The names of the roots that a project may have."""
STATE: Final = "state"

Place: TypeAlias = Literal["root", "project", "shared"]
"""``project`` is a state directory in the project, ``shared`` one of all projects."""
PLACES: Final[tuple[Place, ...]] = get_args(Place)


class Keeping:
    """Knows where the state folders of one project are declared to be, and where they are.

    Args:
        shared: The state directory of all projects.
        place: The place of all roots.
        is_noted: True if notes in the roots tell where their states are.

    Attributes:
        declared: The place of each root, by its key.
        told: The places that the engine's database knows, by key.
        former: The state folders of roots that have other paths now, by key.
        lost: The keys of those that may not be found again.
    """

    def __init__(self, shared: Path, place: Place, *, is_noted: bool) -> None:
        self.shared = shared
        self.is_noted = is_noted
        self.declared: dict[str, Place] = dict.fromkeys(KEYS, place)
        self.told: dict[str, frozenset[Place]] = {}
        self.former: dict[str, Path] = {}
        self.lost: set[str] = set()

    def directory(self, base: Path, place: Place | None) -> Path:
        """Returns the state directory of a project at a place."""
        return self.shared if place == "shared" else base / STATE

    def folder(self, base: Path, key: str, place: Place) -> Path:
        """Returns the state folder of a root at a place."""
        if place == "root":
            return base / key / OURS
        folder, former = spot(self.directory(base, place), base / key), self.former.get(key)
        if place == "shared" and former is not None and key not in self.lost:
            return former if has_ledger(former) and not has_ledger(folder) else folder
        return folder

    def places(self, base: Path, key: str) -> list[Place]:
        """Lists the places that hold a ledger of a root, the one that counts first."""
        found = [each for each in PLACES if has_ledger(self.folder(base, key, each))]
        # Where a move was cut off, the old one counts.
        return sorted(found, key=lambda each: each == self.declared[key])

    def place(self, base: Path, key: str) -> Place | None:
        """Returns the place of the ledger of a root; ``None`` if there is none."""
        return next(iter(self.places(base, key)), None)

    def current(self, base: Path, key: str) -> Place:
        """Returns the place of the ledger of a root, or else where it will be."""
        return self.place(base, key) or self.declared[key]

    def named(self, base: Path, key: str) -> Path | None:
        """Returns the state directory that writers name; ``None`` to name none."""
        now, wanted = self.place(base, key), self.declared[key]
        if self._is_told(base, key):
            is_there = wanted == now
            return None if is_there else self._named(base, key, wanted)
        return self._named(base, key, wanted if now in {None, "root"} else now)

    def _named(self, base: Path, key: str, place: Place | None) -> Path | None:
        """Returns the state directory at a place, as it is named."""
        if place in {None, "root"}:
            return base / key if self._is_told(base, key) else None
        return self.directory(base, place)

    def looked_up(self, base: Path, key: str) -> Path | None:
        """Returns the state directory that commands name which look; ``None`` to name none."""
        now = self.place(base, key)
        if now in {None, "root"} or self._is_told(base, key):
            return None
        return self.directory(base, now)

    def note(self, base: Path, key: str) -> Path | None:
        """Returns what the note in a root tells, if there is one."""
        file = base / key / OURS / "location"
        return Path(file.read_text().removesuffix("\n")) if file.exists() else None

    def _is_told(self, base: Path, key: str) -> bool:
        """Tells if a note tells where the ledger of a root is."""
        now, told = self.place(base, key), self.note(base, key)
        return now not in {None, "root"} and told == self.directory(base, now)

    def is_traced(self, base: Path, key: str) -> bool:
        """Tells if a flow finds the ledger of a root, wherever it is to be."""
        now = self.place(base, key)
        is_known = now in {None, "root"} or now in self.told.get(key, frozenset())
        return is_known or self._is_told(base, key)

    def is_named(self, base: Path, key: str) -> bool:
        """Tells if a state folder of a root is named after it, as its path is now."""
        shared = self.folder(base, key, "shared")
        return shared == spot(self.shared, base / key) or self.place(base, key) != "shared"

    def stay(self, base: Path) -> None:
        """Notes which state folders stay where they are when a project is moved."""
        for key in KEYS:
            if self.place(base, key) == "shared":
                self.former[key] = self.folder(base, key, "shared")
                self.lost.discard(key)
                self.settle(base, key)

    def settle(self, base: Path, key: str) -> None:
        """Declares a root where its ledger is."""
        self.declared[key] = self.current(base, key)

    def forget(self, base: Path, keys: Sequence[str]) -> None:
        """Notes that the engine's database knows no place; declares roots where they are."""
        self.told = {}
        for key in keys:
            if not self.is_traced(base, key):
                self.settle(base, key)

    def keep_one(self, base: Path, key: str, place: Place | None) -> None:
        """Removes all ledgers of a root but that at a place, if there is one."""
        for each in self.places(base, key) if place is not None else ():
            if each != place:
                remove_state(self.folder(base, key, each))


def spot(directory: Path, root: Path) -> Path:
    """Returns the state folder of a root in a state directory."""
    way = os.path.relpath(root.resolve(), directory.resolve())
    return directory / f"{root.name}-{xxhash.xxh3_128_hexdigest(way.encode())}"


def has_ledger(folder: Path) -> bool:
    """Tells if a state folder holds a ledger."""
    return (folder / LEDGER).exists()


def remove_state(folder: Path) -> None:
    """Removes the state in a folder, but no backups of users."""
    if folder.name != OURS:
        shutil.rmtree(folder)
        return
    for path in [*folder.glob("ledger*"), *folder.glob("copies*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
