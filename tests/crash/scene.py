"""A root, and a batch with every kind of work."""

from __future__ import annotations

import logging
import sqlite3
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.intents import Intent
from tests.support import Elsewhere, Tree, copy, delete, folder, link, snapshot, write

_OLD: Final = {
    "asked.txt": b"asked, old",
    "deep/er/gone.txt": b"deep, old",
    "edited.txt": b"edited, old",
    "edited_and_gone.txt": b"edited and gone, old",
    "gone.txt": b"gone, old",
    "kept_mode.txt": b"kept mode, old",
    "left.txt": b"one of two",
    "mixed/gone.txt": b"mixed, old",
    "replaced.txt": b"replaced, old",
    "right.txt": b"two of two",
    "theirs_first.txt": b"theirs, then declared",
    "to_file/a.txt": b"a, old",
    "to_file/sub/b.txt": b"b, old",
    "to_folder": b"to folder, old",
    "to_link": b"to link, old",
    "untouched.txt": b"untouched",
}
_USERS: Final = {
    "adopted.txt": b"adopted",
    "clash.txt": b"the user's clash",
    "edited.txt": b"the user's edit",
    "edited_and_gone.txt": b"the user's edit of what goes",
    "in_the_way": b"the user's file where a folder should be",
    "mixed/user.txt": b"the user's neighbour",
}

NEW: Final[Tree] = {
    "adopted.txt": b"adopted",
    "asked.txt": b"asked, new",
    "clash.txt": b"clash, new",
    "copied.bin": b"copied" * 9_000,
    "hashed.bin": b"hashed" * 9_000,
    "declared": "dir",
    "declared/inner.txt": b"in a folder with a time",
    "edited.txt": b"edited, new",
    "in_the_way": "dir",
    "in_the_way/below.txt": b"below",
    "kept_mode.txt": b"kept mode, new",
    "left.txt": b"two of two",
    "link.txt": b"no link",
    "mixed": "dir",
    "mixed/user.txt": b"the user's neighbour",
    "new": "dir",
    "new/folder": "dir",
    "new/folder/file.txt": b"new" * 5_000,
    "new/link": "-> folder/file.txt",
    "replaced.txt": b"replaced, new",
    "right.txt": b"one of two",
    "theirs_first.txt": b"theirs first, new",
    "to_file": b"to file, new",
    "to_folder": "dir",
    "to_folder/inner.txt": b"inner",
    "to_link": "-> to_file",
    "untouched.txt": b"untouched",
}
"""What the batch is to make of the scene."""

MODES: Final = {"asked.txt": 0o751, "declared": 0o751, "kept_mode.txt": 0o604}
"""The modes in the end: two were asked for, the other belongs to the old version."""

THEN: Final = 1_500_000_000_123_456_789
TIMES: Final = ("asked.txt", "copied.bin", "declared", "hashed.bin", "right.txt", "to_link")
"""What has that time in the end: one of them is right but for it."""

BACKUPS: Final = Counter[bytes | str](
    [
        _USERS["clash.txt"],
        _USERS["edited.txt"],
        _USERS["edited_and_gone.txt"],
        _USERS["in_the_way"],
        _OLD["theirs_first.txt"],
        "-> the user's target",
    ]
)
"""What has to be in the backup area in the end, each of it once."""

FOREIGN: Final = {*BACKUPS, _USERS["mixed/user.txt"], _USERS["adopted.txt"]}
"""What must be somewhere at any time."""


_KEPT: Final = {*FOREIGN, "dir"}


def lay_out(root: Path) -> Tree:
    """Makes the scene; returns its visible state."""
    root.mkdir()
    _write(root / "theirs_first.txt", _OLD["theirs_first.txt"])
    with Mirror(root) as mirror:
        mirror.apply([write(name, content) for name, content in _OLD.items()])
    for name, content in _USERS.items():
        _write(root / name, content)
    (root / "link.txt").symlink_to("the user's target")
    (root / "kept_mode.txt").chmod(MODES["kept_mode.txt"])
    return snapshot(root)


def _write(path: Path, content: bytes) -> None:
    """Writes a file as a user would."""
    path.write_bytes(content)


def intents(root: Path) -> list[Intent]:
    """Returns the batch."""
    wanted = {name: shown for name, shown in NEW.items() if shown != "dir"}
    del wanted["mixed/user.txt"]
    return [
        folder("declared", mode=MODES["declared"], mtime_ns=THEN),
        *(_intent(root, name, shown) for name, shown in wanted.items()),
        *(delete(name) for name in _OLD if name not in wanted),
    ]


def _intent(root: Path, name: str, shown: bytes | str) -> Intent:
    """Returns the intent that leads to a visible state."""
    mtime_ns = THEN if name in TIMES else None
    if isinstance(shown, str):
        return link(name, shown.removeprefix("-> "), mtime_ns=mtime_ns)
    if name == "copied.bin":
        return copy(name, Elsewhere(shown), mtime_ns=mtime_ns)
    if name == "hashed.bin":
        # As in a comparison: hashed before only if the right content may be there.
        return copy(name, Elsewhere(shown, is_hashed=(root / name).exists()), mtime_ns=mtime_ns)
    mode = MODES[name] if name == "asked.txt" else None
    return write(name, shown, mode=mode, mtime_ns=mtime_ns)


