"""What is measured, and what it is measured against: each by the command that one would type."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .measure import timed
from .trees import Files

__all__ = [
    "FSMIRROR",
    "LARGE",
    "LOOKS",
    "LOOPS",
    "SYNCS",
    "copy",
    "drop",
    "flow",
    "fsmirror",
    "is_here",
]
__all__ += ["look", "loop", "missing", "sync"]

FSMIRROR: Final = "fsmirror sync"
SYNCS: Final = (
    FSMIRROR,
    "fsmirror sync, not durable",
    "rsync -a",
    "rsync -a --fsync",
    "rclone sync",
    "cp -a",
)
"""What mirrors a folder."""
LATER: Final = (FSMIRROR, "rsync -a", "rclone sync")
"""What can bring a mirror up to date; how durable it is matters less where little is written."""
LOOKS: Final = ("fsmirror verify", "rsync -an", "fsmirror verify --content", "rsync -anc")
"""What looks for differences."""
LARGE: Final = (
    FSMIRROR,
    "fsmirror sync, not durable",
    "cp, then sync",
    "cp",
    "rsync -a",
)
"""What copies a large file."""
LOOPS: Final = ("bare loop", "bare loop, synced")
"""The floor for a file."""


def is_here(peer: str) -> bool:
    """Whether a peer is installed."""
    program = peer.split(maxsplit=1)[0].rstrip(",")
    if program == "fsmirror":
        return True
    if shutil.which(program) is None:
        return False
    return "--fsync" not in peer or _knows_fsync()


def missing() -> list[str]:
    """The peers that are not installed, by name."""
    known = dict.fromkeys((*SYNCS, *LOOKS, *LARGE))
    return [peer for peer in known if not is_here(peer)]


def _knows_fsync() -> bool:
    """Whether rsync is of 2022 or newer."""
    told = subprocess.run(["rsync", "--help"], capture_output=True, check=False)
    return b"--fsync" in told.stdout


def fsmirror(*arguments: str | Path) -> list[str]:
    """Our command, as it is installed beside this interpreter."""
    return timed(Path(sysconfig.get_path("scripts"), "fsmirror"), *arguments)


def flow(
    target: str,
    root: Path,
    files: Files,
    *,
    one_each: bool = False,
    drop: bool = False,
) -> list[str]:
    """A flow, as a process."""
    argv = timed(sys.executable, "-m", "benchmarks.flow", target, root)
    argv += [f"--files={files.count}", f"--size={files.size}", f"--generation={files.generation}"]
    return argv + ["--one-each"] * one_each + ["--drop"] * drop


def loop(peer: str, folder: Path, files: Files) -> list[str]:
    """The bare loop, as a process."""
    argv = timed(sys.executable, "-m", "benchmarks.floor", folder)
    argv += [f"--files={files.count}", f"--size={files.size}"]
    return argv + ["--sync-each"] * peer.endswith("synced")


def sync(peer: str, source: Path, folder: Path, *, delete: bool = False) -> list[str]:
    """What mirrors a source into a folder that exists."""
    program, *rest = peer.split()
    if program == "fsmirror":
        none = ["--durability=none"] * peer.endswith("not durable")
        return fsmirror("sync", *none, source, folder)
    if program == "rsync":
        return ["rsync", *rest, *["--delete"] * delete, f"{source}/", f"{folder}/"]
    if program == "rclone":
        # No configuration: neither that of whoever runs this, nor a warning that there is none.
        return timed("rclone", "--config=", "sync", "--links", source, folder)
    return timed("cp", "-a", f"{source}/.", folder)


def drop(folder: Path) -> list[str]:
    """What removes what we mirrored."""
    return fsmirror("drop", "--yes", folder)


def look(peer: str, source: Path, folder: Path) -> list[str]:
    """What looks for differences between a source and its mirror, and changes nothing."""
    program, *rest = peer.split()
    if program == "fsmirror":
        return fsmirror(*rest, folder)
    return ["rsync", *rest, f"{source}/", f"{folder}/"]


def copy(peer: str, source: Path, folder: Path) -> Sequence[str]:
    """What copies a source of one large file, by copying its bytes."""
    if not peer.startswith("cp"):
        return sync(peer, source, folder)
    argv = timed("cp", "-a", "--reflink=never", f"{source}/.", folder)
    if peer == "cp":
        return argv
    # As durable as ours: GNU sync takes a file system.
    return timed(
        "sh", "-c", 'cp -a --reflink=never "$1" "$2" && sync -f "$2"', "sh", argv[-2], folder
    )
