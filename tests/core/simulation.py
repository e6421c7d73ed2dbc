"""Carries out plans on a dict, to show the effect of a batch on a tree without a disk.

A node is the bytes of a file, or one of the words ``dir``, ``link``, ``other`` and
``unread`` (a regular file that could not be read). Each step checks what the real
one relies on, so a plan in a wrong order fails here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec.structs import replace

from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Folding, Name
from cocoindex_fsmirror._core.plan import Plan, Put, Remove, View
from cocoindex_fsmirror._core.planner import make_plan
from cocoindex_fsmirror._core.rows import Displaced, Row
from cocoindex_fsmirror._core.states import (
    ABSENT,
    Actual,
    DirState,
    FileState,
    Kind,
    LinkState,
    OtherState,
    Signature,
    digest_of,
)

Node: TypeAlias = bytes | str
Disk: TypeAlias = dict[str, Node]

MODE = Attributes(0o644)  # Of every file that is seen.


@dataclass
class World:
    """A disk and its ledger."""

    disk: Disk = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    displaced: list[Displaced] = field(default_factory=list)
    backups: list[tuple[str, Node]] = field(default_factory=list)
    folding: Folding = field(default_factory=Folding)

    def view(self) -> View:
        """Returns the inputs of a plan."""
        rows = {Name(name): row for name, row in self.rows.items()}
        actual = {Name(name): seen(node) for name, node in self.disk.items()}
        return View(rows, actual, self.folding)

    def plan(self, *intents: Intent) -> Plan:
        """Plans a batch."""
        return make_plan(intents, self.view())

    def update(self, *intents: Intent) -> Plan:
        """Plans a batch and carries it out."""
        plan = self.plan(*intents)
        about = {(intent.name, intent.owner, intent.container) for intent in intents}
        notes = [note for note in self.displaced if note[:3] not in about]
        self.displaced = [*notes, *plan.displaced]
        _Run(self).carry_out(plan)
        return plan


class _Run:
    """One batch."""

    def __init__(self, world: World) -> None:
        self.world, self.disk = world, world.disk
        self.done: dict[str, Row] = {}
        self.gone: list[str] = []

    def carry_out(self, plan: Plan) -> None:
        """Carries out the steps, in the order of the design."""
        for step in plan.clear:
            self.take(step)
        for folder, _ in plan.clear_folders:
            assert self.disk[folder] == "dir", folder
            assert not children(self.disk, folder), f"{folder} is not empty"
            del self.disk[folder]
            self.gone.append(folder)
        for made in plan.folders:
            self.needs_folder_above(made.name)
            assert made.name not in self.disk, f"{made.name} is taken"
            self.disk[made.name] = "dir"
            self.done[made.name] = made
        for put in plan.files:
            self.put(put)
        for keep in plan.keep:
            assert seen(self.disk[keep.row.name]).state == keep.actual.state
            self.done[keep.row.name] = recorded(keep.row, self.disk[keep.row.name])
        for step in plan.remove:
            self.take(step)
        for row in plan.prune:
            if self.disk.get(row.name) == "dir" and children(self.disk, row.name):
                self.done.setdefault(row.name, row)
                continue
            if self.disk.get(row.name) == "dir":
                del self.disk[row.name]
            self.gone.append(row.name)
        self.remember(plan)

    def needs_folder_above(self, name: str) -> None:
        """Asserts that the folder above a name is there."""
        above = name.rpartition("/")[0]
        assert not above or self.disk.get(above) == "dir", f"{above!r} is no folder"

    def take(self, step: Remove) -> None:
        """Removes a file, to the backups or for good."""
        assert self.disk.get(step.name) not in (None, "dir"), f"no file at {step.name}"
        node = self.disk.pop(step.name)
        assert seen(node).state == step.expected.state
        if step.keep_copy:
            self.world.backups.append((step.name, node))
        self.gone.append(step.name)

    def put(self, put: Put) -> None:
        """Places a file; its predecessor goes."""
        name = put.intent.name
        self.needs_folder_above(name)
        there = self.disk.get(name)
        assert seen(there).state == put.expected.state, f"{name} holds {there!r}"
        assert there != "dir", name
        if put.keep_copy and there is not None:
            self.world.backups.append((name, there))
        assert isinstance(put.intent.content, bytes)
        self.disk[name] = put.intent.content
        self.done[name] = recorded(row_for(put.intent), put.intent.content)

    def remember(self, plan: Plan) -> None:
        """Writes the ledger, as the last step does."""
        for name in {*plan.forget, *self.gone} - self.done.keys():
            self.world.rows.pop(name, None)
        self.world.rows.update(self.done)


def seen(node: Node | None) -> Actual:
    """Returns the actual state of a node."""
    if node is None:
        return Actual(ABSENT)
    if isinstance(node, bytes):
        return Actual(FileState(digest_of(node), len(node), MODE), _signature(node))
    if node == "unread":
        return Actual(FileState(None, 1, MODE), _signature(b"?"))
    if node == "link":
        return Actual(LinkState("elsewhere"), _signature(b"elsewhere"))
    return Actual(DirState() if node == "dir" else OtherState(), _signature(b""))


def _signature(content: bytes) -> Signature:
    """Returns a signature that two nodes share only if they hold equal contents."""
    return Signature(zlib.crc32(content), len(content), 1, 1)


def recorded(row: Row, node: Node) -> Row:
    """Returns a row, recorded with a node at its path."""
    signature = seen(node).signature
    return (
        row.with_signature(signature, 10)
        if signature is not None and row.kind == Kind.FILE
        else row
    )


def row_for(intent: Intent) -> Row:
    """Returns the row of a file that was written as declared."""
    desired, content = intent.desired, intent.content or b""
    assert isinstance(desired, FileState)
    assert isinstance(content, bytes)
    assert desired.digest == digest_of(content)
    return file_row(
        intent.name,
        content,
        owner=intent.owner,
        container=intent.container,
        component=intent.component,
        mode=desired.attributes.mode,
    )


def file_row(name: str, content: bytes, *, owner: str = "owner-a", **more: Any) -> Row:
    """Returns the row of a file that holds, or held, a content."""
    row = Row(Name(name), Kind.FILE, owner, "", "", digest_of(content), len(content))
    return recorded(replace(row, **more), content)


def dir_row(name: str, *, owner: str = "owner-a", **more: Any) -> Row:
    """Returns the row of a folder; by default of an undeclared one that holds declared files."""
    return replace(Row(Name(name), Kind.DIR, owner, "", declared=False), **more)


def above(name: str) -> list[str]:
    """Returns the folders above a name, from the top."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def children(disk: Mapping[str, Node], folder: str) -> list[str]:
    """Returns the paths below a folder, at any depth."""
    return sorted(name for name in disk if name.startswith(f"{folder}/"))


def named(names: Iterable[str]) -> dict[str, Row]:
    """Returns rows of folders that we made, by name."""
    return {name: dir_row(name) for name in names}
