"""The handlers and the sink: between the engine and the mirrors.

Records are stored in users' databases and never change silently.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final, cast

import cocoindex as coco
from msgspec.structs import replace

from .._core.errors import ApplyError, FsMirrorError
from .._core.intents import Intent
from .._core.names import ROOT, Name, join, parse_name
from .._core.rows import Kind
from .._core.states import ABSENT, Absent, Desired, DirState
from .._disk.roots import is_there
from .._mirror.drift import DriftReport
from .actions import Action, Change, Drop, Mount, Place, Single
from .engine import make_sink, stay_attached
from .localfs_guard import refuse_to_fill
from .open_mirrors import mirror_at
from .records import Record, is_settled, owner_of, record_of, remembered_digests
from .specs import DirSpec, FileSpec, Options, RootKey, Spec, Watch

__all__ = ["ChildHandler", "RootHandler"]

_log = logging.getLogger("cocoindex_fsmirror")


# Reconcile


class ChildHandler(coco.TargetHandler[Spec, Record, "ChildHandler"]):
    """Reconciles the files and directories declared below a directory target."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    def reconcile(
        self,
        key: coco.StableKey,
        desired_target_state: Spec | coco.NonExistenceType,
        prev_possible_records: Collection[Record],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[Action, Record, ChildHandler] | None:
        """Decides what one path needs."""
        stay_attached()
        place, spec = self._place, desired_target_state
        own = Name(cast("str", key))
        name = join(place.prefix, own)
        desired = _desired(spec)
        component = "" if coco.is_non_existence(spec) else spec.component
        record = record_of(desired, component)
        is_dir = isinstance(spec, DirSpec)
        rival = ROOT if coco.is_non_existence(spec) else spec.rival
        drifted = name in place.watch.drift.names or bool(rival)
        settled = is_settled(
            record, prev_possible_records, may_be_missing=prev_may_be_missing, drifted=drifted
        )
        if settled and not is_dir:
            return None
        if desired is ABSENT and place.watch.brake is not None:
            place.watch.brake.announce(name)
        intent = Intent(
            name,
            desired,
            place.owner,
            place.container,
            component,
            spec.payload if isinstance(spec, FileSpec) else None,
            remembered_digests(prev_possible_records),
            place.options.on_conflict,
            coco.is_non_existence(spec) or spec.create_parent_dirs,
            place.options.durable,
            rival,
        )
        was_dir = any(previous.kind == Kind.DIR for previous in prev_possible_records)
        closed = ((place.owner, f"{place.container}{own}//"),) if was_dir and not is_dir else ()
        child = place.inside(own, spec) if isinstance(spec, DirSpec) else None
        change = Change(place, intent, closed, child, settled)
        return _output(change, record)


