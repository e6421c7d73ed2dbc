"""The ways in which people copy folders, and put them back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal, TypeAlias

How: TypeAlias = Literal["tar", "cp", "rsync", "rsync --inplace", "rsync --delete", "replace"]


def duplicate(folder: Path, to: Path, left_out: str = "") -> None:
    """Makes a copy of a folder in an empty one, without a name in it."""
    _run("rsync", "-a", *_without(left_out), f"{folder}/", f"{to}/")


def put_back(copy: Path, to: Path, how: How, left_out: str = "") -> None:
    """Copies a folder over another one; what is left out of the copy stays there."""
    if how == "tar":
        _run("sh", "-c", f"tar -C '{copy}' -cf - . | tar -C '{to}' -xf -")
    elif how == "cp":
        _run("cp", "-a", f"{copy}/.", str(to))
    else:
        options = ["--delete"] if how in {"rsync --delete", "replace"} else []
        options += ["--inplace"] if how == "rsync --inplace" else []
        if how == "replace" and not left_out:
            shutil.rmtree(to)
        # A database that is mapped into memory can change without another time.
        _run("rsync", "-ac", *options, *_without(left_out), f"{copy}/", f"{to}/")


def _without(name: str) -> list[str]:
    """Returns the options that leave out a name."""
    return [f"--exclude={name}"] if name else []


def _run(*command: str) -> None:
    """Runs a command."""
    subprocess.run(command, check=True, capture_output=True)
