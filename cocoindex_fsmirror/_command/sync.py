"""``fsmirror sync``: mirrors a source once, or again whenever something changes.

A path that fails is named, and the exit status is 3; all others are mirrored.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import click
import msgspec

from .._core.errors import FsMirrorError, counted, readable
from .._core.intents import Durability
from .._core.names import Name
from .._core.ownership import CopyPolicy
from .._core.patterns import patterns
from .._disk.locations import Location
from .._disk.watch import Timing, Watching
from .._mirror.drift import few_suspects
from .._mirror.known import exists, find, located
from .._mirror.outcome import is_full
from .dry_run import dry_run as list_changes
from .helper import collect_less_garbage, helped
from .options import Options
from .output import (
    ExitStatus,
    PathType,
    Report,
    coloured,
    complain,
    printable,
    progress_bar,
    tell,
    tell_error,
    with_time,
)
from .source_options import source_options
from .survey import survey
from .syncing import Summary, Syncing
from .telling import Telling, run_after, telling_options
from .watching import watch_options

__all__ = ["Run", "declared_root", "options_of", "planned", "run", "sync", "tell_run"]

_PAUSE: Final = 1.0  # seconds between attempts to open a mirror that was replaced
_RETRY: Final = 3.0  # seconds after which a run that failed is tried again; later twice as many
_WORTH_TRYING: Final = 1 << 20  # bytes that a full disk has more than after the run that failed
_COUNTS: Final = ("written", "adopted", "healed", "deleted", "backed_up", "unchanged")


@click.command()
@click.argument("src", type=PathType(exists=True, file_okay=False))
@click.argument("dst", type=PathType(file_okay=False))
@watch_options("Go on, and follow changes of SRC and DST, until Ctrl-C.")
@source_options
@click.option(
    "--durability",
    type=click.Choice(get_args(Durability)),
    default="batch",
    show_default=True,
    help="batch: a finished run survives a power cut. none: the system writes when it likes.",
)
@click.option(
    "--copies",
    type=click.Choice(get_args(CopyPolicy)),
    default="auto",
    show_default=True,
    help="all: keep a copy of each file, to heal from. auto, none: heal from an unchanged SRC.",
)
@click.option(
    "--state-note", is_flag=True, help="With --state: leave a note in DST that tells that place."
)
@click.option("-n", "--dry-run", is_flag=True, help="List the changes, and make none.")
@telling_options
def sync(
    *,
    src: str,
    dst: str,
    exclude: tuple[str, ...],
    gitignore: bool,
    timing: Timing | None,
    dry_run: bool,
    state: str | None,
    state_note: bool,
    telling: Telling,
    **more: Any,
) -> int:
    """Mirror what is in SRC into DST.

    Files, folders and symbolic links are mirrored with their modes and times;
    set-user-ID and set-group-ID bits only from what belongs to this user and
    group, since the copies do.
    Changed files are replaced in one step, files that are gone in SRC are
    removed, and files that others changed or removed in DST come back. Files
    that were never mirrored stay, unless they are in the way or --exact is given.

    All state is kept in DST/.fsmirror, or in a folder of DIR with --state DIR,
    and moves from the one to the other; a folder .fsmirror in SRC is left out.

    With --watch, there is a line (with --json, an object on a line) for each
    run that did something. After Ctrl-C the exit status is 130, or 3 if the
    last run failed.
    """
    if timing and dry_run:
        raise click.UsageError("--watch and --dry-run can't be given together")

    def options_now() -> Options:
        root = declared_root(os.path.realpath(dst), state, is_noted=state_note)
        return options_of(src, root, exclude, gitignore=gitignore, **more)

    options = options_now()
    if dry_run:
        return tell(planned(options, telling), as_json=telling.as_json)
    collect_less_garbage()
    if timing:
        return _follow(options_now, os.path.abspath(dst), timing, telling)
    # Forked before a ledger is open, since SQLite forbids to take one along.
    with (
        helped(partial(few_suspects, options.root)) as suspects,
        contextlib.closing(Syncing(options)) as syncing,
    ):
        return tell_run(options, run(syncing, telling, suspects), telling)


class Run(NamedTuple):
    """A run: its summary, and what was done to which path.

    Where nobody asks for all paths, the changes are the first one, if there was any.
    """

    summary: Summary
    changes: list[tuple[str, str]]


def declared_root(root: str, state: str | None, *, is_noted: bool = False) -> Location:
    """Returns the location of a mirror, whose state moves to a state directory that is given."""
    location = located(root, state)
    if state is None:
        if location.state and not exists(location):
            hint = f"name it with --state, or --state {root} to begin anew in it"
            problem = f"{root}: a note in it tells of a state in {location.state}, which is gone"
            raise click.UsageError(f"{problem} ({hint})")
        return location
    return location.declared(("",), is_noted=is_noted)


def options_of(
    src: str,
    dst: Location,
    exclude: Sequence[str],
    *,
    exclude_from: Sequence[str] = (),
    include: Sequence[str] = (),
    **more: Any,
) -> Options:
    """Returns the options of a run; refuses places and patterns that can't be used."""
    source = os.path.realpath(src)
    _check_places(source, dst.root)
    if dst.state and Path(os.path.realpath(dst.state)).is_relative_to(source):
        raise click.UsageError(f"{dst.state}: the state directory lies inside the source")
    lines = [*exclude, *exclude_from, *(f"!{pattern}" for pattern in include)]
    try:
        excluded = patterns(lines) if lines else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Options(os.path.abspath(src), dst, excluded, **more)


