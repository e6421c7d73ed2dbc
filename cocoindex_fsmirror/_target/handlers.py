"""The handlers: compare the engine's records with a flow's declarations, path by path.

Records are stored in users' databases and never change silently.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

import cocoindex as coco

from .._core.intents import Intent
from .._core.names import ROOT, Name, join
from .._core.states import ABSENT, Absent, Desired, DirState, Kind
from .actions import Action, Change, Drop, Mount, Place, Single
from .engine import make_sink, stay_attached
from .records import Record, is_settled, owner_of, record_of, remembered_digests
from .sink import apply_actions
from .specs import DirSpec, FileSpec, Options, RootKey, RootUpdate, Spec

__all__ = ["ChildHandler", "RootHandler"]

_Declared: TypeAlias = Spec | coco.NonExistenceType


class ChildHandler(coco.TargetHandler[Spec, Record, "ChildHandler"]):
    """Reconciles the files and directories declared below a directory target."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    def reconcile(
        self,
        key: coco.StableKey,
        desired_target_state: _Declared,
        prev_possible_records: Collection[Record],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[Action, Record, ChildHandler] | None:
        """Decides what one path needs."""
        stay_attached()
        place, own = self._place, Name(cast("str", key))
        name, update = join(place.prefix, own), place.update
        spec = None if coco.is_non_existence(desired_target_state) else desired_target_state
        desired, component, rival = (
            (ABSENT, "", ROOT) if spec is None else (spec.state, spec.component, spec.rival)
        )
        record = record_of(desired, component)
        drifted = bool(rival) or (update.drift is not None and name in update.drift.names)
        settled = is_settled(
            record, prev_possible_records, may_be_missing=prev_may_be_missing, drifted=drifted
        )
        is_dir = isinstance(spec, DirSpec)
        if settled and not is_dir:
            return None
        if spec is None and update.brake is not None:
            update.brake.announce(name)
        intent = _intent(
            name, desired, spec, place.owner, place.options, prev_possible_records, place.container
        )
        was_dir = any(previous.kind == Kind.DIR for previous in prev_possible_records)
        closed = ((place.owner, f"{place.container}{own}//"),) if was_dir and not is_dir else ()
        child = place.inside(own, spec) if isinstance(spec, DirSpec) else None
        return _output(Change(place, intent, closed, child, settled), record)


class RootHandler(coco.TargetHandler[Spec, Record, ChildHandler]):
    """Reconciles root directories, and files that are declared by themselves."""

    def reconcile(
        self,
        key: coco.StableKey,
        desired_target_state: _Declared,
        prev_possible_records: Collection[Record],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[Action, Record, ChildHandler] | None:
        """Decides what one root needs."""
        stay_attached()
        root, previous = RootKey(*cast("tuple[str | None, str]", key)), prev_possible_records
        spec = None if coco.is_non_existence(desired_target_state) else desired_target_state
        owner = owner_of(previous, "" if spec is None else spec.fresh_owner)
        kinds = {record.kind for record in previous}
        was_file = None
        if Kind.FILE in kinds:
            was_file = _intent(ROOT, ABSENT, None, owner, Options(), previous)
        if spec is None:
            if was_file is None:
                return _output(Drop(root, owner), ABSENT)
            return _output(Single(root, was_file, Kind.DIR in kinds), ABSENT)
        if isinstance(spec, FileSpec):
            desired = spec.state
            record = record_of(desired, spec.component, owner)
            missing, drifted = prev_may_be_missing, spec.drifted
            if is_settled(record, previous, may_be_missing=missing, drifted=drifted):
                return None
            intent = _intent(ROOT, desired, spec, owner, spec.options, previous)
            return _output(Single(root, intent, Kind.DIR in kinds), record)
        update, options = spec.update or RootUpdate(), Options().changed(spec.given)
        why = _why_all_run(update, owner, previous)
        place = Place(root, owner, options, update)
        exact, by = options.exact and update.drift is not None, f"{spec.by} {root}".strip()
        mount = Mount(place, spec.create_parent_dirs, why, was_file, exact, by)
        return _output(mount, record_of(DirState(), "", owner), reruns=bool(why))


def _intent(  # noqa: PLR0917
    name: Name,
    desired: Desired,
    spec: Spec | None,
    owner: str,
    options: Options,
    previous: Collection[Record],
    container: str = "",
) -> Intent:
    """Returns the intent of a declaration, or of its end if there is none."""
    return Intent(
        name,
        desired,
        owner,
        container,
        "" if spec is None else spec.component,
        None if spec is None else spec.payload,
        remembered_digests(previous),
        options.on_conflict,
        spec is None or spec.create_parent_dirs,
        options.durable,
        ROOT if spec is None else spec.rival,
    )


def _why_all_run(update: RootUpdate, owner: str, previous: Collection[Record]) -> str:
    """Tells why every component below a root has to run again; empty if it has not."""
    if update.drift is None or not previous:
        return ""
    if owner not in update.drift.known:
        return "its ledger, or all of it, is gone"
    if owner in update.drift.stale:
        return "files drifted, and the component that declares them did not run again by itself"
    return ""


def _output(
    action: Action, record: Record | Absent, *, reruns: bool = False
) -> coco.TargetReconcileOutput[Action, Record, ChildHandler]:
    """Returns an action, with the record that holds once it is applied."""
    return coco.TargetReconcileOutput(
        action=action,
        sink=_sink,
        tracking_record=coco.NON_EXISTENCE if isinstance(record, Absent) else record,
        child_invalidation="lossy" if reruns else None,
    )


def _child_of(_context_provider: Any, action: Action) -> ChildHandler:
    """Returns the handler of what is declared below a directory."""
    assert isinstance(action, Mount | Change)
    assert action.child is not None
    action.child.update.declarations.owner = action.child.owner
    return ChildHandler(action.child)


def _is_container(action: Action) -> bool:
    """True if an action is about a directory that is declared."""
    return isinstance(action, Mount | Change) and action.child is not None


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
        """Waits if need be, and takes the time of the batch inside."""
        began = time.monotonic()
        if began - self._ended < self._SOON:
            time.sleep(min(self._took, self._LONGEST))
            began = time.monotonic()
        try:
            yield
        finally:
            self._ended = time.monotonic()
            self._took = self._ended - began


_delay = _BatchDelay()


def _apply_delayed(context_provider: Any, actions: Sequence[Action]) -> None:
    """Applies a batch, later if another one has just ended."""
    with _delay.kept():
        apply_actions(context_provider, actions)


_sink = make_sink(_apply_delayed, _child_of, _is_container)
