"""Batches that do not fit are applied again in smaller ones, on a disk that is a number."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable

import pytest

from cocoindex_fsmirror._core.errors import (
    BarrierError,
    ConflictError,
    FsMirrorError,
    LedgerError,
    PathError,
    as_path_error,
)
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.states import FileState
from cocoindex_fsmirror._mirror import turns
from cocoindex_fsmirror._mirror.outcome import Outcome, Unfitting, is_full
from cocoindex_fsmirror._mirror.turns import apply_all, batches
from tests.support import delete, write


class Disk:
    """A disk with an amount of room, on which files of known sizes are replaced.

    Args:
        room: The amount that is free.
        old: The sizes of the files that are there.
        notes: The amount that the notes of a path take until its batch has ended.
    """

    def __init__(self, room: int, old: dict[str, int], notes: int = 0) -> None:
        self.room = room
        self.files = dict(old)
        self.notes = notes
        self.calls: list[list[str]] = []

    def apply(self, batch: list[Intent]) -> Outcome:
        """Stages what fits, those first that take no more room than before; then places it."""
        self.calls.append([str(intent.name) for intent in batch])
        if (kept := self.notes * len(batch)) > self.room:
            raise _ledger_is_full()
        free, staged, outcome, waits = self.room - kept, list[Intent](), Outcome(), False
        for grows in (False, True):
            for intent in batch:
                if self._grows(intent) == grows:
                    fits = _size(intent) <= free and not (grows and waits)
                    if fits:
                        free -= _size(intent)
                        staged.append(intent)
                    else:
                        error = as_path_error(intent.name, "write", _no_space())
                        tried = not (grows and waits)
                        outcome.unfitting.append(Unfitting(intent, grows, tried, error))
                        outcome.failures.append(error)
            waits = bool(outcome.unfitting)
        for intent in staged:
            self.room += self.files.pop(intent.name, 0) - _size(intent)
            if isinstance(intent.desired, FileState):
                self.files[intent.name] = _size(intent)
        return outcome

    def _grows(self, intent: Intent) -> bool:
        """True if a path takes more room than before."""
        return _size(intent) > self.files.get(intent.name, 0)


def _size(intent: Intent) -> int:
    """Returns the room that a path will take."""
    return intent.desired.size if isinstance(intent.desired, FileState) else 0


def _no_space() -> OSError:
    """Returns the error of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _ledger_is_full() -> LedgerError:
    """Returns the error of a ledger that can't grow."""
    error = LedgerError("the ledger is full")
    error.__cause__ = _no_space()
    return error


def _writes(sizes: dict[str, int]) -> list[Intent]:
    """Returns intents to write files of some sizes."""
    return [write(name, b"x" * size) for name, size in sizes.items()]


def _named(failures: Iterable[FsMirrorError]) -> list[str]:
    """Returns the paths of errors, sorted."""
    return sorted(getattr(failure, "path", "?") for failure in failures)


