"""``fsmirror backups``: lists, restores and purges what had to make way in a mirror."""

from __future__ import annotations

import time

import click

from .._core.errors import InvalidNameError, counted, readable
from .._core.names import parse_name
from .._mirror.backups import find, purge_before
from .._mirror.backups import restore as restore_backup
from .._mirror.mirror import Mirror
from .arguments import Group, age, mirror_argument, reports
from .output import Report, printable, utc

__all__ = ["backups"]


class _DirectoryFirst(Group):
    """Also takes its commands behind the directory: ``backups DST restore PATH``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command first; without one, ``list``."""
        if self.commands.keys() & set(args[1:2]):
            args = [args[1], args[0], *args[2:]]
        elif args and args[0] not in self.commands:
            asks = set(ctx.help_option_names) & set(args)
            args = [*asks] or ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_DirectoryFirst,
    subcommand_metavar="[COMMAND] DST ...",
    epilog="Each command has --json.",
)
def backups() -> None:
    """List, restore or purge what had to make way in DST.

    Without COMMAND, the backups are listed. COMMAND may also follow DST, as in
    "fsmirror backups DST restore PATH".
    """


@backups.command("list")
@mirror_argument
@reports
def list_(mirror: Mirror) -> Report:
    """List the backups, the oldest first."""
    found = mirror.backups()
    size = sum(each.size for each in found)
    listed = [
        {"where": each.where, "path": each.name, "time": utc(each.time_ns), "bytes": each.size}
        for each in found
    ]
    lines = [
        f"{utc(each.time_ns)}  {readable(each.size):>12}  {printable(f'{each.stamp}/{each.name}')}"
        for each in found
    ]
    lines.append(f"{printable(mirror.root)}: {counted(len(found), 'backup')}, {readable(size)}")
    return Report({"root": mirror.root, "bytes": size, "backups": listed}, lines)


@backups.command()
@mirror_argument
@click.argument("path")
@click.option("--to", metavar="PATH", help="Where to, below DST; by default where it was.")
@reports
def restore(mirror: Mirror, path: str, to: str | None) -> Report:
    """Move a backup back to where it was, or to another path of DST.

    PATH is as the list shows it, or where the file was: then it is the newest
    of its backups. Nothing is ever replaced.
    """
    found = find(mirror.backups(), path)
    if not found:
        raise click.UsageError(f"{path}: there is no such backup")
    try:
        where = found[-1].name if to is None else parse_name(to)
        mirror.session.run(lambda tree, _ledger: restore_backup(tree, found[-1], where))
    except InvalidNameError as error:
        raise click.UsageError(str(error)) from None
    return Report(
        {"root": mirror.root, "restored": found[-1].where, "to": where},
        [f"{printable(found[-1].where)} is at {printable(where)} again"],
    )


@backups.command()
@mirror_argument
@click.option("--older-than", type=age, metavar="AGE", required=True, help="Such as 30d, 12h, 2w.")
@reports
def purge(mirror: Mirror, older_than: int) -> Report:
    """Remove old backups for good."""
    count, size = purge_before(mirror.session, time.time_ns() - older_than)
    line = f"{printable(mirror.root)}: {counted(count, 'backup')} purged, {readable(size)}"
    return Report({"root": mirror.root, "purged": count, "bytes": size}, [line])
