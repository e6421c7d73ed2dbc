"""The ``fsmirror`` command."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import click
import msgspec

from .. import __version__
from .._core.errors import FsMirrorError, InvalidNameError, counted
from .._core.names import RESERVED, Name, parse_name
from .._mirror import reading
from .._mirror.backups import find, purge_before
from .._mirror.backups import restore as restore_backup
from .._mirror.brake import Limit
from .._mirror.drift import Difference, differences
from .._mirror.exact import foreign
from .._mirror.mirror import Mirror
from .._mirror.reader import Span
from .._mirror.reading import Owner
from .._mirror.session import held
from .._mirror.teardown import tear_down
from .arguments import AgeType, LimitType, LocalPathType, PathType, json_option, wants_json
from .helper import Helper
from .output import (
    Failure,
    Figures,
    OneLineFormatter,
    coloured,
    complain,
    one_line,
    printable,
    progress_bar,
    readable,
    tell,
    tell_error,
    utc,
)
from .streams import open_streams

if TYPE_CHECKING:
    from .survey import Survey
    from .syncing import Summary, Syncing

__all__ = ["main", "run"]

IN_ORDER: Final = 0
DIFFERS: Final = 1
USED_WRONGLY: Final = 2
FAILED: Final = 3
_PAUSE: Final = 1.0  # seconds between attempts to open a mirror that was replaced
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
UNREAD: Final = 141  # 128 + SIGPIPE, too

_EPILOG = "Exit status: 0 in order, 1 differences found, 2 used wrongly, 3 failed."


class _NothingAsked(click.UsageError):
    """No command was given; the message is the help."""


class _Group(click.Group):
    """Shows its help if nothing is asked of it; Click does so in another way in each version."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Looks whether there is anything to parse."""
        if not args and not ctx.resilient_parsing:
            raise _NothingAsked(ctx.get_help())
        return super().parse_args(ctx, args)


