"""The ways in which people copy folders, put them back, and mount them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal, TypeAlias

How: TypeAlias = Literal["tar", "cp", "rsync", "rsync --inplace", "rsync --delete", "replace"]


def duplicate(folder: Path, to: Path, left_out: str = "") -> None:
    """Makes a copy of a folder in an empty one, without a name in it."""
    _run("rsync", "-a", *_without(left_out), f"{folder}/", f"{to}/")


def put_back(copy: Path, to: Path, how: How, left_out: str = "") -> None:
    """Copies a folder over another one; what is left out of the copy stays there.

    A file that would replace a folder that is not empty stays out, with an error.
    """
    if how == "tar":
        _run("sh", "-c", f"tar -C '{copy}' -cf - . | tar -C '{to}' -xf -", check=False)
    elif how == "cp":
        _run("cp", "-a", f"{copy}/.", str(to), check=False)
    else:
        options = ["--delete"] if how in {"rsync --delete", "replace"} else []
        options += ["--inplace"] if how == "rsync --inplace" else []
        if how == "replace" and not left_out:
            take_away(to)
        # A database that is mapped into memory can change without another time.
        _run("rsync", "-ac", *options, *_without(left_out), f"{copy}/", f"{to}/", check=False)


def bind(folder: Path, point: Path) -> bool:
    """Mounts a folder at another path too; false without the rights."""
    point.mkdir(parents=True, exist_ok=True)
    return os.geteuid() == 0 and not subprocess.call(["mount", "--rbind", folder, point])


def points(folder: Path) -> list[Path]:
    """Returns the mounts on a folder and in it, the last one first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [Path(line.split()[4]) for line in lines]
    return [point for point in reversed(found) if point.is_relative_to(folder)]


def unbind(point: Path) -> None:
    """Takes a mount away, and those in it, also if something there is still open."""
    for each in points(point):
        _run("umount", "--lazy", str(each))


def take_away(folder: Path) -> None:
    """Removes a folder, and the mounts on it and in it, but not what they show."""
    unbind(folder)
    shutil.rmtree(folder)


def _without(name: str) -> list[str]:
    """Returns the options that leave out a name."""
    return [f"--exclude={name}"] if name else []


def _run(*command: str, check: bool = True) -> None:
    """Runs a command."""
    subprocess.run(command, check=check, capture_output=True)
