"""Users: what people do to projects, their roots and memories, and what is known after it.

Two kinds of things are known: the bytes that users wrote, each of them unlike all others, and the
files that each memory, the engine's database or the ledger, has to remember.
"""

from __future__ import annotations

import copy
import itertools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from tests.target.copying import How, bind, duplicate, points, put_back, take_away, unbind
from tests.target.declarers import DATABASE, SOURCE, Project, Style
from tests.target.witness import NAMES, OURS, Owner, ours

Written: TypeAlias = frozenset[tuple[str, bytes]]
"""Names with the bytes that were written there."""
Ledger: TypeAlias = dict[Owner, Written]
Memory: TypeAlias = Literal["database", "ledger", "root", "files", "project"]
"""``files`` is the root without ``.fsmirror``."""
Edit: TypeAlias = Literal["in place", "anew", "unseen"]
"""``unseen`` puts the time back; the size is always the same."""
Move: TypeAlias = Literal["rename", "bind", "volume"]
"""``bind`` mounts the project elsewhere; ``volume`` moves the root to a place mounted on it."""

KEYS: Final = ("out", "out2")


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
    """

    at: Path
    project: Project
    memory: Memory
    key: str
    ledgers: dict[str, Ledger]
    engine: dict[str, Written] | None
    drops: int


@dataclass
class Users:
    """People with projects and backups, and what has to be known of these.

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
    _orphaned: set[int] = field(default_factory=set)  # projects that lost an owner for good
    _adopted: set[tuple[str, bytes]] = field(default_factory=set)
    _strange: set[Path] = field(default_factory=set)  # roots whose ledger is of before a drop
    _claimed: set[Path] = field(default_factory=set)  # roots whose ledger does

    def make_project(self, style: Style, *, is_memoized: bool) -> Project:
        """Makes a project that declares three files."""
        path = self.top / "projects" / f"p{next(self._serial)}"
        (path / SOURCE).mkdir(parents=True)
        project = Project(path, style, is_memoized)
        project.declared = {name: ours(name, 0) for name in NAMES["flow"]}
        self.projects.append(project)
        self.engines[id(project)] = {}
        return project

    def declare(self, project: Project, owner: Owner, name: str, version: int) -> None:
        """Declares one file; none any more with version 0."""
        self._calm.discard(id(project))
        project.declare(owner, name, ours(name, version) if version else None)

    def edit(self, project: Project, name: str, how: Edit) -> None:
        """Writes a file as a user does."""
        path, was = project.root / name, None
        if any(above.is_file() for above in path.parents):
            return
        if path.is_file() and how == "unseen":
            was = path.stat()
        elif path.is_dir() or how == "anew":
            self.delete(project, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"user {next(self._serial):04}".encode()
        self.users |= {content}
        path.write_bytes(content)
        if was is not None:
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    def delete(self, project: Project, name: str) -> None:
        """Removes a file or a folder as a user does."""
        path = project.root / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()

    def switch(self, project: Project) -> None:
        """Declares another root than before."""
        self._calm.discard(id(project))
        project.key = KEYS[1 - KEYS.index(project.key)]

    def nest(self, project: Project) -> None:
        """Declares the files in folders through nested targets, or no longer."""
        self._calm.discard(id(project))
        project.is_nested = not project.is_nested

    def tidy(self, project: Project) -> None:
        """Wants an exact mirror, or no longer."""
        self._calm.discard(id(project))
        project.is_exact = not project.is_exact

    def back_up(self, project: Project, memory: Memory) -> None:
        """Makes a backup of a memory."""
        origin, at = self._place_of(project, memory), self.top / "backups" / str(len(self.backups))
        if not origin.exists() or (memory != "database" and project.is_astray):
            return
        at.mkdir(parents=True)
        duplicate(origin, at, OURS if memory == "files" else "")
        ledgers = {key: self.ledgers.get(project.root_named(key), {}) for key in KEYS}
        kept = {
            "project": ledgers,
            "root": {project.key: ledgers[project.key]},
            "ledger": {project.key: ledgers[project.key]},
        }.get(memory, {})
        engine = self.engines[id(project)] if memory in {"database", "project"} else None
        made = Backup(
            at, project, memory, project.key, *copy.deepcopy((kept, engine)), project.drops
        )
        self.backups.append(made)

    def restore(self, backup: Backup, how: How) -> None:
        """Puts a memory back where it was."""
        project, at = backup.project, backup.at
        if project.is_astray and backup.memory != "database":
            return
        if backup.memory != "files":
            self._calm.discard(id(project))
        place = self._place_of(project, backup.memory, backup.key)
        place.mkdir(parents=True, exist_ok=True)
        left_out = OURS if backup.memory == "files" else ""
        put_back(at, place, how, left_out)
        for key, ledger in copy.deepcopy(backup.ledgers).items():
            if ledger or (project.root_named(key) / OURS).exists():
                self.ledgers[project.root_named(key)] = ledger
                if backup.drops != project.drops:
                    self._strange.add(project.root_named(key))
        if backup.engine is not None:
            self.engines[id(project)] = copy.deepcopy(backup.engine)
        if how == "rsync --inplace":  # It writes into the very file of the ledger.
            for key in KEYS:
                self.last.pop(project.root_named(key), None)
        self._leave_home(project)

    def copy(self, project: Project, how: How, *, is_edited: bool) -> None:
        """Copies a project; edits the absolute path in it, or forgets to."""
        if project.is_astray or len(self.projects) > 2:
            return
        path = self.top / "projects" / f"p{next(self._serial)}"
        path.mkdir()
        put_back(project.path, path, how)
        made = copy.deepcopy(project)
        made.path = made.base = made.real = path
        if project.style == "absolute" and not is_edited:
            made.base = project.base
        self.projects.append(made)
        self.engines[id(made)] = copy.deepcopy(self.engines[id(project)])
        for key in KEYS:
            if project.root_named(key) in self.ledgers:
                known = copy.deepcopy(self.ledgers[project.root_named(key)])
                self.ledgers[path / key] = known
                self._strange |= {path / key} if project.root_named(key) in self._strange else set()
                self.last[path / key] = copy.deepcopy(self.last.get(project.root_named(key), {}))
        self._leave_home(made)

    def move(self, project: Project, how: Move) -> None:
        """Moves a project with the absolute path in it, or mounts it or its root elsewhere."""
        others = [each for each in self.projects if each is not project]
        if project.is_astray or any(each.base == project.base for each in others):
            return
        name = f"p{next(self._serial)}"
        if how == "volume":
            if project.path != project.real:
                return
            self._move_to_volume(project.root, self.top / "volumes" / name)
            return
        path = self.top / "mounts" / name
        if project.path != project.real:
            unbind(project.path)
            path = project.real
        elif how != "bind" or not bind(project.real, path):
            path = self.top / "projects" / name
            project.real = project.path.rename(path)
        self._at_home.discard(id(project))
        for key in KEYS:
            if project.base / key in self.ledgers:
                self.ledgers[path / key] = self.ledgers.pop(project.base / key)
                self._strange |= {path / key} if project.base / key in self._strange else set()
                self.last[path / key] = self.last.pop(project.base / key, {})
        project.path = project.base = path
        if project.style == "absolute":
            self._calm.discard(id(project))
        if not (path / DATABASE).exists():
            self._leave_home(project)

    def _move_to_volume(self, root: Path, volume: Path) -> None:
        """Moves a root to a folder that is mounted in its place."""
        if root.is_dir() and not points(root):
            volume.parent.mkdir(exist_ok=True)
            root.rename(volume)
            if not bind(volume, root):
                root.rmdir()
                volume.rename(root)

    def lose(self, project: Project, memory: Memory) -> None:
        """Removes a memory."""
        place = self._place_of(project, memory)
        if memory == "project" or not place.exists():
            return
        if memory != "database" and project.is_astray:
            return
        if memory == "files":
            for entry in place.iterdir():
                if entry.name != OURS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            return
        self._calm.discard(id(project))
        take_away(place)
        if memory == "database":
            self._forget_engine(project)
            if id(project) not in self._at_home:
                self._leave_home(project)
        else:
            self.ledgers.pop(project.root, None)
            self.last.pop(project.root, None)
            self._claimed.discard(project.root)

    def take_snapshot(self) -> None:
        """Notes what the memories know that :meth:`roll_back` is to bring back."""
        self._snapshot = copy.deepcopy((self.ledgers, [*self.engines.values()]))

    def roll_back(self, *, is_of_root: bool) -> None:
        """Notes that the disk with the root, or with the database, was put back whole."""
        ledgers, engines = copy.deepcopy(self._snapshot)
        if is_of_root:
            self.ledgers = ledgers
        else:
            self.engines = dict(zip(self.engines, engines, strict=True))
        self._calm.clear()

    def damage(self, project: Project, page: int, content: bytes) -> None:
        """Overwrites the beginning of a page of the ledger."""
        file = project.root / OURS / "ledger.sqlite3"
        if not file.exists() or project.is_astray:
            return
        self._calm.discard(id(project))
        with file.open("r+b") as opened:
            opened.seek(page % (file.stat().st_size // 4096) * 4096)
            opened.write(content)
        self.ledgers.pop(project.root, None)
        self._claimed.discard(project.root)

    def _is_refused(self, project: Project) -> bool:
        """True if a copy still names the root of another project, and the ledger there can tell."""
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

    def _place_of(self, project: Project, memory: Memory, key: str = "") -> Path:
        """Returns the path of a memory."""
        root = project.root_named(key or project.key)
        places = {"database": project.path / DATABASE, "ledger": root / OURS}
        return project.path if memory == "project" else places.get(memory, root)
