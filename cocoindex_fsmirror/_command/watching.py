"""Watching: the options of every command with ``--watch``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import click

from .._disk.watch import POLL, RESCAN, SETTLE, Timing

__all__ = ["watch_options"]

_SECONDS: Final[dict[str, Any]] = {"metavar": "SECONDS", "type": click.FloatRange(0.01, 86_400)}


def watch_options(said: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Adds ``--watch`` to a command, and what belongs to it; the command gets the timing.

    Args:
        said: The help of ``--watch``.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @click.option("--watch", is_flag=True, help=said)
        @click.option(
            "--settle",
            **_SECONDS,
            help=f"With --watch: wait until nothing has changed for this long ({SETTLE:g}),"
            " ten times as long at most, or 3 s.",
        )
        @click.option(
            "--rescan",
            **_SECONDS,
            help=f"With --watch: look at everything that often ({RESCAN:g}).",
        )
        @click.option(
            "--poll",
            **_SECONDS,
            help="With --watch: only look that often, and listen for nothing. Where the system"
            f" can't tell of all changes, each {POLL:g} s is the default.",
        )
        @functools.wraps(command)
        def watched(
            *,
            watch: bool,
            settle: float | None,
            rescan: float | None,
            poll: float | None,
            **given: Any,
        ) -> int:
            if not watch and any(each is not None for each in (settle, rescan, poll)):
                raise click.UsageError("--settle, --rescan and --poll belong to --watch")
            timing = Timing(settle or SETTLE, rescan or RESCAN, poll) if watch else None
            return command(timing=timing, **given)

        return watched

    return decorate
