"""Times one run at a time, in turn: with hyperfine, and GNU time for peak memory."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["CHECKOUT", "BenchmarkError", "Case", "Measured", "Sample", "call", "measure"]
__all__ += ["run", "timed"]

CHECKOUT: Final = Path(__file__).resolve().parent.parent
"""Where commands run, so that ``python -m benchmarks.flow`` is found."""


class BenchmarkError(Exception):
    """A run failed, or did not do what it was timed for."""


@dataclass(frozen=True)
class Sample:
    """One run of a process.

    Attributes:
        seconds: From its start to its end.
        user: Seconds of processor time in the process.
        system: Seconds of processor time in the kernel for it.
        memory: Peak resident memory in bytes, if it was asked for.
    """

    seconds: float
    user: float
    system: float
    memory: int | None = None


@dataclass(frozen=True)
class Case:
    """The work of one peer in a workload.

    Attributes:
        peer: Its name.
        files: How many files there are.
        prepare: Brings everything into the state before a run; it gets the number of the round.
        command: The command line that is timed in that round.
        count_wrong: How many files are not as they should be after that round, if any are made.
        finish: Clears away, after each run, what no other run needs.
        heals: True if no file may be wrong.
    """

    peer: str
    files: int
    prepare: Callable[[int], None]
    command: Callable[[int], Sequence[str]]
    count_wrong: Callable[[int], int] | None = None
    finish: Callable[[], None] | None = None
    heals: bool = True


@dataclass
class Measured:
    """The measurements of a case, by round.

    Attributes:
        peer: Its name.
        files: How many files there were.
        samples: The runs, in the order of the rounds.
        wrong: How many files were not as they should be after the first of them.
    """

    peer: str
    files: int
    samples: list[Sample] = field(default_factory=list)
    wrong: int | None = None

    @property
    def seconds(self) -> list[float]:
        """The seconds that each run took."""
        return [sample.seconds for sample in self.samples]


def timed(*argv: str | Path) -> list[str]:
    """Returns a command line of words and paths."""
    return [str(word) for word in argv]


def call(argv: Sequence[str]) -> None:
    """Runs a command without timing it.

    Raises:
        BenchmarkError: It failed.
    """
    with subprocess.Popen(
        argv,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # So that all of it can be ended.
    ) as process:
        try:
            told, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # Until no process is left that could write.
            raise
    if process.returncode:
        output = told.decode(errors="replace")[-2000:]
        raise BenchmarkError(f"{shlex.join(argv)} failed ({process.returncode}):\n{output}")


def measure(argv: Sequence[str], folder: Path, *, memory: bool = False) -> Sample:
    """Times one run.

    Args:
        argv: The command.
        folder: Where the timer may write.
        memory: True to measure peak memory, which puts GNU time between command and hyperfine.

    Raises:
        BenchmarkError: It failed.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        exported, peak = Path(scratch, "times.json"), Path(scratch, "peak")
        gnu_time = shutil.which("time") if memory else None
        if gnu_time:
            argv = [gnu_time, "--format=%M", f"--output={peak}", *argv]
        command = shlex.join(argv)
        hyperfine = ["hyperfine", "--shell=none", "--show-output", "--runs=1"]
        call([*hyperfine, f"--export-json={exported}", command])
        result = json.loads(exported.read_bytes())["results"][0]
        kibibytes = int(peak.read_text()) if gnu_time else None
    return Sample(
        seconds=result["times"][0],
        user=result["user"],
        system=result["system"],
        memory=kibibytes * 1024 if kibibytes is not None else None,
    )


def run(
    cases: Sequence[Case],
    rounds: int,
    folder: Path,
    *,
    memory: bool = False,
    keep: bool = False,
) -> list[Measured]:
    """Runs the cases in turn: A B C, then C B A, and so on.

    Args:
        cases: The cases that are compared.
        rounds: How often each of them is run.
        folder: Where the timer may write.
        memory: True to measure the peak memory of each run.
        keep: True to keep what could be cleared away after each run.

    Raises:
        BenchmarkError: A run failed, or left files that are not as they should be.
    """
    measured = {case.peer: Measured(case.peer, case.files) for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            case.prepare(number)
            os.sync()  # So that this run does not pay for what the preparation left dirty.
            sample = measure(case.command(number), folder, memory=memory)
            measured[case.peer].samples.append(sample)
            if case.count_wrong and number == 0:
                wrong = measured[case.peer].wrong = case.count_wrong(number)
                if wrong and case.heals:
                    command = shlex.join(case.command(number))
                    raise BenchmarkError(f"{wrong:,} files are not right after: {command}")
            if case.finish and not keep:
                case.finish()
    return list(measured.values())
