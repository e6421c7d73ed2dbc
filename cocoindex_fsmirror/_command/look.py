"""The commands that look at a mirror and change nothing: ``status``, ``verify`` and ``why``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import click

from .._core.ages import ALL
from .._core.errors import LedgerError, counted, readable
from .._core.names import RESERVED, Name
from .._core.owners import SYNC_OWNER, SYNC_SOURCE
from .._core.states import ABSENT
from .._core.text import encoded
from .._disk.locations import Location, Root
from .._mirror.backups import list_backups
from .._mirror.copies import size_of_copies
from .._mirror.drift import Difference, differences, row_of
from .._mirror.exact import foreign
from .._mirror.expiry import kept_for
from .._mirror.known import exists, known, located, mirrored, noted, opened
from .._mirror.owners import OwnerFigures, owners
from .._mirror.reader import Span, after
from .helper import collect_less_garbage, helped
from .output import (
    STATE_OPTION,
    ExitStatus,
    Figures,
    PathType,
    Report,
    coloured,
    mirror_argument,
    printable,
    reports,
    utc,
)

__all__ = ["IN_DOUBT", "status", "verify", "why"]

_UNMANAGED: Final = {
    "mirror": "the mirror itself",
    "ours": "part of the folder that holds the ledger and the backups of the mirror",
    "folder": "holds managed files, and is not declared itself",
    "foreign": "foreign: not written by a mirror, and left alone",
    "absent": "absent, and not managed",
}
IN_DOUBT: Final = (
    "was copied or put back, or an update has not removed all; the next update will tell"
)
_SHOWN: Final = ("by", "component", "target", "written", "fingerprint")


@click.command()
@mirror_argument
@reports
def status(root: Root) -> Report:
    """Show who mirrors DST, how much, and how many paths have drifted."""
    with mirrored(root) as ledger:
        _, files, folders, size, updated_ns, copied = ledger.figures()
        restored, kept = ledger.is_in_doubt, kept_for(ledger)
    found, backups, updated = _differences(root), len(list_backups(root)), utc(updated_ns)
    unread = sum(1 for each in found if each.how == "unread")
    drifted = len(found) - unread
    mirrors = [_owner_figures(root, owner) for owner in owners(root)]
    orphans = sum(each["files"] for each in mirrors if each["lost"])
    figures = {
        "root": str(root),
        "files": files,
        "folders": folders,
        "bytes": size,
        "updated": updated,
        "drifted": drifted,
        "unread": unread,
        "backups": backups,
        "keep_backups": kept,
        "copies": {"files": copied, "bytes": (copies := size_of_copies(root))},
        "orphans": orphans,
        "restored": restored,
        "mirrors": mirrors,
    }
    leaves, inside = counted(files, "file or link", "files and links"), counted(folders, "folder")
    lines = [
        printable(str(root)),
        f"  {leaves}, {readable(size)}, in {inside}",
        f"  last written {updated or 'never'}",
        f"  drifted      {drifted:,}" + ("  (fsmirror verify lists them)" if drifted else ""),
        *([f"  unread       {unread:,}  (fsmirror verify lists them)"] if unread else ()),
        f"  backups      {backups:,}" + ("  (fsmirror backups lists them)" if backups else ""),
        *([f"  kept for     {kept}"] if kept != ALL else ()),
    ]
    if copied:
        held = f"of {counted(copied, 'file')}, {readable(copies)}"
        lines.append(f"  copies       {held}  (fsmirror heal restores from them)")
    for by, since, files, is_lost in map(dict.values, mirrors):
        lost = ", whose database was lost" if is_lost else ""
        lines.append(f"  mirrored by  {by}, {counted(files, 'file')}, since {since}{lost}")
    if orphans:
        lines.append(f"  orphans      {counted(orphans, 'file')} of a database that was lost")
    if restored:
        lines.append(f"  {IN_DOUBT}")
    return Report(figures, lines, _exit_status(drifted or orphans or restored, unread))


def _exit_status(differs: object, unread: object) -> ExitStatus:
    """Returns the exit status of a look."""
    if unread:
        return ExitStatus.FAILED
    return ExitStatus.DIFFERS if differs else ExitStatus.IN_ORDER


def _owner_figures(root: Root, owner: OwnerFigures) -> Figures:
    """Describes an owner for programs."""
    by, since = _owner_name(root, owner), utc(owner.since_ns)
    return {"by": by, "since": since, "files": owner.files, "lost": owner.is_lost}


def _owner_name(root: Root, owner: OwnerFigures) -> str:
    """Returns the name of an owner."""
    if owner.identity == noted(root, SYNC_OWNER):
        return f"fsmirror sync {printable(noted(root, SYNC_SOURCE))}"
    return printable(owner.by) or f"an app of which only the identity is known, {owner.identity}"


def _differences(root: Root, *, content: bool = False) -> list[Difference]:
    """Looks for drift; a helper process looks at one half."""
    collect_less_garbage()
    look = partial(differences, root, content=content)
    with known(root) as ledger:
        ledger.check()
        middle = ledger.middle()
    if not middle:
        return look()
    with helped(partial(look, span=Span(after(middle)))) as rest:
        return [*look(span=Span(last=middle)), *rest()]


@click.command()
@mirror_argument
@click.option(
    "--content", is_flag=True, help="Read every file, instead of trusting its size and times."
)
@click.option("--exact", is_flag=True, help="Also list everything that is not managed.")
@reports
def verify(root: Root, content: bool, exact: bool) -> Report:
    """List what differs from what was written to DST; change nothing.

    Each path is modified (other bytes, or another target of a link), missing,
    mode (only its mode or time differs), foreign (of another kind; with
    --exact also what is not managed) or unread (it can't be looked at, read
    or, with --exact, listed; exit status 3). A mirror that was copied or put
    back from a backup, or whose last update did not end, is not in order
    before the next one.
    """
    told: dict[str, str] = {each.name: each.how for each in _differences(root, content=content)}
    if exact:
        extra, unlisted = foreign(root)
        told |= dict.fromkeys(extra, "foreign") | {each.path: "unread" for each in unlisted}
    found = sorted(told.items(), key=lambda pair: encoded(pair[0]))
    with mirrored(root) as ledger:
        files, restored = ledger.count(), ledger.is_in_doubt
    unread = sum(1 for _, how in found if how == "unread")
    summary = "nothing differs" if restored else "in order"
    if found:
        summary = counted(len(found) - unread, "path differs", "paths differ")
    if unread:
        summary += f", {counted(unread, 'path')} can't be read"
    lines = [f"{coloured(how)}  {printable(name)}" for name, how in found]
    lines.append(f"{printable(str(root))}: {summary} ({counted(files, 'file')})")
    if restored:
        lines.append(f"{printable(str(root))}: {IN_DOUBT}")
    listed = [{"path": name, "how": how} for name, how in found]
    figures = {"root": str(root), "files": files, "restored": restored, "differences": listed}
    return Report(figures, lines, _exit_status(found or restored, unread))


@click.command()
@click.argument("path", metavar="DST/PATH", type=PathType(path_type=Path))
@click.option("--state", **STATE_OPTION)
@reports
def why(path: Path, state: str | None) -> Report:
    """Show who declared a path, when, and what differs now."""
    root, name = _located(path, state)
    with known(root) as ledger:
        ledger.check()
    row = row_of(root, Name(name))
    if row is None:
        state = _unmanaged(root, name)
        line = f"{printable(str(root) if state == 'mirror' else name)}: {_UNMANAGED[state]}"
        return Report({"root": str(root), "path": name, "state": state}, [line])
    owner = next((each for each in owners(root) if each.identity == row.owner), None)
    found = differences(root, content=True, span=Span(name, name))
    figures: Figures = {
        "root": str(root),
        "path": name,
        "state": "managed",
        "kind": str(row.kind),
        "by": _owner_name(root, owner) if owner else row.owner,
        "component": row.component,
        "written": utc(row.recorded_ns),
        "bytes": row.size,
        "fingerprint": row.digest.hex() if row.digest else "",
        "target": row.target,
        "adopted": not row.made,
        "differs": found[0].how if found else "",
    }
    lines = [f"{printable(name)}: managed, a {row.kind}"]
    lines += [f"  {key:11}  {printable(figures[key])}" for key in _SHOWN if figures[key]]
    if not row.made:
        lines.append("  origin       found there, not written by us: drop leaves it in place;")
        kept = "by default, it goes to the backup area once it is no longer declared"
        lines.append(f"  {'':11}  {kept}")
        lines.append(f"  {'':11}  (fsmirror adopt makes it count as written)")
    lines.append(f"  now          {figures['differs'] or 'as it was written'}")
    return Report(figures, lines, _exit_status(found, figures["differs"] == "unread"))


def _located(path: Path, state: str | None) -> tuple[Location, str]:
    """Returns the root of the mirror that a path belongs to, and the path relative to it."""
    followed = Path(os.path.realpath(path))
    place = Path(os.path.realpath(path.parent), path.name)
    # A link may be one of a mirror's files, or lead to a mirror.
    refusal: Exception = click.UsageError(f"{path}: is in no mirror")
    for at in (place, followed) if path.name not in ("", "..") else (followed,):
        for above in at.parents if os.path.islink(at) else (at, *at.parents):
            try:
                if exists(root := located(str(above), state)):
                    return root, at.relative_to(above).as_posix()
            except LedgerError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                refusal = error  # A closed folder, as a rule below the root.
    raise refusal


def _unmanaged(root: Root, name: str) -> str:
    """Returns the state of a path that is not managed."""
    if name == ".":
        return "mirror"
    if RESERVED in name.split("/"):
        return "ours"
    with known(root) as ledger:
        if ledger.is_declared(Name(name), is_folder=True):
            return "folder"
    with opened(root) as tree:  # A path may be too long for the system.
        return "absent" if tree.look(Name(name)).state is ABSENT else "foreign"
