"""Users: what people do to projects, their roots and memories, and what is known after it.

Two kinds of things are known: the bytes that users wrote, each of them unlike all others, and the
files that each memory, the engine's database or the ledger, has to remember.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Literal, TypeAlias

from tests.target.copying import How, bind, duplicate, points, put_back, take_away, unbind
from tests.target.declarers import DATABASE, SOURCE, Project, Style
from tests.target.keeping import KEYS, LEDGER, OURS, Keeping, Place
from tests.target.knowledge import Backup, Knowledge, Memory
from tests.target.witness import NAMES, Owner, ours

Edit: TypeAlias = Literal["in place", "anew", "unseen"]
"""``unseen`` puts the time back; the size is always the same."""
Move: TypeAlias = Literal["rename", "bind", "volume"]
"""``bind`` mounts the project elsewhere; ``volume`` moves the root to a place mounted on it."""


class Users(Knowledge):
    """People with projects and backups."""

    def make_project(
        self,
        style: Style,
        place: Place = "root",
        *,
        is_memoized: bool = True,
        is_noted: bool = False,
    ) -> Project:
        """Makes a project that declares three files."""
        path, shared = (
            self.top / "projects" / f"p{next(self._serial)}",
            self.top / "projects/states",
        )
        (path / SOURCE).mkdir(parents=True)
        shared.mkdir(exist_ok=True)
        project = Project(path, Keeping(shared, place, is_noted=is_noted), style, is_memoized)
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
        self._touch(project, project.key)
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
        self._touch(project, project.key)
        path = project.root / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()

    def switch(self, project: Project) -> None:
        """Declares another root than before."""
        self._calm.discard(id(project))
        if not project.is_astray:
            project.keeping.settle(project.base, project.key)
        project.key = KEYS[1 - KEYS.index(project.key)]

    def keep(self, project: Project, place: Place) -> None:
        """Declares another place of the state, if the flow knows where it is now."""
        keeping, base, key = project.keeping, project.base, project.key
        if not project.is_astray and keeping.is_traced(base, key) and keeping.is_named(base, key):
            keeping.declared[key] = place

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
        keeping = project.keeping
        places = {key: keeping.place(project.base, key) for key in KEYS}
        inside: dict[str, set[str | None]] = {
            "project": {"root", "project"},
            "root": {"root"},
            "ledger": {*places.values()},
        }
        kept = {
            key: self.ledgers.get(project.root_named(key), {})
            for key in (KEYS if memory == "project" else (project.key,))
            if places[key] in inside.get(memory, {None}) | {None}
        }
        engine = self.engines[id(project)] if memory in {"database", "project"} else None
        ledgers = copy.deepcopy(kept if memory in inside else {})
        known, told = copy.deepcopy(engine), dict(keeping.told)
        made = Backup(at, project, memory, project.key, ledgers, known, project.drops, places, told)
        self.backups.append(made)

    def restore(self, backup: Backup, how: How) -> None:
        """Puts a memory back where it was; a state folder where it is now."""
        project, at, keeping = backup.project, backup.at, backup.project.keeping
        if project.is_astray and backup.memory != "database":
            return
        before = {key: keeping.place(project.base, key) for key in KEYS}
        is_apart = backup.memory == "root" and before[backup.key] not in {None, "root"}
        is_of_files = backup.memory == "files" or is_apart
        if not is_of_files:
            self._calm.discard(id(project))
        if backup.memory != "database":
            for key in KEYS:
                self._touch(project, key)
        place = self._place_of(project, backup.memory, backup.key)
        place.mkdir(parents=True, exist_ok=True)
        put_back(at, place, how, OURS if is_of_files else "")
        if backup.memory == "ledger" and place.name != OURS:
            for name in ("backup", "tmp"):  # It was in the root, with these.
                shutil.rmtree(place / name, ignore_errors=True)
        for key in () if project.is_astray else KEYS:
            root, known = project.root_named(key), backup.ledgers.get(key)
            keeping.keep_one(project.base, key, before[key])
            if keeping.place(project.base, key) is None:
                self.ledgers.pop(root, None)
            elif known is not None and not (is_apart or self._differs(backup, key, before[key])):
                self.ledgers[root] = copy.deepcopy(known)
                if backup.drops != project.drops:
                    self._strange.add(root)
        if backup.engine is not None:
            self.engines[id(project)] = copy.deepcopy(backup.engine)
            keeping.told = {**backup.told}
        for key in () if project.is_astray else KEYS:
            if not keeping.is_traced(project.base, key):
                keeping.settle(project.base, key)
        if how == "rsync --inplace":  # It writes into the very file of the ledger.
            for key in KEYS:
                self.last.pop(project.root_named(key), None)
        self._leave_home(project)

    def _differs(self, backup: Backup, key: str, before: Place | None) -> bool:
        """Tells if a ledger that was put back is not that which counts."""
        is_elsewhere = backup.places[key] not in {None, before} and before is not None
        return backup.memory != "ledger" and is_elsewhere

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
        if made.base == path:
            made.keeping.former = {}
            if project.style == "absolute":
                made.keeping.forget(path, KEYS)
        self.projects.append(made)
        self.engines[id(made)] = copy.deepcopy(self.engines[id(project)])
        for key in KEYS:
            is_left = project.keeping.place(project.base, key) == "shared"
            if project.root_named(key) in self.ledgers and not is_left:
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
        if {project.root_named(key) for key in KEYS} & self._damaged:
            return  # Of two state folders with its files, the wrong one may be found.
        name = f"p{next(self._serial)}"
        if how == "volume":
            if project.path != project.real:
                return
            self._move_to_volume(project.root, self.top / "volumes" / name)
            return
        project.keeping.stay(project.base)
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
            for roots in (self._settled, self._unhomed):
                if project.base / key in roots:
                    roots.add(path / key)
        project.path = project.base = path
        self._leave_folders(project)
        if project.style == "absolute":
            self._calm.discard(id(project))
            project.keeping.forget(path, KEYS)
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
        if memory != "database":
            self._touch(project, project.key)
        if memory == "files":
            for entry in place.iterdir():
                if entry.name != OURS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            return
        if memory == "root" and project.keeping.place(project.base, project.key) != "root":
            take_away(place)
            return
        self._calm.discard(id(project))
        take_away(place)
        if memory == "database":
            self._forget_engine(project)
            project.keeping.forget(project.base, KEYS if not project.is_astray else ())
            if id(project) not in self._at_home:
                self._leave_home(project)
        else:
            self._forget_ledger(project.root)

    def take_snapshot(self) -> None:
        """Notes what the memories know that :meth:`roll_back` is to bring back."""
        known = (self.ledgers, [*self.engines.values()], self._endings)
        self._snapshot = copy.deepcopy(known)

    def roll_back(self, *, is_of_root: bool) -> None:
        """Notes that the disk with the root, or with the database, was put back whole."""
        ledgers, engines, endings = copy.deepcopy(self._snapshot)
        if is_of_root:
            self.ledgers = ledgers
        else:
            self.engines = dict(zip(self.engines, engines, strict=True))
        for project in self.projects:
            for key in KEYS:
                root = project.root_named(key)
                if endings[root] != self._endings[root]:
                    # The ledger and the database name two owners, of which one is gone.
                    self._strange.add(root)
                    self.ledgers.get(root, {}).pop("flow", None)
                    known = self.engines[id(project)]
                    known.update(dict.fromkeys(known.keys() & {key_of(project, key)}, frozenset()))
        self._calm.clear()
        self._settled.clear()

    def damage(self, project: Project, page: int, content: bytes) -> None:
        """Overwrites the beginning of a page of the ledger."""
        file = self._place_of(project, "ledger") / LEDGER
        if not file.exists() or project.is_astray:
            return
        if project.path != project.real and project.keeping.former:
            return  # Its state may have to be found by what is in it.
        if project.root in self._unhomed:
            return
        self._damaged.add(project.root)
        self._calm.discard(id(project))
        with file.open("r+b") as opened:
            opened.seek(page % (file.stat().st_size // 4096) * 4096)
            opened.write(content)
        self._touch(project, project.key)
        self.ledgers.pop(project.root, None)
        self._claimed.discard(project.root)

    def _place_of(self, project: Project, memory: Memory, key: str = "") -> Path:
        """Returns the path of a memory."""
        root = project.root_named(key or project.key)
        if memory == "ledger":
            keeping, key = project.keeping, key or project.key
            return keeping.folder(project.base, key, keeping.current(project.base, key))
        places = {"database": project.path / DATABASE, "project": project.path}
        return places.get(memory, root)


def key_of(project: Project, key: str = "") -> str:
    """Returns a root of a project as its flow names it."""
    key = key or project.key
    return str(project.root_named(key)) if project.style == "absolute" else key
