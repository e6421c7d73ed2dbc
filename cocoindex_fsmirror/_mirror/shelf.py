"""Shelf: the copies of contents, small ones in a database, larger ones as files.

Each has its digest as its name, and is checked against it when it is taken out. A copy that is
missing or damaged only means that the owner of the path writes it anew. So whatever fails here
fails nothing else, and all copies go where there is no room for what is mirrored.
"""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, Protocol

from .._core.errors import CorruptLedgerError, LedgerError
from .._core.layout import COPIES, COPIES_FILES, LARGE_COPIES
from .._core.names import STATE, Name, join, leaf
from .._core.ownership import CopyPolicy
from .._core.states import Content, digest_of
from .._disk.calls import FULL
from .._disk.copies import clone_file, copy_file, read_file
from .._disk.staging import reserved
from .._disk.tree import Folders, Tree
from .contents import SMALL, Contents

__all__ = [
    "Copyable",
    "Records",
    "drop_orphans",
    "drop_unused",
    "file_of",
    "found_copies",
    "give_up",
    "keep",
    "large_copies",
    "remove",
    "remove_misplaced",
    "take",
]

_log = logging.getLogger("cocoindex_fsmirror")
_NONE: Final[Mapping[bytes, bytes]] = {}
_AT_ONCE: Final = 8 << 20  # bytes of small contents in one transaction, held in memory until then


class Records(Protocol):
    """The ledger, as far as it knows of copies."""

    is_crowded: bool

    @property
    def contents(self) -> Contents:
        """The small copies."""
        ...

    def referred(self, digests: Collection[bytes] = ()) -> set[bytes]:
        """Returns the digests that rows with a copy have."""
        ...

    def room_for(self, count: int) -> int:
        """Returns the number of bytes that storing some rows may take."""
        ...

    def forget_copies(self) -> None:
        """Records that no content has a copy."""
        ...


class Copyable(NamedTuple):
    """A content that is to be copied: its digest, its size in bytes, and where it lies now.

    ``policy`` is not ``none``; ``declared`` may hold the content, too.
    """

    digest: bytes
    size: int
    at: Name
    policy: CopyPolicy
    declared: Content | None = None


def keep(
    tree: Tree, ledger: Records, contents: Collection[Copyable], held: Mapping[bytes, bytes] = _NONE
) -> set[bytes]:
    """Copies contents, as far as that can be done; returns the digests of those with a copy now.

    Args:
        tree: The locked root.
        ledger: Its ledger.
        contents: Where contents lie.
        held: Small contents that are held in memory, by digest.
    """
    if ledger.is_crowded:  # What still has to be written needs the room.
        return set()
    for _ in range(2):  # Once more if the database is damaged, with a new one.
        try:
            return _keep(tree, ledger, contents, held)
        except CorruptLedgerError as error:
            _clear_damaged(tree, ledger, error)
    return set()


def _keep(
    tree: Tree, ledger: Records, contents: Collection[Copyable], held: Mapping[bytes, bytes]
) -> set[bytes]:
    """Copies contents, until the disk is full."""
    done, small, size = set[bytes](), dict[bytes, bytes](), 0
    try:
        done |= _store(tree, ledger, held)
        for each in contents:
            if each.digest in done or each.digest in small:
                continue
            with _readable(tree, each):
                if each.size > SMALL:
                    done |= _keep_large(tree, each)
                else:
                    small |= _read(tree, each)
                    size += each.size
            if size > _AT_ONCE:
                done |= _store(tree, ledger, small)
                small, size = {}, 0
        done |= _store(tree, ledger, small)
    except CorruptLedgerError:
        raise
    except (LedgerError, OSError) as error:
        _log.info("%s: some contents can't be copied: %s", tree.path, error)
    return done