class _Commands(_Group):
    """Says what is wrong in one line, and lists its commands in the order of their use."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names of the commands, as they stand below."""
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Runs the command, and ends the process with its status."""
        as_json = wants_json(args[0] if args else extra.get("args"))
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra)
        except _NothingAsked as asked:
            click.echo(asked.message, err=True)
            status = USED_WRONGLY
        except (click.ClickException, FsMirrorError, OSError) as error:
            tell_error(error, as_json=as_json)
            status = USED_WRONGLY if isinstance(error, click.UsageError) else FAILED
        except (KeyboardInterrupt, click.Abort):
            complain("interrupted; nothing is lost, run it again to complete it")
            status = INTERRUPTED
        sys.exit(status if isinstance(status, int) else IN_ORDER)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="fsmirror")
def main() -> None:
    """Keep directories in their desired state.

    What fsmirror writes is replaced in one step and survives a power cut; what
    others changed comes back, and nothing of theirs is ever lost.

    \b
      fsmirror sync docs /srv/docs           mirror a folder, and again to update it
      fsmirror sync docs /srv/docs --watch   go on, and follow every change
      fsmirror verify /srv/docs              exit status 1 if anybody changed it
      fsmirror why /srv/docs/index.html      whose file it is, and what differs
      fsmirror backups /srv/docs             what others had there, and is kept
    """  # noqa: D301  # Click leaves lines after a backspace as they are.
    shown = logging.StreamHandler()
    shown.setFormatter(OneLineFormatter("fsmirror: %(message)s"))
    logging.getLogger("cocoindex_fsmirror").handlers[:] = [shown]


# sync


@main.command(epilog=_EPILOG)
@click.argument("src", type=LocalPathType(is_source=True))
@click.argument("dst", type=LocalPathType(is_source=False))
@click.option(
    "--exclude",
    metavar="PATTERN",
    multiple=True,
    help="Leave out what matches, in the syntax of .gitignore. May be given several times.",
)
@click.option(
    "--gitignore", is_flag=True, help="Leave out what the .gitignore files in SRC name, and .git."
)
@click.option(
    "--watch", is_flag=True, help="Go on, and follow what changes in either, until Ctrl-C."
)
@click.option("--exact", is_flag=True, help="Move what is not from SRC to the backup area.")
@click.option("-n", "--dry-run", is_flag=True, help="List what would be done, and do nothing.")
@click.option("--checksum", is_flag=True, help="Read every file, whatever its size and time say.")
@click.option(
    "--durability",
    type=click.Choice(["batch", "none"]),
    default="batch",
    show_default=True,
    help="Whether what was done survives a power cut.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["backup", "overwrite", "error"]),
    default="backup",
    show_default=True,
    help="What happens to files of others that are in the way.",
)
@click.option(
    "--max-delete",
    type=LimitType(),
    help="Stop before anything is done if more files than this would be removed: 20, 5%.",
)
@json_option
def sync(  # noqa: PLR0917
    src: Path,
    dst: Path,
    exclude: tuple[str, ...],
    gitignore: bool,
    watch: bool,
    exact: bool,
    dry_run: bool,
    checksum: bool,
    durability: Literal["batch", "none"],
    on_conflict: Literal["backup", "overwrite", "error"],
    max_delete: Limit | None,
    as_json: bool,
) -> int:
    """Mirror what is in SRC into DST.

    Files, folders and symbolic links, with their modes and times. What changed
    is replaced in one step, what is gone in SRC is removed, and what others
    changed or removed in DST comes back; their versions go to the backup area.
    What was never mirrored stays as it is, unless --exact is given. All state
    is kept in DST/.fsmirror. A folder of that name in SRC is left out. A name
    that is not UTF-8 can't be mirrored: it fails by name.

    With --watch and --json there is one object, on a line, for each run.
    """
    from .._mirror.suspects import few_suspects  # noqa: PLC0415
    from .patterns import patterns  # noqa: PLC0415  # Other commands need none of these.
    from .survey import survey  # noqa: PLC0415
    from .syncing import Syncing  # noqa: PLC0415
    from .wanted import Options  # noqa: PLC0415

    if watch and dry_run:
        raise click.UsageError("--watch and --dry-run can't be given together")
    source, target = _checked(src, dst)
    try:
        excluded = patterns(exclude) if exclude else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    options = Options(durability, on_conflict, checksum, exact, max_delete)
    if dry_run:
        found = survey(source, excluded, gitignore=gitignore)
        return _list_changes(Mirror(target), found, options, as_json=as_json)
    _collect_less_garbage()

    def run(syncing: Syncing, look: Callable[[], list[Name] | None] = lambda: None) -> int:
        found = survey(source, excluded, gitignore=gitignore)
        count = 0 if as_json else found.count
        with progress_bar(count) as syncing.on_progress:
            summary = syncing.run(found, look())
        return _report(source, target, summary, as_json=as_json)

    opened = partial(Syncing, target, options)
    if watch:
        return _follow(source, target, opened, run, as_json=as_json)
    # Forked before a ledger is open, since SQLite forbids to take one along.
    with (
        contextlib.closing(Helper(partial(few_suspects, target))) as helper,
        contextlib.closing(opened()) as syncing,
    ):
        return run(syncing, helper.result)


def _collect_less_garbage() -> None:
    """Many objects live long here, and to look for cycles among them takes half the time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _report(source: str, target: str, summary: Summary, *, as_json: bool) -> int:
    """Tells what a run did."""
    for line in summary.failures:
        complain(line)
    if summary.skipped and not as_json:
        shown = ", ".join(map(printable, summary.skipped[:3]))
        shown += ", ..." if len(summary.skipped) > 3 else ""
        complain(f"skipped {counted(len(summary.skipped), 'special file')}: {shown}")
    figures = {"source": source, "root": target} | msgspec.structs.asdict(summary)
    tell(as_json, figures, [f"{printable(target)}: {_summed_up(figures)}"])
    return FAILED if summary.failures else IN_ORDER


