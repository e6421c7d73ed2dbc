"""``fsmirror drop``: gives a mirror up."""

from __future__ import annotations

import sys

import click

from .._core.errors import counted
from .._mirror.mirror import Mirror
from .._mirror.reading import count
from .._mirror.session import held
from .._mirror.teardown import tear_down
from .arguments import mirror_argument, reports
from .output import Failure, Report, printable

__all__ = ["drop"]


@click.command()
@mirror_argument
@click.option("--yes", is_flag=True, help="Don't ask.")
@reports
def drop(mirror: Mirror, yes: bool) -> Report:
    """Give DST up: remove what was mirrored into it, and nothing else.

    What others put there stays, and so do files that were edited, and the
    backups. A flow of yours that mirrors into DST writes its files again.
    """
    shown = printable(mirror.root)
    if not yes and not _agrees(f"Remove {counted(count(mirror.root), 'file')} from {shown}?"):
        raise Failure("nothing was removed")
    kept = mirror.backups()  # A folder on another mount is found through the ledger, which goes.
    with held(mirror.session):
        outcome = tear_down(mirror.session)
    stays = counted(len(outcome.left), "left that is not ours", "left that are not ours")
    left = f", {stays}" if outcome.left else ""
    lines = [f"{shown}: {len(outcome.removed):,} deleted{left}"]
    if kept:
        lines.append(f"{shown}: {counted(len(kept), 'backup')} kept in .fsmirror/backup")
    deleted = len(outcome.removed)
    return Report({"root": mirror.root, "deleted": deleted, "left": sorted(outcome.left)}, lines)


def _agrees(question: str) -> bool:
    """Asks for confirmation; without a terminal, --yes is required."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if not sys.stdin.isatty():
            click.echo(err=True)
            raise click.UsageError("no terminal to ask on; pass --yes") from None
        raise
