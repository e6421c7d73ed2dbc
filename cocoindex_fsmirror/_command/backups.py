"""``fsmirror backups`` lists, restores and purges backups; ``fsmirror drop`` gives a mirror up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from difflib import unified_diff
from typing import Final

import click

from .._core.ages import parse_age
from .._core.errors import counted, readable
from .._core.names import Name, parse_name
from .._core.states import ABSENT, FileState, LinkState
from .._core.text import encoded
from .._disk.copies import read_file
from .._disk.locations import Location, Root
from .._disk.tree import Tree
from .._mirror.backups import Backup, find, inner, list_backups
from .._mirror.backups import purge as purge_backups
from .._mirror.backups import restore as restore_backup
from .._mirror.known import exists, mirrored, opened
from .._mirror.session import Session, held
from .._mirror.teardown import tear_down
from .output import (
    ExitStatus,
    Group,
    Report,
    directory_argument,
    mirror_argument,
    printable,
    reports,
    utc,
)

__all__ = ["backups", "drop"]


def _check_holding(root: Root) -> None:
    """Refuses a directory that is no mirror; one that was dropped may still hold backups."""
    if not exists(root) and not list_backups(root):
        raise click.UsageError(f"{root}: is no mirror (it has no ledger), and holds no backups")


_MOST_SHOWN: Final = 4 << 20  # bytes of a file that is compared by its lines
backups_argument: Final = directory_argument(_check_holding)


class _DirectoryFirst(Group):
    """A group whose commands may also follow the directory: ``backups DST restore PATH``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command first; without one, ``list``."""
        if self.commands.keys() & set(args[1:2]):
            args = [args[1], args[0], *args[2:]]
        elif args and args[0] not in self.commands:
            asks = set(ctx.help_option_names) & set(args)
            args = [*asks] or ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DirectoryFirst, subcommand_metavar="[COMMAND] DST ...")
def backups() -> None:
    """List, restore or purge files that had to make way in DST.

    Without COMMAND, the backups are listed. COMMAND may also follow DST, as in
    "fsmirror backups DST restore PATH". Each command has --json.
    """


@backups.command("list")
@backups_argument
@reports
def list_(root: Root) -> Report:
    """List the backups, the oldest first."""
    found = list_backups(root)
    size = sum(each.size for each in found)
    listed = [
        {"where": each.where, "path": each.name, "time": utc(each.time_ns), "bytes": each.size}
        for each in found
    ]
    lines = [
        f"{utc(each.time_ns)}  {readable(each.size):>12}  {printable(f'{each.stamp}/{each.name}')}"
        for each in found
    ]
    lines.append(f"{printable(str(root))}: {counted(len(found), 'backup')}, {readable(size)}")
    return Report({"root": str(root), "bytes": size, "backups": listed}, lines)


@backups.command()
@backups_argument
@click.argument("path")
@click.option("--to", metavar="PATH", help="The new path in DST; by default the path that it had.")
@reports
def restore(root: Root, path: str, to: str | None) -> Report:
    """Move a backup back to where it was, or to another path in DST.

    PATH is a backup as the list shows it, or the path where the file was: then
    the newest backup of it is meant. Nothing is ever replaced.
    """
    backup = _newest(root, path)
    where = backup.name if to is None else parse_name(to)
    with _visited(root) as session:
        session.run(lambda tree, _ledger: restore_backup(tree, backup, where), create=True)
    line = f"{printable(backup.where)} was moved to {printable(where)}"
    return Report({"root": str(root), "restored": backup.where, "to": where}, [line])


@backups.command()
@backups_argument
@click.argument("path")
@reports
def diff(root: Root, path: str) -> Report:
    """Show what the file in DST has that a backup of it does not, and the reverse.

    PATH is a backup as the list shows it, or the path where the file was: then
    the newest backup of it is meant. Lines with - are those of the backup.
    """
    backup = _newest(root, path)
    names = [str(backup.where), str(backup.name)]
    with opened(root) as tree:
        (before, old), (after, new) = _shown(tree, inner(backup)), _shown(tree, backup.name)
    found = list[str]()
    if before != after and old is not None and new is not None:
        found += unified_diff(old, new, names[0], names[1], lineterm="")
    if before != after and not found:
        found = [f"{names[0]} and {names[1]} differ, but not in lines of text"]
    return Report(
        {"root": str(root), "where": backup.where, "path": backup.name, "diff": found},
        ["\t".join(map(printable, line.split("\t"))) for line in found],
        ExitStatus.DIFFERS if found else ExitStatus.IN_ORDER,
    )


def _newest(root: Root, path: str) -> Backup:
    """Returns the newest backup that somebody may mean."""
    found = find(list_backups(root), path)
    if not found:
        raise click.UsageError(f"{path}: there is no such backup")
    return found[-1]


def _shown(tree: Tree, name: Name) -> tuple[object, list[str] | None]:
    """Returns what tells a path from others, and its lines; ``None`` if it is no short text."""
    state = tree.look(name, digest=True).state
    if isinstance(state, LinkState):
        return state.target, [f"a link to {state.target}"]
    if isinstance(state, FileState) and state.size <= _MOST_SHOWN:
        content = read_file(tree, name, _MOST_SHOWN)
        with suppress(UnicodeDecodeError):
            return content, content.decode().split("\n")
        return content, None
    return state.digest or type(state), [] if state is ABSENT else None


@contextmanager
def _visited(root: Root) -> Iterator[Session]:
    """Opens a session; where a mirror was dropped, no ledger is left behind."""
    was_dropped = not exists(root)
    with closing(Session(root)) as session:
        try:
            yield session
        finally:
            if was_dropped:
                tear_down(session)


def _age(text: str) -> int:
    """Parses an age such as ``30d`` or ``12h``; returns nanoseconds."""
    try:
        return parse_age(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@backups.command()
@backups_argument
@click.option(
    "--older-than", type=_age, metavar="AGE", required=True, help="Such as 30d, 12h or 2w."
)
@reports
def purge(root: Root, older_than: int) -> Report:
    """Remove old backups for good."""
    with _visited(root) as session:
        before_ns = time.time_ns() - older_than
        old = [backup for backup in list_backups(root) if backup.time_ns < before_ns]
        removed, size = session.run(lambda tree, _ledger: purge_backups(tree, old))
    line = f"{printable(str(root))}: {counted(removed, 'backup')} purged, {readable(size)}"
    return Report({"root": str(root), "purged": removed, "bytes": size}, [line])


@click.command()
@mirror_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
@reports
def drop(root: Root, yes: bool) -> Report:
    """Give DST up: remove what was mirrored into it, and nothing else.

    Files that others put there stay, and so do edited files and the backups. A
    flow that still mirrors into DST will write its files again.
    """
    shown = printable(str(root))
    if not yes:
        with mirrored(root) as ledger:
            count = ledger.count()
        _confirm(f"Remove {counted(count, 'file')} from {shown}?")
    kept, location = list_backups(root), Location.of(root)
    # One that is gone is made to be locked, and goes again.
    with closing(Session(root)) as session, held(session, create=True):
        outcome = tear_down(session)
    deleted, left = len(outcome.removed), sorted(outcome.left, key=encoded)
    stays = counted(len(left), "path left that is not ours", "paths left that are not ours")
    lines = [f"{shown}: {counted(deleted, 'file')} deleted" + (f", {stays}" if left else "")]
    if kept:
        areas = sorted({each.where.partition(f"/{each.stamp}/")[0] for each in kept})
        where = ", ".join(map(printable, areas))
        lines.append(f"{shown}: {counted(len(kept), 'backup')} kept in {where}")
        if location.state:
            lines.append(
                f"fsmirror backups {shown} --state {printable(location.state)}: lists them"
            )
    return Report({"root": str(root), "deleted": deleted, "left": left}, lines)


def _confirm(question: str) -> None:
    """Asks for confirmation; without a terminal, --yes is required."""
    try:
        if not click.confirm(question, err=True):
            raise click.ClickException("nothing was removed")
    except click.Abort:
        if not sys.stdin.isatty():
            click.echo(err=True)
            raise click.UsageError("no terminal to ask on; pass --yes") from None
        raise
