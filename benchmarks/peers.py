"""The peers: what is measured, and against what, each by the command that a user would type."""

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
"""Programs that mirror a folder."""
LATER: Final = (FSMIRROR, "rsync -a", "rclone sync")
"""Programs that can update a mirror; durability matters less where little is written."""
LOOKS: Final = ("fsmirror verify", "rsync -an", "fsmirror verify --content", "rsync -anc")
"""Programs that look for differences."""
LARGE: Final = (
    FSMIRROR,
    "fsmirror sync, not durable",
    "cp, then sync",
    "cp",
    "rsync -a",
)
"""Programs that copy a large file."""
LOOPS: Final = ("bare loop", "bare loop, synced")
"""The floor for a file."""


def is_here(peer: str) -> bool:
    """True if a peer is installed."""
    program = peer.split(maxsplit=1)[0].rstrip(",")
    if program == "fsmirror":
        return True
    if shutil.which(program) is None:
        return False
    return "--fsync" not in peer or _knows_fsync()


def missing() -> list[str]:
    """Lists the peers that are not installed, by name."""
    known = dict.fromkeys((*SYNCS, *LOOKS, *LARGE))
    return [peer for peer in known if not is_here(peer)]


def _knows_fsync() -> bool:
    """True if rsync is of 2022 or newer."""
    told = subprocess.run(["rsync", "--help"], capture_output=True, check=False)
    return b"--fsync" in told.stdout


def fsmirror(*arguments: str | Path) -> list[str]:
    """Returns a command line of ``fsmirror``, as installed beside this interpreter."""
    return timed(Path(sysconfig.get_path("scripts"), "fsmirror"), *arguments)


def flow(
    target: str,
    root: Path,
    files: Files,
    *,
    one_each: bool = False,
    drop: bool = False,
) -> list[str]:
    """Returns the command line of a flow."""
    argv = timed(sys.executable, "-m", "benchmarks.flow", target, root)
    argv += [f"--files={files.count}", f"--size={files.size}", f"--generation={files.generation}"]
    return argv + ["--one-each"] * one_each + ["--drop"] * drop


def loop(peer: str, folder: Path, files: Files) -> list[str]:
    """Returns the command line of the bare loop."""
    argv = timed(sys.executable, "-m", "benchmarks.floor", folder)
    argv += [f"--files={files.count}", f"--size={files.size}"]
    return argv + ["--sync-each"] * peer.endswith("synced")


def sync(peer: str, source: Path, folder: Path, *, delete: bool = False) -> list[str]:
    """Returns the command line that mirrors a source into an existing folder."""
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
    """Returns the command line that removes what we mirrored."""
    return fsmirror("drop", "--yes", folder)


def look(peer: str, source: Path, folder: Path) -> list[str]:
    """Returns the command line that looks for differences, and changes nothing."""
    program, *rest = peer.split()
    if program == "fsmirror":
        return fsmirror(*rest, folder)
    return ["rsync", *rest, f"{source}/", f"{folder}/"]


def copy(peer: str, source: Path, folder: Path) -> Sequence[str]:
    """Returns the command line that copies a source of one large file, byte by byte."""
    if not peer.startswith("cp"):
        return sync(peer, source, folder)
    argv = timed("cp", "-a", "--reflink=never", f"{source}/.", folder)
    if peer == "cp":
        return argv
    # As durable as ours: GNU sync takes a file system.
    return timed(
        "sh", "-c", 'cp -a --reflink=never "$1" "$2" && sync -f "$2"', "sh", argv[-2], folder
    )
