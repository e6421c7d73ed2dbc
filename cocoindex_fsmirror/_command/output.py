"""Output: arguments, printing and exit statuses that all commands share.

Each command returns a :class:`Report`, which is printed for people or, with ``--json``, for
programs. Errors and warnings go to standard error, one line each.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, TextIO, TypeAlias, TypeVar

import click

from .._core.errors import ApplyError, counted, readable
from .._core.text import external
from .._disk.locations import Location, Root
from .._mirror.known import exists, located

__all__ = [
    "STATE_OPTION",
    "ExitStatus",
    "Figures",
    "Group",
    "LogHandler",
    "PathType",
    "Report",
    "coloured",
    "complain",
    "directory_argument",
    "json_option",
    "mirror_argument",
    "printable",
    "progress_bar",
    "reports",
    "tell",
    "tell_error",
    "utc",
    "with_time",
]


class ExitStatus(IntEnum):
    """The exit status of the process."""

    IN_ORDER = 0
    DIFFERS = 1
    USED_WRONGLY = 2
    FAILED = 3
    INTERRUPTED = 130  # 128 + SIGINT, as in shells
    UNREAD = 141  # 128 + SIGPIPE


Figures: TypeAlias = dict[str, Any]
"""A result, as the JSON object that is printed."""


class Report(NamedTuple):
    """The result of a command: the JSON object, the lines for people, and the exit status."""

    figures: Figures
    lines: Sequence[str]
    status: int = ExitStatus.IN_ORDER


# Arguments

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Group(click.Group):
    """A group that shows its help if no command is given; releases of Click differ in that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, if there are any."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitStatus.USED_WRONGLY)
        return super().parse_args(ctx, args)


class PathType(click.Path):
    """A path on this machine: not empty, and not one that seems to be on another."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Checks a path.

        A directory is refused if rsync and scp would look for it on another machine, since
        there is a colon before its first slash. A source that exists is taken all the same;
        a destination is not, since an earlier mistake may have made it.
        """
        if not value:
            self.fail("the path is empty", param, ctx)
        if "\0" in value:
            self.fail(f"{value!r} holds a NUL character, which no path can", param, ctx)
        seems_remote = not self.file_okay and ":" in value.partition("/")[0]
        if seems_remote and not (self.exists and os.path.lexists(value)):
            hint = f"write ./{value} for a path on this one"
            self.fail(f"{value} names a path on another machine ({hint})", param, ctx)
        return super().convert(value, param, ctx)


class _RootType(PathType):
    """The root of a mirror, which may be gone if its state directory is given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Checks a path, as :class:`PathType` does."""
        state = ctx.meta.get(_STATE) if ctx is not None else None
        kind = PathType(exists=state is None, file_okay=False, resolve_path=True)
        return kind.convert(value, param, ctx)


def _check_mirror(root: Root) -> None:
    """Refuses a directory that is no mirror."""
    if not exists(root):
        hint = "it has no ledger; if that is kept elsewhere, name its place with --state"
        raise click.UsageError(f"{root}: is no mirror ({hint})")


def directory_argument(check: Callable[[Root], None]) -> Callable[[_Command], _Command]:
    """Makes the argument of a command for the root of a mirror, which a function may refuse."""

    def locate(ctx: click.Context, _param: click.Parameter, root: str) -> Location:
        location = located(root, ctx.meta.get(_STATE))
        check(location)
        return location

    argument = click.argument("root", metavar="DST", type=_RootType(), callback=locate)
    return lambda command: _state_option(argument(command))


def _take_state(ctx: click.Context, _param: click.Parameter, state: str | None) -> str | None:
    """Notes the state directory, before the argument is looked at that it is of."""
    ctx.meta[_STATE] = state
    return state


_STATE: Final = "cocoindex_fsmirror.state"
STATE_OPTION: Final[dict[str, Any]] = {
    "metavar": "DIR",
    "type": PathType(file_okay=False, resolve_path=True),
    "help": "The state directory, if ledger, copies and backups are not in DST/.fsmirror.",
}
_state_option: Final = click.option(
    "--state", callback=_take_state, is_eager=True, expose_value=False, **STATE_OPTION
)
mirror_argument: Final = directory_argument(_check_mirror)
json_option: Final = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, also for an error, and nothing else there.",
)


