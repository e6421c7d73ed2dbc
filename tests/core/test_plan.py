"""Paths that meet: folders and files, several declarers, names that a disk folds."""

from __future__ import annotations

import pytest

from cocoindex_fsmirror import ConflictError, PathError
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.names import Folding, Name
from cocoindex_fsmirror._core.plan import Plan
from cocoindex_fsmirror._core.rows import Displaced
from cocoindex_fsmirror._core.states import ABSENT, digest_of
from tests.core.simulation import World, dir_row, file_row, named
from tests.support import delete, folder, write

FOREIGN = b"of a person"


def _failed(plan: Plan) -> list[str]:
    """Returns the paths that failed."""
    return sorted(failure.path for failure in plan.failures)


def _names_both(error: PathError, one: str, other: str) -> bool:
    """True if a message quotes two paths."""
    return (
        isinstance(error, ConflictError) and repr(one) in str(error) and repr(other) in str(error)
    )


def _note(name: str, by: str, container: str = "") -> Displaced:
    """Returns the note that a declaration gave way."""
    return Displaced(Name(name), "owner-a", container, "", Name(by))


# A file and what is below it


@pytest.mark.parametrize("below", ["a/b", "a/b/c"])
def test_file_and_path_below_it_fail_and_name_each_other(below: str) -> None:
    world = World()
    plan = world.update(write("a", b"1"), write(below, b"2"), write("a-x", b"3"))
    assert _failed(plan) == ["a", below]
    assert all(_names_both(error, "a", below) for error in plan.failures)
    assert world.disk == {"a-x": b"3"}


def test_file_and_several_paths_below_it_all_fail_once() -> None:
    plan = World().plan(write("a", b"1"), write("a/b", b"2"), folder("a/c"), write("z", b""))
    assert _failed(plan) == ["a", "a/b", "a/c"]
    assert [put.intent.name for put in plan.files] == ["z"]


def test_declared_folder_and_its_contents_do_not_conflict() -> None:
    world = World()
    assert not world.update(folder("a"), write("a/b", b"2")).failures
    assert world.disk == {"a": "dir", "a/b": b"2"}


def test_a_file_becomes_a_folder_in_one_batch() -> None:
    world = World({"a": b"1"}, {"a": file_row("a", b"1")})
    plan = world.update(delete("a"), write("a/b/c", b"2"))
    assert world.disk == {"a": "dir", "a/b": "dir", "a/b/c": b"2"}
    assert (plan.failures, plan.displaced, world.backups) == ((), (), [])


def test_a_folder_becomes_a_file_in_one_batch() -> None:
    rows = {**named(["a", "a/b"]), "a/b/c": file_row("a/b/c", b"2")}
    world = World({"a": "dir", "a/b": "dir", "a/b/c": b"2"}, rows)
    plan = world.update(write("a", b"1"), delete("a/b/c"))
    assert world.disk == {"a": b"1"}
    assert (plan.failures, plan.displaced, world.backups) == ((), (), [])


