"""Interrupted sinks: nothing outlives a death, and errors look real."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cocoindex_fsmirror.testing._steps import InjectedError, apply_here, apply_in_child
from tests.kit.test_steps import HOWS, How, dies, fails, listed


def _ignore(_actions: object) -> None:
    """Does nothing, as a sink."""


# Deaths


@HOWS
def test_work_before_a_death_stays_and_nothing_is_cleaned_up(how: How, tmp_path: Path) -> None:
    def apply(_actions: object) -> None:
        (tmp_path / "one").mkdir()
        try:
            (tmp_path / "two").mkdir()
        except BaseException:
            (tmp_path / "three").mkdir()
            raise
        finally:
            (tmp_path / "one").rmdir()

    outcome = how(apply, [], dies(1))
    assert (outcome.where, outcome.died, outcome.error) == ("os.mkdir", True, "")
    assert listed(tmp_path) == {"one": None}


def _lets_it_pass(step: Callable[[], None]) -> None:
    with contextlib.suppress(BaseException):
        step()


def _raises_another(step: Callable[[], None]) -> None:
    try:
        step()
    except BaseException as error:
        raise ValueError("it went wrong") from error


@HOWS
@pytest.mark.parametrize("catch", [_lets_it_pass, _raises_another])
def test_sink_that_catches_everything_still_dies(
    catch: Callable[[Callable[[], None]], None], how: How, tmp_path: Path
) -> None:
    outcome = how(lambda _: catch((tmp_path / "one").mkdir), [], dies(0))
    assert (outcome.where, outcome.died, outcome.error) == ("os.mkdir", True, "")
    assert listed(tmp_path) == {}


def test_dead_sink_gets_on_only_with_calls_that_raise_no_audit_event(
    tmp_path: Path,
) -> None:
    """The limit that ``apply_here`` states: a profile function that raised is taken away."""
    with open(tmp_path / "file", "wb", buffering=0) as file:

        def apply(_actions: object) -> None:
            try:
                file.write(b"one")
            finally:
                file.write(b"two")

        assert apply_here(apply, [], dies(0)).died
    assert listed(tmp_path) == {"file": b"two"}


def test_dying_child_loses_its_buffers(tmp_path: Path) -> None:
    def apply(_actions: object) -> None:
        with open(tmp_path / "file", "wb") as file:
            file.write(b"still in a buffer")
            (tmp_path / "folder").mkdir()

    assert apply_in_child(apply, [], dies(2)).died
    assert listed(tmp_path) == {"file": b""}


def test_child_keeps_its_changes_on_disk_and_loses_those_in_memory(tmp_path: Path) -> None:
    seen: list[int] = []

    def apply(actions: list[int]) -> None:
        seen.extend(actions)
        (tmp_path / "file").write_bytes(b"new")

    outcome = apply_in_child(apply, [1], None)  # type: ignore[arg-type]
    assert (outcome.where, outcome.died, outcome.error) == ("", False, "")
    assert (seen, listed(tmp_path)) == ([], {"file": b"new"})


# Errors


@HOWS
def test_failure_of_the_system_is_an_io_error(how: How, tmp_path: Path) -> None:
    def apply(_actions: object) -> None:
        with pytest.raises(OSError, match="injected") as caught:
            (tmp_path / "one").mkdir()
        assert (type(caught.value), caught.value.errno) == (InjectedError, errno.EIO)

    assert how(apply, [], fails(0)).error == ""
    assert how(lambda _: (tmp_path / "two").mkdir(), [], fails(0)).error.startswith(
        "InjectedError: [Errno 5]"
    )
    assert listed(tmp_path) == {}


@HOWS
@pytest.mark.parametrize("step", [0, 1, 2])
def test_failure_of_a_database_is_an_error_of_the_database(how: How, step: int) -> None:
    def apply(_actions: object) -> None:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.execute("SELECT 1")
            database.commit()

    outcome = how(apply, [], fails(step))
    assert outcome.error == "OperationalError: disk I/O error (injected)"
    assert outcome.where.startswith("sqlite3.")


@pytest.mark.parametrize(("lasting", "made"), [(False, {"two": None, "three": None}), (True, {})])
@HOWS
def test_a_failure_passes_or_lasts(
    how: How, lasting: bool, made: dict[str, None], tmp_path: Path
) -> None:
    def apply(_actions: object) -> None:
        for name in ("one", "two", "three"):
            with contextlib.suppress(OSError):
                (tmp_path / name).mkdir()

    outcome = how(apply, [], fails(0, lasting=lasting))
    assert (outcome.where, outcome.error) == ("os.mkdir", "")
    assert listed(tmp_path) == made


@HOWS
def test_error_of_a_sink_comes_back_in_one_line(how: How) -> None:
    def apply(_actions: object) -> None:
        raise ValueError("it went\nwrong " * 100_000)

    outcome = how(apply, [], None)
    assert (outcome.where, outcome.died) == ("", False)
    assert outcome.error == f"ValueError: {'it went wrong ' * 100_000}".rstrip()


def test_child_that_ends_abnormally_is_an_error_of_the_test(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        apply_in_child(lambda _: os._exit(3), [], None)
    with pytest.raises(RuntimeError, match="SystemExit: enough"):
        apply_in_child(lambda _: sys.exit("enough"), [], None)


# Nothing is left behind


def _profile(_frame: FrameType, _event: str, _argument: Any) -> None:
    """Does nothing, as the profile function of others."""


@pytest.fixture
def _is_profiled() -> Iterator[None]:
    """Sets a profile function."""
    before = sys.getprofile()
    sys.setprofile(_profile)
    yield
    sys.setprofile(before)


@pytest.mark.usefixtures("_is_profiled")
@HOWS
@pytest.mark.parametrize("fault", [None, dies(0), dies(9), fails(0), fails(0, lasting=True)])
def test_profile_function_of_others_is_put_back(how: How, fault: Any, tmp_path: Path) -> None:
    def apply(_actions: object) -> None:
        with open(tmp_path / "file", "wb") as file:
            file.write(b"new")

    how(apply, [], fault)
    assert sys.getprofile() is _profile


def test_steps_are_counted_only_during_the_call(tmp_path: Path) -> None:
    assert apply_here(_ignore, [], dies(0)).where == ""
    (tmp_path / "file").write_bytes(b"new")
    assert listed(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("fault", [None, dies(0), fails(0)])
def test_a_child_leaves_no_zombie_and_no_descriptor(fault: Any, tmp_path: Path) -> None:
    before = set(os.listdir("/dev/fd"))
    for number in range(3):
        apply_in_child(lambda _, n=number: (tmp_path / str(n)).mkdir(), [], fault)  # type: ignore[misc]
    assert set(os.listdir("/dev/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
