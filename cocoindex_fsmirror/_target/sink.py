"""The sink: gives each root its part of a batch of actions, and raises what failed at the end.

The mirrors stay open from batch to batch.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, Final

from msgspec.structs import replace

from .._core.drift_report import DriftReport
from .._core.errors import ApplyError, BarrierError, FsMirrorError, TooManyRemovalsError
from .._core.names import parse_name
from .._core.owners import Declarer, Epoch, Owner
from .._core.ownership import Policies
from .._core.states import ABSENT
from .._disk.locations import Location, Root
from .._disk.roots import is_there
from .._mirror.known import known
from .._mirror.owners import doubt, may_tear_down
from .._mirror.teardown import remove_undeclared
from .._mirror.writer import Writer
from .actions import Action, Change, Conclude, Drop, Mount, Single
from .engine import components_in, database_of
from .guard import guard, unguard
from .keys import RootKey, StateKey
from .raising import BatchErrors
from .records import PROVIDER

__all__ = ["MOST", "apply_actions", "close_all", "mirror_at"]

_log = logging.getLogger("cocoindex_fsmirror")


class _BatchDelay:
    """Delays a batch that comes right after another one, for as long as that one took.

    Meanwhile more components declare their files, which all go into the next batch, as with
    PostgreSQL's ``commit_delay``. With 3,000 components of one file each, on a disk, an update
    without the delay took 1.10 times as long on an idle machine (0.96 to 1.28, three sets of
    pairs from 1.10 to 1.11), and 0.85 to 0.88 on a busy one. It stays for the bar against
    ``localfs`` in ``benchmarks/README.md``: 1.02 with it, and 1.10 to 1.18 without.
    """

    _SOON: Final = 0.02  # seconds
    _LONGEST: Final = 0.1

    def __init__(self) -> None:
        self._ended = -self._SOON
        self._took = 0.0

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Waits if need be, and measures the batch inside."""
        began = time.monotonic()
        if began - self._ended < self._SOON:
            time.sleep(min(self._took, self._LONGEST))
            began = time.monotonic()
        try:
            yield
        finally:
            self._ended = time.monotonic()
            self._took = self._ended - began


def apply_actions(context_provider: Any, actions: Sequence[Action]) -> None:
    """Applies a batch: roots are mounted first, then changed, and dropped last.

    Raises one error for all that failed, after everything was tried.
    """
    with _delay.kept():
        error = _try_all(context_provider, actions)
    del actions  # Else whoever keeps the error keeps the update from ending.
    if error is not None:
        try:
            raise error
        finally:
            del error


def _try_all(context_provider: Any, actions: Sequence[Action]) -> FsMirrorError | None:
    """Applies a batch; returns the error to be raised, if something failed."""
    changes: dict[tuple[RootKey, str], list[Change]] = {}
    mounts: list[Mount] = []
    rest: list[Single | Drop | Conclude] = []
    for action in actions:
        if isinstance(action, Change):
            changes.setdefault((action.place.root, action.place.owner), []).append(action)
        elif isinstance(action, Mount):
            mounts.append(action)
            if action.child.update.ends_unnoticed:
                rest.append(Conclude(action.child.root, action.child.owner, action.child.update))
        else:
            rest.append(action)
    errors = BatchErrors()
    for step in (*mounts, *changes.values(), *rest):
        try:
            _apply(context_provider, step)
            errors.add(step, None)
        except FsMirrorError as error:
            errors.add(step, error)
    return errors.raised(actions)


def _apply(context_provider: Any, step: Mount | list[Change] | Single | Drop | Conclude) -> None:
    """Applies an action, or all changes of one owner."""
    match step:
        case Mount():
            _mount(context_provider, step)
        case Single():
            _write_single(context_provider, step)
        case Drop():
            acting = Declarer(*database_of(context_provider), str(step.root))
            mirror = mirror_at(_recorded(step, context_provider))
            unguard(mirror.location)
            mirror.tear_down(step.owner, acting)
        case Conclude():
            _conclude(context_provider, step)
        case _:
            place = step[0].place
            _change(place.update.locate(place.root, context_provider), step)


def _mount(context_provider: Any, action: Mount) -> None:
    """Prepares a root, which is made if it is missing."""
    place, update = action.child, action.child.update
    root = update.locate(place.root, context_provider)
    if action.was_file is not None:
        state, former = StateKey.recorded(update.former), tuple(update.former)
        gone = Single(place.root, action.was_file, False, state=state, former=former)
        _write_single(context_provider, gone)
    if update.why_all_run:
        _log.warning("%s: every component below it runs again: %s", root, update.why_all_run)
        mirror_at(root).close()  # Opening a ledger looks at all of it; it may be damaged.
    acting = Owner(
        place.owner,
        declarer=action.spec.declarer,
        epoch=Epoch(update.identity),
        in_doubt=update.is_begun_in_doubt,
    )
    epoch = mirror_at(root).prepare(
        acting,
        update.drift or DriftReport(),
        parents=action.spec.create_parent_dirs,
        durable=place.options.durable,
        exact=place.options.spared if update.drift is not None else None,
        begins=update.memory is None,
        policies=place.options.policies,
        keep_backups=place.options.keep_backups,
    )
    update.note(epoch)
    if update.drift is not None:
        healing = mirror_at(root).heal_paths(update.healable(place.owner))
        update.drift = update.drift.after(healing.healed)
    if update.is_over:
        unguard(root)
    elif place.options.verify != "none":
        guard(root, mirror_at(root).heal_paths, place.owner, update)


