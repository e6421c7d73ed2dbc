"""Properties of plans that hold for any disk, ledger and batch."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.ownership import OnConflict
from cocoindex_fsmirror._core.plan import Plan
from cocoindex_fsmirror._core.rows import Row
from cocoindex_fsmirror._core.states import ABSENT, DirState
from tests.core.simulation import Disk, Node, World, above, children, dir_row, file_row, seen
from tests.support import OWNER, delete, folder, write

NAMES = ("a", "a-x", "a/b", "a/b/c", "a/d")  # Sorted: a folder comes before its contents.
OLD, NEW, ENGINE, FOREIGN = b"old", b"new one", b"of the engine", b"of a person"
NODES = (None, "dir", OLD, NEW, ENGINE, FOREIGN, "link")
SUB = "a//"  # The container of a directory target at ``a``.
POLICIES: tuple[OnConflict, ...] = ("backup", "error")

_many = settings(max_examples=max(100, settings().max_examples))


# Worlds and batches


@st.composite
def disks(draw: st.DrawFn) -> Disk:
    """Draws trees in which every path stands in a folder."""
    disk: Disk = {}
    for name in NAMES:
        node = draw(st.sampled_from(NODES))
        if node is not None and all(disk.get(folder) == "dir" for folder in above(name)):
            disk[name] = node
    return disk


@st.composite
def ledgers(draw: st.DrawFn) -> dict[str, Row]:
    """Draws rows that need not agree with any disk."""
    rows = {}
    for name in NAMES:
        owner = draw(st.sampled_from([OWNER, OWNER, OWNER, "owner-b"]))
        container = draw(st.sampled_from(["", SUB])) if "/" in name else ""
        made = draw(st.booleans())
        match draw(st.sampled_from(["none", "file", "target", "folder"])):
            case "file":
                content = draw(st.sampled_from([OLD, NEW]))
                row = file_row(name, content, owner=owner, container=container, made=made)
                rows[name] = row
            case "target":
                rows[name] = dir_row(
                    name, owner=owner, container=container, made=made, declared=True
                )
            case "folder":
                rows[name] = dir_row(name, owner=owner)
    return rows


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draws a disk and a ledger that agree about some of the paths."""
    disk, rows = draw(disks()), draw(ledgers())
    for name, node in disk.items():
        if draw(st.booleans()) and node != "link":
            container = draw(st.sampled_from(["", SUB])) if "/" in name else ""
            more: dict[str, Any] = {"container": container, "made": draw(st.booleans())}
            if isinstance(node, bytes):
                rows[name] = file_row(name, node, **more)
            else:
                rows[name] = dir_row(name, **more)
    return World(disk, rows)


_worlds = worlds()
_ours = st.frozensets(st.sampled_from([OLD, ENGINE]))


@st.composite
def batches(draw: st.DrawFn) -> list[Intent]:
    """Draws intents of some directory targets, contradictions included."""
    policy, intents = draw(st.sampled_from(POLICIES)), []
    for name in NAMES:
        for container in ("", SUB) if "/" in name else ("",):
            ours = tuple(_digest(content) for content in draw(_ours))
            more: dict[str, Any] = {"container": container, "ours": ours, "on_conflict": policy}
            match draw(st.sampled_from(["nothing", "nothing", "delete", "old", "new", "dir"])):
                case "delete":
                    intents.append(delete(name, **more))
                case "old" | "new" as which:
                    parents = draw(st.sampled_from([True, True, False]))
                    content = OLD if which == "old" else NEW
                    intents.append(write(name, content, create_parents=parents, **more))
                case "dir":
                    intents.append(folder(name, **more))
    return intents


def _digest(content: bytes) -> bytes:
    """Returns the digest of a content; ``None`` if it can't be read."""
    found = getattr(seen(content).state, "digest", None)
    assert isinstance(found, bytes)
    return found


def _copy(world: World) -> World:
    """Returns a copy of a world."""
    rows, disk = dict(world.rows), dict(world.disk)
    return World(disk, rows, list(world.displaced), list(world.backups), world.folding)