class RootHandler(coco.TargetHandler[Spec, Record, ChildHandler]):
    """Reconciles root directories, and files that are declared by themselves."""

    def reconcile(
        self,
        key: coco.StableKey,
        desired_target_state: Spec | coco.NonExistenceType,
        prev_possible_records: Collection[Record],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[Action, Record, ChildHandler] | None:
        """Decides what one root needs."""
        stay_attached()
        root, spec = RootKey(*cast("tuple[str | None, str]", key)), desired_target_state
        kinds = {record.kind for record in prev_possible_records}
        ours = remembered_digests(prev_possible_records)
        if coco.is_non_existence(spec):
            owner = owner_of(prev_possible_records, "")
            if Kind.FILE in kinds:
                gone = Intent(ROOT, ABSENT, owner, ours=ours)
                return _output(Single(root, gone, Kind.DIR in kinds), ABSENT)
            return _output(Drop(root, owner), ABSENT)
        assert isinstance(spec, FileSpec | DirSpec)
        owner = owner_of(prev_possible_records, spec.fresh_owner)
        if isinstance(spec, FileSpec):
            record = record_of(spec.state, spec.component, owner)
            if is_settled(
                record,
                prev_possible_records,
                may_be_missing=prev_may_be_missing,
                drifted=spec.drifted,
            ):
                return None
            return _output(Single(root, _single(spec, owner, ours), Kind.DIR in kinds), record)
        watch = spec.watch or Watch()
        why = _why_all_run(watch, owner, prev_possible_records)
        was_file = Intent(ROOT, ABSENT, owner, ours=ours) if Kind.FILE in kinds else None
        options = spec.options(Options())
        if spec.exact and watch.has_looked:
            options = replace(options, exact=True)
        place = Place(root, owner, options, watch)
        by = f"{spec.by} {root}".strip()
        action = Mount(place, spec.create_parent_dirs, why, was_file, by)
        return coco.TargetReconcileOutput(
            action=action,
            sink=_sink,
            tracking_record=cast("Record", record_of(DirState(), "", owner)),
            child_invalidation="lossy" if why else None,
        )


def _desired(spec: FileSpec | DirSpec | coco.NonExistenceType) -> Desired:
    """The desired state in the terms of the core."""
    return ABSENT if coco.is_non_existence(spec) else spec.state


def _single(spec: FileSpec, owner: str, ours: tuple[bytes, ...]) -> Intent:
    """The intent of a file that is declared by itself; its name is known when it is applied."""
    return Intent(
        ROOT,
        spec.state,
        owner,
        "",
        spec.component,
        spec.payload,
        ours,
        spec.options.on_conflict,
        spec.create_parent_dirs,
        spec.options.durable,
    )


def _why_all_run(watch: Watch, owner: str, previous: Collection[Record]) -> str:
    """Why every component below a root has to run again; empty if it has not."""
    if not watch.has_looked or not previous:
        return ""
    if owner not in watch.drift.known:
        return "its ledger, or all of it, is gone"
    if owner in watch.drift.stale:
        return "files drifted, and the component that declares them did not run again by itself"
    return ""


def _output(
    action: Action, record: Record | Absent
) -> coco.TargetReconcileOutput[Action, Record, ChildHandler]:
    """An action, with the record that holds once it is applied."""
    tracking = coco.NON_EXISTENCE if isinstance(record, Absent) else record
    return coco.TargetReconcileOutput(action=action, sink=_sink, tracking_record=tracking)


# Apply


class _Pace:
    """Has a batch that comes right after another wait for as long as that one took.

    Meanwhile more components declare their files, which all go into the next batch, and
    their threads and ours don't fight for the interpreter: with one component for each file
    that takes a sixth of the time away. PostgreSQL's ``commit_delay`` does the same.
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


_pace = _Pace()


def _apply_actions(context_provider: Any, actions: Sequence[Action]) -> None:
    """The sink: every root gets its part, and no failure hides another."""
    errors: list[FsMirrorError] = []
    for step in _steps(context_provider, actions):
        try:
            step()
        except FsMirrorError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ApplyError(f"{len(errors)} mirrors", errors)


def _steps(context_provider: Any, actions: Sequence[Action]) -> list[Callable[[], object]]:
    """What a batch asks of each root: to be there, to change, to be given up."""
    mounts: list[Callable[[], object]] = []
    drops: list[Callable[[], object]] = []
    changes: dict[RootKey, list[Change]] = {}
    for action in actions:
        if isinstance(action, Mount):
            mounts.append(partial(_mount, context_provider, action))
        elif isinstance(action, Change):
            changes.setdefault(action.place.root, []).append(action)
        elif isinstance(action, Single):
            drops.append(partial(_write_single, context_provider, action))
        else:
            drops.append(partial(_drop, context_provider, action))
    applied = (partial(_change, context_provider, *pair) for pair in changes.items())
    return [*mounts, *applied, *drops]


def _change(context_provider: Any, root: RootKey, changes: list[Change]) -> None:
    """Brings the paths of one root to their desired states."""
    closed = [pair for change in changes for pair in change.closed]
    for change in changes:
        if change.intent.desired is ABSENT:
            change.place.watch.withdraw(change.intent.name, change.intent.container)
    mirror = mirror_at(root.resolve(context_provider))
    mirror.apply([change.intent for change in changes], closed, changes[0].place.watch.brake)


def _drop(context_provider: Any, action: Drop) -> None:
    """Gives a root up."""
    mirror_at(action.root.resolve(context_provider)).tear_down(action.owner)


def _mount(context_provider: Any, action: Mount) -> None:
    """Makes a root ready."""
    place = action.child
    root = place.root.resolve(context_provider)
    refuse_to_fill(root)
    if action.was_file is not None:
        _write_single(context_provider, Single(place.root, action.was_file, False))
    if action.why_all_run:
        _log.warning("%s: every component below it runs again: %s", root, action.why_all_run)
    mirror = mirror_at(root)
    mirror.prepare(
        place.owner,
        place.watch.drift,
        parents=action.create_parent_dirs,
        durable=place.options.durable,
        exact=place.options.exact,
        by=action.by,
    )


def _write_single(context_provider: Any, action: Single) -> None:
    """Brings a file that is declared by itself to its desired state."""
    path = action.path.resolve(context_provider)
    intent = replace(action.intent, name=parse_name(os.path.basename(path)))
    if action.was_dir:
        mirror_at(path).tear_down(intent.owner, durable=intent.durable)
    mirror = mirror_at(os.path.dirname(path))
    if intent.desired is not ABSENT:
        mirror.prepare(
            intent.owner, DriftReport(), parents=intent.create_parents, durable=intent.durable
        )
        mirror.apply([intent])
    elif is_there(mirror.root):
        mirror.apply([intent])
        mirror.tear_down(intent.owner, durable=intent.durable)


def _child_of(_context_provider: Any, action: Action) -> ChildHandler:
    """The handler of what is declared below a directory."""
    assert isinstance(action, Mount | Change)
    assert action.child is not None
    action.child.watch.owner = action.child.owner
    return ChildHandler(action.child)


def _is_container(action: Action) -> bool:
    """Whether an action is about a directory that is declared."""
    return isinstance(action, Mount | Change) and action.child is not None


def _apply_at_pace(context_provider: Any, actions: Sequence[Action]) -> None:
    """What the engine calls."""
    with _pace.kept():
        _apply_actions(context_provider, actions)


_sink = make_sink(_apply_at_pace, _child_of, _is_container)