@contextlib.contextmanager
def _readable(tree: Tree, each: Copyable) -> Iterator[None]:
    """Goes on with other contents if one can't be read, but not if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        _log.info("%s: %r can't be copied: %s", tree.path, each.at, error.strerror)


def _read(tree: Tree, each: Copyable) -> dict[bytes, bytes]:
    """Returns a small content, by digest; nothing if another one is there by now."""
    held = each.declared.held if each.declared is not None else None
    content = read_file(tree, each.at, SMALL) if held is None else held
    return {each.digest: content} if digest_of(content) == each.digest else {}


def _store(tree: Tree, ledger: Records, small: Mapping[bytes, bytes]) -> AbstractSet[bytes]:
    """Stores small contents; returns their digests."""
    if small:
        tree.make_file(COPIES)
        ledger.contents.insert(tree.folder(STATE), small)
    return small.keys()


def _keep_large(tree: Tree, each: Copyable) -> set[bytes]:
    """Copies a large content, unless that takes room, and its policy does not say so.

    Returns:
        Its digest, if it has a copy now.
    """
    target = file_of(each.digest)
    if (found := tree.stat(target)) is not None:
        if stat.S_ISREG(found.st_mode) and found.st_size == each.size:
            return {each.digest}
        tree.remove_all(target)  # What is there is no copy.
    tree.make_folder(LARGE_COPIES, 0o700)
    if each.policy == "all":
        is_done = copy_file(tree, each.at, target, each.digest)
    else:
        is_done = clone_file(tree, each.at, target)
    return {each.digest} if is_done else set()


def file_of(digest: bytes) -> Name:
    """Returns the path of a large copy, relative to the root."""
    return join(LARGE_COPIES, Name(digest.hex()))


def large_copies(tree: Tree) -> list[Name]:
    """Returns the paths of the large copies, as far as they can be listed."""
    with contextlib.suppress(OSError):
        return tree.names_in(LARGE_COPIES)
    return []


def take(tree: Folders, contents: Contents, digest: bytes) -> bytes | None:
    """Returns a small content; ``None`` if there is no sound copy of it."""
    try:
        return contents.take(tree.folder(STATE), digest)
    except (LedgerError, OSError):
        return None


def _digests(tree: Tree, ledger: Records) -> set[bytes]:
    """Returns the digests of all contents with a copy, which may be damaged."""
    found = set[bytes]()
    if tree.stat(COPIES) is not None:
        found = ledger.contents.digests(tree.folder(STATE))
    for name in large_copies(tree):
        with contextlib.suppress(ValueError):  # A crash left what has another name.
            found.add(bytes.fromhex(leaf(name)))
    return found


def remove(tree: Tree, ledger: Records, digests: Collection[bytes]) -> None:
    """Removes copies, some of which may be missing."""
    if not digests:
        return
    try:
        if tree.stat(COPIES) is not None:
            ledger.contents.remove(tree.folder(STATE), digests)
        if tree.stat(LARGE_COPIES) is not None:
            for digest in digests:
                tree.remove_all(file_of(digest))
    except CorruptLedgerError as error:
        _clear_damaged(tree, ledger, error)
    except (LedgerError, OSError) as error:
        _log.info("%s: some copies can't be removed: %s", tree.path, error)


def _clear_damaged(tree: Tree, ledger: Records, error: CorruptLedgerError) -> None:
    """Removes all copies, since an error tells that they are damaged."""
    _log.warning("%s: the copies are damaged, and were removed: %s", tree.path, error)
    _clear(tree, ledger)


def _clear(tree: Tree, ledger: Records) -> None:
    """Removes all copies."""
    ledger.contents.close()
    with contextlib.suppress(LedgerError, OSError):
        for name in (*COPIES_FILES, LARGE_COPIES):
            tree.remove_all(name)
        ledger.forget_copies()  # On a full disk this needs the room.


def remove_misplaced(tree: Tree) -> None:
    """Removes what is in the place of the copies, and can't be them; a FIFO would block SQLite."""
    for name in (*COPIES_FILES, LARGE_COPIES):
        if (found := tree.stat(name)) is not None:
            is_right = stat.S_ISDIR if name == LARGE_COPIES else stat.S_ISREG
            if not is_right(found.st_mode):
                tree.remove_all(name)


def drop_orphans(tree: Tree, ledger: Records, found: set[bytes]) -> None:
    """Removes all copies that no row refers to, and what a crash left beside them."""
    referred = ledger.referred()
    remove(tree, ledger, found - referred)
    names = {file_of(digest) for digest in referred}
    for name in large_copies(tree):
        if name not in names:
            with contextlib.suppress(OSError):
                tree.remove_all(name)


def found_copies(tree: Tree, ledger: Records) -> set[bytes] | None:
    """Returns the digests of all contents with a copy; ``None`` if that can't be told now."""
    try:
        return _digests(tree, ledger)
    except CorruptLedgerError as error:
        _clear_damaged(tree, ledger, error)
        return set()
    except (LedgerError, OSError):
        return None


def give_up(tree: Tree, ledger: Records) -> bool:
    """Removes all copies, to make room on a full disk; false if there are none."""
    is_there = tree.stat(COPIES) is not None or tree.stat(LARGE_COPIES) is not None
    if is_there:
        _clear(tree, ledger)
        _log.info("%s: all copies were removed, to make room on the disk", tree.path)
    return is_there


def drop_unused(tree: Tree, ledger: Records, digests: Collection[bytes]) -> None:
    """Removes the copies of those contents that no row refers to; leaves room to record that.

    To remove a copy takes room, too. Where there is none, all copies go.
    """
    if not digests:
        return
    try:
        with reserved(tree, ledger.room_for(1)):
            remove(tree, ledger, {*digests} - ledger.referred(digests))
    except OSError:
        give_up(tree, ledger)
