"""The files of the benchmarks: their names, their contents, and checks of them."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "LARGE",
    "Files",
    "content",
    "copy_standard_library",
    "count_different",
    "count_wrong",
    "every_hundredth",
    "name_of",
    "paths_in",
    "read",
    "rewrite",
    "tamper",
    "write",
    "write_large",
]

_FOLDERS: Final = 100
_EVERY: Final = 101  # Coprime to the number of folders, so that each of them has its share.
_BLOCK: Final = 1 << 20
_READ: Final = 20_000  # files that a check reads, about
OURS: Final = ".fsmirror"
LARGE: Final = "large.bin"
"""The only file of a source made by ``write_large``."""


@dataclass(frozen=True)
class Files:
    """The number of files, and the bytes in each.

    The files that ``every_hundredth`` names are of the given generation, all others of
    generation 0.
    """

    count: int
    size: int
    generation: int = 0

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Yields path and content of each file."""
        for index in range(self.count):
            yield name_of(index), self.content_of(index)

    def content_of(self, index: int) -> bytes:
        """Returns the content of a file."""
        return content(index, 0 if index % _EVERY else self.generation, self.size)


def name_of(index: int) -> str:
    """Returns the path of a file, in one of a hundred folders."""
    return f"d{index % _FOLDERS:02d}/f{index:06d}.txt"


def content(index: int, generation: int, size: int) -> bytes:
    """Returns the content of a file; it differs between files and between generations."""
    return f"{index:08d} {generation:08d} ".encode().ljust(size, b"x")


def every_hundredth(count: int) -> Iterator[int]:
    """Yields the files that change: one in 101, in all folders."""
    return iter(range(0, count, _EVERY))


def write(folder: Path, files: Files) -> None:
    """Makes a source."""
    folder.mkdir()
    for made in range(min(_FOLDERS, files.count)):
        (folder / f"d{made:02d}").mkdir()
    for name, data in files.contents():
        (folder / name).write_bytes(data)


def rewrite(folder: Path, files: Files) -> None:
    """Changes one file in a hundred of a source."""
    for index in every_hundredth(files.count):
        (folder / name_of(index)).write_bytes(content(index, files.generation, files.size))


def write_large(folder: Path, size: int) -> None:
    """Makes a source of one file, of bytes that no file system can compress."""
    folder.mkdir()
    block = os.urandom(min(size, _BLOCK))
    with (folder / LARGE).open("wb") as file:
        for at in range(0, size, _BLOCK):
            file.write(at.to_bytes(8, "big") + block[8:])


def read(path: Path) -> None:
    """Reads a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK):
            pass


def copy_standard_library(folder: Path) -> None:
    """Makes a source of the standard library, which has files of all sizes."""
    left_out = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages")
    shutil.copytree(sysconfig.get_path("stdlib"), folder, symlinks=True, ignore=left_out)


def tamper(folder: Path, files: Files) -> None:
    """Changes one file in a hundred behind their owner's back: size and time stay as they were."""
    for index in every_hundredth(files.count):
        path = folder / name_of(index)
        before = path.stat()
        path.write_bytes(b"!" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def paths_in(folder: Path) -> set[str]:
    """Lists the files and links below a folder, without ``.fsmirror``."""
    found: set[str] = set()
    for at, folders, names in os.walk(folder):
        if OURS in folders:
            folders.remove(OURS)
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        found.update(os.path.relpath(os.path.join(at, name), folder) for name in names + links)
    return found


def count_wrong(folder: Path, files: Files) -> int:
    """Counts the files that are missing, differ, or should not exist."""
    there = paths_in(folder)
    step = _step(files.count)
    wrong = 0
    for index in range(files.count):
        name = name_of(index)
        if name not in there:
            wrong += 1
            continue
        there.remove(name)
        if index % step == 0:
            wrong += (folder / name).read_bytes() != files.content_of(index)
    return wrong + len(there)


def count_different(source: Path, folder: Path) -> int:
    """Counts the paths that differ between two folders."""
    wanted, there = paths_in(source), paths_in(folder)
    looked_at = sorted(wanted & there)[:: _step(len(wanted))]
    different = sum(not _are_same(source / name, folder / name) for name in looked_at)
    return len(wanted ^ there) + different


def _step(count: int) -> int:
    """Returns the step between the files that a check reads; all, if they are few."""
    return max(1, count // _READ)


def _are_same(one: Path, other: Path) -> bool:
    """True if two paths are links with one target, or files with the same bytes."""
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        while (block := left.read(_BLOCK)) == right.read(_BLOCK):
            if not block:
                return True
    return False
