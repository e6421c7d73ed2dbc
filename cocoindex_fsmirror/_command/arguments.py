"""Arguments of the commands: how each is parsed, and what is refused."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from .._mirror.backups import parse_age
from .._mirror.brake import Limit
from .._mirror.mirror import Mirror
from .._mirror.reading import exists
from .output import ExitStatus, Report, tell

__all__ = [
    "Group",
    "age",
    "json_option",
    "limit",
    "mirror_argument",
    "path_argument",
    "reports",
    "source_argument",
    "target_argument",
    "wants_json",
]

_DIGITS: Final = 18  # of a count of files


class Group(click.Group):
    """A group that shows its help if no command is given; releases of Click differ in that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, if there are any."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitStatus.USED_WRONGLY)
        return super().parse_args(ctx, args)


class _PathType(click.Path):
    """A path that the ledger can keep: one that is UTF-8, and not empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses a path that can't be kept or read."""
        if not value:
            self.fail("the path is empty", param, ctx)
        try:
            is_text = b"\0" not in value.encode()
        except UnicodeEncodeError:
            is_text = False
        if not is_text:
            self.fail(f"{value!r} is not UTF-8", param, ctx)
        return super().convert(value, param, ctx)


def _path(_ctx: click.Context, _param: click.Parameter, value: str) -> Path:
    """Takes any path."""
    return Path(value)


def _source(ctx: click.Context, param: click.Parameter, value: str) -> Path:
    """Refuses a path on another machine, unless one of that name exists here."""
    return Path(value) if os.path.lexists(value) else _target(ctx, param, value)


def _target(_ctx: click.Context, _param: click.Parameter, value: str) -> Path:
    """Refuses what rsync and scp take to another machine: a colon before the first slash.

    It is refused even if it exists: an earlier mistake may have made it.
    """
    if ":" in value.partition("/")[0]:
        hint = f"write ./{value} for a path on this one"
        raise click.BadParameter(f"{value} names a path on another machine ({hint})")
    return Path(value)


def _mirror(_ctx: click.Context, _param: click.Parameter, value: str) -> Mirror:
    """Refuses a directory that is no mirror."""
    mirror = Mirror(os.path.realpath(value))
    if not os.path.isdir(mirror.root):
        raise click.UsageError(f"{value}: no such directory")
    if not exists(mirror.root):
        raise click.UsageError(f"{value}: is no mirror (it has no ledger)")
    return mirror


_argument: Final = functools.partial(click.argument, type=_PathType())
source_argument: Final = _argument("src", callback=_source)
target_argument: Final = _argument("dst", callback=_target)
path_argument: Final = _argument("path", metavar="DST/PATH", callback=_path)
mirror_argument: Final = _argument("mirror", metavar="DST", callback=_mirror)


def limit(value: str) -> Limit:
    """Parses a count of files, or a part of them: ``20``, ``5%``."""
    number, is_percent = value.removesuffix("%"), value.endswith("%")
    if len(number) > _DIGITS:
        problem = f"it has {len(number):,} digits, and {_DIGITS} are enough for any count"
        raise click.BadParameter(problem)
    if not number.isdecimal() or (is_percent and int(number) > 100):
        problem = f"{value!r} is neither a count nor a percentage, such as 20 or 5%"
        raise click.BadParameter(problem)
    return int(number) / 100 if is_percent else int(number)


def age(value: str) -> int:
    """Parses an age such as ``30d`` or ``12h``; returns nanoseconds."""
    try:
        return parse_age(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


json_option: Final = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, and nothing else there; also of an error.",
)


def reports(command: Callable[..., Report]) -> Callable[..., int]:
    """Adds ``--json`` to a command, prints what it reports, and returns the exit status."""

    @json_option
    @functools.wraps(command)
    def reported(*, as_json: bool, **given: Any) -> int:
        return tell(command(**given), as_json=as_json)

    return reported


def wants_json(args: Sequence[str] | None) -> bool:
    """True if ``--json`` is given; known before parsing, which may fail."""
    words = list(sys.argv[1:] if args is None else args)
    return "--json" in words[: words.index("--") if "--" in words else None]
