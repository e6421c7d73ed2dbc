"""Keeps what has to be remembered about projects, by the engine's database and by ledgers.

Two kinds of things are known: the bytes that users wrote, each of them unlike all others, and the
files that each memory, the engine's database or the ledger, has to remember.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tests.target.declarers import DATABASE, Project
from tests.target.keeping import KEYS, Place, has_ledger, spot
from tests.target.witness import Owner

Written: TypeAlias = frozenset[tuple[str, bytes]]
"""Names with the bytes that were written there."""
Ledger: TypeAlias = dict[Owner, Written]
Memory: TypeAlias = Literal["database", "ledger", "root", "files", "project"]
"""``files`` is the root without ``.fsmirror``, and ``ledger`` the state folder, wherever it is."""


@dataclass
class Backup:
    """A backup of a memory, and what that knew.

    Attributes:
        at: The folder that holds the copy.
        project: The project that the memory belongs to.
        memory: The memory.
        key: The name of the root.
        ledgers: What the ledgers in it knew, by root.
        engine: What the engine's database in it knew; ``None`` if none is in it.
        drops: The number of times that the flow of the project had been dropped.
        places: The places of the ledgers of all roots, by key.
        told: The places that the engine's database knew, by key.
    """

    at: Path
    project: Project
    memory: Memory
    key: str
    ledgers: dict[str, Ledger]
    engine: dict[str, Written] | None
    drops: int
    places: dict[str, Place | None]
    told: dict[str, frozenset[Place]]


@dataclass
class Knowledge:
    """Projects and backups, and what has to be known of these.

    Attributes:
        top: The folder that holds everything.
        projects: The projects.
        backups: The backups.
        ledgers: The files that the ledger of each root remembers, by owner.
        engines: The files that the database of each project remembers, by root as the flow
            names it.
        users: All bytes that users wrote.
        last: The files that each owner of a root declared last.
    """

    top: Path
    projects: list[Project] = field(default_factory=list)
    backups: list[Backup] = field(default_factory=list)
    ledgers: dict[Path, Ledger] = field(default_factory=dict)
    engines: dict[int, dict[str, Written]] = field(default_factory=dict)
    users: set[bytes] = field(default_factory=set)
    last: dict[Path, dict[Owner, dict[str, bytes]]] = field(default_factory=dict)
    _serial: Any = field(default_factory=lambda: itertools.count(1))
    _calm: set[int] = field(default_factory=set)  # projects that have no reason to run a component
    _at_home: set[int] = field(default_factory=set)  # projects whose ledger names their database
    _snapshot: Any = None
    _endings: Counter[Path] = field(default_factory=Counter)  # how often a flow gave a root up
    _orphaned: set[int] = field(default_factory=set)  # projects that lost an owner for good
    _adopted: set[tuple[str, bytes]] = field(default_factory=set)
    _strange: set[Path] = field(default_factory=set)  # roots whose ledger is of before a drop
    _claimed: set[Path] = field(default_factory=set)  # roots whose ledger does
    _settled: set[Path] = field(default_factory=set)  # roots with a file as it was written
    _damaged: set[Path] = field(default_factory=set)  # roots whose ledger is damaged
    _unhomed: set[Path] = field(default_factory=set)  # roots that a ledger has to recognise

    def _leave_folders(self, project: Project) -> None:
        """Notes which roots have other paths now than their state folders are named after."""
        for key, folder in project.keeping.former.items():
            root = project.root_named(key)
            if has_ledger(folder) and folder != spot(project.keeping.shared, root):
                self._unhomed.add(root)
                if root not in self._settled:
                    self._touch(project, key)

    def _touch(self, project: Project, key: str) -> None:
        """Notes that a root may not be recognised any more by the files in it."""
        root = project.root_named(key)
        self._settled.discard(root)
        if root in self._unhomed:
            self._calm.discard(id(project))
            if project.path == project.real:  # Else the old path still leads to it.
                project.keeping.lost.add(key)
            self._forget_ledger(root)

    def _forget_ledger(self, root: Path) -> None:
        """Notes that the ledger of a root knows nothing, as far as can be told."""
        self.ledgers.pop(root, None)
        self.last.pop(root, None)
        self._claimed.discard(root)

    def _is_refused(self, project: Project) -> bool:
        """True if a copy still names the root of another project, and the ledger there can tell."""
        if not project.keeping.is_traced(project.base, project.key):
            return False
        is_known = str(project.root) in self.engines[id(project)]
        has_original = (project.base / DATABASE).exists()
        return project.is_astray and project.root in self._claimed and is_known and has_original

    def _forget_engine(self, project: Project) -> None:
        """Notes that a database knows nothing, and the ledger nothing of copies of it, soon."""
        for each in self.projects:
            if each.base == project.path:
                self.engines[id(each)] = {}

    def _leave_home(self, project: Project) -> None:
        """Notes that the ledgers of a project need its database to know whose they are."""
        self._at_home.discard(id(project))
        if not project.is_astray:
            self._claimed -= {project.root_named(key) for key in KEYS}
        if not (project.path / DATABASE).exists():
            self._orphaned.add(id(project))
            for key in KEYS:
                self.ledgers.get(project.root_named(key), {}).pop("flow", None)
