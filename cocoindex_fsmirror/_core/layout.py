"""Names of everything inside ``.fsmirror/``, our own folder in a root.

The root has one; so has a folder that another mount needs for its staging area or
backups, its *home*. All names are relative to the root::

    .fsmirror/
        .gitignore                keeps the folder out of repositories
        ledger.sqlite3            the ledger, with -wal and -shm while it is open
        ledger.sqlite3.corrupt-*  ledgers that could not be read, set aside
        lock                      held by a command for longer than a batch
        tmp/<batch>/              a staging area; <batch>.ready after the first barrier
        backup/<UTC time>/        foreign bytes that had to make way, by path
        engine/                   left by ``fsmirror sync`` of releases up to 0.1
"""

from __future__ import annotations

from typing import Final

from .names import RESERVED, Name, join

__all__ = [
    "ENGINE",
    "FOLDER",
    "GITIGNORE",
    "LEDGER",
    "LEDGER_FILES",
    "LOCK",
    "READY",
    "STAGING",
    "area_of",
    "backups_of",
    "corrupt_ledger",
    "is_engine",
]

FOLDER: Final = Name(RESERVED)
GITIGNORE: Final = Name(f"{FOLDER}/.gitignore")
LEDGER: Final = Name(f"{FOLDER}/ledger.sqlite3")
LEDGER_FILES: Final = (LEDGER, Name(f"{LEDGER}-wal"), Name(f"{LEDGER}-shm"))
LOCK: Final = Name(f"{FOLDER}/lock")
STAGING: Final = Name(f"{FOLDER}/tmp")  # noqa: S108  # Not the system's.
READY: Final = ".ready"
"""Ends the name of a staging area in which all files are whole, and some may be foreign."""
ENGINE: Final = Name(f"{FOLDER}/engine")


def area_of(home: Name, batch: str) -> Name:
    """Returns the staging area of a batch in a home."""
    return join(home, Name(f"{STAGING}/{batch}"))


def backups_of(home: Name) -> Name:
    """Returns the backup area of a home."""
    return join(home, Name(f"{FOLDER}/backup"))


def corrupt_ledger(stamp: str, attempt: int) -> Name:
    """Returns a name to set a corrupt ledger aside by; attempts count from 0."""
    return Name(f"{LEDGER}.corrupt-{stamp}" + (f".{attempt}" if attempt else ""))


def is_engine(name: Name) -> bool:
    """True if an earlier release kept its engine database there, sound or corrupt."""
    return name == ENGINE or name.startswith(f"{ENGINE}.corrupt-")
