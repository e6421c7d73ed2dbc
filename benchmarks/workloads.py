"""The workloads, their sizes, and the peers that take part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from . import OURS, TARGETS, cases, growth, mirrors, trees
from .cases import Step
from .measure import Case
from .trees import Files

__all__ = ["LONG", "NORMAL", "QUICK", "Scale", "Workload", "workloads"]

Place: TypeAlias = Literal["tmpfs", "disk"]
KIB: Final = 1024
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Scale:
    """The sizes of all workloads.

    Attributes:
        rounds: Runs of each workload that a claim with a bar rests on.
        few: Runs of each other workload.
        growing: Runs of the growth.
        many: Runs of what takes little time.
        small: Files of 1 KiB.
        each: Files of 1 KiB with a component of their own.
        medium: Files of 100 KiB.
        all_of: Files of 1 KiB in the workloads that only look at them.
        large: Bytes of a large file.
        steps: Files of 1 KiB, for the growth.
        base: The step that the largest one is compared with.
        tmpfs: Bytes that have to be free on the tmpfs.
        disk: Bytes that have to be free on the disk.
    """

    rounds: int
    few: int
    growing: int
    many: int
    small: int
    each: int
    medium: int
    all_of: int
    large: int
    steps: tuple[int, ...]
    base: int
    tmpfs: int
    disk: int


NORMAL: Final = Scale(
    rounds=11,
    few=3,
    growing=3,
    many=31,
    small=20_000,
    each=3_000,
    medium=2_000,
    all_of=100_000,
    large=2 << 30,
    steps=(1_000, 10_000, 20_000, 100_000),
    base=20_000,
    tmpfs=1 << 30,
    disk=36 << 30,
)
QUICK: Final = Scale(
    rounds=2,
    few=1,
    growing=1,
    many=2,
    small=200,
    each=50,
    medium=20,
    all_of=400,
    large=4 << 20,
    steps=(200, 400),
    base=200,
    tmpfs=64 << 20,
    disk=256 << 20,
)
LONG: Final = replace(NORMAL, steps=(*NORMAL.steps, 500_000, 1_000_000), growing=1, disk=64 << 30)


@dataclass(frozen=True)
class Workload:
    """Cases that are compared.

    Attributes:
        name: The name for ``--only``.
        title: The title in reports.
        place: Where its files lie.
        rounds: How often each case runs.
        cases: Makes the cases, in a folder of their own.
        memory: True to measure peak memory as well.
    """

    name: str
    title: str
    place: Place
    rounds: int
    cases: Callable[[Path], Sequence[Case]]
    memory: bool = False

    @property
    def removes(self) -> bool:
        """True if the workload removes many files."""
        return "deleted" in self.name or "drop" in self.name


_SAID: Final[dict[Step, str]] = {
    "first": "first run",
    "unchanged": "nothing changed",
    "changed": "1 % changed",
    "tampered": "1 % tampered with",
    "deleted": "all deleted",
    "drop": "drop",
}


def workloads(scale: Scale) -> Iterator[Workload]:
    """Yields all workloads, in their order: those that remove files run last (see `afresh`)."""
    start_up = Workload("start-up", "start-up", "tmpfs", scale.many, growth.start_up)
    others = sorted((*_flows(scale), *_syncs(scale)), key=lambda each: each.removes)
    at = sum(not each.removes for each in others)
    yield from (start_up, *others[:at], *_growth(scale), *others[at:])


def _flows(scale: Scale) -> Iterator[Workload]:
    """Flows with each target."""
    small, each = Files(scale.small, KIB), Files(scale.each, KIB)
    medium = Files(scale.medium, 100 * KIB)
    wanted: list[tuple[str, Step, Files, Place, bool, int]] = [
        ("flow", "first", small, "tmpfs", False, scale.rounds),
        ("flow", "first", small, "disk", False, scale.rounds),
        ("flow", "unchanged", small, "tmpfs", False, scale.rounds),
        ("flow", "unchanged", small, "disk", False, scale.few),
        ("flow", "changed", small, "disk", False, scale.few),
        ("flow", "tampered", small, "disk", False, scale.few),
        ("flow", "deleted", small, "tmpfs", False, scale.rounds),
        ("flow", "deleted", small, "disk", False, scale.few),
        ("flow", "drop", small, "disk", False, scale.few),
        ("flow-each", "first", each, "tmpfs", True, scale.few),
        ("flow-each", "first", each, "disk", True, scale.rounds),
        ("flow-each", "unchanged", each, "disk", True, scale.few),
        ("flow-each", "changed", each, "disk", True, scale.few),
        ("flow-each", "tampered", each, "disk", True, scale.few),
        ("flow-each", "deleted", each, "disk", True, scale.few),
        ("flow-medium", "first", medium, "tmpfs", False, scale.few),
        ("flow-medium", "first", medium, "disk", False, scale.few),
    ]
    for step in ("first", "unchanged"):
        yield Workload(
            name=f"copies-{step}-tmpfs",
            title=f"flow, with copies and without, {_said(small)}: {_SAID[step]}",
            place="tmpfs",
            rounds=scale.rounds,
            cases=partial(cases.flows, OURS, step, small, with_loops=False),
        )
    for name, step, files, place, one_each, rounds in wanted:
        components = "one component each" if one_each else "one component"
        yield Workload(
            name=f"{name}-{step}-{place}",
            title=f"flow, {components}, {_said(files)}: {_SAID[step]}",
            place=place,
            rounds=rounds,
            cases=partial(cases.flows, TARGETS, step, files, one_each=one_each),
        )


def _said(files: Files) -> str:
    """Formats a number of files."""
    return f"{files.count:,} x {files.size // KIB} KiB"


def _syncs(scale: Scale) -> Iterator[Workload]:
    """Programs that mirror a folder."""
    small, medium = Files(scale.small, KIB), Files(scale.medium, 100 * KIB)
    wanted: list[tuple[str, Step, Files, Place, int]] = [
        ("sync", "first", small, "disk", scale.rounds),
        ("sync", "first", small, "tmpfs", scale.few),
        ("sync-all", "unchanged", Files(scale.all_of, KIB), "disk", scale.rounds),
        ("sync", "changed", small, "disk", scale.few),
        ("sync", "tampered", small, "disk", scale.few),
        ("sync", "deleted", small, "disk", scale.few),
        ("sync", "drop", small, "disk", scale.few),
        ("sync-medium", "first", medium, "disk", scale.few),
    ]
    for name, step, files, place, rounds in wanted:
        title = f"sync, {_said(files)}: {_SAID[step]}"
        made = partial(mirrors.syncs, step, files)
        yield Workload(f"{name}-{step}-{place}", title, place, rounds, made)
    for step in ("first", "unchanged"):
        yield Workload(
            name=f"sync-mixed-{step}-disk",
            title=f"sync, the standard library: {_SAID[step]}",
            place="disk",
            rounds=scale.few,
            cases=partial(_standard_library, step),
        )
    title = f"sync, one file of {scale.large // MIB:,} MiB: {_SAID['first']}"
    yield Workload(
        "large-first-disk", title, "disk", scale.few, partial(mirrors.large, scale.large)
    )
    title = f"looking for drift, {_said(Files(scale.all_of, KIB))}"
    yield Workload(
        "look-disk", title, "disk", scale.rounds, partial(mirrors.looks, Files(scale.all_of, KIB))
    )


def _standard_library(step: Step, folder: Path) -> list[Case]:
    """Returns the cases of mirroring the standard library."""
    trees.copy_standard_library(source := folder / "library")
    files = Files(len(trees.paths_in(source)), 0)
    return mirrors.syncs(step, files, folder, make=source.rename)


def _growth(scale: Scale) -> Iterator[Workload]:
    """Yields the workloads with a growing number of files."""
    steps = (0, *scale.steps)
    for what, cases_of in (("flow", growth.flows), ("sync", growth.syncs)):
        yield Workload(
            name=f"growth-{what}-disk",
            title=f"growth: {what}, more and more files of 1 KiB",
            place="disk",
            rounds=scale.growing,
            cases=partial(cases_of, steps),
            memory=True,
        )