def _failed(plan: Plan) -> set[str]:
    """Returns the paths that failed."""
    return {failure.path for failure in plan.failures}


def _is_foreign(world: World, intents: list[Intent], name: str, node: Node) -> bool:
    """True if neither ledger nor engine proves that the bytes at a path are ours."""
    if not isinstance(node, bytes):
        return node != "dir"
    row, digest = world.rows.get(name), _digest(node)
    if row is not None and row.owner == OWNER and row.digest == digest:
        return not row.made
    return not any(digest in intent.ours for intent in intents if intent.name == name)


def _held(intent: Intent, node: Node | None) -> bool:
    """True if a node has the desired state."""
    if isinstance(intent.desired, DirState):
        return node == "dir"
    return node == intent.content


# Any batch


@_many
@given(_worlds, batches())
def test_foreign_bytes_are_never_lost(world: World, batch: list[Intent]) -> None:
    after = _copy(world)
    after.update(*batch)
    for name, node in world.disk.items():
        if _is_foreign(world, batch, name, node):
            assert after.disk.get(name) == node or (name, node) in after.backups, name


@_many
@given(_worlds, batches())
def test_path_that_did_not_fail_holds_its_desired_state(world: World, batch: list[Intent]) -> None:
    after = _copy(world)
    failed = _failed(after.update(*batch))
    for intent in batch:
        if intent.desired is not ABSENT and intent.name not in failed:
            assert _held(intent, after.disk.get(intent.name)), intent


@_many
@given(_worlds, batches())
def test_failed_path_is_left_as_it_was(world: World, batch: list[Intent]) -> None:
    after = _copy(world)
    plan = after.update(*batch)
    asked = {intent.name for intent in batch} - _failed(plan)
    for name in _failed(plan):
        if not any(other in above(name) or name in above(other) for other in asked):
            assert after.disk.get(name) == world.disk.get(name), name


@_many
@given(_worlds, batches())
def test_paths_that_the_batch_does_not_concern_stay_unchanged(
    world: World, batch: list[Intent]
) -> None:
    after = _copy(world)
    after.update(*batch)
    asked = {intent.name for intent in batch}
    for name in {*world.disk, *after.disk} - asked:
        if not any(other in above(name) or name in above(other) for other in asked):
            assert after.disk.get(name) == world.disk.get(name), name


@_many
@given(_worlds, batches())
def test_steps_never_contradict_and_folders_come_in_order(
    world: World, batch: list[Intent]
) -> None:
    plan = world.plan(*batch)
    put, kept = [p.intent.name for p in plan.files], [k.row.name for k in plan.keep]
    cleared, removed = [c.name for c in plan.clear], [r.name for r in plan.remove]
    made, pruned = [row.name for row in plan.folders], [row.name for row in plan.prune]
    for group in (cleared, removed, put, kept, made, pruned):
        assert len(set(group)) == len(group)
    assert not set(removed) & {*put, *cleared, *kept, *made}
    assert not set(put) & {*kept, *made, *cleared}
    assert not _failed(plan) & {*put, *kept, *removed}
    assert made == sorted(made)
    assert pruned == sorted(pruned, reverse=True)
    emptied = [name for name, _ in plan.clear_folders]
    assert emptied == sorted(emptied, reverse=True)


@_many
@given(_worlds, batches(), st.permutations(NAMES))
def test_plan_depends_on_its_inputs_only(
    world: World, batch: list[Intent], order: list[str]
) -> None:
    before, intents = _copy(world), list(batch)
    first = world.plan(*intents)
    assert world == before
    assert intents == batch
    assert _comparable(world.plan(*intents)) == _comparable(first)
    shuffled = sorted(batch, key=lambda intent: order.index(intent.name))
    assert _comparable(world.plan(*shuffled)) == _comparable(first)


def _comparable(plan: Plan) -> tuple[Plan, list[str]]:
    """Returns a plan with its errors as text, since exceptions equal only themselves."""
    return replace(plan, failures=()), list(map(str, plan.failures))


