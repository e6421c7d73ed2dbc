"""The state folder moves from one place to another, or goes.

A move copies everything, and then removes the old ledger, and the rest after it. The new ledger
tells from where it came. After a crash in between, the old ledger counts as long as it is there,
and the move begins anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import uuid
from collections.abc import Callable
from typing import Final

from .._core.errors import CorruptLedgerError, FsMirrorError, LedgerError
from .._core.layout import (
    ABILITIES,
    BACKUPS_APART,
    COPIES,
    COPIES_FILES,
    FOLDER,
    GITIGNORE,
    LARGE_COPIES,
    LEDGER,
    LEDGER_FILES,
    LOCK,
    NEW_NOTE,
    NOTE,
    RELIED_ON,
    RESERVE,
    STAGING,
    corrupt_ledger,
    parse_stamp,
)
from .._core.names import RESERVED, ROOT, STATE, Name, join, leaf
from .._core.text import external
from .._disk.calls import closing, open_file, replace, sync_folder
from .._disk.copies import share_file
from .._disk.homes import enter_root, keep_entry, stamp_now
from .._disk.locations import Location
from .._disk.ours import Spot, check_ours
from .._disk.roots import hold, make_spot, open_spot, remove_spot, set_mark
from .._disk.tree import Tree
from .database import GIVEN, connected, origin_of, translated
from .known import Found, has_ledger, is_origin
from .ledger import Ledger
from .look import entries
from .reader import MOVE, MOVED_FROM, LedgerReader

__all__ = ["end_move", "enter_state", "move", "remove_state", "tell_state"]

_log = logging.getLogger("cocoindex_fsmirror")
_FILES: Final = (*LEDGER_FILES, *COPIES_FILES, LARGE_COPIES, LOCK, ABILITIES, RESERVE)


def move(
    tree: Tree, ledger: Ledger, location: Location, found: Found, close: Callable[[], None]
) -> bool:
    """Moves the state folder of a locked root to where it belongs.

    Args:
        tree: The root; its state folder is the new one afterwards.
        ledger: Its ledger.
        location: Where the mirror is declared to be.
        found: Where the folder is, and where it belongs.
        close: Closes the ledger, which has to be opened anew afterwards.

    Returns:
        False if it stays for now, since a command is at work, or it can't be copied.
    """
    try:
        os.close(hold(tree, LOCK))
        fd = _made(tree, found.goal)
    except (FsMirrorError, OSError) as error:
        return _stays(tree, found, error)
    with (
        contextlib.closing(Tree(fd, found.goal.path)) as target,
        contextlib.closing(Tree(os.dup(tree.folder(STATE)), found.spot.path)) as source,
    ):
        try:
            check_ours(fd, target.path, RELIED_ON)
            _set_aside(target)
        except (FsMirrorError, OSError) as error:
            return _stays(tree, found, error)
        try:
            _copy_all(source, target, ledger)
        except (FsMirrorError, OSError, sqlite3.Error) as error:
            with contextlib.suppress(OSError):
                remove_state(target, ROOT)
            remove_spot(found.goal)
            return _stays(tree, found, error)
        close()
        enter_state(tree, found.goal)
        if tree.is_apart:
            tell_state(tree, location)  # From here on the note may count.
        set_mark(tree, location.state)
        tree.sync(files=[NOTE])  # Nothing else tells of the new ledger then.
        source.remove_file(_at(LEDGER))
        sync_folder(source.fd)  # It must not come back once the new one is used.
    _log.info("%s: its state was moved from %s to %s", tree.path, *(each.path for each in found))
    return True


def _made(tree: Tree, goal: Spot) -> int:
    """Makes a state folder, which may exist; returns its descriptor."""
    if goal.name != RESERVED:
        return make_spot(goal)
    tree.make_folder(FOLDER, 0o700)
    return os.dup(tree.folder(FOLDER))


def _stays(tree: Tree, found: Found, error: Exception) -> bool:
    """Warns that a state folder is not moved; returns false."""
    _log.warning("%s: its state stays in %s for now: %s", tree.path, found.spot.path, error)
    return False


def _copy_all(source: Tree, target: Tree, ledger: Ledger) -> None:
    """Copies a state folder to another one, which has no ledger that counts."""
    marker, fresh = _at(GITIGNORE), Name(f"{leaf(LEDGER)}.new")
    for name in (*map(_at, (*LEDGER_FILES, *COPIES_FILES, LARGE_COPIES, ABILITIES)), fresh):
        target.remove_all(name)  # A move that was cut off left it.
    target.make_file(marker, b"*\n")
    share_file(source, target, _at(ABILITIES))
    for name in filter(_is_aside, source.names_in(ROOT)):
        target.remove_file(name)
        share_file(source, target, name)
    _copy_copies(source, target, ledger)
    ledger.set_meta(MOVE, uuid.uuid4().hex)
    file = os.path.join(target.path, fresh)
    with translated(file):
        target.make_file(fresh)
        with (
            contextlib.closing(connected(ledger.file, "mode=rw")) as old,
            contextlib.closing(connected(file, "mode=rw")) as into,
        ):
            old.backup(into)
            origin = origin_of(os.stat(fresh, dir_fd=target.fd), marker, target.fd)
            noted = (("origin", origin), (MOVED_FROM, external(source.path)))
            into.executemany(f"INSERT OR REPLACE INTO meta VALUES (?, {GIVEN})", noted)
    target.sync(files=[fresh])
    target.rename(fresh, _at(LEDGER), replace)
    sync_folder(target.fd)


def _set_aside(target: Tree) -> None:
    """Sets aside a ledger of another time; one that a move has made is not worth it."""
    if target.stat(_at(LEDGER)) is None:
        return
    spot = Spot(*os.path.split(target.path))
    with contextlib.suppress(CorruptLedgerError), contextlib.closing(LedgerReader.peek(spot)) as it:
        if it.get_meta(MOVED_FROM):
            return
    aside = _at(corrupt_ledger(stamp_now(), 0))
    target.rename(_at(LEDGER), aside, replace)
    _log.warning("%s: a ledger of another time was set aside as %s", target.path, aside)


def _is_aside(name: Name) -> bool:
    """True of a ledger that was set aside."""
    return name.startswith(f"{leaf(LEDGER)}.corrupt-")


def _copy_copies(source: Tree, target: Tree, ledger: Ledger) -> None:
    """Copies the copies of contents."""
    ledger.contents.close()
    files = [os.path.join(each.path, _at(COPIES)) for each in (source, target)]
    if source.stat(_at(COPIES)) is not None:
        target.make_file(_at(COPIES))
        old, new = (contextlib.closing(connected(file, "mode=rw")) for file in files)
        try:
            with translated(files[0]), old as there, new as here:
                there.backup(here)
        except CorruptLedgerError as error:
            target.remove_file(_at(COPIES))
            _log.info("%s: damaged copies are not moved: %s", source.path, error)
    target.make_folder(_at(LARGE_COPIES), 0o700)
    for name in entries(source, _at(LARGE_COPIES)):
        share_file(source, target, name)


def end_move(tree: Tree, ledger: Ledger) -> Spot | None:
    """Empties the folder from which the state folder was moved, if that is not done.

    Args:
        tree: The root, with its new state folder.
        ledger: The ledger in that.

    Returns:
        The place of that folder, if it still has a ledger: this one does not count yet.
    """
    path = str(ledger.get_meta(MOVED_FROM) or "")
    if not path:
        return None
    spot = Spot(*os.path.split(path))
    if is_origin(spot, ledger):
        return spot
    try:
        if not has_ledger(spot):  # Else it is another mirror's, by now.
            with contextlib.closing(Tree(open_spot(spot), path)) as old:
                check_ours(old.fd, path, RELIED_ON)
                for name in filter(_is_aside, old.names_in(ROOT)):
                    old.remove_file(name)
                if spot.name != RESERVED:  # Those in a root are found there.
                    _move_backups(old, tree)
                remove_state(old, ROOT)
                old.sync()
            remove_spot(spot)
    except FileNotFoundError:
        pass
    except (LedgerError, OSError) as error:
        _log.warning("%s: is no longer used, and can't be removed: %s", path, error)
        return None
    ledger.set_meta(MOVED_FROM, "")
    return None


def _move_backups(old: Tree, tree: Tree) -> None:
    """Moves the backups of a former state folder to the new one, or else to the root."""
    area = Name(leaf(BACKUPS_APART))
    for moment in entries(old, area):
        stamp = leaf(moment).partition(".")[0]
        for name in entries(old, moment) if parse_stamp(stamp) is not None else ():
            base = Name(leaf(name))
            keep_entry(tree, (base, old.folder(moment)), ROOT, stamp, base)
        old.remove_folder(moment)
    old.remove_folder(area)


def enter_state(tree: Tree, spot: Spot) -> None:
    """Makes a tree use a state folder that is there."""
    if spot.name == RESERVED:
        tree.take_state(None)
    else:
        tree.take_state(open_spot(spot), spot.path)


def remove_state(tree: Tree, at: Name) -> bool:
    """Removes all that a state folder holds, the ledger first.

    Args:
        tree: A tree with the folder in it.
        at: The folder.

    Returns:
        False if something else is in it.
    """
    for name in _FILES:
        tree.remove_all(join(at, _at(name)))
    marker = join(at, _at(GITIGNORE))
    is_empty = {*tree.names_in(at)} <= {marker}
    if is_empty:
        tree.remove_file(marker)
    return is_empty


def holds_state(path: str) -> bool:
    """True if a teardown that was cut off has left a folder; one that has ended leaves backups."""
    with contextlib.suppress(OSError):
        names = {*os.listdir(path)}
        return names <= {_at(GITIGNORE), _at(STAGING)} or not names.isdisjoint(map(_at, _FILES))
    return False


def tell_state(tree: Tree, location: Location) -> None:
    """Leaves a note in the root that tells the state directory, or removes one, as declared."""
    content = os.fsencode(location.state) + b"\n"
    if location.is_noted is None:
        return
    if not (tree.is_apart and location.is_noted):
        for name in (NOTE, NEW_NOTE):
            with contextlib.suppress(OSError):
                tree.remove_file(name)
        return
    with (
        contextlib.suppress(FileNotFoundError),
        closing(open_file(leaf(NOTE), tree.folder(FOLDER))) as file,
    ):
        if os.read(file, len(content) + 1) == content:
            return
    enter_root(tree)
    tree.remove_file(NEW_NOTE)
    tree.make_file(NEW_NOTE, content)
    tree.rename(NEW_NOTE, NOTE, replace)


def _at(name: Name) -> Name:
    """Returns the name of a file of the state folder in that folder."""
    return Name(leaf(name))
