"""Reads the copies of a mirror without code of the package, and declares what has some."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.states import digest_of

SMALL = 1 << 16
FILES = {"a": b"a" * 5000, "d/b": os.urandom(3000), "d/c": b"", "large": b"large" * 20_000}
"""Contents that compress, that don't, that are empty, and that are no small ones."""


def declare(mirror: Mirror, files: dict[str, bytes], **options: Any) -> None:
    """Declares files, and nothing else."""
    with mirror.update(**{"copies": "all", **options}) as update:
        for name, content in files.items():
            update.write(name, content)


def database(root: Path) -> Path:
    """Returns the path of the small copies."""
    return root / ".fsmirror" / "copies.sqlite3"


def large(root: Path, content: bytes) -> Path:
    """Returns the path of a large copy."""
    return root / ".fsmirror" / "copies" / digest_of(content).hex()


def small_copies(root: Path) -> set[bytes]:
    """Returns the digests of the small copies."""
    if not database(root).exists():
        return set()
    with contextlib.closing(sqlite3.connect(database(root))) as copies:
        return {digest for (digest,) in copies.execute("SELECT digest FROM contents")}


def copies(root: Path) -> set[str]:
    """Returns the names of all copies, and of what else lies among them."""
    folder = root / ".fsmirror" / "copies"
    found = set(os.listdir(folder)) if folder.exists() else set()
    return found | {digest.hex() for digest in small_copies(root)}


def names_of(*contents: bytes) -> set[str]:
    """Returns the names that copies of some contents have."""
    return {digest_of(content).hex() for content in contents}


def recorded(root: Path) -> set[str]:
    """Returns the names of the copies of which the ledger tells."""
    file = root / ".fsmirror" / "ledger.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as ledger:
        found = ledger.execute("SELECT digest FROM rows WHERE copied").fetchall()
    return {digest.hex() for (digest,) in found}
