"""Guard: heals the mirrors of a live update for as long as that goes on.

Nothing tells a connector that a live update has ended. A guard ends when the engine has let go of
the update, or its event loop is closed, and when another update mounts the root, or drops it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

from .._core.errors import FsMirrorError
from .._core.names import Name
from .._disk.locations import Location
from .._disk.watch import Timing, Watching
from .._mirror.drift import find_drift
from .._mirror.fights import OFTEN, Fights
from .._mirror.heal import Healing, in_doubt
from .._mirror.known import find, known
from .specs import RootUpdate

__all__ = ["guard", "unguard"]

_log = logging.getLogger("cocoindex_fsmirror")
_TIMING: Final = Timing(rescan=30.0)
_SLICE: Final = 0.5  # seconds; an update that has ended is noticed after as long
_Heal: TypeAlias = Callable[[Collection[Name]], Healing]
_NAMED: Final = 10  # paths that a log line names before it says how many more


class _Guard(threading.Thread):
    """Heals one root.

    Args:
        location: Where the mirror is.
        heal: Restores the last-written states of paths.
        owner: The identity of the owner of the paths that are healed.
        update: The update.
    """

    def __init__(self, location: Location, heal: _Heal, owner: str, update: RootUpdate) -> None:
        super().__init__(name=f"cocoindex_fsmirror guard of {location}", daemon=True)
        self._location = location
        self._restore = heal
        self._owner = owner
        self._update = weakref.ref(update)
        self._stopped = threading.Event()
        self._fights = Fights()
        self._contested = set[Name]()
        self._told = set[str]()

    def stop(self) -> None:
        """Ends the guard, and waits for that."""
        self._stopped.set()
        if self is not threading.current_thread():
            self.join()

    def _is_over(self) -> bool:
        """True if the update has ended, as far as that is known."""
        update = self._update()
        return update is None or self._stopped.is_set() or update.is_over

    def run(self) -> None:
        """Watches the root until the update has ended."""
        location = self._location
        while not self._is_over():
            try:
                with Watching(location.root, find(location).spot.path, timing=_TIMING) as watching:
                    self._follow(watching)
            except FsMirrorError as error:
                self._tell("%s: can't be guarded now: %s", str(error))
                self._stopped.wait(_SLICE)
            except Exception:
                _log.exception("%s: is not guarded any more", location)
                return

    def _follow(self, watching: Watching) -> None:
        """Heals whenever something changes, until the root is replaced."""
        due, is_changed = time.monotonic(), False
        while not self._is_over():
            if is_changed or time.monotonic() >= due:
                self._heal()
                due = time.monotonic() + watching.interval
                if watching.is_out_of_date():
                    return
            is_changed = watching.changed(_SLICE)

    def _heal(self) -> None:
        """Heals what drifted; tells once what it can't."""
        location = self._location
        drift = find_drift(location)
        mine = {name for name, (owner, _) in drift.healable.items() if owner == self._owner}
        with known(location) as ledger:
            mine -= in_doubt(ledger, mine).keys()
        healing = self._restore(mine - self._contested)
        for name in self._fights.add(healing.healed):
            self._contested.add(Name(name))
            problem = f"was changed {OFTEN} times within a minute, and healed each time"
            self._tell("%s: %s", f"{name!r} {problem}; it is left to the next update from now on")
        left = [*healing.left, *healing.failures, *(drift.names - drift.healable.keys())]
        self._tell_left([name for name in dict.fromkeys(left) if name not in self._told])

    def _tell_left(self, names: list[str]) -> None:
        """Logs paths that are left to the next update, unless a batch is about to write them."""
        location = self._location
        if names:
            again = find_drift(location).names
            with known(location) as ledger:
                names = [] if ledger.pending() else [name for name in names if name in again]
        self._told |= {*names}
        if names:
            shown = ", ".join(map(repr, names[:_NAMED]))
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            _log.warning("%s: changed, and left to the next update: %s%s", location, shown, more)

    def _tell(self, line: str, message: str) -> None:
        """Logs a message, unless it was logged before."""
        if message not in self._told:
            self._told.add(message)
            _log.warning(line, self._location, message)


_guards: dict[str, _Guard] = {}
_lock = threading.Lock()


def guard(location: Location, heal: _Heal, owner: str, update: RootUpdate) -> None:
    """Heals a root from now on, until its update has ended.

    Args:
        location: Where the mirror is.
        heal: Restores the last-written states of paths.
        owner: The identity of the owner of the paths that are healed.
        update: A live update.
    """
    unguard(location)
    started = _Guard(location, heal, owner, update)
    with _lock:
        _guards[location.root] = started
    started.start()


def unguard(location: Location) -> None:
    """Ends the guard of a root, if there is one."""
    with _lock:
        found = _guards.pop(location.root, None)
    if found is not None:
        found.stop()


@atexit.register
def _stop_all() -> None:
    """Ends all guards."""
    with _lock:
        found = [*_guards.values()]
        _guards.clear()
    for each in found:
        each.stop()


os.register_at_fork(after_in_child=_guards.clear)