def _change(root: Location, changes: list[Change]) -> None:
    """Brings the paths of one owner to their desired states."""
    for change in changes:
        if change.intent.desired is ABSENT:
            change.place.update.declarations.withdraw(change.intent.name, change.intent.container)
    closed = [pair for change in changes for pair in change.closed]
    intents, place = [change.intent for change in changes], changes[0].place
    mirror, update = mirror_at(root), place.update
    try:
        mirror.apply(
            intents, closed, update.brake, update=update.identity, policies=_policies_of(changes)
        )
    except (ApplyError, BarrierError, TooManyRemovalsError):
        if any(change.is_of_gone for change in changes):
            # The engine forgets what fails below a component that is gone. So the end of the
            # next update removes it.
            mirror.session.run(partial(doubt, owner=place.owner))
        raise
    finally:
        update.note(mirror.epochs.get(place.owner, Epoch()))


def _policies_of(changes: list[Change]) -> dict[str, Policies]:
    """Returns what the directory targets among some changes have told, by container."""
    children = (change.child for change in changes)
    return {child.container: child.policies for child in children if child is not None}


def _conclude(context_provider: Any, action: Conclude) -> None:
    """Removes what an update in doubt has not declared again."""
    root, update = action.update.locate(action.root, context_provider), action.update
    recount, epoch = update.recount, Epoch(update.identity, 1)
    assert recount is not None
    apps = components_in(context_provider, PROVIDER, action.root.stable)
    is_declared = partial(recount.is_declared, apps=apps)
    session = mirror_at(root).session
    try:
        epoch = remove_undeclared(
            session, action.owner, epoch, recount.besides, is_declared, brake=update.brake
        )
    except ApplyError:
        update.note(epoch)
        raise
    update.note(epoch)


def _write_single(context_provider: Any, action: Single) -> None:
    """Brings a file that is declared by itself to its desired state."""
    path = action.path.resolve(context_provider)
    intent = replace(action.intent, name=parse_name(os.path.basename(path)))
    owner, durable = intent.owner, intent.durable
    acting = Declarer(*database_of(context_provider), str(action.path))
    resolve = methodcaller("resolve", context_provider)
    if action.was_dir:
        was = StateKey.recorded(action.former).locate(path, action.former, resolve)
        mirror_at(was).tear_down(owner, acting, durable=durable)
    mirror = mirror_at(action.state.locate(os.path.dirname(path), action.former, resolve))
    if intent.desired is not ABSENT:
        mirror.prepare(
            Owner(owner, declarer=acting),
            DriftReport(),
            parents=intent.create_parents,
            durable=durable,
            policies=action.policies,
        )
        mirror.apply([intent])
    elif is_there(mirror.root):
        with known(mirror.location) as ledger:
            if not may_tear_down(mirror.root, ledger, owner, acting):
                return
        mirror.apply([intent])
        mirror.tear_down(owner, acting, durable=durable)


MOST: Final = 32
"""The number of ledgers that stay open."""

_mirrors: dict[str, Writer] = {}
_lock = threading.Lock()
_abandoned: list[Writer] = []


def _recorded(action: Drop, context_provider: Any) -> Location:
    """Returns the location of a root that is no longer declared."""
    root, resolve = action.root.resolve(context_provider), methodcaller("resolve", context_provider)
    return StateKey.recorded(action.former).locate(root, action.former, resolve)


def mirror_at(root: Root) -> Writer:
    """Returns the mirror of a root; its ledger stays open between batches."""
    location = Location.of(root)
    with _lock:
        mirror = _mirrors.pop(location.root, None)
        if mirror is not None and mirror.location != location:
            mirror.close()
            mirror = None
        mirror = mirror or Writer(location)
        _mirrors[location.root] = mirror
        if len(_mirrors) > MOST:
            _mirrors.pop(next(iter(_mirrors))).close()
        return mirror


@atexit.register
def close_all() -> None:
    """Closes all ledgers, which folds their logs into their files."""
    with _lock:
        for mirror in _mirrors.values():
            mirror.close()
        _mirrors.clear()


def _abandon() -> None:
    """Abandons the mirrors in a forked child: SQLite forbids even to close its parent's."""
    global _lock  # noqa: PLW0603  # The old one may be held by a thread that is not here.
    _lock = threading.Lock()
    _abandoned.extend(_mirrors.values())
    _mirrors.clear()


os.register_at_fork(after_in_child=_abandon)
_delay = _BatchDelay()