def run(
    syncing: Syncing, telling: Telling, suspects: Callable[[], list[Name] | None] = lambda: None
) -> Run:
    """Mirrors the source; with ``--verbose`` tells each path."""
    changes: list[tuple[str, str]] = []

    def note(action: str, path: str) -> None:
        if telling.needs_paths or not changes:  # Else it only counts that there was one.
            changes.append((action, path))
        if telling.verbose and not telling.as_json:
            tell(Report({}, [f"{coloured(action)} {printable(path)}"]), as_json=False)

    shows_bar = not (telling.as_json or telling.verbose or telling.quiet)
    with (
        contextlib.closing(survey(syncing.options)) as found,
        progress_bar(found.count if shows_bar else 0) as syncing.on_progress,
    ):
        syncing.on_change = note
        return Run(syncing.run(found, suspects()), changes)


def tell_run(options: Options, done: Run, telling: Telling, **more: Any) -> int:
    """Prints the result of a run, with more figures; returns the exit status."""
    summary = done.summary
    for each in summary.failures:
        complain(each.message)
    if summary.skipped and not (telling.as_json or telling.quiet):
        shown = ", ".join(map(printable, summary.skipped[:3]))
        shown += ", ..." if len(summary.skipped) > 3 else ""
        complain(f"skipped {counted(len(summary.skipped), 'special file')}: {shown}")
    report = _report(options, done, telling)
    report = report._replace(figures=report.figures | more)
    status = tell(with_time(report) if telling.timed else report, as_json=telling.as_json)
    if telling.command and done.changes and not run_after(telling, (p for _, p in done.changes)):
        return ExitStatus.FAILED
    return status


def _report(options: Options, done: Run, telling: Telling) -> Report:
    """Reports the result of a run."""
    figures = msgspec.structs.asdict(done.summary)
    counts = [f"{figures[name]:,} {name.replace('_', ' ')}" for name in _COUNTS]
    summary = done.summary
    line = ", ".join([*counts, readable(summary.size), f"{summary.seconds:.1f} s"])
    status = ExitStatus.DIFFERS if telling.exit_code and done.changes else ExitStatus.IN_ORDER
    failures = [each._asdict() for each in summary.failures]
    for each in failures:
        del each["message"]
    return Report(
        {"source": options.source, "root": str(options.root)}
        | figures
        | {"failures": failures}
        | {"changes": [{"action": action, "path": path} for action, path in done.changes]},
        [] if telling.quiet else [f"{printable(str(options.root))}: {line}"],
        ExitStatus.FAILED if summary.failures else status,
    )


