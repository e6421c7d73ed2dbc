"""The commands that look at a mirror and change nothing: ``status``, ``verify`` and ``why``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from .._core.errors import counted, readable
from .._core.names import RESERVED, Name
from .._mirror import reading
from .._mirror.drift import Difference, differences
from .._mirror.exact import foreign
from .._mirror.mirror import Mirror
from .._mirror.reader import Span
from .._mirror.reading import Owner
from .arguments import mirror_argument, path_argument, reports
from .helper import Helper, collect_less_garbage
from .output import ExitStatus, Figures, Report, coloured, printable, utc

__all__ = ["status", "verify", "why"]

_ELSEWHERE = {
    "mirror": "the mirror itself",
    "ours": "part of what holds the ledger and the backups of the mirror",
    "folder": "holds managed files, and was not made by us",
    "foreign": "foreign: not written by a mirror, and left alone",
    "absent": "absent, and not managed",
}


@click.command()
@mirror_argument
@reports
def status(mirror: Mirror) -> Report:
    """Tell who mirrors DST, how much, and what is to be known of it."""
    found, owners, drift = mirror.status(), reading.owners(mirror.root), _differences(mirror)
    backups, updated = len(mirror.backups()), utc(found.updated_ns)
    orphans = sum(owner.files for owner in owners if owner.is_lost)
    figures = {
        "root": mirror.root,
        "files": found.files,
        "folders": found.folders,
        "bytes": found.size,
        "updated": updated,
        "drifted": len(drift),
        "backups": backups,
        "orphans": orphans,
        "mirrors": [
            {"by": by, "since": utc(owner.since_ns), "files": owner.files, "lost": owner.is_lost}
            for owner in owners
            for by in [_who(mirror, owner)]
        ],
    }
    files = counted(found.files, "file or link", "files and links")
    lines = [
        printable(mirror.root),
        f"  {files}, {readable(found.size)}, in {counted(found.folders, 'folder')}",
        f"  last written {updated or 'never'}",
        f"  drifted      {len(drift):,}" + ("  (fsmirror verify lists them)" if drift else ""),
        f"  backups      {backups:,}" + ("  (fsmirror backups lists them)" if backups else ""),
        *(f"  mirrored by  {_described(mirror, owner)}" for owner in owners),
    ]
    if orphans:
        lines.append(f"  orphans      {orphans:,}, of a database that was lost")
    return Report(figures, lines, ExitStatus.DIFFERS if drift or orphans else ExitStatus.IN_ORDER)


def _differences(mirror: Mirror, *, content: bool = False) -> list[Difference]:
    """Looks for drift; a helper process looks at one half."""
    collect_less_garbage()
    middle = reading.middle(mirror.root)
    if not middle:
        return differences(mirror.root, content=content)
    look = partial(differences, mirror.root, content=content)
    with contextlib.closing(Helper(partial(look, span=Span(after=middle)))) as helper:
        return [*look(span=Span(until=middle)), *helper.result()]


def _described(mirror: Mirror, owner: Owner) -> str:
    """Describes an owner in one line."""
    files, since = counted(owner.files, "file"), utc(owner.since_ns)
    lost = ", whose database was lost" if owner.is_lost else ""
    return f"{_who(mirror, owner)}, {files}, since {since}{lost}"


def _who(mirror: Mirror, owner: Owner) -> str:
    """Names an owner."""
    if owner.identity == reading.noted(mirror.root, "sync: owner"):
        return f"fsmirror sync {printable(reading.noted(mirror.root, 'sync: source'))}"
    unknown = f"an app of which only the identity is known, {owner.identity}"
    return printable(owner.by) if owner.by else unknown


@click.command()
@mirror_argument
@click.option("--content", is_flag=True, help="Read every file, instead of trusting its times.")
@click.option("--exact", is_flag=True, help="List what is not managed as well.")
@reports
def verify(mirror: Mirror, content: bool, exact: bool) -> Report:
    """List what differs from what was written to DST; change nothing.

    Each path is modified (other bytes), missing, mode (only its mode or time
    differs) or foreign (of another kind; with --exact also what is not managed).
    """
    found = [(each.name, each.how) for each in _differences(mirror, content=content)]
    if exact:
        found += [(name, "foreign") for name in foreign(mirror.root)]
    found.sort(key=lambda pair: pair[0])
    files = reading.count(mirror.root)
    summary = counted(len(found), "differs", "differ") if found else "in order"
    lines = [f"{coloured(f'{how:8}')}  {printable(name)}" for name, how in found]
    lines.append(f"{printable(mirror.root)}: {summary} ({counted(files, 'file')})")
    listed = [{"path": name, "how": how} for name, how in found]
    figures = {"root": mirror.root, "files": files, "differences": listed}
    return Report(figures, lines, ExitStatus.DIFFERS if found else ExitStatus.IN_ORDER)


@click.command()
@path_argument
@reports
def why(path: Path) -> Report:
    """Tell who declared a path, when, and what differs now."""
    mirror, name = _located(path)
    state = _state(mirror, name)
    figures: Figures = {"root": mirror.root, "path": name, "state": state}
    if state != "managed":
        shown = mirror.root if state == "mirror" else name
        return Report(figures, [f"{printable(shown)}: {_ELSEWHERE[state]}"])
    figures |= _known_of(mirror, name)
    lines = [f"{printable(name)}: managed, a {figures['kind']}"]
    lines += [f"  {label:11}  {value}" for label, value in _shown(figures)]
    return Report(figures, lines, ExitStatus.DIFFERS if figures["differs"] else ExitStatus.IN_ORDER)


def _located(path: Path) -> tuple[Mirror, str]:
    """Finds the mirror that a path is in, or that it is, and the path below its root."""
    followed = Path(os.path.realpath(path))
    place = Path(os.path.realpath(path.parent), path.name)
    # A link is one of a mirror's files, or else leads to a mirror.
    for at in (place, followed) if path.name not in ("", "..") else (followed,):
        for above in at.parents if at.is_symlink() else (at, *at.parents):
            if reading.exists(str(above)):
                return Mirror(above), at.relative_to(above).as_posix()
    raise click.UsageError(f"{path}: is in no mirror")


def _state(mirror: Mirror, name: str) -> str:
    """Tells what a path is to its mirror."""
    if name == ".":
        return "mirror"
    if RESERVED in name.split("/"):
        return "ours"
    if reading.row(mirror.root, name) is not None:
        return "managed"
    if any(known.startswith(f"{name}/") for known in mirror.managed()):
        return "folder"
    return "foreign" if os.path.lexists(os.path.join(mirror.root, name)) else "absent"


def _known_of(mirror: Mirror, name: str) -> Figures:
    """Tells what is known of a managed path."""
    row = reading.row(mirror.root, name)
    assert row is not None
    owner = next(
        (owner for owner in reading.owners(mirror.root) if owner.identity == row.owner), None
    )
    found = differences(mirror.root, content=True, span=Span(only=Name(name)))
    return {
        "kind": str(row.kind),
        "by": _who(mirror, owner) if owner else row.owner,
        "component": row.component,
        "written": utc(row.recorded_ns),
        "bytes": row.size,
        "fingerprint": row.digest.hex() if row.digest else "",
        "target": row.target,
        "adopted": not row.made,
        "differs": found[0].how if found else "",
    }


def _shown(figures: Figures) -> Iterator[tuple[str, str]]:
    """Yields what is known of a managed path, for people; leaves out what is empty."""
    yield "by", figures["by"]
    for name in ("component", "target", "written", "fingerprint"):
        if figures[name]:
            yield name, printable(figures[name])
    if figures["adopted"]:
        yield "origin", "found there, not written by us: drop leaves it in place;"
        yield "", "by default, it goes to the backup area once it is no longer declared"
    yield "now", figures["differs"] or "as it was written"