def _follow(
    source: str,
    target: str,
    opened: Callable[[], Syncing],
    run: Callable[[Syncing], int],
    *,
    as_json: bool,
) -> int:
    """Runs, and again whenever something changes, until it is interrupted."""
    from .watch import Watching  # noqa: PLC0415

    syncing = opened()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            with contextlib.closing(syncing), Watching(source, target) as watching:
                while not watching.is_out_of_date():
                    try:
                        run(syncing)
                    except FsMirrorError as error:
                        tell_error(error, as_json=as_json)  # The next change may mend it.
                    while not watching.wait(syncing.has_drifted):
                        pass
            syncing = _opened_again(opened, as_json=as_json)
    return IN_ORDER


def _opened_again(opened: Callable[[], Syncing], *, as_json: bool) -> Syncing:
    """Opens a mirror that was replaced, as soon as that can be done."""
    told = ""
    while True:
        try:
            return opened()
        except FsMirrorError as error:
            if str(error) != told:
                tell_error(error, as_json=as_json)
            told = str(error)
            time.sleep(_PAUSE)


def _checked(src: Path, dst: Path) -> tuple[str, str]:
    """The absolute paths of source and target, if they make sense together."""
    source, target = os.path.realpath(src), os.path.realpath(dst)
    if not os.path.lexists(src):
        raise click.UsageError(f"{src}: no such source")
    if not os.path.isdir(source):
        raise click.UsageError(f"{src}: the source is not a directory")
    if not os.path.isdir(there := _nearest(target)):
        where = "is" if there == target else "lies below"
        raise click.UsageError(f"{dst}: the destination {where} a file, not a directory")
    if source == target:
        raise click.UsageError(f"{dst}: source and destination are the same directory")
    if _is_inside(target, source):
        raise click.UsageError(f"{dst}: the destination lies inside the source")
    if _is_inside(source, target):
        raise click.UsageError(f"{src}: the source lies inside the destination")
    return source, target


def _nearest(path: str) -> str:
    """The path, or the nearest one above it at which there is something."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path lies in a folder."""
    return os.path.commonpath([path, folder]) == folder


def _list_changes(mirror: Mirror, found: Survey, options: Any, *, as_json: bool) -> int:
    """Lists what a run would do."""
    from .dry_run import dry_run  # noqa: PLC0415

    changes = list(dry_run(mirror, found, options))
    lines = [_line(change.action, change.path, change.size, change.note) for change in changes]
    count = counted(len(changes), "change")
    lines.append(f"{printable(mirror.root)}: {count} would be made; nothing was done")
    listed = [change._asdict() for change in changes]
    tell(as_json, {"root": mirror.root, "changes": listed}, lines)
    return FAILED if any(change.action == "fail" for change in changes) else IN_ORDER


def _line(action: str, path: str, size: int, note: str) -> str:
    """One change, for people."""
    more = [readable(size)] if size else []
    more += [one_line(note)] if note else []
    return f"{coloured(f'{action:8}')} {printable(path)}" + (
        f"  ({', '.join(more)})" if more else ""
    )


def _summed_up(figures: Figures) -> str:
    """A summary, in one line."""
    names = ("written", "adopted", "healed", "deleted", "backed_up", "unchanged")
    counts = [f"{figures[name]:,} {name.replace('_', ' ')}" for name in names]
    return ", ".join([*counts, readable(figures["size"]), f"{figures['seconds']:.1f} s"])


# Looking


