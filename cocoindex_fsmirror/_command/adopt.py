"""``fsmirror adopt`` claims files that were found in a mirror, and not written by it."""

from __future__ import annotations

from contextlib import closing

import click

from .._core.errors import counted
from .._disk.locations import Root
from .._mirror.adopt import claim, claimable
from .._mirror.session import Session, held
from .output import Report, coloured, mirror_argument, printable, reports

__all__ = ["adopt"]


@click.command()
@mirror_argument
@click.option("--dry-run", is_flag=True, help="Only list what would be adopted.")
@reports
def adopt(root: Root, dry_run: bool) -> Report:
    """Make files that were found in DST count as written by the mirror.

    A declared file that was there already, with the right bytes, stays yours:
    drop leaves it, and by default it goes to the backup area once it is no
    longer declared. Adopted ones are removed, as all files that were written.
    Every file is read; one that holds other bytes by now stays yours.
    """
    if dry_run:
        found = claimable(root)
    else:
        with closing(Session(root)) as session, held(session):
            found = claim(session)
    adopted = [name for name, is_right in found.items() if is_right]
    differ = [name for name, is_right in found.items() if not is_right]
    lines = [f"{coloured('adopt')}  {printable(name)}" for name in adopted if dry_run]
    lines += [f"{coloured('modified')}  {printable(name)}" for name in differ]
    done = "to be adopted" if dry_run else "adopted"
    stays = f", {counted(len(differ), 'stays', 'stay')} yours" if differ else ""
    lines.append(f"{printable(str(root))}: {counted(len(adopted), 'path')} {done}{stays}")
    return Report({"root": str(root), "adopted": adopted, "differ": differ}, lines)
