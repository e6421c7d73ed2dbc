"""Output of the command: for people, or as JSON for programs; and its exit statuses."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import click

from .._core.errors import ApplyError

__all__ = [
    "DIFFERS",
    "FAILED",
    "INTERRUPTED",
    "IN_ORDER",
    "UNREAD",
    "USED_WRONGLY",
    "Failure",
    "Figures",
    "OneLineFormatter",
    "Report",
    "coloured",
    "complain",
    "one_line",
    "printable",
    "progress_bar",
    "readable",
    "tell",
    "tell_error",
    "utc",
]

IN_ORDER: Final = 0
DIFFERS: Final = 1
USED_WRONGLY: Final = 2
FAILED: Final = 3
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
UNREAD: Final = 141  # 128 + SIGPIPE, too

Figures: TypeAlias = dict[str, Any]
"""A result, as the JSON object that is printed."""


class Report(NamedTuple):
    """The result of a command: the JSON object, the lines for people, and the exit status."""

    figures: Figures
    lines: Sequence[str]
    status: int = IN_ORDER


class Failure(click.ClickException):
    """A failure of a command that was used rightly."""


def tell(report: Report, *, as_json: bool) -> None:
    """Prints a report for people, or for programs."""
    shown = [json.dumps(report.figures, ensure_ascii=True)] if as_json else report.lines
    for line in shown:
        # By default Click would write UTF-8 where the locale's encoding is ASCII.
        click.echo(line, sys.stdout, color=False if os.environ.get("NO_COLOR") else None)


def tell_error(error: Exception, *, as_json: bool) -> None:
    """Says what failed, and to programs as well."""
    lines = [one_line(line) for line in _lines_of(error)]
    complain(*lines)
    if as_json:
        click.echo(json.dumps({"error": "\n".join(lines)}))


def _lines_of(error: Exception) -> list[str]:
    """What an error says; a line for each of its parts."""
    if isinstance(error, click.ClickException):
        return [error.format_message()]
    if isinstance(error, ApplyError):
        parts = [f"  {part}" for part in error.exceptions]
        return [f"{error.where}: {len(parts)} failed", *parts]
    return [str(error)]


def complain(*lines: str) -> None:
    """Says what is wrong, on standard error."""
    from rich.console import Console  # noqa: PLC0415  # It takes its time, and most runs say nothing.

    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    message = "\n".join(map(one_line, lines))
    console.print(f"fsmirror: {message}", style="red" if console.is_terminal else "")


def one_line(text: str) -> str:
    """A message that breaks no line and no terminal, whatever names are in it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class OneLineFormatter(logging.Formatter):
    """The same for what is logged."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The message without what may follow it, such as a traceback."""
        return one_line(super().formatMessage(record))


_COLOURS: Final = {
    **dict.fromkeys(("write", "adopt", "make", "update"), "green"),
    **dict.fromkeys(("heal", "modified", "mode"), "yellow"),
    **dict.fromkeys(("delete", "missing", "fail"), "red"),
    **dict.fromkeys(("back up", "foreign"), "magenta"),
}


def coloured(word: str) -> str:
    """The word for a change or a difference; its colour shows on a terminal only."""
    return click.style(word, fg=_COLOURS[word.rstrip()])


def printable(path: str) -> str:
    """A path that breaks no line and no terminal."""
    return path if path.isprintable() else repr(path)


def readable(count: float) -> str:
    """A number of bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable: the last unit takes all")


def utc(time_ns: int) -> str:
    """A time, in UTC."""
    if not time_ns:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_ns / 1e9))


def _is_terminal() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(count: int) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on standard error, if that is a terminal.

    Args:
        count: How many paths are to be compared; 0 to show nothing.

    Yields:
        What is to be told how many of them were compared, and how many more bytes were written.
    """
    if not count or not _is_terminal():
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