@main.command(epilog=_EPILOG)
@click.argument("dst", type=PathType(path_type=Path))
@json_option
def status(dst: Path, as_json: bool) -> int:
    """Tell who mirrors DST, how much, and what is to be known of it."""
    mirror = _mirror(dst)
    found, owners, drift = mirror.status(), reading.owners(mirror.root), _differences(mirror)
    backups = mirror.backups()
    orphans = sum(owner.files for owner in owners if owner.is_lost)
    figures: Figures = {
        "root": mirror.root,
        "files": found.files,
        "folders": found.folders,
        "bytes": found.size,
        "updated": utc(found.updated_ns),
        "drifted": len(drift),
        "backups": len(backups),
        "orphans": orphans,
        "mirrors": [
            {
                "by": _who(mirror, owner),
                "since": utc(owner.since_ns),
                "files": owner.files,
                "lost": owner.is_lost,
            }
            for owner in owners
        ],
    }
    files = counted(found.files, "file or link", "files and links")
    lines = [
        printable(mirror.root),
        f"  {files}, {readable(found.size)}, in {counted(found.folders, 'folder')}",
        f"  last written {utc(found.updated_ns) or 'never'}",
        f"  drifted      {len(drift):,}" + ("  (fsmirror verify lists them)" if drift else ""),
        f"  backups      {len(backups):,}" + ("  (fsmirror backups lists them)" if backups else ""),
        *(f"  mirrored by  {_described(mirror, owner)}" for owner in owners),
    ]
    if orphans:
        lines.append(f"  orphans      {orphans:,}, of a database that was lost")
    tell(as_json, figures, lines)
    return DIFFERS if drift or orphans else IN_ORDER


def _differences(mirror: Mirror, *, content: bool = False) -> list[Difference]:
    """Looks for drift; a helper looks at one half."""
    _collect_less_garbage()
    middle = reading.middle(mirror.root)
    look = partial(differences, mirror.root, content=content)
    if not middle:
        return look()
    with contextlib.closing(Helper(partial(look, span=Span(after=middle)))) as helper:
        return [*look(span=Span(until=middle)), *helper.result()]


def _mirror(dst: Path) -> Mirror:
    """A directory that is a mirror."""
    mirror = Mirror(os.path.realpath(dst))
    if not os.path.isdir(mirror.root):
        raise click.UsageError(f"{dst}: no such directory")
    if not reading.exists(mirror.root):
        raise click.UsageError(f"{dst}: is no mirror; nothing was ever written to it")
    return mirror


def _described(mirror: Mirror, owner: Owner) -> str:
    """An owner, in one line."""
    lost = ", whose database was lost" if owner.is_lost else ""
    return (
        f"{_who(mirror, owner)}, {counted(owner.files, 'file')}, since {utc(owner.since_ns)}{lost}"
    )


def _who(mirror: Mirror, owner: Owner) -> str:
    """Who an owner is."""
    if owner.identity == reading.noted(mirror.root, "sync: owner"):
        return f"fsmirror sync {printable(reading.noted(mirror.root, 'sync: source'))}"
    return (
        printable(owner.by)
        if owner.by
        else f"an app of which only the identity is known, {owner.identity}"
    )


@main.command(epilog=_EPILOG)
@click.argument("dst", type=PathType(path_type=Path))
@click.option("--content", is_flag=True, help="Read every file, instead of trusting its times.")
@click.option("--exact", is_flag=True, help="List what is not managed as well.")
@json_option
def verify(dst: Path, content: bool, exact: bool, as_json: bool) -> int:
    """List what differs from what was written to DST; change nothing.

    Each path is modified (other bytes), missing, mode (only its mode or time
    differs) or foreign (of another kind; with --exact also what is not managed).
    """
    mirror = _mirror(dst)
    found = [(each.how, each.name) for each in _differences(mirror, content=content)]
    if exact:
        found += [("foreign", name) for name in foreign(mirror.root)]
    found.sort(key=lambda pair: pair[1])
    listed = [{"path": name, "how": how} for how, name in found]
    files = reading.count(mirror.root)
    summary = counted(len(found), "differs", "differ") if found else "in order"
    lines = [f"{coloured(f'{how:8}')}  {printable(name)}" for how, name in found]
    lines.append(f"{printable(mirror.root)}: {summary} ({counted(files, 'file')})")
    tell(as_json, {"root": mirror.root, "files": files, "differences": listed}, lines)
    return DIFFERS if found else IN_ORDER