def apply(root: Path) -> None:
    """Applies the batch once."""
    with Mirror(root) as mirror:
        mirror.apply(intents(root))


def problems(root: Path, old: Tree) -> list[str]:
    """Lists what no moment may show: paths that are neither old nor new, foreign bytes lost."""
    found, own = snapshot(root), snapshot(root, ours=True)
    wrong = [
        f"{name} holds {found.get(name)!r}"
        for name in sorted({*found, *old, *NEW})
        if found.get(name) not in _legal(name, old)
    ]
    somewhere = {*found.values(), *own.values()}
    return [*wrong, *(f"lost: {lost!r}" for lost in FOREIGN - somewhere)]


def _legal(name: str, old: Tree) -> set[bytes | str | None]:
    """Returns the legal versions of a path: old, new, and absence between two kinds."""
    versions = {old.get(name), NEW.get(name)}
    return {*versions, None} if "dir" in versions else versions


def problems_in_the_end(root: Path, rows: object) -> list[str]:
    """Lists problems after the batch was applied to its end.

    Args:
        root: The root.
        rows: What the ledger holds where nothing was interrupted.
    """
    own, found = snapshot(root, ours=True), snapshot(root)
    wrong = [
        f"{name} holds {found.get(name)!r}, not {NEW.get(name)!r}"
        for name in sorted({*found, *NEW})
        if found.get(name) != NEW.get(name)
    ]
    wrong += [
        f"{name} has another mode" for name, mode in MODES.items() if _mode(root, name) != mode
    ]
    wrong += [f"{name} has another time" for name in TIMES if _mtime(root, name) != THEN]
    wrong += [f"residue: {name}" for name in own if name.startswith("tmp/")]
    backups = Counter(shown for name, shown in own.items() if name.startswith("backup/"))
    del backups["dir"]
    wrong += [f"ours in the backup area: {shown!r}" for shown in backups if shown not in BACKUPS]
    wrong += [f"twice in the backup area: {shown!r}" for shown in BACKUPS & (backups - BACKUPS)]
    wrong += [f"missing from the backup area: {less!r}" for less in BACKUPS - backups]
    if own.get(".gitignore") != b"*\n":
        wrong.append(f".gitignore holds {own.get('.gitignore')!r}")
    if ledger_rows(root) != rows:
        wrong.append("the ledger differs from one of an uninterrupted update")
    return wrong


def intents_to_go_back() -> list[Intent]:
    """Returns the batch back to the old declaration."""
    gone = [name for name, shown in NEW.items() if shown != "dir" and name not in _OLD]
    gone.remove("mixed/user.txt")
    back = [write(name, content) for name, content in _OLD.items()]
    return [*back, *(delete(name) for name in (*gone, "declared"))]


def problems_after_going_back(root: Path, old: Tree) -> list[str]:
    """Lists problems after that: old paths that are missing, foreign bytes lost."""
    found, own = snapshot(root), snapshot(root, ours=True)
    wrong = [f"{name} holds {found.get(name)!r}" for name in _OLD if found.get(name) != _OLD[name]]
    users = {*_USERS, "link.txt"}
    wrong += [
        f"{name} stays as {shown!r}"
        for name, shown in found.items()
        if shown != "dir" and name not in _OLD and (name not in users or shown != old[name])
    ]
    wrong += [f"residue: {name}" for name in own if name.startswith("tmp/")]
    backups = [shown for name, shown in own.items() if name.startswith("backup/")]
    wrong += [f"ours in the backup area: {shown!r}" for shown in backups if shown not in _KEPT]
    return wrong + [f"lost: {lost!r}" for lost in FOREIGN - {*found.values(), *own.values()}]


def _mode(root: Path, name: str) -> int:
    """Returns the permission bits of a file."""
    return stat.S_IMODE((root / name).lstat().st_mode)


def _mtime(root: Path, name: str) -> int:
    """Returns the mtime, in nanoseconds."""
    return (root / name).lstat().st_mtime_ns


def ledger_rows(root: Path) -> list[Any]:
    """Reads the rows, without inodes and times, without code of the package."""
    connection = sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")
    try:
        sql = (
            "SELECT name, kind, owner, container, component, digest, size, mode, made, declared,"
            " unsynced, seen, target, asked_ns FROM rows ORDER BY name"
        )
        left = connection.execute("SELECT batch FROM intents").fetchall()
        return [*connection.execute(sql).fetchall(), *left]
    finally:
        connection.close()


def undisturbed(root: Path) -> list[Any]:
    """Returns the rows after a batch without interruption."""
    lay_out(root)
    with Mirror(root) as mirror:
        mirror.apply(intents(root))
        return ledger_rows(root)


if __name__ == "__main__":
    logging.disable()
    apply(Path(sys.argv[1]))
