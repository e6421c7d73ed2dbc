"""Output of the command: for people, or as JSON for programs; and its exit statuses."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, TextIO, TypeAlias

import click

from .._core.errors import ApplyError, readable

__all__ = [
    "ExitStatus",
    "Failure",
    "Figures",
    "OneLineFormatter",
    "Report",
    "coloured",
    "complain",
    "one_line",
    "printable",
    "progress_bar",
    "tell",
    "tell_error",
    "utc",
]


class ExitStatus(IntEnum):
    """How the process ends."""

    IN_ORDER = 0
    DIFFERS = 1
    USED_WRONGLY = 2
    FAILED = 3
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
    UNREAD = 141  # 128 + SIGPIPE, too


Figures: TypeAlias = dict[str, Any]
"""A result, as the JSON object that is printed."""


class Report(NamedTuple):
    """The result of a command: the JSON object, the lines for people, and the exit status."""

    figures: Figures
    lines: Sequence[str]
    status: int = ExitStatus.IN_ORDER


class Failure(click.ClickException):
    """A failure of a command that was used rightly."""


def tell(report: Report, *, as_json: bool) -> int:
    """Prints a report for people, or for programs; returns the exit status."""
    for line in [json.dumps(report.figures)] if as_json else report.lines:
        _print(line, sys.stdout)
    return report.status


def tell_error(error: Exception, *, as_json: bool) -> None:
    """Says what failed, and to programs as well."""
    lines = [one_line(line) for line in _lines_of(error)]
    complain(*lines)
    if as_json:
        _print(json.dumps({"error": "\n".join(lines)}), sys.stdout)


def _lines_of(error: Exception) -> list[str]:
    """Returns the message of an error, with a line for each of its parts."""
    if isinstance(error, click.ClickException):
        return [error.format_message()]
    if isinstance(error, ApplyError):
        parts = [f"  {part}" for part in error.exceptions]
        return [f"{error.where}: {len(parts)} failed", *parts]
    return [str(error)]


def complain(*lines: str) -> None:
    """Says what is wrong, on standard error."""
    _print(click.style("fsmirror: " + "\n".join(map(one_line, lines)), fg="red"), sys.stderr)


def _print(line: str, stream: TextIO) -> None:
    """Prints a line; colours show on a terminal only."""
    # By default Click would write UTF-8 where the locale's encoding is ASCII.
    click.echo(line, stream, color=False if os.environ.get("NO_COLOR") else None)


def one_line(text: str) -> str:
    """Escapes what would break the line or the terminal, whatever names are in a message."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class OneLineFormatter(logging.Formatter):
    """Formats a log record as one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Returns the message without what may follow it, such as a traceback."""
        return one_line(super().formatMessage(record))


_COLOURS: Final = {
    **dict.fromkeys(("write", "adopt", "make", "update"), "green"),
    **dict.fromkeys(("heal", "modified", "mode"), "yellow"),
    **dict.fromkeys(("delete", "missing", "fail"), "red"),
    **dict.fromkeys(("back up", "foreign"), "magenta"),
}


def coloured(word: str) -> str:
    """Colours the word for a change or a difference."""
    return click.style(word, fg=_COLOURS[word.rstrip()])


def printable(path: str) -> str:
    """Escapes a path that would break a line or a terminal."""
    return path if path.isprintable() else repr(path)


def utc(time_ns: int) -> str:
    """Formats a time in UTC; nothing for 0."""
    if not time_ns:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_ns / 1e9))


@contextlib.contextmanager
def progress_bar(count: int) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on standard error, if that is a terminal.

    Args:
        count: How many paths are to be compared; 0 to show nothing.

    Yields:
        A function to call with how many were compared, and how many more bytes were written.
    """
    if not count or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _seen, _size: None
        return
    from rich import progress  # noqa: PLC0415  # Only where it is seen.
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.BarColumn(),
        progress.TextColumn("{task.completed:,} of {task.total:,} paths, {task.fields[written]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=count, written=readable(0))
        written = 0

        def advance(seen: int, size: int) -> None:
            nonlocal written
            written += size
            bar.update(task, completed=seen, written=readable(written))

        yield advance
