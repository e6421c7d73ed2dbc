"""Telling: how much a command says of a run, and to whom."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from .output import json_option

__all__ = ["Telling", "telling_options"]


class Telling(NamedTuple):
    """The ways to tell of a run.

    Attributes:
        as_json: True to print an object, with all paths.
        verbose: True to print each path as something was done to it.
        quiet: True to print only failures.
        exit_code: True for exit status 1 after a run that changed something.
        timed: True to tell the time, too.
    """

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False
    exit_code: bool = False
    timed: bool = False


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
    @json_option
    @functools.wraps(command)
    def telling(*, as_json: bool, verbose: bool, quiet: bool, exit_code: bool, **given: Any) -> int:
        if verbose and quiet:
            raise click.UsageError("--verbose and --quiet can't be given together")
        if exit_code and given["timing"]:
            raise click.UsageError("--exit-code and --watch can't be given together")
        told = Telling(as_json, verbose, quiet, exit_code, timed=given["timing"] is not None)
        return command(telling=told, **given)

    return telling
