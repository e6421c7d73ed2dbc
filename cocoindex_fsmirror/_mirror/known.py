"""Known: what a root is known to hold: its state folder is found, and the ledger in it is read.

The state folder is looked for where it is declared, and then where it was before: where a mark or a
note in the root tells; under another name in the state directory, since the root was moved; and
where whoever declares it says.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from .._core.errors import CorruptLedgerError, LedgerError, RootError
from .._core.layout import LEDGER, NOTE
from .._core.names import RESERVED, leaf
from .._core.states import signature_of
from .._disk.calls import closing, open_file
from .._disk.locations import Location, Root
from .._disk.ours import Spot, opened_ours
from .._disk.roots import open_root, read_mark
from .._disk.tree import Tree
from .reader import DEVICE, MOVE, MOVED_FROM, LedgerReader, root_of

__all__ = [
    "Found",
    "exists",
    "find",
    "has_ledger",
    "is_origin",
    "known",
    "located",
    "mirrored",
    "noted",
    "read_note",
]

_LOOKED_AT: Final = 1024  # rows by which a root is recognised that was moved
_ATTEMPTS: Final = 10  # to open a ledger that is being moved,
_SURE: Final = 3  # and those that must have failed if it is not
_PAUSE: Final = 0.02  # seconds between them
_LONGEST: Final = 1 << 14  # bytes of a note


class Found(NamedTuple):
    """The state folder of a root: where it is now, and where it belongs."""

    spot: Spot
    goal: Spot

    @property
    def is_apart(self) -> bool:
        """True if it is not in a root."""
        return self.spot.name != RESERVED


def find(root: Root) -> Found:
    """Finds the state folder of a root, which may be missing; changes nothing.

    Raises:
        LedgerError: Somebody else may have written to our folder in the root, or it can't be read.
    """
    location = Location.of(root)
    goal, mark = location.spot, read_mark(location.root)
    others = [spot for spot in _formers(location, mark) if spot != goal and has_ledger(spot)]
    if has_ledger(goal):
        # As long as the old ledger is there, a move was cut off, and it counts.
        counts = next((spot for spot in others if _is_cut_off(spot, goal)), None)
        marked = location.at(mark).spot if mark else goal
        if counts is None and marked in others and not _is_cut_off(goal, marked):
            counts = marked  # The one at the goal is of another time.
        return Found(counts or goal, goal)
    if location.state and (moved := _moved(location)) is not None:
        return moved
    if location.former is None:
        return Found(goal, goal)
    elsewhere = (location.at(each) for each in (mark, *location.former) if each)
    moved_too = (found.spot for found in map(_moved, elsewhere) if found is not None)
    return Found(next((spot for some in (others, moved_too) for spot in some), goal), goal)


def _formers(location: Location, mark: str) -> list[Spot]:
    """Lists the places where a state folder may be so far."""
    told = dict.fromkeys((mark, *(location.former or ()), "", read_note(location.root)))
    return [location.at(each).spot for each in told]


def _is_cut_off(origin: Spot, spot: Spot) -> bool:
    """True if a move from one state folder to another one did not end."""
    move = _move_to(spot)
    return bool(move) and _move_from(origin) == move


def _move_to(spot: Spot) -> str:
    """Returns the identity of a move to a state folder that is not done; empty if there is none."""
    with contextlib.suppress(CorruptLedgerError), contextlib.closing(LedgerReader.peek(spot)) as it:
        return str(it.get_meta(MOVE) or "") if it.get_meta(MOVED_FROM) else ""
    return ""


def _move_from(spot: Spot) -> str:
    """Returns the identity of the last move from a state folder; empty if there is none."""
    with contextlib.suppress(CorruptLedgerError), contextlib.closing(LedgerReader.peek(spot)) as it:
        return "" if it.get_meta(MOVED_FROM) else str(it.get_meta(MOVE) or "")
    return ""


def is_origin(spot: Spot, ledger: LedgerReader) -> bool:
    """True if a state folder has the ledger from which another one was copied to move it."""
    return has_ledger(spot) and _move_from(spot) == str(ledger.get_meta(MOVE))


def has_ledger(spot: Spot) -> bool:
    """True if there is a ledger in a state folder, or if that can't be told."""
    try:
        os.lstat(os.path.join(spot.path, leaf(LEDGER)))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True


def located(root: str, state: str | None = None) -> Location:
    """Returns the location of a root.

    Args:
        root: Its absolute path.
        state: The absolute path of the state directory; by default what a note or a mark in the
            root tells, and without these the root itself.

    Raises:
        LedgerError: Somebody else may have written to our folder in the root, or it can't be read.
        RootError: The state directory is inside of the root.
    """
    if state is not None:
        return Location.named(root, state)
    note = read_note(root)
    for told in (note, read_mark(root)):
        with contextlib.suppress(RootError):
            location = Location.named(root, told)
            if told and (has_ledger(location.spot) or _moved(location) is not None):
                return location
    # A root that was copied has the mark of another one; a note was left on purpose.
    is_noted = note and not has_ledger(Spot(root, RESERVED))
    return Location.named(root, note) if is_noted else Location(root)


