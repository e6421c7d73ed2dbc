"""One path: every ledger row x disk x declaration x policy, by what a plan does to a tree."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.ownership import OnConflict
from cocoindex_fsmirror._core.plan import View
from cocoindex_fsmirror._core.planner import make_plan
from cocoindex_fsmirror._core.rows import Row
from cocoindex_fsmirror._core.states import ABSENT, digest_of
from tests.core.simulation import Disk, Node, World, dir_row, file_row, seen
from tests.support import delete, folder, write

OLD, NEW, ENGINE, FOREIGN = b"old", b"new one", b"what the engine remembers", b"of a person"

ROWS: dict[str, Row | None] = {
    "none": None,
    "made": file_row("f", OLD),
    "made, new": file_row("f", NEW),
    "made, unsynced": file_row("f", OLD, unsynced=True),
    "new, unsynced": file_row("f", NEW, unsynced=True),
    "adopted": file_row("f", OLD, made=False),
    "adopted, new": file_row("f", NEW, made=False),
    "other owner": file_row("f", OLD, owner="owner-b"),
    "other container": file_row("f", OLD, container="x//"),
    "folder, made": dir_row("f"),
    "folder, found": dir_row("f", made=False, declared=True),
}
DISKS: dict[str, Disk] = {
    "absent": {},
    "old": {"f": OLD},
    "new": {"f": NEW},
    "engine": {"f": ENGINE},
    "foreign": {"f": FOREIGN},
    "unread": {"f": "unread"},
    "link": {"f": "link"},
    "other": {"f": "other"},
    "empty dir": {"f": "dir"},
    "dir with foreign": {"f": "dir", "f/x": FOREIGN},
}
POLICIES: tuple[OnConflict, ...] = ("backup", "overwrite", "error")


class Result(NamedTuple):
    """The outcome of a batch."""

    disk: Disk
    backups: list[Node]
    failed: bool


def _written_by_us(row: Row | None, node: Node | None, remembers: bool) -> bool:
    """True if the bytes at ``f`` are a version of ours, by the table of the design."""
    if row is not None and row.kind == "file" and row.owner == "owner-a":
        if row == ROWS["adopted"] and node == OLD:
            return False
        if row == ROWS["adopted, new"] and node == NEW:
            return False
        if node == (NEW if "new" in _name(row) else OLD):
            return True
    return remembers and node == ENGINE


def _name(row: Row | None) -> str:
    """Returns the name of a row, for test ids."""
    return next(name for name, known in ROWS.items() if known == row)


def _expected(row: Row | None, disk: Disk, intent: Intent, remembers: bool) -> Result:
    """Returns the expected outcome; the oracle."""
    node, asks = disk.get("f"), _asks(intent)
    mine = _written_by_us(row, node, remembers)
    as_it_was = Result(disk, [], False)
    refused = Result(disk, [], True)
    if asks == "absent":
        return _expected_absence(row, disk, intent, remembers)
    final: Disk = {"f": NEW} if asks == "file" else {"f": "dir"}
    if node is None or mine or (asks == "file" and node == NEW):
        return Result(final, [], False)
    if node == "dir":
        if asks == "dir":
            return as_it_was
        is_our_folder = row is not None and _name(row) == "folder, made" and len(disk) == 1
        return Result(final, [], False) if is_our_folder else refused
    if intent.on_conflict in ("error", "keep"):
        return refused
    return Result(final, [node] if intent.on_conflict == "backup" else [], False)


def _expected_absence(row: Row | None, disk: Disk, intent: Intent, remembers: bool) -> Result:
    """Returns the expected outcome for a path that is no longer declared."""
    node = disk.get("f")
    as_it_was = Result(disk, [], False)
    if row is not None and _name(row) in ("other owner", "other container"):
        return as_it_was  # Another owner declares the path.
    if row is not None and row.kind == "dir":
        goes = _name(row) == "folder, made" and disk == DISKS["empty dir"]
        return Result({}, [], False) if goes else as_it_was
    if node in (None, "dir"):
        return as_it_was
    if _written_by_us(row, node, remembers):
        return Result({}, [], False)
    if row is None or intent.on_conflict == "keep":
        return as_it_was
    if intent.on_conflict == "error":
        return Result(disk, [], True)
    return Result({}, [node] if intent.on_conflict == "backup" and node else [], False)


def _asks(intent: Intent) -> str:
    """Returns the name of an intent, for test ids."""
    if intent.content is not None:
        return "file"
    return "absent" if intent.desired is ABSENT else "dir"


def one_path_intents(remembers: bool) -> list[Intent]:
    """Lists every intent for ``f``."""
    digest = getattr(seen(ENGINE).state, "digest", b"")
    ours = (digest,) if remembers else ()
    found = []
    for policy in POLICIES:
        found.append(write("f", NEW, ours=ours, on_conflict=policy))
        found.append(folder("f", ours=ours, on_conflict=policy))
        found.append(delete("f", ours=ours, on_conflict=policy))
    return [*found, delete("f", ours=ours, on_conflict="keep")]


def one_path_world(row: str, on_disk: str) -> World:
    """Returns a disk and a ledger with one path."""
    known = ROWS[row]
    return World(dict(DISKS[on_disk]), {} if known is None else {"f": known})


@pytest.mark.parametrize("on_disk", DISKS)
@pytest.mark.parametrize("row", ROWS)
def test_plan_leaves_the_bytes_that_the_table_says(row: str, on_disk: str) -> None:
    for remembers in (False, True):
        for intent in one_path_intents(remembers):
            world = one_path_world(row, on_disk)
            plan = world.update(intent)
            backups = [node for _, node in world.backups]
            found = Result(world.disk, backups, bool(plan.failures))
            expected = _expected(ROWS[row], dict(DISKS[on_disk]), intent, remembers)
            assert found == expected, (remembers, intent.on_conflict, _asks(intent))


@pytest.mark.parametrize("on_disk", DISKS)
@pytest.mark.parametrize("row", ROWS)
def test_repeated_intent_changes_nothing_and_fails_as_before(row: str, on_disk: str) -> None:
    """Declarations may be repeated at any time, removals only if they failed."""
    for remembers, which in itertools.product((False, True), range(10)):
        intent = one_path_intents(remembers)[which]
        world = one_path_world(row, on_disk)
        failed = bool(world.update(intent).failures)
        if failed or _asks(intent) != "absent":
            again = world.plan(intent)
            assert again.changes_nothing, (intent, again)
            assert bool(again.failures) is failed, (intent, again)


@pytest.mark.parametrize("policy", ["backup", "error"])
def test_refused_removal_never_destroys_adopted_bytes(policy: OnConflict) -> None:
    """A person's bytes that a flow also declared survive any number of updates."""
    digest = getattr(seen(OLD).state, "digest", b"")
    world = World({"f": OLD}, {"f": file_row("f", OLD, made=False)})
    for _ in range(3):  # The engine repeats the removal after each failure.
        world.update(delete("f", on_conflict=policy, ours=(digest,)))
    assert OLD in (world.disk.get("f"), *(node for _, node in world.backups))