def reports(command: Callable[..., Report]) -> Callable[..., int]:
    """Adds ``--json`` to a command, prints its report, and returns the exit status."""

    @json_option
    @functools.wraps(command)
    def reported(*, as_json: bool, **given: Any) -> int:
        return tell(command(**given), as_json=as_json)

    return reported


# Output


def tell(report: Report, *, as_json: bool) -> int:
    """Prints a report for people, or for programs; returns the exit status."""
    for line in [json.dumps(_portable(report.figures))] if as_json else report.lines:
        _print(line, sys.stdout)
    return report.status


def with_time(report: Report) -> Report:
    """Adds the time to the figures of a report, and before its last line."""
    now = utc(time.time_ns())
    *lines, last = report.lines
    return report._replace(
        figures={"time": now, **report.figures}, lines=[*lines, f"{now}  {last}"]
    )


def tell_error(error: Exception, *, as_json: bool) -> None:
    """Prints an error with its parts; with ``--json`` also as an object."""
    lines = [error.format_message() if isinstance(error, click.ClickException) else str(error)]
    if isinstance(error, ApplyError):
        parts = [f"  {part}" for part in error.exceptions]
        lines = [f"{error.where}: {len(parts)} failed", *parts]
    lines = [printable(line) for line in lines]
    complain(*lines)
    if as_json:
        _print(json.dumps({"error": "\n".join(lines)}), sys.stdout)


def _portable(figure: Any) -> Any:
    """Returns a figure that JSON can hold: a name that is not UTF-8 as its bytes, in base64."""
    if isinstance(figure, dict):
        return {key: _portable(each) for key, each in figure.items()}
    if isinstance(figure, (list, tuple)):
        return [_portable(each) for each in figure]
    known = external(figure)
    return {"bytes": b64encode(known).decode()} if isinstance(known, bytes) else known


def complain(*lines: str) -> None:
    """Prints a message on standard error."""
    _print(click.style("fsmirror: " + "\n".join(map(printable, lines)), fg="red"), sys.stderr)


class LogHandler(logging.Handler):
    """Prints each log record as one line on standard error, without a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        _print(f"fsmirror: {printable(record.getMessage())}", sys.stderr)


def _print(line: str, stream: TextIO) -> None:
    """Prints a line; colours show on a terminal only."""
    # By default Click would write UTF-8 where the locale's encoding is ASCII.
    click.echo(line, stream, color=False if os.environ.get("NO_COLOR") else None)


def printable(text: str) -> str:
    """Escapes characters that would break a line or the terminal; names may hold any."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


_COLOURS: Final = {
    **dict.fromkeys(("write", "adopt", "make", "update"), "green"),
    **dict.fromkeys(("heal", "modified", "mode"), "yellow"),
    **dict.fromkeys(("delete", "missing", "fail", "unread", "left"), "red"),
    **dict.fromkeys(("back up", "foreign"), "magenta"),
}


def coloured(word: str) -> str:
    """Colours the word for a change or a difference, and pads it to a column."""
    return click.style(f"{word:8}", fg=_COLOURS[word])


def utc(time_ns: int) -> str:
    """Formats a time in UTC; empty for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_ns / 1e9)) if time_ns else ""


@contextlib.contextmanager
def progress_bar(count: int) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on standard error, if that is a terminal.

    Args:
        count: The number of paths to be compared; 0 to show nothing.

    Yields:
        A function that takes the number of paths compared so far, and of further bytes written.
    """
    if not count or not sys.stderr.isatty():
        yield lambda _seen, _size: None
        return
    from rich import progress  # noqa: PLC0415  # Only where it is seen.
    from rich.console import Console  # noqa: PLC0415

    paths = counted(count, "path")
    columns = (
        progress.BarColumn(),
        progress.TextColumn(f"{{task.completed:,}} of {paths}, {{task.fields[written]}}"),
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
