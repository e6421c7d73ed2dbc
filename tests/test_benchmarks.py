"""The benchmarks run, and their results can be read; no test asserts a speed."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import peers, trees
from benchmarks.claims import Claim, claims, compare, growth, judge, milliseconds_beyond, ratio
from benchmarks.measure import CHECKOUT, BenchmarkError, Case, Measured, Sample, run
from benchmarks.trees import Files
from benchmarks.workloads import LONG, NORMAL, QUICK, Scale, workloads

needs_hyperfine = pytest.mark.skipif(
    shutil.which("hyperfine") is None, reason="hyperfine is not installed"
)


def started(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts the command on tiny sizes, with its output in the test's folder."""
    folders = {name: tmp_path / name for name in ("tmpfs", "disk", "out")}
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "benchmarks", "--quick", "--rounds=1"),
            *(f"--{name}={folder}" for name, folder in folders.items()),
            *arguments,
        ],
        cwd=CHECKOUT,
        env=os.environ | {"MPLCONFIGDIR": str(tmp_path / "matplotlib")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def succeeds(tmp_path: Path, *arguments: str) -> Any:
    """Runs the command to its end; returns its results."""
    with started(tmp_path, *arguments) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    return json.loads((tmp_path / "out" / "results.json").read_bytes())


@needs_hyperfine
def test_a_small_run_measures_claims_of_each_kind(tmp_path: Path) -> None:
    results = succeeds(tmp_path, "--only=1", "--only=6", "--only=10")
    assert results["failures"] == []
    assert [claim["number"] for claim in results["claims"]] == ["1", "6", "10"]
    for claim in results["claims"]:
        for peer in (claim["ours"], claim["theirs"]):
            assert 0 < peer["median_seconds"] < math.inf
        assert claim["low"] <= claim["value"] <= claim["high"]
        assert claim["meets_bar"] == (claim["value"] <= claim["bar"])
    for workload in results["workloads"]:
        for peer in workload["peers"]:
            assert [0 < each["seconds"] < math.inf for each in peer["rounds"]] == [True]
            assert peer["wrong_afterwards"] == (None if peer["name"] == "nothing" else 0)

    table = (tmp_path / "out" / "table.md").read_text()
    for claim in results["claims"]:
        assert f"| {claim['number']} | {claim['title']} |" in table
    chart = ET.parse(tmp_path / "out" / "chart.svg").getroot()
    assert chart.tag == "{http://www.w3.org/2000/svg}svg"
    words = "".join(chart.itertext())
    assert all(claim["title"] in words for claim in results["claims"])
    left = {path.name for path in tmp_path.iterdir()} - {"matplotlib"}
    assert left == {"out"}, "what was made to measure is still there"


@needs_hyperfine
def test_tampered_outputs_are_counted(tmp_path: Path) -> None:
    (workload,) = succeeds(tmp_path, "--only=flow-tampered-disk")["workloads"]
    wrong = {peer["name"]: peer["wrong_afterwards"] for peer in workload["peers"]}
    tampered = len(list(trees.every_hundredth(QUICK.small)))
    assert wrong == {"ours": 0, "ours-not-durable": 0, "localfs": tampered, "nothing": None}


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with started(tmp_path, "--only=nonsense") as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert "no claim and no workload 'nonsense'" in said
    assert not list(tmp_path.iterdir())


@needs_hyperfine
def test_terminated_run_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "--only=1") as process:
        while process.poll() is None and not list(tmp_path.glob("tmpfs/*/*/ours/db")):
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 1, said
    assert "Aborted" in said
    assert not list(tmp_path.iterdir())


@needs_hyperfine
def test_idle_peer_is_found_out(tmp_path: Path) -> None:
    lazy = Case(
        peer="lazy",
        files=1,
        prepare=lambda _: None,
        command=lambda _: ["true"],
        count_wrong=lambda _: trees.count_wrong(tmp_path, Files(1, 10)),
    )
    with pytest.raises(BenchmarkError, match="1 files are not right after: true"):
        run([lazy], 1, tmp_path)
    with pytest.raises(BenchmarkError, match="failed"):
        run([replace(lazy, command=lambda _: ["false"])], 1, tmp_path)


