"""Drafts: copies of large files that are begun before they are known to be needed.

To fingerprint a large file takes a third of the time that its copy takes, and the engine's
start some more; a draft is copied meanwhile, by a thread of its own. It has no name
(``O_TMPFILE``; see open(2)), so that nobody sees it, and a crash leaves nothing of it. Once
its content is proven it is staged by giving it a name. Whatever goes wrong with it only
means that the file is copied in the usual way, which tells what is wrong.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final

from ._copying import copied, holds
from ._errors import RootError
from ._fs import coarse_now_ns, nameless, signature_of
from ._state import Signature, proves

__all__ = ["LARGE", "Draft", "begin"]

LARGE: Final = 1 << 26
"""The size of the smallest files of which drafts are made, in bytes."""
_AT_ONCE: Final = 1 << 27  # bytes in one call: the interpreter's lock is long in coming meanwhile
_SPARE: Final = 4  # times a draft's size has to be free, so that it takes no room from others
_PAUSE: Final = 0.1  # seconds

_held = threading.BoundedSemaphore(8)  # drafts, each with two descriptors
_turn = threading.Lock()  # Two at once would only get in each other's way.


class Draft:
    """A copy that is being made.

    Args:
        source: A descriptor of what is copied, which nobody else reads through.
        target: One of an empty file without a name.
        size: How many bytes are copied.
    """

    def __init__(self, source: int, target: int, size: int) -> None:
        self._source = source
        self._target = target
        self._size = size
        self._begun_ns = coarse_now_ns()
        self._position = 0
        self._is_whole = False
        self._is_unwanted = False

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        """Gives the descriptors back, and makes room for another draft."""
        source, target, self._source, self._target = self._source, self._target, -1, -1
        if source < 0:
            return
        os.close(source)
        if target >= 0:
            os.close(target)
        _held.release()

    def start(self) -> None:
        """Begins to copy.

        Raises:
            RuntimeError: The system starts no more threads.
        """
        thread = threading.Thread(target=self._copy, name="fsmirror-draft", daemon=True)
        thread.start()
        self._thread = thread  # Only now, as one that never runs would keep us for ever.

    def _copy(self) -> None:
        """What the thread does."""
        with contextlib.suppress(OSError), _turn:
            for position in copied(self._source, self._target, self._size, _AT_ONCE):
                self._position = position
                if self._is_unwanted:
                    return
            self._is_whole = True

    def give_up(self) -> None:
        """Lets the thread end soon. The descriptors are closed with the last reference."""
        self._is_unwanted = True

    def take(
        self, signature: Signature, digest: bytes, on_bytes: Callable[[int], None]
    ) -> int | None:
        """Waits for the copy, and hands it over.

        Args:
            signature: That of the source when it was fingerprinted.
            digest: Its fingerprint.
            on_bytes: Is told of bytes that are copied, as they come.

        Returns:
            A descriptor of the copy, which the caller closes; ``None`` if it could not be
            made, is not what was fingerprinted, or was taken before.
        """
        told = 0
        while self._thread.is_alive():
            self._thread.join(_PAUSE)
            on_bytes(self._position - told)
            told = self._position
        try:
            holds_it = self._holds(signature, digest)
            on_bytes((self._size if holds_it else 0) - told)
            if not holds_it:
                return None
            target, self._target = self._target, -1
            return target
        finally:
            self._let_go()

    def _holds(self, signature: Signature, digest: bytes) -> bool:
        """Whether the copy is what was fingerprinted.

        It is if the source was last changed before the copy was begun. If that can't be
        told, the copy is read.
        """
        if not self._is_whole or self._source < 0:
            return False
        now = signature_of(os.fstat(self._source))
        if now != signature:
            return False
        return proves(now, signature, self._begun_ns) or holds(self._target, digest)


def begin(root: str, source: int) -> Draft | None:
    """Begins a draft of an open file, if there is room for it.

    Args:
        root: The root of the mirror that it may go to.
        source: A descriptor of a regular file.

    Returns:
        The draft; ``None`` if the system or the file system can't, or has no room.
    """
    if not _held.acquire(blocking=False):
        return None
    with contextlib.ExitStack() as undo:
        undo.callback(_held.release)
        try:
            size = os.fstat(source).st_size
            # The offset of a descriptor is shared with its copies; that of a new one is not.
            again = os.open(f"/proc/self/fd/{source}", os.O_RDONLY)
            undo.callback(os.close, again)
            target = nameless(root, spare=size * _SPARE)
            undo.callback(os.close, target)
            draft = Draft(again, target, size)
            undo.pop_all()
            draft.start()
        except (OSError, RootError, RuntimeError):  # The last if no thread can be started.
            return None
    return draft
