"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Final

import click

from . import chart, machine, peers, report
from .claims import Claim, Outcome, claims, judge
from .measure import CHECKOUT, BenchmarkError, call, run
from .report import Results
from .workloads import LONG, NORMAL, QUICK, Scale, Workload, workloads

_SCALES: Final = {"quick": QUICK, "normal": NORMAL, "long": LONG}
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--quick", "mode", flag_value="quick", help="Tiny: does it work at all? Minutes.")
@click.option("--long", "mode", flag_value="long", help="Also 500,000 and 1,000,000 files. Hours.")
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    help="Only the claim of this number, or the workloads of this name; it may hold * and ?."
    " May be given several times.",
)
@click.option("--list", "lists", is_flag=True, help="List the claims and the workloads, and end.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="How often each workload runs; else it is"
    f" {NORMAL.rounds} times for most claims, and {NORMAL.few} for most others.",
)
@click.option(
    "--tmpfs", type=_FOLDER, default="/dev/shm", show_default=True, help="A folder on a tmpfs."
)
@click.option(
    "--disk",
    type=_FOLDER,
    default=CHECKOUT / "build" / "bench",
    help="A folder on a disk; it is made, and removed again.  [default: build/bench here]",
)
@click.option(
    "--out",
    type=_FOLDER,
    help="Where table.md, results.json and chart.svg go.  [default: benchmarks/results here, or"
    " build/results if that is not all of it]",
)
def main(  # noqa: PLR0917
    mode: str | None,
    only: tuple[str, ...],
    lists: bool,
    rounds: int | None,
    tmpfs: Path,
    disk: Path,
    out: Path | None,
) -> None:
    """Measure fsmirror side by side with localfs, rsync, rclone and cp.

    All of them run in turn, on the same files, on a tmpfs and on a disk.
    hyperfine is required; rsync and rclone are measured if they are installed.
    Nothing is written outside the three folders, and the contents of the
    first two are removed at the end. On a machine that does other work,
    compare ratios, not absolute times.
    """
    mode = mode or "normal"
    scale = _SCALES[mode]
    if out is None:
        is_all = mode != "quick" and not only
        out = CHECKOUT / ("benchmarks/results" if is_all else "build/results")
    judged, chosen = _chosen(scale, only)
    if lists:
        _list(judged, chosen)
        return
    if find_spec("matplotlib") is None:
        raise click.ClickException("matplotlib is not installed; pip install -e '.[bench]'")
    if shutil.which("hyperfine") is None:
        raise click.ClickException(
            "hyperfine is not installed; it is a Debian package of that name"
        )
    signal.signal(signal.SIGTERM, _interrupt)
    with _workplace(tmpfs, scale.tmpfs) as on_tmpfs, _workplace(disk, scale.disk) as on_disk:
        results = Results(
            date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            mode=mode,
            machine=machine.describe(on_tmpfs, on_disk),
            versions=machine.versions(),
            left_out=peers.missing(),
        )
        _compile_all(on_tmpfs / "pycache")
        places = {"tmpfs": on_tmpfs, "disk": on_disk}
        for number, workload in enumerate(chosen, start=1):
            click.echo(f"{number}/{len(chosen)} {workload.name}: {workload.title}", err=True)
            _run(workload, places[workload.place], rounds, results)
            results.outcomes = list(_judged(judged, results))
            report.write(results, out)
        chart.draw(results.outcomes, out / "chart.svg")  # Before a million files are removed.
    for line in report.summary(results.outcomes):
        click.echo(line)
    if results.failures:
        sys.exit(1)


def _compile_all(folder: Path) -> None:
    """Compiles every module before anything is timed, as pip does for installed packages.

    In a checkout, and where Python may keep no bytecode, each run would compile our modules.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    code = (
        "import benchmarks.flow, benchmarks.floor, cocoindex.connectors.localfs;"
        "import cocoindex_fsmirror._command.main"
    )
    call([sys.executable, "-c", code])


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Ends the run as Ctrl-C does, so that everything is removed."""
    raise KeyboardInterrupt


def _chosen(scale: Scale, only: Sequence[str]) -> tuple[list[Claim], list[Workload]]:
    """Returns the claims and the workloads that were selected.

    Raises:
        click.UsageError: One of the names is unknown.
    """
    all_claims, all_workloads = list(claims(scale)), list(workloads(scale))
    if not only:
        return all_claims, all_workloads
    numbers = {claim.number: claim for claim in all_claims}
    names = {numbers[name].workload if name in numbers else name for name in only}
    for name in names:
        if not any(fnmatchcase(workload.name, name) for workload in all_workloads):
            raise click.UsageError(f"there is no claim and no workload {name!r}; --list lists them")
    chosen = [w for w in all_workloads if any(fnmatchcase(w.name, name) for name in names)]
    return [c for c in all_claims if c.workload in {w.name for w in chosen}], chosen


def _list(judged: Sequence[Claim], chosen: Sequence[Workload]) -> None:
    """Lists the claims and workloads that can be selected."""
    for claim in judged:
        click.echo(f"{claim.number:>3}  {claim.title}  ({claim.workload})")
    for workload in chosen:
        click.echo(f"{workload.name:25}  {workload.title}, {workload.place}")


@contextlib.contextmanager
def _workplace(parent: Path, needed: int) -> Iterator[Path]:
    """Makes a folder, and removes it at the end with the parents that were made for it.

    Raises:
        click.ClickException: The file system has too little room.
    """
    made = [each for each in (parent, *parent.parents) if not each.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="fsmirror-bench-", dir=parent)).resolve()
    except OSError as error:
        raise click.ClickException(f"{parent}: {error.strerror}; choose another folder") from None
    try:
        free = shutil.disk_usage(folder).free
        if free < needed:
            said = f"{free >> 20:,} MiB are free, and {needed >> 20:,} MiB are needed"
            raise click.ClickException(f"{parent}: {said}; choose another folder")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for each in made:
            with contextlib.suppress(OSError):  # Somebody else uses it by now.
                each.rmdir()


def _run(workload: Workload, place: Path, rounds: int | None, results: Results) -> None:
    """Measures one workload; its failure does not stop the others."""
    folder = place / workload.name
    folder.mkdir()
    keep = workload.place == "disk"  # Until the end: ext4 slows down after removals.
    try:
        measured = run(
            workload.cases(folder),
            rounds or workload.rounds,
            folder,
            memory=workload.memory,
            keep=keep,
        )
    except BenchmarkError as error:
        click.echo(f"{workload.name}: {error}", err=True)
        results.failures.append(f"{workload.name}: {error}")
    else:
        results.workloads.append((workload, measured))
    finally:
        if not keep:
            shutil.rmtree(folder)


def _judged(judged: Sequence[Claim], results: Results) -> Iterator[Outcome]:
    """Yields the outcomes of the claims whose workloads have run."""
    found = {
        workload.name: {peer.peer: peer for peer in peers} for workload, peers in results.workloads
    }
    for claim in judged:
        if claim.workload in found and (outcome := judge(claim, found[claim.workload])):
            yield outcome


if __name__ == "__main__":
    main()
