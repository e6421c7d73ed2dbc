"""Edits that one ``lstat`` may not show, and the ways to look for drift."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport


def edit_in_place(x: Path) -> None:
    """Changes the content, and keeps size and inode."""
    with x.open("r+b") as file:
        file.write(b"ABC")


def edit_secretly(x: Path) -> None:
    """Changes the content, and keeps size, inode and mtime."""
    before = x.stat()
    edit_in_place(x)
    os.utime(x, ns=(before.st_atime_ns, before.st_mtime_ns))


def looks(mirror: Mirror) -> list[DriftReport]:
    """Returns the reports of each way of looking."""
    return [
        mirror.observe(),
        mirror.observe(content=True),
        asyncio.run(asyncio.to_thread(mirror.observe, content=True)),
    ]


def pretend_unchanged(root: Path, name: str, *, recorded: bool = False) -> None:
    """Writes the current ``lstat`` of a file into its row; ``recorded`` makes it a proof."""
    seen = (root / name).lstat()
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute(
            "UPDATE rows SET inode = ?, size = ?, mtime_ns = ?, ctime_ns = ? WHERE name = ?",
            (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, name),
        )
        if recorded:
            later = seen.st_ctime_ns + 10**9
            ledger.execute("UPDATE rows SET recorded_ns = ? WHERE name = ?", (later, name))
        ledger.commit()
