"""Workloads with a growing number of files, and with none."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from . import TARGETS, cases, mirrors, peers
from .measure import Case, timed
from .trees import Files

__all__ = ["flows", "start_up", "syncs"]

_SIZE: Final = 1024
_QUIET: Final = 'import os; os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"'
_IMPORTS: Final = {
    "python": "pass",
    "import cocoindex": f"{_QUIET}; import cocoindex",
    "import cocoindex, cocoindex_fsmirror": f"{_QUIET}; import cocoindex, cocoindex_fsmirror",
    "import cocoindex, and what flows use of ours": f"{_QUIET}; import cocoindex; "
    "from cocoindex_fsmirror import DirTarget, mount_dir_target",
    "import cocoindex, and localfs": f"{_QUIET}; import cocoindex; "
    "from cocoindex.connectors import localfs",
}


def flows(steps: Sequence[int], folder: Path) -> list[Case]:
    """Returns the first run of a flow, with each number of files."""
    return [
        _named(f"{target}: {count:,} files", case)
        for target in ("ours", "localfs")
        for count in steps
        for case in cases.flows(
            [target], "first", Files(count, _SIZE), folder / str(count), with_loops=False
        )
    ]


def syncs(steps: Sequence[int], folder: Path) -> list[Case]:
    """Returns ``fsmirror sync`` with each number of files: a first run, and an unchanged one."""
    found = []
    for count in steps:
        files, place = Files(count, _SIZE), folder / str(count)
        (first,) = mirrors.syncs("first", files, place, programs=[peers.FSMIRROR])
        # The second takes what the first left, in the same round or in the one before.
        again = replace(first, prepare=lambda _: None, finish=None)
        found.append(_named(f"{peers.FSMIRROR}: {count:,} files", replace(first, finish=None)))
        found.append(_named(f"nothing changed: {count:,} files", again))
    return found


def start_up(folder: Path) -> list[Case]:
    """Returns the start of each process, with nothing to do."""
    python = timed(sys.executable, "-c")
    commands = {name: [*python, code] for name, code in _IMPORTS.items()}
    commands["fsmirror --version"] = peers.fsmirror("--version")
    for name in ("rsync --version", "rclone --version"):
        if peers.is_here(name):
            commands[name] = name.split()
    empty = Files(0, _SIZE)
    return [
        *(_idle(name, argv) for name, argv in commands.items()),
        *_each_named(
            "empty flow: ", cases.flows(TARGETS, "first", empty, folder, with_loops=False)
        ),
        *_each_named("empty folder: ", mirrors.syncs("first", empty, folder)),
    ]


def _idle(name: str, argv: Sequence[str]) -> Case:
    """Returns the case of a process that does nothing."""
    return Case(peer=name, files=0, prepare=lambda _: None, command=lambda _: argv)


def _named(name: str, case: Case) -> Case:
    return replace(case, peer=name)


def _each_named(prefix: str, found: Iterable[Case]) -> list[Case]:
    return [_named(prefix + case.peer, case) for case in found]