@main.command(epilog=_EPILOG)
@click.argument("path", metavar="DST/PATH", type=PathType(path_type=Path))
@json_option
def why(path: Path, as_json: bool) -> int:
    """Tell who declared a path, when, and what differs now."""
    mirror, name = _located(path)
    is_there = os.path.lexists(os.path.join(mirror.root, name))
    figures, lines = _reasons(mirror, name, is_there=is_there)
    tell(as_json, {"root": mirror.root, "path": name} | figures, lines)
    return DIFFERS if figures.get("differs") else IN_ORDER


def _located(path: Path) -> tuple[Mirror, str]:
    """The mirror that a path is in, or that it is, and the path below its root."""
    followed = Path(os.path.realpath(path))
    place = Path(os.path.realpath(path.parent), path.name)
    # A link is one of a mirror's files, or else leads to a mirror.
    for at in (place, followed) if path.name not in ("", "..") else (followed,):
        for above in at.parents if at.is_symlink() else (at, *at.parents):
            if reading.exists(str(above)):
                return Mirror(above), at.relative_to(above).as_posix()
    raise click.UsageError(f"{path}: is in no mirror")


def _reasons(mirror: Mirror, name: str, *, is_there: bool) -> tuple[Figures, list[str]]:
    """What is known of one path."""
    if name == ".":
        return {"state": "mirror"}, [f"{printable(mirror.root)}: the mirror itself"]
    if RESERVED in name.split("/"):
        holds = "part of what holds the ledger and the backups of the mirror"
        return {"state": "ours"}, [f"{printable(name)}: {holds}"]
    row = reading.row(mirror.root, name)
    if row is None:
        is_folder = any(known.startswith(f"{name}/") for known in mirror.managed())
        state = "folder" if is_folder else "foreign" if is_there else "absent"
        told = {
            "folder": "holds managed files, and was not made by us",
            "foreign": "foreign: not written by a mirror, and left alone",
            "absent": "absent, and not managed",
        }
        return {"state": state}, [f"{printable(name)}: {told[state]}"]
    owner = next((o for o in reading.owners(mirror.root) if o.identity == row.owner), None)
    by = _who(mirror, owner) if owner else row.owner
    found = differences(mirror.root, content=True, span=Span(only=Name(name)))
    differs = found[0].how if found else ""
    figures: Figures = {
        "state": "managed",
        "kind": str(row.kind),
        "by": by,
        "component": row.component,
        "written": utc(row.recorded_ns),
        "bytes": row.size,
        "fingerprint": row.digest.hex() if row.digest else "",
        "target": row.target,
        "adopted": not row.made,
        "differs": differs,
    }
    lines = [f"{printable(name)}: managed, a {row.kind}"]
    lines += [f"  {label:11}  {value}" for label, value in _known_of(figures)]
    lines.append(f"  now          {differs or 'as it was written'}")
    return figures, lines


def _known_of(figures: Figures) -> Iterator[tuple[str, str]]:
    """What is known of a managed path, without what is not."""
    yield "by", figures["by"]
    for name in ("component", "target", "written", "fingerprint"):
        if figures[name]:
            yield name, printable(figures[name])
    if figures["adopted"]:
        yield "origin", "found there, not written by us: drop leaves it in place;"
        yield "", "by default, it goes to the backup area once it is no longer declared"


# Changing


class _DirectoryFirst(_Group):
    """Also takes its commands behind the directory: ``backups DST restore PATH``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command first; without one, ``list``."""
        if self.commands.keys() & set(args[1:2]):
            args = [args[1], args[0], *args[2:]]
        elif args and args[0] not in self.commands:
            asks = set(ctx.help_option_names) & set(args)
            args = [*asks] or ["list", *args]
        return super().parse_args(ctx, args)


@main.group(
    cls=_DirectoryFirst,
    subcommand_metavar="[COMMAND] DST ...",
    epilog=f"{_EPILOG} Each command has --json.",
)
def backups() -> None:
    """List, restore or purge what had to make way in DST.

    Without COMMAND, the backups are listed. COMMAND may also follow DST, as in
    "fsmirror backups DST restore PATH".
    """


