"""``fsmirror publish``: readers of a link see a whole update, or none of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import click

from .._core.errors import CorruptLedgerError, FsMirrorError
from .._disk.locations import Root
from .._disk.watch import Timing, Watching
from .._mirror.expiry import kept_for
from .._mirror.known import find, known
from .._mirror.versions import MOST, Versions
from .dry_run import dry_run
from .options import Options
from .output import ExitStatus, PathType, Report, printable, tell, tell_error
from .source_options import source_options
from .sync import declared_root, options_of, planned, run, tell_run
from .syncing import Syncing
from .telling import Telling, telling_options
from .watching import watch_options

__all__ = ["publish"]

_Next: TypeAlias = Callable[[], tuple[str, Options]]
_PAUSE: Final = 1.0  # seconds between attempts to open a version that can't be used


@click.command()
@click.argument("src", type=PathType(exists=True, file_okay=False))
@click.argument("link", type=PathType(file_okay=False))
@source_options
@click.option(
    "--keep",
    metavar="COUNT",
    type=click.IntRange(1, MOST),
    default=1,
    show_default=True,
    help="The number of versions that are kept beside the one that LINK points to.",
)
@click.option(
    "--rollback", is_flag=True, help="Move LINK back to the version before; SRC is not read."
)
@watch_options("Go on, and publish every change, until Ctrl-C.")
@click.option("-n", "--dry-run", "is_dry", is_flag=True, help="List the changes, and make none.")
@telling_options
def publish(
    *,
    src: str,
    link: str,
    exclude: tuple[str, ...],
    keep: int,
    rollback: bool,
    timing: Timing | None,
    is_dry: bool,
    state: str | None,
    telling: Telling,
    **more: Any,
) -> int:
    """Mirror SRC beside LINK, and move LINK to the mirror once it is complete.

    LINK is a symbolic link, made at first, to LINK.a or LINK.b: mirrors as those
    of fsmirror sync, of which the one that LINK does not point to is updated.
    When all of it is on the disk, LINK is moved in one step. So whoever opens
    LINK sees a whole update; one that failed, or was interrupted, leaves LINK
    where it is. A folder that stays open is the same through one further update;
    with --keep COUNT, through as many.

    \b
      fsmirror publish build /srv/site              then serve /srv/site
      fsmirror publish build /srv/site --rollback   back to the version before
    """  # noqa: D301  # Click leaves lines after a backspace as they are.
    versions = Versions(os.path.abspath(link), state)
    if rollback + bool(timing) + is_dry > 1:
        raise click.UsageError("--rollback, --watch and --dry-run can't be given together")
    if rollback:
        return tell(_report(versions.link, versions.roll_back()), as_json=telling.as_json)

    def next_version() -> tuple[str, Options]:
        name, current = versions.next(keep), versions.current()
        shared = versions.at(current) if current else ""
        root = declared_root(versions.path_of(name), state)
        options = options_of(src, root, exclude, sibling=shared, **more)
        return name, options._replace(keep_backups=options.keep_backups or _told(shared))

    if timing:
        return _follow(versions, next_version, timing, telling)
    name, options = next_version()
    if is_dry:
        return tell(planned(options, telling), as_json=telling.as_json)
    with contextlib.closing(Syncing(options)) as syncing:
        return _publish(versions, name, syncing, telling)[0]


def _told(shared: Root) -> str:
    """Returns the age up to which the version before keeps backups; empty if there is none."""
    if shared:
        with contextlib.suppress(CorruptLedgerError), known(shared) as ledger:
            return kept_for(ledger)
    return ""


def _follow(versions: Versions, next_version: _Next, timing: Timing, telling: Telling) -> int:
    """Publishes, and again whenever something changes, until it is interrupted.

    What failed is told once, and tried again after a time that grows.
    """
    told, pause = list[str](), _PAUSE
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            before = told
            try:
                name, options = next_version()
                place = str(options.root), find(options.root).spot.path
                with (
                    contextlib.closing(Syncing(options)) as syncing,
                    Watching(*place, options.source, timing=timing) as watching,
                ):
                    told = _try_to_publish(versions, name, syncing, telling, told)
                    pause = 2 * pause if told and told == before else _PAUSE
                    _wait(watching, syncing, pause if told else None)
            except FsMirrorError as error:
                told = _tell_once(error, told, telling)
                time.sleep(_PAUSE)
    return ExitStatus.FAILED if told else ExitStatus.INTERRUPTED


def _try_to_publish(
    versions: Versions, name: str, syncing: Syncing, telling: Telling, told: list[str]
) -> list[str]:
    """Publishes once; returns the failures, and tells them unless they were told last."""
    try:
        return _publish(versions, name, syncing, telling, told)[1]
    except FsMirrorError as error:
        return _tell_once(error, told, telling)


def _wait(watching: Watching, syncing: Syncing, pause: float | None) -> None:
    """Waits until there is something to publish, or for a pause after a failure."""
    if pause is not None:
        watching.wait(syncing.has_drifted, pause, is_mended=lambda: False)
        return
    while watching.wait(syncing.has_drifted) == "time" and not dry_run(syncing.options):
        pass


def _tell_once(error: FsMirrorError, told: list[str], telling: Telling) -> list[str]:
    """Prints an error, unless it was printed last; returns its text."""
    if [str(error)] != told:
        tell_error(error, as_json=telling.as_json)
    return [str(error)]


def _publish(
    versions: Versions, name: str, syncing: Syncing, telling: Telling, told: Sequence[str] = ()
) -> tuple[int, list[str]]:
    """Updates a version, and moves the link to it if nothing failed.

    Returns:
        The exit status, and the failures, which were not told again if they were told last.
    """
    options: Options = syncing.options
    versions.begin(syncing.session, name)
    done = run(syncing, telling)
    failures = [each.message for each in done.summary.failures]
    if not failures:
        versions.end(syncing.session, name)
    elif failures == told:
        return ExitStatus.FAILED, failures
    figures = {"link": versions.link, "version": versions.current()}
    status = tell_run(options, done, telling, **figures)
    if not (telling.as_json or telling.quiet or failures):
        tell(_report(versions.link, name), as_json=False)
    return status, failures


def _report(link: str, name: str) -> Report:
    """Says where the link points to."""
    line = f"{printable(link)} -> {printable(name)}"
    return Report({"link": link, "version": name}, [line], ExitStatus.IN_ORDER)