@pytest.mark.parametrize("room", [10, 25, 100, 990])
def test_replaced_files_fit_in_turns_in_whatever_room_one_takes(room: int) -> None:
    old = {f"{number:03}": 10 for number in range(100)}
    disk = Disk(room, old)
    assert apply_all(disk.apply, [_writes(old)]) == []
    assert disk.room == room
    assert len(disk.calls) < 4 * (1_000 // room) + 4  # So it is not tried path by path at once.


def test_new_files_wait_for_those_that_replace_others() -> None:
    disk = Disk(10, {"b": 10, "c": 8})
    assert apply_all(disk.apply, [_writes({"a": 10, "b": 10, "c": 8})]) == []
    disk = Disk(10, {"b": 10, "c": 8})
    assert apply_all(disk.apply, [_writes({"a": 11, "b": 10, "c": 8})]) != []
    assert disk.files == {"b": 10, "c": 8}


def test_new_files_come_last_in_the_turns_to_come_as_well() -> None:
    disk = Disk(10, {"b": 10, "c": 10})
    assert apply_all(disk.apply, [_writes({"a": 5, "b": 10, "c": 10})]) == []


def test_small_files_come_first_in_the_turns_to_come() -> None:
    """Each of these makes room for the next larger one."""
    new = {f"{size:02}": size for size in range(40, 0, -1)}
    disk = Disk(1, {name: size + 1 for name, size in new.items()})
    assert apply_all(disk.apply, [_writes(new)]) == []
    assert len(disk.calls) < 60


def test_new_files_that_waited_in_vain_are_tried() -> None:
    disk = Disk(50, {"huge": 1000})
    sizes = {"huge": 1000, **{f"{number}": 10 for number in range(5)}}
    assert _named(apply_all(disk.apply, [_writes(sizes)])) == ["huge"]
    assert len(disk.files) == 6


def test_removals_of_a_later_batch_make_room_for_an_earlier_one() -> None:
    disk = Disk(0, {"z": 10})
    assert apply_all(disk.apply, [_writes({"a": 10}), [delete("z")]]) == []
    assert disk.files == {"a": 10}


def test_small_files_are_written_beside_one_that_fits_nowhere() -> None:
    disk = Disk(50, {"huge": 1000, "x": 10})
    sizes = {"huge": 1000, **{f"{number}": 10 for number in range(5)}, "x": 10}
    failures = apply_all(disk.apply, [_writes(sizes)])
    assert _named(failures) == ["huge"]
    assert len(disk.files) == 7


def test_paths_that_fit_nowhere_are_told_once_and_soon() -> None:
    sizes = {f"{number:04}": 10 for number in range(1000)}
    disk = Disk(5, {})
    failures = apply_all(disk.apply, batches(_writes(sizes)))
    assert _named(failures) == sorted(sizes)
    assert len(disk.calls) == 1  # Each was tried while nothing else took room.


def test_other_failures_are_told_once_and_not_tried_again() -> None:
    disk, tried = Disk(10, {"a": 10, "b": 10}), list[str]()

    def apply(batch: list[Intent]) -> Outcome:
        tried.extend(intent.name for intent in batch)
        outcome = disk.apply([intent for intent in batch if intent.name != "bad"])
        if any(intent.name == "bad" for intent in batch):
            outcome.failures.append(ConflictError("bad", "write", "it is somebody else's"))
        return outcome

    failures = apply_all(apply, [_writes({"a": 10, "b": 10, "bad": 1})])
    assert _named(failures) == ["bad"]
    assert tried.count("bad") == 1


def test_notes_that_do_not_fit_are_made_for_fewer_paths() -> None:
    old = {f"{number:03}": 10 for number in range(100)}
    disk = Disk(40, old, notes=3)
    assert apply_all(disk.apply, [_writes(old)]) == []


def test_ledger_without_room_for_one_path_ends_the_run() -> None:
    disk = Disk(2, {}, notes=3)
    with pytest.raises(LedgerError):
        apply_all(disk.apply, [_writes({f"{number}": 1 for number in range(64)}), [delete("z")]])
    assert [len(call) for call in disk.calls] == [64, 8, 1]


@pytest.mark.parametrize("kind", [LedgerError, BarrierError])
def test_failures_before_a_ledger_that_is_full_are_told_beside_it(
    kind: type[FsMirrorError],
) -> None:
    disk = Disk(20, {})

    def apply(batch: list[Intent]) -> Outcome:
        if disk.calls:
            raise kind("/r", "full") from _no_space()
        return disk.apply(batch)

    failures = apply_all(apply, [_writes({"a": 9, "b": 9, "c": 9})])
    assert disk.files == {"a": 9, "b": 9}
    assert _named(failures) == ["?", "c"]
    assert isinstance(failures[-1], kind)


def test_failure_that_is_no_lack_of_room_is_raised_at_once() -> None:
    calls = 0

    def apply(_batch: list[Intent]) -> Outcome:
        nonlocal calls
        calls += 1
        raise LedgerError("damaged")

    with pytest.raises(LedgerError):
        apply_all(apply, [_writes({"a": 1, "b": 1})])
    assert calls == 1


def test_batches_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    intents = _writes({f"{number}": 10 for number in range(10)})
    assert [len(batch) for batch in batches(intents, 4)] == [4, 4, 2]
    monkeypatch.setattr(turns, "_MOST", 5)
    assert [len(batch) for batch in batches(intents)] == [5, 5]
    monkeypatch.setattr(turns, "_LARGEST", 20)
    assert [len(batch) for batch in batches(intents)] == [2] * 5


def _caused(error: FsMirrorError, cause: BaseException) -> FsMirrorError:
    """Returns an error with a cause."""
    error.__cause__ = cause
    return error


def _sqlite(code: int) -> sqlite3.OperationalError:
    """Returns an error of SQLite with its code."""
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "full"), True),
        (OSError(errno.EIO, "broken"), False),
        (PathError("a", "write", "without a cause"), False),
        (_caused(PathError("a", "write", "full"), OSError(errno.EDQUOT, "full")), True),
        (_caused(LedgerError("full"), _sqlite(sqlite3.SQLITE_FULL)), True),
        (_caused(LedgerError("full"), _sqlite(sqlite3.SQLITE_IOERR_WRITE)), True),
        (_caused(LedgerError("damaged"), _sqlite(sqlite3.SQLITE_CORRUPT)), False),
    ],
)
def test_error_of_a_full_disk_is_known_from_its_cause(error: BaseException, wanted: bool) -> None:
    assert is_full(error) is wanted
