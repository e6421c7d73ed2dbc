"""The report: a table for people, and every single time for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .claims import Outcome, compare, ratio
from .measure import Measured
from .workloads import Workload

__all__ = ["Results", "summary", "table", "write"]

_ALONE = ("start-up", "growth")  # Workloads whose peers are not rivals.


@dataclass
class Results:
    """All that was found.

    Attributes:
        date: The time of the run, in UTC.
        mode: ``quick``, ``normal`` or ``long``.
        machine: The machine.
        versions: The software that was installed.
        left_out: Peers that are missing here.
        workloads: The measurements, in the order in which they were made.
        outcomes: The outcomes of the claims.
        failures: The workloads that failed, and why.
    """

    date: str
    mode: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    left_out: Sequence[str] = ()
    workloads: list[tuple[Workload, list[Measured]]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def write(results: Results, folder: Path) -> None:
    """Writes ``table.md`` and ``results.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    table_path, json_path = folder / "table.md", folder / "results.json"
    table_path.write_text("\n".join([*table(results), ""]), encoding="utf-8")
    json_path.write_text(json.dumps(_figures(results), indent=1) + "\n", encoding="utf-8")


def _figures(results: Results) -> dict[str, Any]:
    """Returns everything, for JSON."""
    return {
        "date": results.date,
        "mode": results.mode,
        "machine": dict(results.machine),
        "versions": dict(results.versions),
        "left_out": list(results.left_out),
        "failures": results.failures,
        "claims": [_claim_figures(outcome) for outcome in results.outcomes],
        "workloads": [
            {
                "name": workload.name,
                "title": workload.title,
                "place": workload.place,
                "peers": [_peer_figures(peer) for peer in peers],
            }
            for workload, peers in results.workloads
        ],
    }


def _claim_figures(outcome: Outcome) -> dict[str, Any]:
    """Returns a claim, for JSON."""
    claim = outcome.claim
    return {
        "number": claim.number,
        "title": claim.title,
        "workload": claim.workload,
        "ours": {"peer": claim.ours, "median_seconds": outcome.ours},
        "theirs": {"peer": claim.theirs, "median_seconds": outcome.theirs},
        "unit": claim.unit or "ratio",
        "floor": {"peers": list(claim.floors), "value": outcome.floor},
        **dataclasses.asdict(outcome.spread),
        "bar": claim.bar,
        "goal": claim.goal,
        "meets_bar": outcome.meets_bar,
        "meets_goal": outcome.meets_goal,
    }


def _peer_figures(peer: Measured) -> dict[str, Any]:
    """Returns a peer in a workload, for JSON."""
    return {
        "name": peer.peer,
        "files": peer.files,
        "wrong_afterwards": peer.wrong,
        "rounds": [dataclasses.asdict(sample) for sample in peer.samples],
    }


def table(results: Results) -> Iterator[str]:
    """Yields the lines of the table."""
    machine, installed = results.machine, results.versions
    yield f"Measured on {results.date} ({results.mode} mode) with {_listed(installed)}, on "
    yield f"{machine['cores']} cores of {machine['processor']}, {machine['memory']} of memory, "
    yield f"{machine['kernel']}. tmpfs: `{machine['tmpfs']}`. Disk: `{machine['disk']}`."
    if results.mode == "quick":
        yield "These sizes are so small that one sees start-up only: a test, no measurement."
    if results.left_out:
        yield f"Not installed, and so left out: {', '.join(results.left_out)}."
    for failure in results.failures:
        yield from ("", f"**Failed**: {failure}")
    yield from ("", "## Claims", "", *_claims(results.outcomes))
    for workload, peers in results.workloads:
        rounds = len(peers[0].samples) if peers else 0
        yield from ("", f"### {workload.title}", "")
        yield f"`{workload.name}`, on the {workload.place}, {rounds} rounds."
        yield ""
        yield from _peers(workload, peers)


def _listed(installed: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in installed.items())


def _claims(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yields the table of the claims."""
    yield "| | | ours | theirs | ours / theirs | rounds | floor | bar | goal | |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
    for outcome in outcomes:
        claim, spread = outcome.claim, outcome.spread
        cells = (
            claim.number,
            claim.title,
            f"{claim.ours}: {_time(outcome.ours)}",
            f"{claim.theirs}: {_time(outcome.theirs)}",
            f"**{_value(spread.value, claim.unit)}**",
            f"{_value(spread.low, claim.unit)} to {_value(spread.high, claim.unit)}",
            "" if outcome.floor is None else _value(outcome.floor, claim.unit),
            "" if claim.bar is None else _value(claim.bar, claim.unit),
            _value(claim.goal, claim.unit),
            verdict(outcome),
        )
        yield _row(cells)


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yields a line for each claim."""
    for outcome in outcomes:
        value = _value(outcome.spread.value, outcome.claim.unit)
        yield f"{outcome.claim.number:>3} {value:>9}  {verdict(outcome)}: {outcome.claim.title}"


def verdict(outcome: Outcome) -> str:
    """Says in a few words if a claim is met."""
    if outcome.meets_goal:
        return "meets the goal"
    if outcome.meets_bar is None:
        return "misses the goal"
    return "meets the bar" if outcome.meets_bar else "misses the bar"


def _value(value: float, unit: str) -> str:
    """Formats a ratio, or a value with its unit."""
    return f"{value:.1f} {unit}" if unit else f"{value:.2f}"


def _time(seconds: float) -> str:
    """Formats a time, with about three digits."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _peers(workload: Workload, peers: Sequence[Measured]) -> Iterator[str]:
    """Yields the table of a workload."""
    are_rivals = not workload.name.startswith(_ALONE)
    heads = ["", "median", "from, to", "processor", "per file", "wrong afterwards"]
    heads += ["ours / it"] * are_rivals + ["peak memory"] * workload.memory
    yield _row(heads)
    yield f"|---|{'--:|' * (len(heads) - 1)}"
    for peer in peers:
        cells = [peer.peer, *_cells(peer)]
        if are_rivals:
            spread = compare([peers[0].seconds, peer.seconds], ratio)
            cells.append("" if peer is peers[0] else _value(spread.value, ""))
        if workload.memory:
            cells.append(_memory(peer, peers))
        yield _row(cells)


def _cells(peer: Measured) -> Iterator[str]:
    """Yields the figures that each workload has."""
    seconds = peer.seconds
    yield _time(median(seconds))
    yield f"{_time(min(seconds))}, {_time(max(seconds))}"
    yield _time(median(sample.user + sample.system for sample in peer.samples))
    yield f"{median(seconds) / peer.files * 1e6:,.0f} µs" if peer.files > 1 else ""
    yield "" if peer.wrong is None else f"{peer.wrong:,}"


def _memory(peer: Measured, peers: Sequence[Measured]) -> str:
    """Formats peak memory, and the part of each file beyond an empty run."""
    empty = next((p for p in peers if p.files == 0 and _kind(p) == _kind(peer)), None)
    peak, at_least = _peak(peer), _peak(empty)
    if peak is None:
        return "not measured"
    each = f", {(peak - at_least) / peer.files:,.0f} B per file" if at_least and peer.files else ""
    return f"{peak / 2**20:,.0f} MiB{each}"


def _kind(peer: Measured) -> str:
    """Returns the name of a peer without its number of files."""
    return peer.peer.partition(":")[0]


def _peak(peer: Measured | None) -> float | None:
    """Returns the median of the peak memory, in bytes."""
    found = [s.memory for s in peer.samples if s.memory is not None] if peer else []
    return median(found) if found else None