def test_refused_path_is_named_with_a_remedy() -> None:
    disks: list[Disk] = [{"f": FOREIGN}, {"f": "link"}, {"f": "dir", "f/x": FOREIGN}]
    for disk in disks:
        (failure,) = World(dict(disk)).plan(write("f", NEW, on_conflict="error")).failures
        assert failure.path == "f"
        assert failure.operation == "write"
        assert failure.hint
        assert "'f'" in str(failure)


@pytest.mark.parametrize("mode", [None, 0o600])
@pytest.mark.parametrize("node", [None, OLD, FOREIGN, "link"])
def test_new_file_gets_the_declared_mode_or_that_of_the_old_one(
    mode: int | None, node: Node | None
) -> None:
    world = World({} if node is None else {"f": node}, {"f": file_row("f", OLD)})
    (put,) = world.plan(write("f", NEW, mode=mode)).files
    assert put.attributes.mode == (mode or (0o644 if isinstance(node, bytes) else None))


@pytest.mark.parametrize("doubt", ["unsynced", "seen"])
def test_right_folder_in_doubt_is_recorded_anew(doubt: str) -> None:
    row = dir_row("f", declared=True)
    (keep,) = World({"f": "dir"}, {"f": replace(row, **{doubt: True})}).plan(folder("f")).keep
    assert keep.row == row
    assert World({"f": "dir"}, {"f": row}).plan(folder("f")).keep == ()


