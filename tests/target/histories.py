"""Histories in which memories are copied, put back, moved, damaged or lost; and their oracle.

The oracle is told what is done, and knows two kinds of things: the bytes that users wrote, each
of them unlike all others, and the files that each memory, the engine's database or the ledger,
has to remember. After an update a root holds what is declared, nothing that any of these
memories knew to be ours and that is declared no longer, and all bytes of users.
"""

from __future__ import annotations

import copy
import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from cocoindex_fsmirror import Mirror
from tests.command.commands import run
from tests.support import beside_ours, contents, snapshot
from tests.target.copying import How, duplicate, put_back
from tests.target.declarers import DATABASE, SOURCE, Project, Style
from tests.target.flows import ran
from tests.target.witness import NAMES, OURS, Before, Owner, ours

Written: TypeAlias = frozenset[tuple[str, bytes]]
"""Names with the bytes that were written there."""
Ledger: TypeAlias = dict[Owner, Written]
Memory: TypeAlias = Literal["database", "ledger", "root", "files", "project"]
"""``files`` is the root without ``.fsmirror``."""

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
    """

    at: Path
    project: Project
    memory: Memory
    key: str
    ledgers: dict[str, Ledger]
    engine: dict[str, Written] | None


@dataclass
class World:
    """Projects, their backups, and what the oracle knows of them.

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
    _calm: set[int] = field(default_factory=set)  # projects that only moved since an update
    _at_home: set[int] = field(default_factory=set)  # projects whose ledger names their database
    _snapshot: Any = None
    _orphaned: set[int] = field(default_factory=set)  # projects that lost an owner for good
    _claimed: set[Path] = field(default_factory=set)  # roots whose ledger does

    # What users do

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

    def edit(self, project: Project, name: str) -> None:
        """Writes a file as a user does, in place if it is there."""
        self._calm.discard(id(project))
        (path := project.root / name).parent.mkdir(parents=True, exist_ok=True)
        content = f"user {next(self._serial):04}".encode()
        self.users |= {content}
        path.write_bytes(content)

    def delete(self, project: Project, name: str) -> None:
        """Removes a file as a user does."""
        self._calm.discard(id(project))
        (project.root / name).unlink(missing_ok=True)

    def switch(self, project: Project) -> None:
        """Declares another root than before."""
        self._calm.discard(id(project))
        project.key = KEYS[1 - KEYS.index(project.key)]

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
        made = Backup(at, project, memory, project.key, *copy.deepcopy((kept, engine)))
        self.backups.append(made)

    def restore(self, backup: Backup, how: How) -> None:
        """Puts a memory back where it was."""
        project, at = backup.project, backup.at
        if project.is_astray and backup.memory != "database":
            return
        self._calm.discard(id(project))
        place = self._place_of(project, backup.memory, backup.key)
        place.mkdir(parents=True, exist_ok=True)
        left_out = OURS if backup.memory == "files" else ""
        put_back(at, place, how, left_out)
        for key, ledger in copy.deepcopy(backup.ledgers).items():
            if ledger or (project.root_named(key) / OURS).exists():
                self.ledgers[project.root_named(key)] = ledger
        if backup.engine is not None:
            self.engines[id(project)] = copy.deepcopy(backup.engine)
        self._leave_home(project)

    def copy(self, project: Project, how: How, *, is_edited: bool) -> None:
        """Copies a project; edits the absolute path in it, or forgets to."""
        if project.is_astray or len(self.projects) > 2:
            return
        path = self.top / "projects" / f"p{next(self._serial)}"
        path.mkdir()
        put_back(project.path, path, how)
        made = copy.deepcopy(project)
        made.path, made.base = path, path
        if project.style == "absolute" and not is_edited:
            made.base = project.base
        self.projects.append(made)
        self.engines[id(made)] = copy.deepcopy(self.engines[id(project)])
        for key in KEYS:
            if project.root_named(key) in self.ledgers:
                known = copy.deepcopy(self.ledgers[project.root_named(key)])
                self.ledgers[path / key] = known
                self.last[path / key] = copy.deepcopy(self.last.get(project.root_named(key), {}))
        self._leave_home(made)

    def move(self, project: Project) -> None:
        """Moves a project, with the absolute path in it."""
        if project.is_astray or any(
            each.base == project.base for each in self.projects if each is not project
        ):
            return
        path = self.top / "projects" / f"p{next(self._serial)}"
        project.path.rename(path)
        self._at_home.discard(id(project))
        for key in KEYS:
            if project.base / key in self.ledgers:
                self.ledgers[path / key] = self.ledgers.pop(project.base / key)
                self.last[path / key] = self.last.pop(project.base / key, {})
        project.path = project.base = path
        if project.style == "absolute":
            self._calm.discard(id(project))
        if not (path / DATABASE).exists():
            self._leave_home(project)

    def lose(self, project: Project, memory: Memory) -> None:
        """Removes a memory."""
        place = self._place_of(project, memory)
        if memory == "project" or not place.exists():
            return
        if memory != "database" and project.is_astray:
            return
        self._calm.discard(id(project))
        if memory == "files":
            for entry in place.iterdir():
                if entry.name != OURS:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            return
        shutil.rmtree(place)
        if memory == "database":
            self._forget_engine(project)
            if id(project) not in self._at_home:
                self._leave_home(project)
        else:
            self.ledgers.pop(project.root, None)
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

    # What the product does

    def update(self, project: Project) -> None:
        """Updates the flow of a project."""
        if project.is_astray and not self._is_refused(project):
            return
        before = self._look(project)
        said = project.update()
        if project.is_astray:
            assert "is a copy" in said
            before.check_unchanged(besides=[project.path / DATABASE])
            return
        assert said == ""
        if id(project) in self._calm and project.is_memoized:
            assert ran == [], "components ran again after a move"
        self._check(project, before, "flow", project.declared)
        known, key = self.engines[id(project)], _key_of(project)
        for other in known.keys() - {key}:
            self._check_gone(project, other)
        self.engines[id(project)] = {key: frozenset(project.declared.items())}
        self._calm.add(id(project))
        self._at_home.add(id(project))
        self._claimed.add(project.root)

    def drop(self, project: Project) -> None:
        """Drops the flow of a project."""
        if project.is_astray and not self._is_refused(project):
            return
        before, known = (
            self._look(project),
            self.engines[id(project)],
        )
        said = project.drop()
        self._calm.discard(id(project))
        if project.is_astray:
            before.check_unchanged(besides=[project.path / DATABASE])
            self.engines[id(project)] = {}
            return
        assert said == ""
        before.check_users()
        for key in known:
            self._check_gone(project, key)
        self._forget_engine(project)

    def sync(self, project: Project) -> None:
        """Mirrors the source of a project."""
        if not project.is_astray:
            before = self._look(project)
            result = run("sync", project.path / SOURCE, project.root)
            assert result.exit_code == 0, result.output
            self._calm.discard(id(project))
            self._check(project, before, "sync", project.source)

    def run_program(self, project: Project) -> None:
        """Runs the program of a project."""
        if not project.is_astray:
            before = self._look(project)
            with Mirror(project.root) as mirror, mirror.update() as files:
                for name, content in project.program.items():
                    files.write(name, content)
            self._calm.discard(id(project))
            self._check(project, before, "program", project.program)

    def verify(self, project: Project, *, is_settled: bool = False) -> None:
        """Runs the commands that look: they may not call a root right that is not."""
        said = [run(*command, project.root) for command in (["verify", "--content"], ["status"])]
        if is_settled:
            assert [each.exit_code for each in said] == [0, 0], said[0].output + said[1].output
        if 0 in [each.exit_code for each in said]:
            found = contents(snapshot(project.root)).items()
            for owner, wanted in self.last.get(project.root, {}).items():
                ledger = self.ledgers.get(project.root, {})
                stale = (ledger.get(owner, frozenset()) - wanted.items()) & found
                is_right = found >= wanted.items() and not stale
                assert is_right, f"a lie: {said[0].output} {said[1].output}"

    def conclude(self) -> None:
        """Updates all projects, and then once more, which changes nothing."""
        for project in self.projects:
            self.sync(project)
            self.run_program(project)
            self.update(project)
            if not project.is_astray:
                state = beside_ours(project.root)
                self.update(project)
                assert beside_ours(project.root) == state, "a second update changed something"
                self.verify(project, is_settled=id(project) not in self._orphaned)
                assert not ran or not project.is_memoized, "components ran for nothing"

    # What has to hold

    def _check(
        self, project: Project, before: Before, owner: Owner, wanted: dict[str, bytes]
    ) -> None:
        """Checks a root after an update of one of its owners."""
        ledger = self.ledgers.setdefault(project.root, {})
        known = ledger.get(owner, frozenset())
        if owner == "flow":
            known |= self.engines[id(project)].get(_key_of(project), frozenset())
        found = contents(snapshot(project.root)).items()
        assert found >= wanted.items(), "what is declared is not there"
        assert not (known - wanted.items()) & found, "what was ours is still there"
        before.check_users()
        before.check_others(project.root, owner)
        roots = [project.root_named(key) for key in KEYS]
        before.check_unchanged(besides=[*roots, project.path / DATABASE])
        adopted = before.files_in(project.root) - known
        self.ledgers[project.root][owner] = frozenset(wanted.items()) - adopted
        self.last.setdefault(project.root, {})[owner] = dict(wanted)

    def _check_gone(self, project: Project, key: str) -> None:
        """Checks a root that the flow has given up."""
        root = project.base / key
        if root.parent != project.base:  # The root of the project that this one is a copy of.
            return
        self._claimed.discard(root)
        self.last.get(root, {}).pop("flow", None)
        known = self.ledgers.get(root, {}).pop("flow", frozenset())
        assert not known & contents(snapshot(root)).items(), (
            "what was ours is still in a root that was given up"
        )

    # Helpers

    def _look(self, project: Project) -> Before:
        """Looks at everything before something is run."""
        roots = [project.root_named(key) for key in KEYS]
        return Before(self.top / "projects", self.users, roots)

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


def _key_of(project: Project) -> str:
    """Returns the root of a project as its flow names it."""
    return str(project.root) if project.style == "absolute" else project.key
