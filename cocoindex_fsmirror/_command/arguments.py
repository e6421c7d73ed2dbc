"""Arguments of the commands: their types, and what these refuse."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from .._mirror.backups import parse_age
from .._mirror.brake import Limit
from .._mirror.mirror import Mirror
from .output import USED_WRONGLY, Report, tell

if TYPE_CHECKING:
    _LimitBase: TypeAlias = click.ParamType[Limit]
    _AgeBase: TypeAlias = click.ParamType[int]
else:
    _LimitBase = _AgeBase = click.ParamType  # Older versions of Click can't subscript it.

__all__ = [
    "AgeType",
    "Group",
    "LimitType",
    "LocalPathType",
    "PathType",
    "json_option",
    "mirror_argument",
    "reports",
    "wants_json",
]

_DIGITS: Final = 18  # of a count of files


class Group(click.Group):
    """A group that shows its help if no command is given; releases of Click differ in that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, if there are any."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USED_WRONGLY)
        return super().parse_args(ctx, args)


class PathType(click.Path):
    """A path that the ledger can keep."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Refuses an empty path, and one that is not UTF-8."""
        text = os.fspath(value)
        if not text:
            self.fail("the path is empty", param, ctx)
        try:
            is_text = b"\0" not in text.encode()
        except UnicodeEncodeError:
            is_text = False
        if not is_text:
            self.fail(f"{text!r} is not UTF-8", param, ctx)
        return super().convert(value, param, ctx)


class LocalPathType(PathType):
    """A path on this machine.

    Args:
        is_source: True if the path is only read. One that exists is taken then. A target may
            exist because of the very mistake, from a time when it was not refused.
    """

    def __init__(self, *, is_source: bool) -> None:
        super().__init__()
        self._is_source = is_source

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Refuses what rsync and scp take to another machine: a colon before the first slash."""
        path, text = super().convert(value, param, ctx), os.fspath(value)
        is_remote = ":" in text.partition("/")[0]
        if is_remote and not (self._is_source and os.path.lexists(text)):
            hint = f"write ./{text} for a path on this one"
            self.fail(f"{text} names a path on another machine ({hint})", param, ctx)
        return path


class MirrorType(PathType):
    """A directory that is a mirror."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Opens the mirror."""
        path = super().convert(value, param, ctx)
        mirror = Mirror(os.path.realpath(path))
        if not os.path.isdir(mirror.root):
            raise click.UsageError(f"{path}: no such directory")
        if not mirror.exists():
            raise click.UsageError(f"{path}: is no mirror; nothing was ever written to it")
        return mirror


class LimitType(_LimitBase):
    """A count of files, or a part of them: ``20``, ``5%``."""

    name = "count or percent"

    def convert(
        self, value: str, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> Limit:
        """Parses the limit."""
        number, is_percent = value.removesuffix("%"), value.endswith("%")
        if len(number) > _DIGITS:
            self.fail(f"it has {len(number):,} digits, and {_DIGITS} are enough for any count")
        if not number.isdecimal() or (is_percent and int(number) > 100):
            self.fail(f"{value!r} is neither a count nor a percentage, such as 20 or 5%")
        return int(number) / 100 if is_percent else int(number)


class AgeType(_AgeBase):
    """An age: ``30d``, ``12h``."""

    name = "age"

    def convert(
        self, value: str, _param: click.Parameter | None, _ctx: click.Context | None
    ) -> int:
        """Parses the age; returns nanoseconds."""
        try:
            return parse_age(value)
        except ValueError as error:
            self.fail(str(error))


mirror_argument: Final = click.argument("mirror", metavar="DST", type=MirrorType())
"""``DST``."""
json_option: Final = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, and nothing else there; also of an error.",
)
"""``--json``."""


def reports(command: Callable[..., Report]) -> Callable[..., int]:
    """Adds ``--json`` to a command, prints what it reports, and returns the exit status."""

    @json_option
    @functools.wraps(command)
    def reported(*, as_json: bool, **given: Any) -> int:
        report = command(**given)
        tell(report, as_json=as_json)
        return report.status

    return reported


def wants_json(args: Sequence[str] | None) -> bool:
    """True if ``--json`` is given; known before parsing, which may fail."""
    words = list(sys.argv[1:] if args is None else args)
    return "--json" in words[: words.index("--") if "--" in words else None]
