"""Telling: how much a command says of a run, and to whom."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click

from .._core.errors import PathError
from .output import complain, json_option

__all__ = ["Failure", "Telling", "run_after", "telling_options"]


class Telling(NamedTuple):
    """The ways to tell of a run.

    Attributes:
        as_json: True to print an object, with all paths.
        verbose: True to print each path as something was done to it.
        quiet: True to print only failures.
        exit_code: True for exit status 1 after a run that changed something.
        timed: True to tell the time, too.
        command: Run by the shell after a run that changed something; empty for none.
    """

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False
    exit_code: bool = False
    timed: bool = False
    command: str = ""

    @property
    def needs_paths(self) -> bool:
        """True if all paths to which something was done have to be known."""
        return self.as_json or bool(self.command)


class Failure(NamedTuple):
    """A path that could not be mirrored.

    Attributes:
        message: All of it, for people.
        path: The path, relative to the root; empty if it is more than one.
        operation: The operation that failed, as a verb; may be empty.
        problem: The reason.
        hint: The way to solve the problem; may be empty.
    """

    message: str
    path: str = ""
    operation: str = ""
    problem: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Describes an error."""
        if isinstance(error, PathError):
            return cls(str(error), error.path, error.operation, error.problem, error.hint)
        return cls(str(error), problem=str(error))


def run_after(telling: Telling, paths: Iterable[str]) -> bool:
    """Runs the command that follows a run; tells if it fails, and returns false.

    Args:
        telling: Has the command.
        paths: The paths to which something was done.
    """
    lines = "".join(f"{path.replace(chr(10), chr(92) + 'n')}\n" for path in dict.fromkeys(paths))
    # Nothing but the object may be on standard output.
    to = 2 if telling.as_json else None
    status = subprocess.run(  # noqa: S602  # It is the user's own command, and the option says so.
        telling.command, shell=True, check=False, input=os.fsencode(lines), stdout=to
    ).returncode
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
        complain(f"--exec {telling.command}: {how}")
    return not status


def telling_options(command: Callable[..., int]) -> Callable[..., int]:
    """Adds the options of telling to a command that mirrors a source."""

    @click.option(
        "-v",
        "--verbose",
        "-i",
        "--itemize-changes",
        is_flag=True,
        help="List each path when something was done to it.",
    )
    @click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
    @click.option(
        "--exit-code",
        is_flag=True,
        help="Exit with 1 if something was changed, or would be, as git diff does.",
    )
    @click.option(
        "--exec",
        "after",
        metavar="COMMAND",
        default="",
        help="Run this by the shell after a run that changed something; it gets the paths on its"
        " standard input, one a line.",
    )
    @json_option
    @functools.wraps(command)
    def telling(
        *, as_json: bool, verbose: bool, quiet: bool, exit_code: bool, after: str, **given: Any
    ) -> int:
        if verbose and quiet:
            raise click.UsageError("--verbose and --quiet can't be given together")
        if exit_code and given["timing"]:
            raise click.UsageError("--exit-code and --watch can't be given together")
        is_timed = given["timing"] is not None
        told = Telling(as_json, verbose, quiet, exit_code, timed=is_timed, command=after)
        return command(telling=told, **given)

    return telling