@_many
@given(_worlds, batches())
def test_no_declared_file_disappears_without_a_note(world: World, batch: list[Intent]) -> None:
    after = _copy(world)
    after.update(*batch)
    noted = {(note.name, note.container) for note in after.displaced}
    asking = {(intent.name, intent.container) for intent in batch}
    for name, row in world.rows.items():
        was_in_place = row.owner == OWNER and row.kind == "file" and _is_at(world, row)
        if was_in_place and after.disk.get(name) != world.disk[name]:
            assert {(name, row.container)} & (noted | asking), row


def _is_at(world: World, row: Row) -> bool:
    """True if a path holds the last-written state of its row."""
    node = world.disk.get(row.name)
    return isinstance(node, bytes) and _digest(node) == row.digest


@_many
@given(_worlds, batches())
def test_repeated_batch_changes_nothing(world: World, batch: list[Intent]) -> None:
    failed = _failed(world.update(*batch))
    before = _copy(world)
    again = [i for i in batch if i.desired is not ABSENT or i.name in failed]
    assert _failed(world.update(*again)) <= failed
    assert (world.disk, world.backups) == (before.disk, before.backups)


# A whole declaration


@st.composite
def declarations(draw: st.DrawFn) -> list[Intent]:
    """Draws files and folders that can stand side by side."""
    policy, intents = draw(st.sampled_from(POLICIES)), list[Intent]()
    files: set[str] = set()
    for name in NAMES:
        asks = draw(st.sampled_from(["nothing", "file", "dir"]))
        if asks == "nothing" or files & set(above(name)):
            continue
        container = draw(st.sampled_from(["", SUB])) if "/" in name else ""
        more: dict[str, Any] = {"container": container, "on_conflict": policy}
        if asks == "file":
            files.add(name)
            intents.append(write(name, NEW, **more))
        else:
            intents.append(folder(name, **more))
    return intents


def _given_up(world: World, wanted: list[Intent]) -> list[Intent]:
    """Returns the removals of rows that are no longer declared."""
    stays = {(intent.name, intent.container) for intent in wanted}
    rows = [row for row in world.rows.values() if row.owner == OWNER and row.declared]
    gone = [row for row in rows if (row.name, row.container) not in stays]
    return [delete(row.name, container=row.container) for row in gone]


@_many
@given(_worlds, declarations())
def test_batch_reaches_a_whole_declaration_from_anywhere(
    world: World, wanted: list[Intent]
) -> None:
    after = _copy(world)
    plan = after.update(*wanted, *_given_up(world, wanted))
    failed = _failed(plan)
    for intent in wanted:
        assert intent.name in failed or _held(intent, after.disk.get(intent.name)), intent
    for name in failed:
        assert _is_excused(world, wanted, name), plan.failures
    if not failed:
        assert not after.displaced


def _is_excused(world: World, wanted: list[Intent], name: str) -> bool:
    """True if foreign bytes, or a folder, are a reason to fail."""
    policies = {intent.on_conflict for intent in wanted}
    in_way = [world.disk.get(path) for path in (*above(name), name)]
    is_folder = in_way[-1] == "dir"
    return is_folder or ("error" in policies and any(n not in (None, "dir") for n in in_way))


@_many
@given(_worlds, declarations())
def test_undeclared_paths_of_ours_go_with_their_empty_folders(
    world: World, wanted: list[Intent]
) -> None:
    after = _copy(world)
    removals = _given_up(world, wanted)
    after.update(*wanted, *removals)
    declared = {intent.name for intent in wanted}
    for intent in removals:
        row = world.rows[intent.name]
        if row.kind == "file" and row.made and _is_at(world, row) and row.name not in declared:
            assert not isinstance(after.disk.get(row.name), bytes), row
        for place in (row.name, *above(row.name)):
            assert place in declared or not _is_our_empty_folder(world, after, place), place


def _is_our_empty_folder(world: World, after: World, name: str) -> bool:
    """True if a folder that we made is still there, though empty."""
    row = world.rows.get(name)
    made = row is not None and row.owner == OWNER and row.kind == "dir" and row.made
    return made and after.disk.get(name) == "dir" and not children(after.disk, name)
