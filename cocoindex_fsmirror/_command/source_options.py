"""Options of every command that mirrors a source: what is left out, removed, and kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TextIO, TypeVar, get_args

import click

from .._core.ages import checked_age
from .._core.ownership import OnConflict
from .._mirror.brake import Limit
from .links import LinkPolicy
from .output import PathType

__all__ = ["source_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _limit(text: str) -> Limit | Literal["usual"]:
    """Parses a count of files, or a part of them: ``20``, ``5%``."""
    if text == "usual":
        return "usual"
    found = re.fullmatch(r"([0-9]{1,18})(%?)", text)
    if found is None or (found[2] and int(found[1]) > 100):
        problem = f"{text[:30]!r} is neither a count nor a percentage, such as 20 or 5%"
        raise click.BadParameter(problem)
    return int(found[1]) / 100 if found[2] else int(found[1])


def _lines_in(_ctx: click.Context, _param: click.Parameter, files: Sequence[TextIO]) -> list[str]:
    """Reads all lines of some files."""
    return [line.rstrip("\r\n") for file in files for line in file]


def _age(text: str) -> str:
    """Checks an age, or ``all``."""
    try:
        return checked_age(text) if text else text
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _size(text: str) -> int:
    """Parses a number of bytes, or of the units of 1,024: ``500K``, ``1.5G``."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{text[:30]!r} is no size, such as 500K, 20M or 1.5G")
    return int(float(found[1]) * 1024 ** (" KMGT".index(found[2].upper() or " ")))


_SHARED: Final[Sequence[Callable[[Any], Any]]] = (
    click.option(
        "--exclude",
        metavar="PATTERN",
        multiple=True,
        help="Leave out paths that match, in the syntax of .gitignore, and leave them alone in the"
        " mirror. May be given several times.",
    ),
    click.option(
        "--exclude-from",
        metavar="FILE",
        type=click.File(encoding="utf-8", errors="surrogateescape"),
        multiple=True,
        callback=_lines_in,
        help="Take such patterns from a file, one a line.",
    ),
    click.option(
        "--include",
        metavar="PATTERN",
        multiple=True,
        help="Take paths that match all the same, if their folder is not left out.",
    ),
    click.option(
        "--max-size",
        metavar="SIZE",
        type=_size,
        help="Leave out larger files, and leave them alone in the mirror: 500K, 20M, 1.5G.",
    ),
    click.option(
        "--links",
        type=click.Choice(get_args(LinkPolicy)),
        default="keep",
        show_default=True,
        help="Mirror links as links; as what they lead to, all or only those that may lead out of"
        " SRC; or leave them out.",
    ),
    click.option(
        "--delete-excluded",
        is_flag=True,
        help="Remove from the mirror what is left out, instead of leaving it alone.",
    ),
    click.option(
        "--gitignore",
        is_flag=True,
        help="Leave out paths that the .gitignore files in SRC name, and .git.",
    ),
    click.option(
        "--exact", is_flag=True, help="Move files that are not from SRC to the backup area."
    ),
    click.option(
        "--backup-deleted",
        is_flag=True,
        help="Move files that are gone in SRC to the backup area, instead of removing them.",
    ),
    click.option(
        "--keep-backups",
        metavar="AGE",
        type=_age,
        default="",
        help="From now on, each run removes older backups: 30d, 12h, 2w; all keeps them again.",
    ),
    click.option(
        "--checksum", is_flag=True, help="Read every file, whatever its size and time say."
    ),
    click.option(
        "--on-conflict",
        type=click.Choice(get_args(OnConflict)),
        default="backup",
        show_default=True,
        help="Move files of others in the way to the backup area, overwrite them, or fail.",
    ),
    click.option(
        "--state",
        metavar="DIR",
        type=PathType(file_okay=False, resolve_path=True),
        help="Keep ledger, copies and backups in a folder of DIR, instead of in the mirror.",
    ),
    click.option(
        "--max-delete",
        type=_limit,
        default="usual",
        metavar="COUNT OR PERCENT",
        help="Stop before anything is done if more files than this would be removed: 20, 5%."
        " By default: more than half of at least 100, or all since SRC is empty.",
    ),
)


def source_options(command: _Command) -> _Command:
    """Adds the options of every command that mirrors a source."""
    for option in reversed(_SHARED):
        command = option(command)
    return command
