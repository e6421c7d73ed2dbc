"""The bare loop, the floor for writing files: writes each beside its place, and renames it.

``python -m benchmarks.floor --help`` lists its arguments.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.trees import Files

__all__ = ["write_atomically"]


def write_atomically(folder: str, files: Files, *, sync_each: bool) -> None:
    """Writes files one after the other.

    Args:
        folder: The folder to write to; it is made.
        files: The files.
        sync_each: True to sync each file before its rename, as is often recommended.
    """
    made = set()
    for name, data in files.contents():
        path = os.path.join(folder, name)
        parent = os.path.dirname(path)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        staged = f"{path}.new"
        with open(staged, "xb", buffering=0) as file:
            file.write(data)
            if sync_each:
                os.fsync(file.fileno())
        os.rename(staged, path)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("folder", help="where to")
    parser.add_argument("--files", type=int, required=True, help="how many")
    parser.add_argument("--size", type=int, required=True, help="bytes in each")
    parser.add_argument("--sync-each", action="store_true", help="sync each before the rename")
    given = parser.parse_args()
    write_atomically(given.folder, Files(given.files, given.size), sync_each=given.sync_each)


if __name__ == "__main__":
    _main()
