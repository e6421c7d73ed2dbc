"""``fsmirror heal`` restores what drifted, without the flow or the source that wrote it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

import click

from .._core.errors import FsMirrorError, PathError, counted
from .._core.names import parse_name
from .._disk.locations import Location
from .._disk.watch import Timing, Watching
from .._mirror.fights import OFTEN, Fights
from .._mirror.heal import Healing
from .._mirror.known import find, known
from .._mirror.mirror import Mirror
from .look import IN_DOUBT
from .output import (
    ExitStatus,
    Figures,
    Report,
    coloured,
    json_option,
    mirror_argument,
    printable,
    tell,
    tell_error,
    with_time,
)
from .watching import watch_options

__all__ = ["heal"]

_LOOK: Final = 1.0  # seconds; a mirror that was replaced is noticed after as long
_PAUSE: Final = 1.0  # seconds between attempts to watch a mirror that can't be used,
_LONGEST_PAUSE: Final = 30.0  # and the most, after several


@click.command()
@mirror_argument
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@watch_options("Go on, and heal whatever is changed, until Ctrl-C.")
@click.option("-n", "--dry-run", is_flag=True, help="Only list what would be healed.")
@click.option(
    "--content", is_flag=True, help="Read every file, instead of trusting its size and times."
)
@json_option
def heal(
    *,
    root: Location,
    paths: tuple[str, ...],
    timing: Timing | None,
    dry_run: bool,
    content: bool,
    as_json: bool,
) -> int:
    """Restore what drifted in DST to what was written last.

    Contents come from copies in DST/.fsmirror, or in the --state directory, or
    from the SRC of fsmirror sync, if that still holds the same. Files of others
    in the way go to the backup area, unless whoever declared the path chose
    otherwise. What has no copy is listed, and left to the next update of the
    flow, or to sync; the exit status is 1 then. PATH is relative to DST: a file,
    or a folder for all in it.

    With --watch, there is a report (with --json, an object on a line) for each
    time that something was healed or can't be. It ends with exit status 3 if
    another program writes one path again and again, and with 130 after Ctrl-C,
    or 3 if something failed at last.

    \b
      fsmirror heal site               restore all
      fsmirror heal site blog -n       list what would be restored in site/blog
      fsmirror heal site --watch       undo each change at once
    """  # noqa: D301  # Click leaves lines after a backspace as they are.
    if timing and dry_run:
        raise click.UsageError("--watch and --dry-run can't be given together")
    with known(root) as ledger:
        restored = ledger.is_in_doubt
        for path in paths:
            if not ledger.is_declared(parse_name(path), is_folder=False):
                problem = f"{path}: is not managed in {root} (PATH is relative to that)"
                raise click.UsageError(printable(problem))
    with Mirror(root) as mirror:
        if timing:
            return _follow(mirror, paths, timing, content=content, as_json=as_json)
        healing = mirror.heal(paths or None, content=content, dry_run=dry_run)
    done = "would be healed" if dry_run else "healed"
    return tell(_report(str(root), healing, done, restored=restored), as_json=as_json)


def _follow(
    mirror: Mirror, paths: tuple[str, ...], timing: Timing, *, content: bool, as_json: bool
) -> int:
    """Heals, and again whenever something changes, until it is interrupted."""
    told, pause, fights, left = "", _PAUSE, Fights(), dict[str, str]()
    has_failed = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                state = find(mirror.location).spot.path
                with Watching(mirror.root, state, timing=timing) as watching:
                    while True:
                        healing = mirror.heal(paths or None, content=content)
                        if _is_news(healing, left):
                            report = _report(mirror.root, healing, "healed")
                            tell(with_time(report), as_json=as_json)
                        left, told, pause = _problems_of(healing), "", _PAUSE
                        has_failed = bool(healing.failures)
                        for name in fights.add(healing.healed):
                            raise _fight(os.path.join(mirror.root, name))
                        if watching.is_out_of_date():
                            break
                        due = time.monotonic() + watching.interval
                        while not watching.changed(_LOOK) and time.monotonic() < due:
                            pass
            except FsMirrorError as error:
                if isinstance(error, PathError):
                    raise
                if str(error) != told:
                    tell_error(error, as_json=as_json)
                told, has_failed = str(error), True
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
    return ExitStatus.FAILED if has_failed else ExitStatus.INTERRUPTED


def _fight(path: str) -> PathError:
    """Returns the error for a path that another program changes again and again."""
    problem = f"it was changed {OFTEN} times within a minute, and healed each time"
    hint = "end the other program, or take the file out of the mirror; then watch again"
    return PathError(path, "heal", problem, hint)


def _problems_of(healing: Healing) -> dict[str, str]:
    """Returns the paths that are not as they were written, each with the reason."""
    return healing.left | {name: str(error) for name, error in healing.failures.items()}


def _is_news(healing: Healing, before: dict[str, str]) -> bool:
    """True if something was healed, or can't be that was not told before."""
    return bool(healing.healed) or not _problems_of(healing).items() <= before.items()


def _report(root: str, healing: Healing, done: str, *, restored: bool = False) -> Report:
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
    lines.append(f"{printable(root)}: {summary}")
    status = ExitStatus.DIFFERS if healing.left or restored else ExitStatus.IN_ORDER
    figures = {
        "root": root,
        "restored": restored,
        "healed": healing.healed,
        "backed_up": healing.backed_up,
        "left": _listed(healing.left),
        "failures": _listed(failures),
    }
    if restored:
        lines.append(f"{printable(root)}: {IN_DOUBT}")
    return Report(figures, lines, ExitStatus.FAILED if failures else status)


def _listed(problems: dict[str, str]) -> list[Figures]:
    """Describes paths with their problems for programs."""
    return [{"path": name, "problem": problem} for name, problem in problems.items()]
