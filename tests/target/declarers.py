"""Projects with a flow, a source and a program, all of which write to one root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import cocoindex as coco

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._target.sink import close_all
from tests.reopening import reopened
from tests.support import told_by
from tests.target.flows import OUT, page, ran
from tests.target.keeping import STATE, Keeping

Style: TypeAlias = Literal["relative", "absolute", "context"]
"""The ways in which a flow names its root."""
STYLES: Final[tuple[Style, ...]] = ("relative", "absolute", "context")
DATABASE: Final = "state.db"
SOURCE: Final = "source"


@dataclass
class Project:
    """A folder with the engine's database, the source of ``fsmirror sync``, and the root.

    Attributes:
        path: The folder.
        style: The way in which the flow names its root.
        is_memoized: True if each file is declared in a memoized component of its own.
        base: The folder that holds the root; the project itself, as a rule.
        key: The name of the root.
        is_exact: True if what nobody declares goes to the backups.
        is_nested: True if the flow declares the files in folders through targets of those.
        drops: The number of times that the flow was dropped.
        real: The folder beneath, if it is mounted at the path; the path itself, as a rule.
        keeping: Where its state folders are.
        declared: The files that the flow declares.
        program: The files that a program declares by ``Mirror.update``.
    """

    path: Path
    keeping: Keeping
    style: Style = "relative"
    is_memoized: bool = True
    base: Path = Path()
    key: str = "out"
    is_exact: bool = False
    is_nested: bool = False
    drops: int = 0
    real: Path = Path()
    declared: dict[str, bytes] = field(default_factory=dict)
    program: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.base == Path():
            self.base = self.path
        if self.real == Path():
            self.real = self.path

    @property
    def root(self) -> Path:
        """The root that the flow names now."""
        return self.base / self.key

    @property
    def is_astray(self) -> bool:
        """True if the flow still names the root of the project that this one is a copy of."""
        return self.base != self.path

    @property
    def state(self) -> Path | None:
        """The state directory that ``sync`` and the program name; ``None`` to name none."""
        return self.keeping.named(self.base, self.key)

    def root_named(self, key: str) -> Path:
        """Returns the root with a key."""
        return self.base / key

    @property
    def source(self) -> dict[str, bytes]:
        """The files of the source."""
        top = self.path / SOURCE
        return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}

    def declare(self, owner: str, name: str, content: bytes | None) -> None:
        """Declares one file, or none any more."""
        if owner == "sync":
            path = self.path / SOURCE / name
            path.unlink(missing_ok=True)
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return
        files = self.declared if owner == "flow" else self.program
        files.pop(name, None)
        if content is not None:
            files[name] = content

    def update(self) -> str:
        """Runs one update in a new process, as it were; returns its errors, as text."""
        ran.clear()
        errors: list[str] = []
        with self._app(errors) as app:
            try:
                app.update_blocking()
            except Exception as error:
                errors.append(told_by(error))
            del app
        return "\n".join(errors)

    def drop(self) -> str:
        """Drops the app; returns the errors, as text."""
        errors: list[str] = []
        with self._app(errors) as app:
            try:
                app.drop_blocking()
            except Exception as error:
                errors.append(told_by(error))
            del app
        return "\n".join(errors)

    def run_program(self) -> None:
        """Runs the program, which raises its errors."""
        with self._mirror() as mirror, mirror.update() as files:
            for name, content in self.program.items():
                files.write(name, content)

    def _mirror(self) -> fsmirror.Mirror:
        """Opens the mirror as the program does."""
        is_noted = self.state is not None and self.keeping.is_noted
        return fsmirror.Mirror(self.root, state=self.state, state_note=is_noted)

    @contextlib.contextmanager
    def _app(self, errors: list[str]) -> Iterator[coco.App[[Project], None]]:
        """Opens the app in the folder of the project, and closes it."""
        before = os.getcwd()
        os.chdir(self.path)
        try:
            env = reopened(
                lambda: coco.Environment(
                    coco.Settings(db_path=Path(DATABASE)),
                    exception_handler=lambda error, _: errors.append(told_by(error)),
                )
            )
            env.context_provider.provide(OUT, self.base)
            yield coco.App(coco.AppConfig("app", environment=env), _run, self)
        finally:
            close_all()
            os.chdir(before)


async def _run(project: Project) -> None:
    """Declares the files of a project; the main function of every app."""
    where: dict[Style, Path | fsmirror.FilePath] = {
        "relative": Path(project.key),
        "absolute": project.root,
        "context": fsmirror.FilePath(project.key, base_dir=OUT),
    }
    out = await fsmirror.mount_dir_target(
        where[project.style],
        exact=project.is_exact,
        state=_state_of(project),
        state_note=project.keeping.is_noted,
    )
    targets: dict[str, fsmirror.DirTarget] = {"": out}
    for name, content in project.declared.items():
        above = await _nested(targets, Path(name).parent) if project.is_nested else ""
        item = (os.path.relpath(name, above), content)
        if project.is_memoized:
            await coco.mount(coco.component_subpath(name), page, item, targets[above])
        else:
            targets[above].declare_file(*item)


def _state_of(project: Project) -> Path | fsmirror.FilePath | None:
    """Returns the state directory as a flow names it."""
    place = project.keeping.declared[project.key]
    if place == "root":
        return None
    if place == "shared" or project.style == "absolute":
        return project.keeping.directory(project.base, place)
    return Path(STATE) if project.style == "relative" else fsmirror.FilePath(STATE, base_dir=OUT)


async def _nested(targets: dict[str, fsmirror.DirTarget], folder: Path) -> str:
    """Declares the targets of a folder, one in the other; returns the path of the last one."""
    path, above = ("", "") if folder == Path() else (str(folder), "")
    if path not in targets:
        above = await _nested(targets, folder.parent)
        targets[path] = await coco.use_mount(
            coco.component_subpath("folder", path), targets[above].declare_dir_target, folder.name
        )
    return path