def planned(options: Options, telling: Telling) -> Report:
    """Reports the changes that a run would make."""
    changes, lines = list_changes(options), []
    for action, path, size, note in changes:
        more = ", ".join([readable(size)] * bool(size) + [printable(note)] * bool(note))
        lines.append(f"{coloured(action)} {printable(path)}" + (more and f"  ({more})"))
    count = counted(len(changes), "change")
    lines.append(f"{printable(str(options.root))}: {count} would be made; nothing was done")
    figures = {"root": str(options.root), "changes": [change._asdict() for change in changes]}
    fails = any(change.action == "fail" for change in changes)
    status = ExitStatus.DIFFERS if telling.exit_code and changes else ExitStatus.IN_ORDER
    shown = [] if telling.quiet else lines
    return Report(figures, shown, ExitStatus.FAILED if fails else status)


def _follow(options_now: Callable[[], Options], link: str, timing: Timing, telling: Telling) -> int:
    """Runs, and runs again whenever something changes, until it is interrupted.

    Args:
        options_now: Returns the options, with the root of the mirror as its path leads to it now.
        link: That path.
        timing: The times.
        telling: The ways to tell of each run.
    """
    told, has_begun = list[str](), False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                options = options_now()
                place = str(options.root), find(options.root).spot.path
                with (
                    contextlib.closing(Syncing(options)) as syncing,
                    Watching(*place, options.source, link=link, timing=timing) as watching,
                ):
                    has_begun = True
                    _run_again(syncing, watching, telling, told)
            except (FsMirrorError, click.UsageError) as error:
                if not has_begun:
                    raise
                if [str(error)] != told:
                    tell_error(error, as_json=telling.as_json)
                told[:] = [str(error)]
                time.sleep(_PAUSE)
    return ExitStatus.FAILED if told else ExitStatus.INTERRUPTED


def _run_again(syncing: Syncing, watching: Watching, telling: Telling, told: list[str]) -> None:
    """Runs until the mirror is replaced.

    What failed is tried again: after a time that grows, or once something that was in the way may
    be gone. A run is told if it did something, if a change caused it, or if it failed in a new way.

    Args:
        syncing: The source that is mirrored.
        watching: Tells of changes.
        telling: The ways to tell of each run.
        told: The failures of the last run, which are replaced by those of each further one.
    """
    pause, cause = _RETRY, "change"
    while not watching.is_out_of_date():
        before = [*told]
        try:
            done = run(syncing, telling)
            lacks_room = syncing.lacks_room
            told[:] = [each.message for each in done.summary.failures]
            is_news = bool(done.changes) or (cause == "change" and not told)
            if is_news or told != before:
                tell_run(syncing.options, done, telling)
        except FsMirrorError as error:
            lacks_room, told[:] = is_full(error), [str(error)]
            if told != before:
                tell_error(error, as_json=telling.as_json)  # The next change may mend it.
        pause = 2 * pause if told and told == before else _RETRY
        is_mended = _more_room(syncing.options) if lacks_room else lambda: False
        cause = watching.wait(
            syncing.has_drifted,
            pause if told else math.inf,
            is_mended=is_mended if told else None,
        )


def _more_room(options: Options) -> Callable[[], bool]:
    """Returns a function that tells if the disk has more room than now."""
    paths = {str(options.root), find(options.root).spot.path}

    def room(path: str) -> int:
        try:
            there = os.statvfs(path)
        except OSError:
            return 0
        return there.f_bavail * there.f_frsize

    before = {path: room(path) for path in paths}
    return lambda: any(room(path) > before[path] + _WORTH_TRYING for path in paths)


def _check_places(source: str, target: str) -> None:
    """Refuses a source and a destination that contain each other, or lie below a file."""
    here, there = Path(source), Path(target)
    above = next(path for path in (there, *there.parents) if os.path.lexists(path))
    for is_so, problem in (
        (not above.is_dir(), f"{target}: the destination lies below a file"),
        (here == there, f"{target}: source and destination are the same directory"),
        (there.is_relative_to(here), f"{target}: the destination lies inside the source"),
        (here.is_relative_to(there), f"{source}: the source lies inside the destination"),
    ):
        if is_so:
            raise click.UsageError(problem)
