"""The claims: which peers are compared, how, and the bar and the goal of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias

from . import OURS
from .measure import Measured
from .peers import FSMIRROR
from .workloads import Scale

__all__ = ["Claim", "Outcome", "claims", "compare", "judge"]

Formula: TypeAlias = Callable[[Sequence[float]], float]
"""Makes one number of what each peer took, in seconds."""


@dataclass(frozen=True)
class Claim:
    """Two peers of one workload.

    Attributes:
        number: As the table has it.
        title: The claim, for people.
        workload: The name of the workload that shows it.
        ours: The peer that is ours.
        theirs: The peer that ours is measured against.
        bar: The largest value that is acceptable, if there is one.
        goal: The largest value that is aimed at.
        unit: Of the value: none for a ratio.
        formula: Makes the value of the times, the first of which is ours.
        also: More peers whose times the formula takes.
        floors: Peers that do a necessary part of our work, and nothing else.
    """

    number: str
    title: str
    workload: str
    ours: str
    theirs: str
    bar: float | None
    goal: float
    unit: str
    formula: Formula
    also: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()

    @property
    def peers(self) -> tuple[str, ...]:
        """The peers whose times the formula takes."""
        return (self.ours, self.theirs, *self.also)


@dataclass(frozen=True)
class Spread:
    """A value of medians, and the smallest and largest that single rounds gave."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of a claim.

    Attributes:
        claim: The claim.
        ours: Our median, in seconds.
        theirs: Their median, in seconds.
        spread: The value that is claimed.
        floor: What the floors take together, by their median.
    """

    claim: Claim
    ours: float
    theirs: float
    spread: Spread
    floor: float | None = None

    @property
    def meets_bar(self) -> bool | None:
        """True if the value is acceptable; ``None`` if there is no bar."""
        return None if self.claim.bar is None else self.spread.value <= self.claim.bar

    @property
    def meets_goal(self) -> bool:
        """True if the value reaches the goal."""
        return self.spread.value <= self.claim.goal


def compare(times: Sequence[Sequence[float]], formula: Formula) -> Spread:
    """Makes a value of the medians, and its spread of each round by itself.

    Args:
        times: For each peer the times of its rounds, the first of each taken in the same round.
        formula: Makes a number of one time of each peer.
    """
    rounds = [formula(each) for each in zip(*times, strict=True)]
    return Spread(formula([median(each) for each in times]), min(rounds), max(rounds))


def judge(claim: Claim, measured: Mapping[str, Measured]) -> Outcome | None:
    """Returns the outcome of a claim, or ``None`` if one of its peers was left out."""
    if not all(peer in measured for peer in (*claim.peers, *claim.floors)):
        return None
    times = [measured[peer].seconds for peer in claim.peers]
    ours, theirs = median(times[0]), median(times[1])
    floors = [median(measured[peer].seconds) for peer in claim.floors]
    floor = sum(floors) / theirs if floors else None
    return Outcome(claim, ours, theirs, compare(times, claim.formula), floor)


def ratio(times: Sequence[float]) -> float:
    """Divides our time by theirs."""
    return times[0] / times[1]


def milliseconds_beyond(times: Sequence[float]) -> float:
    """Subtracts their time from ours, in milliseconds."""
    return 1000 * (times[0] - times[1])


def growth(many: int, few: int) -> Formula:
    """Returns the formula for time per file, many against few, each less an empty run."""

    def formula(times: Sequence[float]) -> float:
        ours, theirs, start_up = times
        return ((ours - start_up) / many) / ((theirs - start_up) / few)

    return formula


_COPY: Final = 1.25  # 0.8 of the throughput


def claims(scale: Scale) -> Iterator[Claim]:
    """Yields all claims, in the order of the table."""
    small, each, all_of = f"{scale.small:,} x 1 KiB", f"{scale.each:,}", f"{scale.all_of:,}"
    mib = scale.large >> 20
    rows: list[tuple[str, str, str, str, str, float | None, float]] = [
        ("1", f"flow, first run, {small}, tmpfs", "flow-first-tmpfs", *_LOCALFS, 0.90, 0.70),
        (
            "1a",
            f"flow, first run, {small}, tmpfs, with copies and without",
            "copies-first-tmpfs",
            *OURS,
            1.10,
            1.05,
        ),
        (
            "2",
            f"flow, first run, {small}, disk, only ours durable",
            "flow-first-disk",
            *_LOCALFS,
            0.70,
            0.45,
        ),
        (
            "3",
            f"flow, nothing changed, {scale.small:,} files, only ours looks for drift",
            "flow-unchanged-tmpfs",
            *_LOCALFS,
            0.90,
            0.70,
        ),
        (
            "3a",
            f"flow, nothing changed, {scale.small:,} files, with copies and without",
            "copies-unchanged-tmpfs",
            *OURS,
            1.03,
            1.00,
        ),
        (
            "4",
            f"flow, one component per file, {each} files, first run, disk, only ours durable",
            "flow-each-first-disk",
            *_LOCALFS,
            1.15,
            1.00,
        ),
        (
            "5",
            f"flow, everything deleted, {scale.small:,} files, tmpfs",
            "flow-deleted-tmpfs",
            *_LOCALFS,
            0.95,
            0.75,
        ),
        (
            "6",
            f"sync, first run, {small}, disk, both durable",
            "sync-first-disk",
            FSMIRROR,
            "rsync -a --fsync",
            0.50,
            0.25,
        ),
        (
            "7",
            f"sync, nothing changed, {all_of} files",
            "sync-all-unchanged-disk",
            FSMIRROR,
            "rsync -a",
            2.0,
            1.0,
        ),
        (
            "8",
            f"looking for drift in {all_of} files",
            "look-disk",
            "fsmirror verify",
            "rsync -an",
            0.70,
            0.50,
        ),
        (
            "9",
            f"flow, durable against not durable, first run, {small}, disk",
            "flow-first-disk",
            "ours",
            "ours-not-durable",
            1.3,
            1.1,
        ),
    ]
    for row in rows:
        yield Claim(*row, unit="", formula=ratio, floors=_FLOORS.get(row[0], ()))
    many, base = scale.steps[-1], scale.base
    many = 500_000 if 500_000 in scale.steps else many
    yield Claim(
        "10",
        f"time per file at {many:,} files against {base:,}, sync, first run, disk",
        "growth-sync-disk",
        _at(many),
        _at(base),
        1.3,
        1.1,
        unit="",
        formula=growth(many, base),
        also=(_at(0),),
    )
    engine = "import cocoindex"
    for number, title, ours in (
        (
            "11",
            "import cocoindex_fsmirror beyond import cocoindex",
            "import cocoindex, cocoindex_fsmirror",
        ),
        (
            "11a",
            "the same, with what flows use of it",
            "import cocoindex, and what flows use of ours",
        ),
    ):
        yield Claim(
            number, title, "start-up", ours, engine, 40, 20, unit="ms", formula=milliseconds_beyond
        )
    large = "large-first-disk"
    yield Claim(
        "12",
        f"one file of {mib:,} MiB, disk, both durable",
        large,
        FSMIRROR,
        "cp, then sync",
        None,
        _COPY,
        unit="",
        formula=ratio,
    )
    yield Claim(
        "12a",
        f"one file of {mib:,} MiB, disk, neither durable",
        large,
        f"{FSMIRROR}, not durable",
        "cp",
        None,
        _COPY,
        unit="",
        formula=ratio,
    )


_LOCALFS: Final = ("ours", "localfs")
_WRITING: Final = ("nothing", "bare loop")
_FLOORS: Final[dict[str, tuple[str, ...]]] = {
    "1": _WRITING,
    "2": _WRITING,
    "3": ("nothing",),
    "4": _WRITING,
    "5": ("nothing",),
}
"""The engine, and a loop that writes the files, each with the start of an interpreter."""


def _at(count: int) -> str:
    """Names the peer of a step in the growth of ``fsmirror sync``."""
    return f"{FSMIRROR}: {count:,} files"
