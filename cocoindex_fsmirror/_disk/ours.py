"""Ours: who may have written to our own folder in a root.

The ledger tells which files are ours to destroy, and SQLite opens it by its path. So our folder and
what we rely on in it have to belong to who runs, or to root, and nobody else may write there. In
such a folder nobody can put a link or a pipe, or move something out of it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from .._core.errors import CorruptLedgerError, LedgerError
from .._core.names import Name, leaf
from .calls import DIRECTORY, belongs_to_us, closing, copy, open_file, say_once, sync_file
from .mounts import WITHOUT_OWNERS, mounts_below

__all__ = ["Spot", "check_ours", "opened_ours", "renew"]

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Spot(NamedTuple):
    """The place of a state folder: the path of the directory that it is in, and its name."""

    above: str
    name: str

    @property
    def path(self) -> str:
        """The path of the folder."""
        return os.path.join(self.above, self.name)


def check_ours(folder: int, path: str, relied_on: Mapping[Name, bool]) -> set[Name]:
    """Refuses a folder of our own if others may have written there.

    Args:
        folder: Its descriptor.
        path: Its path.
        relied_on: What is looked at in it, as far as it is there; true of what has to be sound.

    Returns:
        The files among these that have further names (hard links). Whatever writes to such a file
        would change those, too.

    Raises:
        CorruptLedgerError: Something is a pipe.
        LedgerError: Somebody else may have written there; the message tells what to do.
    """
    _check(os.fstat(folder), folder, path, path)
    linked = set()
    for name, is_needed in relied_on.items():
        with contextlib.suppress(FileNotFoundError):
            base = leaf(name)
            found = os.stat(base, dir_fd=folder, follow_symlinks=False)
            if is_needed and stat.S_ISFIFO(found.st_mode):  # SQLite would wait for its other end.
                raise CorruptLedgerError(f"{os.path.join(path, base)}: not a regular file")
            if not stat.S_ISLNK(found.st_mode):  # Whoever opens it does not follow it.
                _check(found, folder, path, os.path.join(path, base))
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                linked.add(name)
    return linked


def _check(found: os.stat_result, folder: int, path: str, where: str) -> None:
    """Raises if others may have written to our folder, or to something in it."""
    if belongs_to_us(found):
        return
    kind = mounts_below(folder)[0]
    if kind.startswith(WITHOUT_OWNERS):
        say_once(f"{path}: this file system ({kind}) tells no owners; nobody else may write there")
        return
    if found.st_uid not in (os.geteuid(), 0):
        cure = f"run as that user; or chown -R {os.geteuid()} {path} if you trust it"
        problem = f"belongs to user {found.st_uid}, who may have put anything there ({cure})"
    else:
        problem = f"others may write to it (if nobody has, chmod go-w it; else remove {path})"
    raise LedgerError(f"{where}: {problem}")


@contextlib.contextmanager
def opened_ours(spot: Spot, relied_on: Mapping[Name, bool]) -> Iterator[tuple[int, set[Name]]]:
    """Opens a folder of our own, to be looked at; it may be no link.

    Yields:
        Its descriptor, and what :func:`check_ours` returns.

    Raises:
        LedgerError: Somebody else may have written there.
        OSError: It can't be opened, or is not there.
    """
    with (
        closing(os.open(spot.above, os.O_RDONLY | os.O_DIRECTORY)) as above,
        closing(os.open(spot.name, DIRECTORY, dir_fd=above)) as folder,
    ):
        yield folder, check_ours(folder, spot.path, relied_on)


def renew(folder: int, names: Iterable[Name]) -> None:
    """Replaces files by copies, to which no other name leads.

    A power cut in between leaves some of each; the copies are equal.

    Args:
        folder: The descriptor of our own folder.
        names: The files in it; each may be missing.
    """
    for name in names:
        base, fresh = leaf(name), f"{leaf(name)}.new"
        with contextlib.suppress(FileNotFoundError), closing(open_file(base, folder)) as source:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=folder)
            with closing(os.open(fresh, _NEW, 0o600, dir_fd=folder)) as target:
                copy(source, target, os.fstat(source).st_size, lambda _count: None)
                sync_file(target)
            os.rename(fresh, base, src_dir_fd=folder, dst_dir_fd=folder)