@needs_hyperfine
def test_cases_take_turns(tmp_path: Path) -> None:
    turns: list[str] = []
    cases = [
        Case(
            peer=name,
            files=0,
            prepare=lambda number, name=name: turns.append(f"{name}{number}"),  # type: ignore[misc]
            command=lambda _: ["true"],
        )
        for name in "abc"
    ]
    measured = run(cases, 3, tmp_path)
    assert turns == ["a0", "b0", "c0", "c1", "b1", "a1", "a2", "b2", "c2"]
    assert [len(each.samples) for each in measured] == [3, 3, 3]


def test_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    spread = compare([[1.0, 2.0, 9.0], [2.0, 4.0, 3.0]], ratio)
    assert (spread.value, spread.low, spread.high) == (2 / 3, 0.5, 3.0)
    spread = compare([[0.5, 0.75], [0.25, 0.25]], milliseconds_beyond)
    assert (spread.value, spread.low, spread.high) == (375.0, 250.0, 500.0)


def test_growth_is_of_time_per_file_without_start_up() -> None:
    assert growth(1000, 100)([21.0, 3.0, 1.0]) == 1.0
    assert growth(1000, 100)([41.0, 3.0, 1.0]) == 2.0


def measured(**seconds: list[float]) -> dict[str, Measured]:
    """Returns measurements of peers."""
    return {
        name: Measured(name, 1, [Sample(each, 0, 0) for each in all_of])
        for name, all_of in seconds.items()
    }


@pytest.mark.parametrize(
    ("ours", "meets_bar", "meets_goal"),
    [(0.7, True, True), (0.9, True, False), (0.91, False, False)],
)
def test_bar_and_goal_are_the_largest_values_that_meet_them(
    ours: float, meets_bar: bool, meets_goal: bool
) -> None:
    claim = Claim("1", "", "", "ours", "theirs", 0.9, 0.7, unit="", formula=ratio)
    outcome = judge(claim, measured(ours=[ours], theirs=[1.0]))
    assert outcome is not None
    assert (outcome.meets_bar, outcome.meets_goal) == (meets_bar, meets_goal)
    assert judge(claim, measured(ours=[ours])) is None, "a peer was left out"


def test_floor_of_a_claim_is_the_sum_of_its_parts() -> None:
    claim = Claim("1", "", "", "ours", "theirs", 0.9, 0.7, "", ratio, floors=("a", "b"))
    took = measured(ours=[5.0] * 3, theirs=[2.0, 4.0, 9.0], a=[1.0], b=[2.0, 0.5, 9.0])
    outcome = judge(claim, took)
    assert outcome is not None
    assert outcome.floor == 0.75
    assert judge(claim, {name: took[name] for name in took if name != "b"}) is None
    bare = judge(replace(claim, floors=()), took)
    assert bare is not None
    assert bare.floor is None


def test_a_missing_peer_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("cp", "sh"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.missing() == [
        "rsync -a",
        "rsync -a --fsync",
        "rclone sync",
        "rsync -an",
        "rsync -anc",
    ]


@pytest.mark.parametrize("scale", [QUICK, NORMAL, LONG])
def test_each_claim_rests_on_a_workload(scale: Scale) -> None:
    names = [workload.name for workload in workloads(scale)]
    assert len(names) == len(set(names))
    assert {claim.workload for claim in claims(scale)} <= set(names)


def test_checks_find_missing_wrong_and_surplus_files(tmp_path: Path) -> None:
    source, mirror, files = tmp_path / "source", tmp_path / "mirror", Files(300, 64)
    trees.write(source, files)
    trees.write(mirror, files)
    assert trees.count_wrong(mirror, files) == trees.count_different(source, mirror) == 0
    (mirror / trees.name_of(7)).unlink()
    (mirror / trees.name_of(8)).write_bytes(trees.content(8, 1, 64))
    (mirror / "more").symlink_to("nowhere")
    assert trees.count_wrong(mirror, files) == trees.count_different(source, mirror) == 3
    trees.rewrite(source, replace(files, generation=1))
    assert trees.count_wrong(source, replace(files, generation=1)) == 0
    assert trees.count_wrong(source, files) == len(list(trees.every_hundredth(300))) == 3
