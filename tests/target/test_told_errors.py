"""Errors that the sink raises for the engine, and the log line that tells them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._target import raising
from cocoindex_fsmirror._target.actions import Change, Conclude, Drop, Place
from cocoindex_fsmirror._target.engine import is_live
from cocoindex_fsmirror._target.failures import RETRIED, Failures
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.sink import apply_actions, mirror_at
from cocoindex_fsmirror._target.specs import Options, RootUpdate
from tests.support import OWNER, delete, write
from tests.target.flows import Flow

MakeFlow = Callable[..., Flow]


def _remove(update: RootUpdate, root: Path, name: str, component: str) -> Change:
    """Returns the removal of a path."""
    place = Place(RootKey(None, str(root)), OWNER, Options(), update)
    return Change(place, delete(name, component=component))


@pytest.mark.parametrize("count", [1, 2])
def test_engine_is_given_the_first_error_of_one_component_that_is_gone(
    mirror: fsmirror.Mirror, root: Path, immovable: set[str], count: int
) -> None:
    mirror.apply([write("a", b"1"), write("b", b"1")])
    immovable.add("*")
    update = RootUpdate()
    actions = [_remove(update, root, name, f"/{name}") for name in "ab"[:count]]
    for is_first in (True, False):
        with pytest.raises(fsmirror.FsMirrorError, match="failed: 'a'") as caught:
            apply_actions(None, actions)
        is_quiet = isinstance(caught.value, asyncio.CancelledError)
        assert is_quiet is (count > 1 or not is_first)
    mirror_at(str(root)).close()


def test_engine_is_given_the_error_of_a_component_that_still_runs(
    mirror: fsmirror.Mirror, root: Path, immovable: set[str]
) -> None:
    mirror.apply([write("a", b"1"), write("b", b"1")])
    immovable.add("*")
    update = RootUpdate()
    update.declarations.add(Name("c"), "", "/b", is_file=True)
    for _ in range(2):
        with pytest.raises(fsmirror.ApplyError, match="failed: 'a', 'b'") as caught:
            apply_actions(None, [_remove(update, root, name, f"/{name}") for name in "ab"])
    assert not isinstance(caught.value, asyncio.CancelledError)
    mirror_at(str(root)).close()


@pytest.mark.parametrize("retries", [True, False])
def test_engine_without_retries_is_given_one_error_of_those_that_are_gone(
    mirror: fsmirror.Mirror,
    root: Path,
    immovable: set[str],
    monkeypatch: pytest.MonkeyPatch,
    retries: bool,
) -> None:
    mirror.apply([write("a", b"1"), write("b", b"1")])
    immovable.add("a")
    monkeypatch.setattr(raising, "RETRIES_IN_PARTS", retries)
    update = RootUpdate()
    with pytest.raises(fsmirror.FsMirrorError, match="failed: 'a'") as caught:
        apply_actions(None, [_remove(update, root, name, f"/{name}") for name in "ab"])
    assert isinstance(caught.value, asyncio.CancelledError) is not retries
    mirror_at(str(root)).close()


def test_component_that_is_gone_in_part_raises_only_once(
    mirror: fsmirror.Mirror, root: Path, immovable: set[str]
) -> None:
    mirror.apply([write("a", b"1"), write("b", b"1")])
    immovable.add("a")
    update = RootUpdate()
    for is_first in (True, False):
        with pytest.raises(fsmirror.FsMirrorError, match="failed: 'a'") as caught:
            apply_actions(None, [_remove(update, root, name, "/gone") for name in "ab"])
        assert isinstance(caught.value, asyncio.CancelledError) is not is_first
    mirror_at(str(root)).close()


def test_no_error_keeps_the_frames_that_it_came_through() -> None:
    def fail() -> None:
        try:
            raise OSError("broken")
        except OSError as error:
            raise fsmirror.LedgerError("the disk is broken") from error

    with pytest.raises(fsmirror.LedgerError) as caught:
        fail()
    errors = [caught.value, caught.value.__cause__]
    assert [getattr(error, "__traceback__", None) is None for error in errors] == [False, False]
    raising.BatchErrors().add(Drop(RootKey(None, "kept/out"), OWNER), caught.value)
    assert [getattr(error, "__traceback__", None) is None for error in errors] == [True, True]


def test_path_that_a_retry_applied_is_not_told(
    mirror: fsmirror.Mirror, root: Path, immovable: set[str], lines: list[str]
) -> None:
    mirror.apply([write("a", b"1")])
    immovable.add("*")
    update = RootUpdate()
    with pytest.raises(fsmirror.FsMirrorError):
        apply_actions(None, [_remove(update, root, "a", "/a")])
    immovable.clear()
    apply_actions(None, [_remove(update, root, "a", "/a")])
    update.failures.tell()
    assert [line for line in lines if str(root) in line] == []  # Others may be told late.
    assert not (root / "a").exists()
    mirror_at(str(root)).close()


def test_failures_of_several_roots_are_one_error(tmp_path: Path, immovable: set[str]) -> None:
    roots = [tmp_path / "p", tmp_path / "q"]
    for root in roots:
        with fsmirror.Mirror(root) as mirror:
            mirror.create()
            mirror.apply([write("a", b"1")])
    immovable.add("*")
    update = RootUpdate()
    update.declarations.add(Name("c"), "", "/a", is_file=True)
    with pytest.raises(fsmirror.ApplyError, match="2 mirrors") as caught:
        apply_actions(None, [_remove(update, root, "a", "/a") for root in roots])
    assert len(caught.value.exceptions) == 2
    for root in roots:
        mirror_at(str(root)).close()


def test_error_that_names_no_root_is_told_with_it(lines: list[str]) -> None:
    errors, drop = raising.BatchErrors(), Drop(RootKey(None, "told/out"), OWNER)
    errors.add(drop, fsmirror.LedgerError("the disk is broken"))
    assert str(errors.raised([drop])) == "the disk is broken"
    again = f"{RETRIED} or by fsmirror drop"
    assert f"told/out: 1 failure, {again}: the disk is broken" in lines


def test_end_of_an_update_fails_for_what_concerns_the_whole_root() -> None:
    errors, end = raising.BatchErrors(), Conclude(RootKey(None, "out"), OWNER, RootUpdate())
    errors.add(end, fsmirror.ApplyError("/r", [_path_error("a")]))
    assert errors.raised([end]) is None
    errors.add(end, fsmirror.LedgerError("the disk is broken"))
    assert str(errors.raised([end])) == "the disk is broken"


def _path_error(name: str) -> fsmirror.PathError:
    """Returns the error of a path."""
    return fsmirror.PathError(name, "remove", "no")


def test_paths_that_were_applied_after_all_are_not_told(lines: list[str]) -> None:
    failures = Failures()
    failures.add("/r", "ab", fsmirror.ApplyError("/r", [_path_error("a"), _path_error("b")]))
    failures.add("/r", "cd", fsmirror.LockedError("/r", "is locked", "wait"))
    failures.add("/r", "e", fsmirror.LockedError("/r", "is locked", "wait"))
    failures.settle("acd")
    failures.tell()
    failures.tell()
    assert lines == [f"/r: 2 failures, {RETRIED}: remove 'b': no; /r: is locked (wait)"]
    failures.add("/r", "cd", fsmirror.LockedError("/r", "is locked", "wait"))
    failures.settle("dc")
    failures.tell()
    assert len(lines) == 1


@pytest.mark.parametrize(("count", "rest"), [(5, "no"), (6, "no; and 1 more")])
def test_line_describes_five_failures(lines: list[str], count: int, rest: str) -> None:
    failures = Failures()
    for name in "abcdef"[:count]:
        failures.add("/five", name, _path_error(name))
    failures.tell()
    (line,) = [line for line in lines if line.startswith("/five: ")]
    assert line.startswith(f"/five: {count} failures, ")
    assert line.endswith(f"; remove 'e': {rest}")


def test_update_that_goes_on_tells_each_failure_at_once(lines: list[str]) -> None:
    failures = Failures(at_once=True)
    failures.add("/r", "a", _path_error("a"))
    failures.add("/r", "a", _path_error("a"))
    assert lines == [f"/r: 1 failure, {RETRIED}: remove 'a': no"] * 2


def test_live_update_is_known_as_such(make_flow: MakeFlow) -> None:
    seen: list[bool] = []

    async def main(_: Flow) -> None:
        seen.append(is_live())

    flow = make_flow(main)
    flow.app.update_blocking()
    flow.app.update_blocking(live=True)
    assert (seen, is_live()) == ([False, True], False)
