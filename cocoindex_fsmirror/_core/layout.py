"""Names of everything that is ours: the state folder, and the areas that are beside it.

The state folder is ``<root>/.fsmirror``, unless the mirror keeps it elsewhere::

    .gitignore                keeps the folder out of repositories
    abilities.json            what the file system can do, as it was tried
    ledger.sqlite3            the ledger, with -wal and -shm while it is open
    copies.sqlite3            copies of small contents, with -wal and -shm while it is open
    copies/                   copies of larger ones, by digest
    ledger.sqlite3.corrupt-*  unreadable ledgers that were set aside
    lock                      held by a command for longer than a batch
    reserve                   room for the ledger; unlinked as soon as it is opened
    backup/<UTC time>/        foreign files that had to give way, by path

Where renames do not reach that from the root, backups are in ``<root>/.fsmirror``. The staging
areas are there always, and both are in that of each other *home*: a folder below the root that
needs a staging area of its own, as it is on another mount or has another default ACL. Backups are
only at the top of a mount::

    tmp/<batch>/              a staging area; <batch>.ready after the first barrier
    backup/<UTC time>/        as above
    location                  where the state folder is, if it is elsewhere, and this may be told
    engine/                   left by ``fsmirror sync`` of releases up to 0.1

All names are relative to the root. Those of the state folder begin with :data:`STATE`, in whose
place a :class:`Folders` takes the folder that it is told. Where it is told none, the system
takes that as a name of ``.fsmirror`` itself.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from .names import RESERVED, STATE, Name, join

__all__ = [
    "ABILITIES",
    "BACKUPS_APART",
    "COPIES",
    "COPIES_FILES",
    "COPIES_SHARED_MEMORY",
    "ENGINE",
    "FOLDER",
    "GITIGNORE",
    "IGNORED",
    "LARGE_COPIES",
    "LEDGER",
    "LEDGER_FILES",
    "LOCK",
    "NEW_NOTE",
    "NOTE",
    "READY",
    "RELIED_ON",
    "RESERVE",
    "SHARED_MEMORY",
    "STAGING",
    "area_of",
    "backup_of",
    "backups_of",
    "corrupt_ledger",
    "is_engine",
    "parse_stamp",
    "stamp_of",
]

FOLDER: Final = Name(RESERVED)
ABILITIES: Final = Name(f"{STATE}/abilities.json")
GITIGNORE: Final = Name(f"{STATE}/.gitignore")
LEDGER: Final = Name(f"{STATE}/ledger.sqlite3")
SHARED_MEMORY: Final = Name(f"{LEDGER}-shm")
LEDGER_FILES: Final = (LEDGER, Name(f"{LEDGER}-wal"), SHARED_MEMORY, Name(f"{LEDGER}-journal"))
"""The ledger, and the files that SQLite opens beside it."""
COPIES: Final = Name(f"{STATE}/copies.sqlite3")
COPIES_SHARED_MEMORY: Final = Name(f"{COPIES}-shm")
COPIES_FILES: Final = tuple(Name(f"{COPIES}{end}") for end in ("", "-wal", "-shm", "-journal"))
"""The small copies, and the files that SQLite opens beside them."""
LARGE_COPIES: Final = Name(f"{STATE}/copies")
LOCK: Final = Name(f"{STATE}/lock")
RESERVE: Final = Name(f"{STATE}/reserve")
STAGING: Final = Name(f"{FOLDER}/tmp")  # noqa: S108  # Not the system's.
_NEEDED: Final = (
    *(*LEDGER_FILES, ABILITIES, GITIGNORE, LOCK, RESERVE, STAGING),
    Name(f"{FOLDER}/backup"),
)
BACKUPS_APART: Final = Name(f"{STATE}/backup")
"""The backup area of the root in a state folder that is elsewhere."""
RELIED_ON: Final = dict.fromkeys(_NEEDED, True) | dict.fromkeys(
    (*COPIES_FILES, LARGE_COPIES), False
)
"""What only we may have written, or root; false of what is thrown away if it is not sound."""
READY: Final = ".ready"
"""The end of the name of a staging area whose files are whole, and may be foreign."""
ENGINE: Final = Name(f"{FOLDER}/engine")
NOTE: Final = Name(f"{FOLDER}/location")
NEW_NOTE: Final = Name(f"{NOTE}.new")
IGNORED: Final = Name(f"{FOLDER}/.gitignore")
"""Beside the areas of a root whose state folder is elsewhere; else the same as GITIGNORE."""
_TIME: Final = "%Y-%m-%dT%H%M%S"
# Some file systems that fold case list all names in lower case.
_STAMP: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{6})[Zz](\.[1-9][0-9]{0,3})?")


def area_of(home: Name, batch: str) -> Name:
    """Returns the staging area of a batch in a home."""
    return join(home, Name(f"{STAGING}/{batch}"))


def backups_of(home: Name) -> Name:
    """Returns the backup area in the root, or at the top of another mount."""
    return join(home, Name(f"{FOLDER}/backup"))


def stamp_of(seconds: float) -> str:
    """Returns the name of a folder of the backup area; the seconds count from 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime(f"{_TIME}Z")


def parse_stamp(stamp: str) -> int | None:
    """Returns the time of a stamp, in seconds since 1970; ``None`` if a name is no stamp."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return None
    try:
        moment = datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
    except ValueError:  # The 13th month, for one.
        return None
    return int(moment.timestamp())


def backup_of(backups: Name, stamp: str, attempt: int, name: Name) -> Name:
    """Returns a place in a backup area for the file of a path; attempts count from 0."""
    return Name(f"{backups}/{stamp}" + (f".{attempt}" if attempt else "") + f"/{name}")


def corrupt_ledger(stamp: str, attempt: int) -> Name:
    """Returns a name for a corrupt ledger that is set aside; attempts count from 0."""
    return Name(f"{LEDGER}.corrupt-{stamp}" + (f".{attempt}" if attempt else ""))


def is_engine(name: Name) -> bool:
    """True of the engine database of an earlier release, sound or corrupt."""
    return name == ENGINE or name.startswith(f"{ENGINE}.corrupt-")