def test_edited_file_is_backed_up_before_a_folder_takes_its_name() -> None:
    world = World({"a": FOREIGN}, {"a": file_row("a", b"1")})
    world.update(delete("a"), write("a/b", b"2"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert world.backups == [("a", FOREIGN)]


@pytest.mark.parametrize("node", [FOREIGN, "link", "other", "unread"])
def test_other_kind_is_moved_from_the_place_of_a_folder(node: bytes | str) -> None:
    world = World({"a": node})
    world.update(write("a/b", b"2"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert world.backups == [("a", node)]


def test_link_in_the_place_of_a_folder_is_a_conflict_by_name() -> None:
    (failure,) = World({"a": "link"}).plan(write("a/b", b"2", on_conflict="error")).failures
    assert _names_both(failure, "a/b", "a")


def test_folder_with_edited_files_becomes_a_file_in_one_batch() -> None:
    rows = {**named(["a"]), "a/b": file_row("a/b", b"1"), "a/c": file_row("a/c", b"1", made=False)}
    world = World({"a": "dir", "a/b": FOREIGN, "a/c": b"1"}, rows)
    assert not world.update(write("a", b"2"), delete("a/b"), delete("a/c")).failures
    assert world.disk == {"a": b"2"}
    assert sorted(world.backups) == [("a/b", FOREIGN), ("a/c", b"1")]


def test_folder_with_foreign_files_stays_and_they_are_named() -> None:
    rows = {**named(["a"]), "a/b": file_row("a/b", b"2")}
    for policy in ("backup", "overwrite", "error"):
        world = World({"a": "dir", "a/b": b"2", "a/notes": FOREIGN}, dict(rows))
        (failure,) = world.update(write("a", b"1", on_conflict=policy), delete("a/b")).failures
        assert _names_both(failure, "a", "a/notes")
        assert world.disk == {"a": "dir", "a/notes": FOREIGN}


def test_folder_in_the_way_names_at_most_five_of_its_files() -> None:
    disk = {"a": "dir"} | {f"a/{number}": "other" for number in range(9)}
    (failure,) = World(dict(disk)).plan(write("a", b"1")).failures
    assert "and 5 more" in str(failure)  # The folder itself counts among the ten.


def test_missing_folder_fails_with_a_hint_if_none_may_be_made() -> None:
    world = World()
    (failure,) = world.update(write("a/b", b"1", create_parents=False)).failures
    assert failure.path == "a/b"
    assert "'a'" in str(failure)
    assert failure.hint
    assert not world.disk


def test_declared_folder_serves_a_file_that_makes_no_parents() -> None:
    world = World()
    assert not world.update(write("a/b", b"1", create_parents=False), folder("a")).failures
    assert world.disk == {"a": "dir", "a/b": b"1"}


def test_folder_of_a_neighbour_serves_a_file_that_makes_no_parents() -> None:
    for maker in ("a/a", "a/z"):
        world = World()
        assert not world.update(
            write("a/b", b"1", create_parents=False), write(maker, b"2")
        ).failures


def test_folders_are_made_from_the_top_and_removed_from_the_bottom() -> None:
    plan = World().plan(write("a/b/c", b"1"), folder("a/b"), write("a-x/y", b"2"))
    assert [row.name for row in plan.folders] == ["a", "a-x", "a/b"]
    rows = {**named(["a", "a/b"]), "a/b/c": file_row("a/b/c", b"1")}
    plan = World({"a": "dir", "a/b": "dir", "a/b/c": b"1"}, rows).plan(delete("a/b/c"))
    assert [row.name for row in plan.prune] == ["a/b", "a"]


def test_empty_directory_target_goes_with_the_folders_made_for_it() -> None:
    world = World()
    world.update(folder("a/b"))
    assert world.disk == {"a": "dir", "a/b": "dir"}
    world.update(delete("a/b"))
    assert not world.disk
    assert not world.rows


def test_a_declared_folder_outlives_its_last_file() -> None:
    rows = {"a": dir_row("a", declared=True), "a/b": file_row("a/b", b"1")}
    world = World({"a": "dir", "a/b": b"1"}, rows)
    world.update(delete("a/b"))
    assert world.disk == {"a": "dir"}


def test_emptied_folder_that_is_declared_now_stays() -> None:
    rows = {**named(["a"]), "a/b": file_row("a/b", b"1")}
    world = World({"a": "dir", "a/b": b"1"}, rows)
    world.update(delete("a/b"), folder("a"))
    assert world.disk == {"a": "dir"}
    assert world.rows["a"].declared


def test_folder_that_is_cleared_is_not_pruned_as_well() -> None:
    rows = {**named(["a", "a/d"]), "a/d/x": file_row("a/d/x", b"1")}
    world = World({"a": "dir", "a/d": "dir", "a/d/x": b"1"}, rows)
    plan = world.update(delete("a/d/x"), write("a", b"2"))
    assert [step.folder for step in plan.clear_folders] == ["a/d", "a"]
    assert plan.prune == ()


# Several declarers


def test_path_declared_differently_in_two_places_fails_with_both() -> None:
    world = World({"a": "dir", "a/b": b"old"}, {"a/b": file_row("a/b", b"old")})
    plan = world.update(write("a/b", b"1"), write("a/b", b"2", container="a//"))
    assert _failed(plan) == ["a/b"]
    assert "the root" in str(plan.failures[0])
    assert "'a'" in str(plan.failures[0])
    assert world.disk["a/b"] == b"old"


def test_path_declared_as_file_and_as_folder_fails() -> None:
    assert _failed(World().plan(write("a", b"1"), folder("a", container="x//"))) == ["a"]


def test_path_declared_alike_in_two_places_outlives_one_of_them() -> None:
    """The remaining declaration must keep its file, or fail at once."""
    twice = write("a/b", b"1"), write("a/b", b"1", container="a//")
    for first, second in (twice, twice[::-1]):
        world = World()
        if world.update(*twice).failures:
            continue
        world.update(delete("a/b", container=first.container))
        assert world.disk.get("a/b") == b"1" or _is_noted(world, second)


def _is_noted(world: World, intent: Intent) -> bool:
    """True if a look would show that the disk does not hold a declaration."""
    return any(
        (note.name, note.container) == (intent.name, intent.container) for note in world.displaced
    )


@pytest.mark.parametrize("content", [b"1", b"2"])
def test_path_that_moves_to_another_container_leaves_no_trace(
    content: bytes,
) -> None:
    row = file_row("a/b", b"1", container="a//")
    world = World({"a": "dir", "a/b": b"1"}, {"a/b": row})
    plan = world.update(delete("a/b", container="a//"), write("a/b", content))
    assert world.disk == {"a": "dir", "a/b": content}
    assert world.rows["a/b"].container == ""
    assert (plan.failures, plan.remove, world.displaced, world.backups) == ((), (), [], [])


def test_removal_knows_what_the_engine_remembers_of_each_declarer() -> None:
    world = World({"f": b"1"})
    world.update(delete("f"), delete("f", container="a//", ours=(digest_of(b"1"),)))
    assert not world.disk


def test_path_may_move_to_another_container_in_two_batches() -> None:
    world = World({"a": "dir", "a/b": b"1"}, {"a/b": file_row("a/b", b"1", container="a//")})
    world.update(write("a/b", b"2"))
    assert world.displaced == [_note("a/b", "a/b", "a//")]
    world.update(delete("a/b", container="a//"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert not world.displaced


@pytest.mark.parametrize("who", [{"container": "a//"}, {"owner": "owner-b"}])
def test_removal_by_a_former_owner_does_nothing(who: dict[str, str]) -> None:
    world = World({"f": b"1"}, {"f": file_row("f", b"1")})
    plan = world.update(delete("f", **who))
    assert plan.changes_nothing
    assert not plan.failures
    assert world.disk == {"f": b"1"}


def test_file_of_another_app_is_shared_but_not_taken_over() -> None:
    """Two apps write equal bytes to one path; when the second one leaves, the file stays."""
    world = World()
    world.update(write("f", b"1", owner="first"))
    world.update(write("f", b"1", owner="second"))
    world.update(delete("f", owner="second", on_conflict="keep"))
    assert world.disk == {"f": b"1"}


def test_stale_removal_does_not_excuse_a_conflict() -> None:
    """``a`` declares ``a/b``, so the root's old removal of it is no excuse."""
    rows = {**named(["a"]), "a/b": file_row("a/b", b"1", container="a//")}
    world = World({"a": "dir", "a/b": b"1"}, rows)
    world.update(delete("a/b"), write("a", b"2"))
    assert world.disk == {"a": b"2"}
    assert world.displaced == [_note("a/b", "a", "a//")]


def test_note_of_a_given_up_declaration_goes_though_the_path_is_written() -> None:
    rows = {"a": dir_row("a"), "a/b": file_row("a/b", b"1")}
    world = World({"a": "dir", "a/b": b"1"}, rows, [_note("a/b", "a/b", "a//")])
    world.update(delete("a/b", container="a//"), write("a/b", b"2"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert not world.displaced


# Declarations that gave way


def test_a_declared_file_that_gives_way_is_noted() -> None:
    world = World({"a": b"1"}, {"a": file_row("a", b"1")})
    world.update(write("a/b", b"2"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert world.displaced == [_note("a", "a/b")]


def test_declared_files_that_give_way_to_a_file_are_noted() -> None:
    rows = {**named(["a"]), "a/b": file_row("a/b", b"1"), "a/c": file_row("a/c", b"1")}
    world = World({"a": "dir", "a/b": b"1", "a/c": b"1"}, rows)
    world.update(write("a", b"2"), delete("a/c"))
    assert world.displaced == [_note("a/b", "a")]


def test_vanished_file_is_noted_when_a_folder_takes_its_name() -> None:
    for taker in (write("a/b", b"2"), folder("a", container="x//")):
        world = World({}, {"a": file_row("a", b"1")})
        world.update(taker)
        assert world.disk["a"] == "dir"
        assert world.displaced == [_note("a", taker.name)]


def test_file_is_noted_when_the_folder_in_its_place_is_declared() -> None:
    world = World({"a": "dir"}, {"a": file_row("a", b"1")})
    world.update(folder("a", container="x//"))
    assert world.displaced == [_note("a", "a")]


def test_declared_folders_that_give_way_to_a_file_are_noted() -> None:
    rows = {name: dir_row(name, declared=True) for name in ("a", "a/b")}
    world = World({"a": "dir", "a/b": "dir"}, rows)
    world.update(write("a", b"2", container="x//"))
    assert world.disk == {"a": b"2"}
    assert sorted(world.displaced) == [_note("a", "a"), _note("a/b", "a")]


def test_a_declared_folder_gives_way_to_no_folder() -> None:
    world = World({"a": FOREIGN}, {"a": dir_row("a", declared=True)})
    world.update(write("a/b", b"2"), folder("a", container="x//"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert not world.displaced


def test_declaration_with_a_rival_fails_while_both_are_declared() -> None:
    """Both were declared in one update, in whichever batches they come."""
    world = World()
    world.update(write("a/b", b"2"))
    for _ in range(2):
        (failure,) = world.update(write("a", b"1", rival=Name("a/b"))).failures
        assert _names_both(failure, "a", "a/b")
        assert world.disk == {"a": "dir", "a/b": b"2"}
        assert world.displaced == [
            _note("a", "a/b")
        ]  # After the next look both are declared again.


def test_declaration_that_gave_way_returns_once_the_other_goes() -> None:
    world = World({"a": b"1"}, {"a": file_row("a", b"1")})
    world.update(write("a/b", b"2"))
    plan = world.update(write("a", b"1"), delete("a/b"))
    assert not plan.failures
    assert world.disk == {"a": b"1"}
    assert not world.displaced


def test_withdrawn_declaration_that_gave_way_is_forgotten() -> None:
    world = World({"a": b"1"}, {"a": file_row("a", b"1")})
    world.update(write("a/b", b"2"))
    world.update(delete("a"))
    assert world.disk == {"a": "dir", "a/b": b"2"}
    assert not world.displaced


# Names that the file system folds into one


@pytest.mark.parametrize(
    ("folding", "one", "other"),
    [
        (Folding(case=True), "Readme", "README"),
        (Folding(case=True), "docs/a", "Docs/b"),
        (Folding(unicode=True), "\u00e9", "e\u0301"),
        (Folding(case=True, unicode=True), "E\u0301", "\u00e9"),
    ],
)
def test_names_that_fold_into_one_fail_and_name_both(
    folding: Folding, one: str, other: str
) -> None:
    plan = World(folding=folding).plan(write(one, b"1"), write(other, b"2"), write("z", b"3"))
    assert _failed(plan) == sorted([one, other])
    first, second = one.partition("/")[0], other.partition("/")[0]
    assert all(_names_both(error, first, second) for error in plan.failures)
    assert [put.intent.name for put in plan.files] == ["z"]
    assert not World().plan(write(one, b"1"), write(other, b"2")).failures


def test_name_that_folds_into_a_managed_one_fails() -> None:
    world = World({"A": b"1"}, {"A": file_row("A", b"1")}, folding=Folding(case=True))
    (failure,) = world.update(write("a", b"2")).failures
    assert _names_both(failure, "a", "A")
    assert world.disk == {"A": b"1"}


def test_folder_that_folds_into_one_that_goes_is_made_in_one_batch() -> None:
    rows = {"D": dir_row("D"), "D/x": file_row("D/x", b"1")}
    world = World({"D": "dir", "D/x": b"1"}, rows, folding=Folding(case=True))
    assert not world.plan(delete("D/x"), write("d/y", b"2")).failures


@pytest.mark.parametrize("content", [b"1", b"2"])
def test_file_that_only_changes_its_case_is_removed_first(content: bytes) -> None:
    """On such a disk both names show one file; a removal that comes last takes the new one."""
    world = World({"A": b"1", "a": b"1"}, {"A": file_row("A", b"1")}, folding=Folding(case=True))
    plan = world.plan(delete("A"), write("a", content))
    assert not plan.failures
    assert [step.name for step in plan.clear] == ["A"]
    assert [put.expected.state for put in plan.files] == [ABSENT]
    assert (plan.remove, plan.keep) == ((), ())