def test_right_file_in_a_wrong_mode_is_only_given_its_mode() -> None:
    for row in ({}, {"f": file_row("f", NEW, mode=0o600)}):
        plan = World({"f": NEW}, dict(row)).plan(write("f", NEW, mode=0o600))
        assert [keep.missing.mode for keep in plan.keep] == [0o600]
        assert not plan.files


def test_touched_right_file_is_recorded_with_its_new_signature() -> None:
    """With the old signature every later look would have to read the file."""
    row = replace(file_row("f", NEW), ctime_ns=2)
    world = World({"f": NEW}, {"f": row})
    assert [keep.row.name for keep in world.update(write("f", NEW)).keep] == ["f"]
    assert world.plan(write("f", NEW)).changes_nothing


def test_right_file_is_adopted_as_not_made_by_us() -> None:
    world = World({"f": NEW})
    world.update(write("f", NEW))
    assert not world.rows["f"].made


def test_right_file_that_the_engine_remembers_is_ours_again() -> None:
    digest = getattr(seen(NEW).state, "digest", b"")
    world = World({"f": NEW})
    world.update(write("f", NEW, ours=(digest,)))
    assert world.rows["f"].made


def test_found_folder_is_recorded_as_not_made_by_us() -> None:
    for row in ({}, {"f": file_row("f", OLD)}):  # Also in the place of a file of ours.
        world = World({"f": "dir"}, dict(row))
        world.update(folder("f"))
        assert not world.rows["f"].made


def test_found_folder_that_is_declared_no_longer_is_only_forgotten() -> None:
    plan = World({"a": "dir"}, {"a": dir_row("a", made=False, declared=True)}).plan(delete("a"))
    assert (plan.forget, plan.prune) == (("a",), ())


@pytest.mark.parametrize("declared", [True, False])
def test_folder_that_goes_is_told_of_unless_it_was_already(declared: bool) -> None:
    rows = {"a": dir_row("a", declared=declared, seen=True)}
    (row,) = World({"a": "dir"}, rows).plan(delete("a")).prune
    assert (row.declared, row.seen) == (False, not declared)


def test_unsynced_bytes_are_written_anew() -> None:
    world = World({"f": NEW}, {"f": file_row("f", NEW, unsynced=True)})
    assert [put.intent.name for put in world.update(write("f", NEW)).files] == ["f"]
    assert not world.rows["f"].unsynced


def test_all_versions_of_a_path_that_is_asked_for_twice_are_ours() -> None:
    known = write("x", b"1", ours=(digest_of(b"old"),))
    plan = World({"x": b"old"}).plan(known, write("x", b"2"))
    assert [put.keep_copy for put in plan.files] == [False]


@pytest.mark.parametrize(
    ("row", "there", "policy", "grows"),
    [
        (None, "absent", "backup", True),
        ("made", "old", "backup", False),
        ("made", "foreign", "overwrite", False),
        ("made", "foreign", "backup", True),  # Its backup takes room, too.
        ("made", "absent", "backup", True),
    ],
)
def test_put_grows_if_what_is_there_leaves_less_room(
    row: str | None, there: str, policy: OnConflict, grows: bool
) -> None:
    rows = [found] if row and (found := ROWS[row]) else []
    same, more = (write("f", content, on_conflict=policy) for content in (b"new", b"n" * 99))
    for intent, wanted in ((same, grows), (more, True)):
        actual = {Name("f"): seen(DISKS[there].get("f"))}
        plan = make_plan([intent], View({each.name: each for each in rows}, actual))
        assert [put.grows for put in plan.files] == [wanted]