def read_note(root: str) -> str:
    """Returns the state directory that a note in a root tells; empty if there is none.

    Raises:
        LedgerError: Somebody else may have written it.
    """
    if not os.path.lexists(os.path.join(root, NOTE)):
        return ""
    with contextlib.suppress(OSError), opened_ours(Spot(root, RESERVED), {NOTE: True}) as (ours, _):
        with closing(open_file(leaf(NOTE), ours)) as file:
            told = os.fsdecode(os.read(file, _LONGEST).removesuffix(b"\n"))
        return told if os.path.isabs(told) and "\0" not in told else ""
    return ""


def _moved(location: Location) -> Found | None:
    """Finds the state folder of a root that has another path than it had, or a further one."""
    goal = location.spot
    try:
        with os.scandir(location.state) as listed:
            names = [each.name for each in listed if each.is_dir(follow_symlinks=False)]
    except OSError:
        return None
    for spot in (Spot(location.state, name) for name in sorted(names)):
        # Others may have theirs here, too, which may be closed to us, or damaged.
        with contextlib.suppress(LedgerError), contextlib.closing(LedgerReader.peek(spot)) as found:
            root = root_of(found)
            if root == location.root:  # The state directory was moved.
                return Found(spot, goal)
            with contextlib.suppress(OSError):
                if os.path.samefile(root, location.root):
                    return Found(spot, spot)
            if _holds(location.root, found) and not _holds(root, found):
                return Found(spot, goal)
    return None


def _holds(root: str, ledger: LedgerReader) -> bool:
    """True if a root holds a file that a ledger remembers, which was not copied there.

    A snapshot holds it, too, but as another device.
    """
    with contextlib.suppress(OSError):
        if os.stat(root).st_dev != ledger.get_meta(DEVICE):
            return False
    for row in ledger.rows("kind <> 'dir'", limit=_LOOKED_AT):
        with contextlib.suppress(OSError):
            if signature_of(os.lstat(os.path.join(root, row.name))) == row.signature:
                return True
    return False


def known(root: Root) -> contextlib.closing[LedgerReader]:
    """Opens the ledger of a root for reading; an empty one where there is no mirror.

    Raises:
        LedgerError: The ledger can't be read.
        RootError: There is another one, and nothing tells which of them is right.
    """
    for attempt in range(_ATTEMPTS):
        found, ledger = find(root), None
        try:
            ledger = LedgerReader.peek(found.spot)
            check_alone(str(root), found, ledger)
            if ledger.inode or find(root) == found:
                return contextlib.closing(ledger)
        except (LedgerError, RootError):
            if ledger is not None:
                ledger.close()
            is_sure = not found.is_apart or attempt >= _SURE
            if find(root) == found and is_sure:
                raise
            time.sleep(_PAUSE)
        else:
            ledger.close()  # It was moved while we looked.
    raise RootError(str(root), "has a state that is moved again and again", "look again later")


def check_alone(root: str, found: Found, ledger: LedgerReader) -> None:
    """Raises if a root has a ledger in it and one elsewhere.

    Args:
        root: The path of the root.
        found: The state folder.
        ledger: The ledger in that.
    """
    inside = Spot(root, RESERVED)
    if not (found.is_apart and ledger.inode and has_ledger(inside)):
        return
    if not _move_to(inside) or _move_to(inside) != _move_from(found.spot):  # A move not done.
        problem = f"has two ledgers, in {inside.path} and in {found.spot.path}"
        raise RootError(root, problem, "move away the folder whose ledger is not to be used")


@contextlib.contextmanager
def mirrored(root: Root) -> Iterator[LedgerReader]:
    """Opens the ledger of a mirror for reading.

    Raises:
        RootError: The directory is no mirror.
    """
    with known(root) as ledger:
        if not ledger.inode:
            raise RootError(str(root), "is no mirror", "it has no ledger")
        yield ledger


@contextlib.contextmanager
def opened(root: Root) -> Iterator[Tree]:
    """Opens a root, to be looked at only.

    Raises:
        RootError: The root can't be read.
    """
    with contextlib.closing(open_root(str(root), find(root).spot)[0]) as tree:
        try:
            yield tree
        except OSError as error:
            problem = f"can't be looked at: {error.strerror or error}"
            raise RootError(str(root), problem, "check the file system, then look again") from error


def exists(root: Root) -> bool:
    """True if a directory has a ledger, which may be damaged.

    Raises:
        LedgerError: A newer release wrote it, or this user may not look.
    """
    try:
        with known(root) as ledger:
            return ledger.inode != 0
    except CorruptLedgerError:
        return True


def noted(root: Root, key: str) -> str:
    """Returns the text that was noted under a key in a mirror; empty if there is none."""
    with known(root) as ledger:
        return ledger.noted(key)