@backups.command("list", epilog=_EPILOG)
@click.argument("dst", type=PathType(path_type=Path))
@json_option
def list_(dst: Path, as_json: bool) -> int:
    """List the backups, the oldest first."""
    mirror = _mirror(dst)
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
    tell(as_json, {"root": mirror.root, "bytes": size, "backups": listed}, lines)
    return IN_ORDER


@backups.command(epilog=_EPILOG)
@click.argument("dst", type=PathType(path_type=Path))
@click.argument("path")
@click.option("--to", metavar="PATH", help="Where to, below DST; by default where it was.")
@json_option
def restore(dst: Path, path: str, to: str | None, as_json: bool) -> int:
    """Move a backup back to where it was, or to another path of DST.

    PATH is as the list shows it, or where the file was: then it is the newest
    of its backups. Nothing is ever replaced.
    """
    mirror = _mirror(dst)
    found = find(mirror.backups(), path)
    if not found:
        raise click.UsageError(f"{path}: there is no such backup")
    try:
        where = found[-1].name if to is None else parse_name(to)
        mirror.session.run(lambda tree, _ledger: restore_backup(tree, found[-1], where))
    except InvalidNameError as error:
        raise click.UsageError(str(error)) from None
    figures = {"root": mirror.root, "restored": found[-1].where, "to": where}
    tell(as_json, figures, [f"{printable(found[-1].where)} is at {printable(where)} again"])
    return IN_ORDER


@backups.command(epilog=_EPILOG)
@click.argument("dst", type=PathType(path_type=Path))
@click.option("--older-than", type=AgeType(), required=True, help="Such as 30d, 12h, 2w.")
@json_option
def purge(dst: Path, older_than: int, as_json: bool) -> int:
    """Remove old backups for good."""
    mirror = _mirror(dst)
    count, size = purge_before(mirror.session, time.time_ns() - older_than)
    line = f"{printable(mirror.root)}: {counted(count, 'backup')} purged, {readable(size)}"
    tell(as_json, {"root": mirror.root, "purged": count, "bytes": size}, [line])
    return IN_ORDER


@main.command(epilog=_EPILOG)
@click.argument("dst", type=PathType(path_type=Path))
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def drop(dst: Path, yes: bool, as_json: bool) -> int:
    """Give DST up: remove what was mirrored into it, and nothing else.

    What others put there stays, and so do files that were edited, and the
    backups. A flow of yours that mirrors into DST writes its files again.
    """
    mirror = _mirror(dst)
    files = reading.count(mirror.root)
    if not yes and not _agrees(f"Remove {counted(files, 'file')} from {printable(mirror.root)}?"):
        raise Failure("nothing was removed")
    with held(mirror.session):
        outcome = tear_down(mirror.session)
    figures = {"root": mirror.root, "deleted": len(outcome.removed), "left": sorted(outcome.left)}
    stays = counted(len(outcome.left), "left that is not ours", "left that are not ours")
    left = f", {stays}" if outcome.left else ""
    tell(as_json, figures, [f"{printable(mirror.root)}: {len(outcome.removed):,} deleted{left}"])
    return IN_ORDER


def _agrees(question: str) -> bool:
    """Asks; where nobody answers, the one who runs the command has to say it beforehand."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if not sys.stdin.isatty():
            click.echo(err=True)
            raise click.UsageError("nobody is there to be asked; --yes answers") from None
        raise


# The process


def run() -> None:
    """Runs the command as a process, in which no Ctrl-C gets lost or ends in a traceback."""
    open_streams(_output_lost)
    with _no_interrupt_lost():
        try:
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            main()
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # Before anything was begun, or while it was said.
        finally:
            # All is said; what interrupts the interpreter's own end is just its end.
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _output_lost(error: OSError) -> NoReturn:
    """Ends the command: quietly if its reader has left, as ``head -1`` does."""
    if isinstance(error, BrokenPipeError):
        sys.exit(UNREAD)
    complain(f"standard output can't be written: {error.strerror}")
    sys.exit(FAILED)


@contextlib.contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Sends Ctrl-C again if it came where exceptions are dropped, as by callbacks in an import."""
    told = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGINT]).start()
        else:
            told(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = told
