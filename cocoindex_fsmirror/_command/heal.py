"""``fsmirror heal`` restores what drifted, without the flow or the source that wrote it."""

from __future__ import annotations

import click

from .._core.errors import counted
from .._core.names import parse_name
from .._disk.locations import Root
from .._mirror.heal import Healing
from .._mirror.known import known
from .._mirror.mirror import Mirror
from .look import IN_DOUBT
from .output import ExitStatus, Figures, Report, coloured, mirror_argument, printable, reports

__all__ = ["heal"]


@click.command()
@mirror_argument
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-n", "--dry-run", is_flag=True, help="Only list what would be healed.")
@click.option(
    "--content", is_flag=True, help="Read every file, instead of trusting its size and times."
)
@reports
def heal(root: Root, paths: tuple[str, ...], dry_run: bool, content: bool) -> Report:
    """Restore what drifted in DST to what was written last.

    Contents come from the copies in DST/.fsmirror, or from the SRC of fsmirror
    sync, if that still holds the same. Files of others in the way go to the
    backup area, unless whoever declared the path chose otherwise. What has no
    copy is listed, and left to the next update of the flow, or to sync; the exit
    status is 1 then. PATH is relative to DST: a file, or a folder for all in it.

    \b
      fsmirror heal site               restore all
      fsmirror heal site blog -n       list what would be restored in site/blog
    """  # noqa: D301  # Click leaves lines after a backspace as they are.
    with known(root) as ledger:
        restored = ledger.is_in_doubt
        for path in paths:
            if not ledger.is_declared(parse_name(path), is_folder=False):
                problem = f"{path}: is not managed in {root} (PATH is relative to that)"
                raise click.UsageError(printable(problem))
    with Mirror(root) as mirror:
        healing = mirror.heal(paths or None, content=content, dry_run=dry_run)
    return _report(root, healing, "would be healed" if dry_run else "healed", restored=restored)


def _report(root: Root, healing: Healing, done: str, *, restored: bool) -> Report:
    """Describes what was healed, what was left, and what failed."""
    failures = {name: str(error) for name, error in healing.failures.items()}
    lines = [f"{coloured('heal')}  {printable(name)}" for name in healing.healed]
    lines += [f"{coloured('back up')}  {printable(name)}" for name in healing.backed_up]
    for word, problems in (("left", healing.left), ("fail", failures)):
        lines += [f"{coloured(word)}  {printable(f'{n}: {p}')}" for n, p in problems.items()]
    summary = f"{counted(len(healing.healed), 'path')} {done}"
    if healing.backed_up:
        summary += f", {len(healing.backed_up):,} backed up"
    if healing.left:
        summary += f", {len(healing.left):,} left to the next update or sync"
    if failures:
        summary += f", {len(failures):,} failed"
    lines.append(f"{printable(str(root))}: {summary}")
    status = ExitStatus.DIFFERS if healing.left or restored else ExitStatus.IN_ORDER
    figures = {
        "root": str(root),
        "restored": restored,
        "healed": healing.healed,
        "backed_up": healing.backed_up,
        "left": _listed(healing.left),
        "failures": _listed(failures),
    }
    if restored:
        lines.append(f"{printable(str(root))}: {IN_DOUBT}")
    return Report(figures, lines, ExitStatus.FAILED if failures else status)


def _listed(problems: dict[str, str]) -> list[Figures]:
    """Describes paths with their problems for programs."""
    return [{"path": name, "problem": problem} for name, problem in problems.items()]
