"""Histories in which memories are copied, put back, mounted elsewhere or lost; and their oracle.

The oracle is told what is done, and knows two kinds of things: the bytes that users wrote, each
of them unlike all others, and the files that each memory, the engine's database or the ledger,
has to remember. After an update a root holds what is declared, nothing that any of these
memories knew to be ours and that is declared no longer, and all bytes of users. After one that
was cut off, each file is the old one or the new one; what was written is ours.
"""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path
from typing import Final

from cocoindex_fsmirror import FsMirrorError
from tests.command.commands import run
from tests.support import beside_ours, contents, snapshot, staged
from tests.target.declarers import DATABASE, SOURCE, Project
from tests.target.flows import BoomError, Interruption, ran
from tests.target.keeping import KEYS, STATE, spot
from tests.target.users import Users, key_of
from tests.target.witness import EVERYWHERE, NAMES, Before, Owner

WHOLE: Final = Interruption()


class World(Users):
    """Projects, what the product does to them, and what has to hold after it."""

    def update(self, project: Project, cut: Interruption = WHOLE) -> None:
        """Updates the flow of a project."""
        if project.is_astray and not self._is_refused(project):
            return
        before = self._look(project)
        with (WHOLE if project.is_astray else cut).injected():
            said = project.update()
        if project.is_astray:
            assert "is a copy" in said
            before.check_unchanged(besides=[project.real / DATABASE])
            return
        if cut != WHOLE:
            self._check_cut(project, before, "flow", project.declared)
            return
        assert said == ""
        if id(project) in self._calm and project.is_memoized:
            assert ran == [], "components ran for nothing"
        self._check_place(project)
        self._check(project, before, "flow", project.declared)
        known, key = self.engines[id(project)], key_of(project)
        self._leave_behind(project, {*KEYS} - {project.key})
        project.keeping.told = {project.key: frozenset([project.keeping.declared[project.key]])}
        for other in known.keys() - {key}:
            self._check_gone(project, other)
        self.engines[id(project)] = {key: frozenset(project.declared.items())}
        self._calm.add(id(project))
        self._at_home.add(id(project))
        self._claimed.add(project.root)

    def drop(self, project: Project, cut: Interruption = WHOLE) -> None:
        """Drops the flow of a project."""
        if project.is_astray and not self._is_refused(project):
            return
        before, known = self._look(project), self.engines[id(project)]
        with (WHOLE if project.is_astray else cut).injected():
            said = project.drop()
        self._calm.discard(id(project))
        project.drops += 1
        if project.is_astray:
            before.check_unchanged(besides=[project.real / DATABASE])
            self.engines[id(project)] = {}
            return
        if cut != WHOLE and said:  # The engine forgets what is below the root all the same.
            self._check_cut(project, before, "flow", {})
            self.engines[id(project)] = dict.fromkeys(known, frozenset())
            return
        assert said == ""
        before.check_users(is_exact=False)
        self._leave_behind(project, {*KEYS})
        project.keeping.forget(project.base, KEYS)
        for key in known:
            self._check_gone(project, key)
        self._forget_engine(project)

    def sync(self, project: Project, cut: Interruption = WHOLE) -> None:
        """Mirrors the source of a project."""
        if not project.is_astray:
            before, options = self._look(project), ["--exact"] if project.is_exact else []
            options += _named(project.state)
            options += ["--state-note"] if project.state and project.keeping.is_noted else []
            with cut.injected():
                result = run("sync", project.path / SOURCE, project.root, *options)
            self._calm.discard(id(project))
            if cut != WHOLE:
                del result  # Its error holds the ledger.
                self._check_cut(project, before, "sync", project.source)
                return
            assert result.exit_code == 0, result.output
            self._check(project, before, "sync", project.source)

    def run_program(self, project: Project, cut: Interruption = WHOLE) -> None:
        """Runs the program of a project."""
        if not project.is_astray:
            before, failures = self._look(project), (BoomError, FsMirrorError)
            with cut.injected(), contextlib.suppress(*failures if cut != WHOLE else ()):
                project.run_program()
            self._calm.discard(id(project))
            if cut != WHOLE:
                self._check_cut(project, before, "program", project.program)
                return
            self._check(project, before, "program", project.program)

    def verify(self, project: Project, *, is_settled: bool = False) -> None:
        """Runs the commands that look: they may not call a root right that is not."""
        commands = (["verify", "--content"], ["status"])
        state = _named(project.keeping.looked_up(project.base, project.key))
        said = [run(*command, project.root, *state) for command in commands]
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
                if project.is_exact:  # A new owner may adopt at first.
                    self.update(project)
                    self._check_exact(project)
                state = beside_ours(project.root)
                self.update(project)
                assert beside_ours(project.root) == state, "a second update changed something"
                is_strange = project.root in self._strange  # An owner in doubt stays there.
                self.verify(
                    project, is_settled=not is_strange and id(project) not in self._orphaned
                )
                assert not ran or not project.is_memoized, "components ran for nothing"
                assert staged(project.root) == []

    # What has to hold

    def _check(
        self, project: Project, before: Before, owner: Owner, wanted: dict[str, bytes]
    ) -> None:
        """Checks a root after an update of one of its owners."""
        ledger = self.ledgers.setdefault(project.root, {})
        known = ledger.get(owner, frozenset())
        if owner == "flow":
            known |= self.engines[id(project)].get(key_of(project), frozenset())
        found = contents(snapshot(project.root)).items()
        assert found >= wanted.items(), "what is declared is not there"
        assert not (known - wanted.items()) & found, "what was ours is still there"
        is_exact = project.is_exact and owner != "program"
        before.check_users(is_exact=is_exact)
        self._check_others(project, before, owner, is_exact=is_exact)
        if owner != "flow" or key_of(project) in self.engines[id(project)]:  # Else it is another's.
            moved = (known - self._adopted) & before.new_backups(project.root)
            assert not moved, "ours was backed up"
        adopted = before.files_in(project.root) - known
        self._adopted |= adopted & wanted.items()
        self.ledgers[project.root][owner] = frozenset(wanted.items()) - adopted
        self.last.setdefault(project.root, {})[owner] = dict(wanted)
        self._unhomed.discard(project.root)
        self._damaged.discard(project.root)
        if wanted:
            self._settled.add(project.root)

    def _check_cut(
        self, project: Project, before: Before, owner: Owner, wanted: dict[str, bytes]
    ) -> None:
        """Checks a root after an update of one of its owners that was cut off, and its memories."""
        _end_process(self.top)
        self._calm.discard(id(project))
        is_exact = project.is_exact and owner != "program"
        before.check_users(is_exact=is_exact)
        self._check_others(project, before, owner, is_exact=is_exact)
        before.check_whole(project.root, owner, wanted)
        self._settled.discard(project.root)
        roots = {key_of(project, key): project.root_named(key) for key in KEYS}
        for key, root in roots.items():
            found = frozenset(contents(snapshot(root)).items())
            new = found - before.files_in(root) & wanted.items()
            ledger = self.ledgers.setdefault(root, {})
            ledger[owner] = ledger.get(owner, frozenset()) & found | new
            if owner == "flow":
                known = self.engines[id(project)].get(key)
                if known is not None or new:
                    self.engines[id(project)][key] = (known or frozenset()) & found | new
                self.last.get(root, {}).pop("flow", None)
        if owner == "flow":
            keeping, now = project.keeping, project.keeping.declared[project.key]
            keeping.told[project.key] = keeping.told.get(project.key, frozenset()) | {now}
        self.last.get(project.root, {}).pop(owner, None)

    def _check_others(
        self, project: Project, before: Before, owner: Owner, *, is_exact: bool
    ) -> None:
        """Checks that nothing else was changed."""
        ledger, kept = self.ledgers.get(project.root, {}), {*EVERYWHERE} - {*NAMES[owner]}
        if is_exact:  # What no memory knows is foreign.
            kept &= {name for each in ledger.values() for name, _ in each}
        before.check_others(project.root, kept)
        at, shared = project.real, project.keeping.shared
        roots = [at / key for key in KEYS]
        folders = [spot(at / STATE, root) for root in roots]
        folders += [spot(shared, project.root_named(key)) for key in KEYS]
        folders += project.keeping.former.values()
        # Known faults: a root that is given up and gone comes back, without files; and a copy
        # that gives up the root of its original, whose state was moved, looks into its backups.
        roots += before.touched(map(Path, self.engines[id(project)]))
        before.check_unchanged(besides=[*roots, *folders, at / DATABASE])

    def _check_place(self, project: Project) -> None:
        """Checks that the state of a root is where it is declared, and nowhere else."""
        keeping, key = project.keeping, project.key
        place = keeping.declared[key]
        assert keeping.places(project.base, key) == [place]
        is_noted = keeping.is_noted and place != "root"
        note = keeping.directory(project.base, place) if is_noted else None
        assert keeping.note(project.base, key) == note
        if project.path == project.real and place == "shared":
            folder = keeping.folder(project.base, key, "shared")
            assert folder == spot(keeping.shared, project.root), "a state folder has an old name"

    def _leave_behind(self, project: Project, keys: set[str]) -> None:
        """Notes whose state an engine did not find that has given up some roots.

        Its database was put back from before the state was moved, or ``sync`` has moved that.
        """
        for key in keys:
            if project.keeping.told.get(key) and not project.keeping.is_traced(project.base, key):
                self._strange.add(project.root_named(key))

    def _check_exact(self, project: Project) -> None:
        """Checks that only what is declared is in a root."""
        declared = project.declared | project.source | project.program
        assert contents(snapshot(project.root)) == declared, "a mirror is not exact"

    def _look(self, project: Project) -> Before:
        """Looks at everything before something is run."""
        roots = [project.root_named(key) for key in KEYS]
        return Before(self.top / "projects", self.users, roots)

    def _check_gone(self, project: Project, key: str) -> None:
        """Checks a root that the flow has given up."""
        root = project.base / key
        if root.parent != project.base:  # The root of the project that this one is a copy of.
            return
        if root in self._strange:  # Its owner is not that whom the engine gives up.
            self.ledgers.get(root, {}).pop("flow", None)
        self._claimed.discard(root)
        self._endings[root] += 1
        self.last.get(root, {}).pop("flow", None)
        known = self.ledgers.get(root, {}).pop("flow", frozenset())
        assert not known & contents(snapshot(root)).items(), (
            "what was ours is still in a root that was given up"
        )


def _named(state: Path | None) -> list[str]:
    """Returns the option that names a state directory to a command."""
    return ["--state", str(state)] if state is not None else []


def _end_process(top: Path) -> None:
    """Closes ledgers and locks that are still open below a folder, as the end of a process does."""
    gc.collect()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            path = each.readlink()
            if path.name == "lock" and path.is_relative_to(top):
                os.close(int(each.name))
