"""The machine and the software that the figures were measured with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

__all__ = ["describe", "file_system", "versions"]

_PACKAGES: Final = ("cocoindex-fsmirror", "cocoindex", "msgspec", "xxhash")
_PROGRAMS: Final = ("rsync", "rclone", "cp", "hyperfine", "time")


def describe(tmpfs: Path, disk: Path) -> dict[str, str]:
    """Describes the machine, without its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "tmpfs": file_system(tmpfs),
        "disk": file_system(disk),
    }


def _processor() -> str:
    """Returns the model, as the kernel names it."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        told = ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1] if found else platform.machine()


def file_system(path: Path) -> str:
    """Returns the type of the file system of a path, and its options."""
    at, found = os.path.realpath(path), ("/", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, options, *_ = line.split()
        inside = at == place or at.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(found[0]):
            found = (place, f"{kind} ({options})")
    return found[1]


def versions() -> dict[str, str]:
    """Returns the versions of what is installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name in _PROGRAMS:
        if told := _told(name):
            found[name] = told
    return found


def _told(program: str) -> str:
    """Returns the version in the first line that a program prints."""
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).splitlines() or [""]
    found = re.search(r"v?\d+(\.\d+)+\S*", lines[0])
    return found[0] if found else "of unknown version"
