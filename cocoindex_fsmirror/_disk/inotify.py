"""Inotify: hears that something has changed in trees of folders; see inotify(7).

Whoever hears of a change looks at everything. So an event says no more than in which tree it was,
and whatever may be lost counts as a change: an overflow of the queue, and the end of a watch. No
thread reads the events. The system keeps them until they are asked for.

A watch is of one folder, wherever that is moved. New folders get theirs when their event is read,
and a look after that finds what had been made in them before.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from .._core.names import RESERVED
from .calls import libc

__all__ = ["Inotify"]

_ATTRIB: Final = 0x4
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_MODIFY: Final = 0x2
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_ONLY_FOLDERS: Final = 0x1000000
_DONT_FOLLOW: Final = 0x2000000
_IS_FOLDER: Final = 0x40000000
_CHANGES: Final = (
    *(_ATTRIB, _MODIFY, _CREATE, _DELETE, _MOVED_FROM, _MOVED_TO),
    *(_DELETE_SELF, _MOVE_SELF, _ONLY_FOLDERS),
)
_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_ROOM: Final = 1 << 16  # bytes of events that are read at once


def _function(name: str, *arguments: type) -> Callable[..., int]:
    """Returns a function of the C library, which raises ``OSError``, also if there is none."""

    def check(result: int, *_call: object) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def missing(*_arguments: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    function: Any = getattr(libc, name, None)
    if function is None:
        return missing
    function.argtypes, function.errcheck = arguments, check
    return function  # type: ignore[no-any-return]


_init: Final = _function("inotify_init1", ctypes.c_int)
_add: Final = _function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_remove: Final = _function("inotify_rm_watch", ctypes.c_int, ctypes.c_int)


class Inotify:
    """The trees that are watched, each told by the path of its top.

    Attributes:
        ended: The trees whose top is not the folder any more that was watched.
        has_overflown: True if changes came faster than they were read; the look that follows any
            change finds those that were lost.

    Raises:
        OSError: The system has no inotify (``ENOSYS``), or a limit is reached (``EMFILE``).
    """

    def __init__(self) -> None:
        self._fd = _init(os.O_NONBLOCK | os.O_CLOEXEC)
        self._trees: dict[int, str] = {}
        self._tops: dict[str, int] = {}
        self._closed = set[str]()  # Trees with a folder that may not be watched.
        self.ended = set[str]()
        self.has_overflown = False

    def close(self) -> None:
        """Ends all watches."""
        os.close(self._fd)

    def cover(self, tree: str) -> None:
        """Watches all folders that are in a tree now, but none of ours.

        A folder that is gone, or may not be read, is left out: the folder above it tells when that
        changes. A missing tree has no watch at all.

        Raises:
            OSError: The limit of watches is reached (``ENOSPC``).
        """
        self._closed.discard(tree)
        found, folders = set[int](), [tree]
        for folder in folders:  # The list grows meanwhile.
            follow = 0 if folder == tree else _DONT_FOLLOW
            try:
                watch = _add(self._fd, os.fsencode(folder), sum(_CHANGES) | follow)
                with os.scandir(folder) as entries:
                    folders += [
                        each.path
                        for each in entries
                        if each.name != RESERVED and each.is_dir(follow_symlinks=False)
                    ]
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                if error.errno == errno.EACCES:
                    self._closed.add(tree)
                continue
            found.add(watch)
            self._trees[watch] = tree
            if folder == tree:
                self._tops[tree] = watch
        for watch in [each for each, of in self._trees.items() if of == tree and each not in found]:
            del self._trees[watch]
            with contextlib.suppress(OSError):  # Its folder is gone.
                _remove(self._fd, watch)

    def wait(self, seconds: float) -> set[str]:
        """Waits for changes; returns the trees in which there were some.

        Raises:
            OSError: The limit of watches is reached (``ENOSPC``).
        """
        ready = select.poll()
        ready.register(self._fd, select.POLLIN)
        ready.poll(max(0.0, seconds) * 1000)
        changed, reshaped = set[str](), set[str]()
        for watch, mask, name in self._events():
            if mask & _OVERFLOW:
                self.has_overflown = True
                changed |= {*self._tops}
                reshaped |= {*self._tops}
                continue
            tree = self._trees.get(watch)
            if tree is None or name == os.fsencode(RESERVED):
                continue
            changed.add(tree)
            if watch == self._tops[tree] and mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF):
                self.ended.add(tree)
            is_reshaped = mask & (_CREATE | _MOVED_FROM | _MOVED_TO)
            if mask & _IS_FOLDER and (is_reshaped or tree in self._closed):
                reshaped.add(tree)
        for tree in reshaped:
            self.cover(tree)
        return changed

    def _events(self) -> Iterator[tuple[int, int, bytes]]:
        """Yields watch, mask and name of all events that there are."""
        while True:
            try:
                events = os.read(self._fd, _ROOM)
            except BlockingIOError:
                return
            start = 0
            while start < len(events):
                watch, mask, _cookie, length = _HEAD.unpack_from(events, start)
                start += _HEAD.size + length
                yield watch, mask, events[start - length : start].rstrip(b"\0")
