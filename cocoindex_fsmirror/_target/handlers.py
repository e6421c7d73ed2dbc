"""The handlers, which compare the engine's records with what a flow declares, path by path."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, TypeAlias, cast

import cocoindex as coco

from .._core.intents import Intent
from .._core.names import ROOT, Name, join
from .._core.states import ABSENT, Absent, DirState, Kind
from .._core.text import internal
from .actions import Action, Change, Conclude, Drop, Mount, Place, Single
from .engine import make_sink, stay_attached
from .keys import RootKey, StateKey
from .raising import ask_again
from .records import Record, is_settled, owner_of, record_of, remembered_digests
from .sink import apply_actions
from .specs import GONE, Options, RootUpdate, Spec

__all__ = ["END", "ChildHandler", "RootHandler"]

_Declared: TypeAlias = Spec | coco.NonExistenceType
_Previous: TypeAlias = Collection[Record]
_Output: TypeAlias = coco.TargetReconcileOutput[Action, Record, "ChildHandler"]


class ChildHandler(coco.TargetHandler[Spec, Record, "ChildHandler"]):
    """Reconciles the files and directories declared below a directory target."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    def reconcile(
        self, key: coco.StableKey, declared: _Declared, previous: _Previous, missing: bool, /
    ) -> _Output | None:
        """Decides what one path needs."""
        stay_attached()
        place, own, spec = self._place, Name(internal(cast("str | bytes", key))), _spec_of(declared)
        name, update = join(place.prefix, own), place.update
        if update.recount is not None and spec is not GONE:
            update.recount.names.setdefault(name, set()).add(place.container)
            update.recount.components.add(spec.component)
        record = record_of(spec.state, spec.component)
        drifted = bool(spec.rival) or (update.drift is not None and update.drift.needs_owner(name))
        settled = is_settled(record, previous, may_be_missing=missing, drifted=drifted)
        is_dir = isinstance(spec.state, DirState)
        if settled and not is_dir:
            return None
        if spec is GONE and update.brake is not None:
            update.brake.announce(name)
        intent = _intent(name, spec, place.owner, place.options, previous, place.container)
        was_dir = any(record.kind == Kind.DIR for record in previous)
        closed = ((place.owner, f"{place.container}{own}//"),) if was_dir and not is_dir else ()
        child = place.inside(own, spec) if is_dir else None
        reruns = is_dir and bool(previous and update.why_all_run)
        return _output(Change(place, intent, closed, child, settled), record, reruns=reruns)


class RootHandler(coco.TargetHandler[Spec, Record, ChildHandler]):
    """Reconciles root directories, and files that are declared by themselves."""

    def reconcile(
        self, key: coco.StableKey, declared: _Declared, previous: _Previous, missing: bool, /
    ) -> _Output | None:
        """Decides what one root needs."""
        stay_attached()
        root = RootKey.of(cast("tuple[str | None, str | bytes]", key))
        spec = _spec_of(declared)
        owner, kinds = owner_of(previous, spec.fresh_owner), {each.kind for each in previous}
        places = tuple({each.state for each in previous} - {b""})
        place = spec.place if spec is not GONE else StateKey.recorded(places)
        ask_again(root)
        if isinstance(spec.state, DirState):
            update, options = spec.update or RootUpdate(identity=""), Options().changed(spec.given)
            was_file = None
            if Kind.FILE in kinds:
                was_file = _intent(ROOT, GONE, owner, Options(), previous)
            update.former.update(places)
            update.compare_memories(owner, spec.declarer, previous)
            mount = Mount(Place(root, owner, options, update), spec, was_file)
            known = update.drift.owners.get(owner) if update.drift is not None else None
            before = known.epoch.update if known and update.memory is not None else ""
            mounted = Record(
                Kind.DIR.value,
                owner=owner,
                epoch=update.identity,
                before=before,
                state=place.packed,
            )
            return _output(mount, mounted, reruns=bool(update.why_all_run))
        if spec is GONE and Kind.FILE not in kinds:
            return _output(Drop(root, owner, places), ABSENT)
        record = record_of(spec.state, spec.component, owner, place.packed)
        if is_settled(record, previous, may_be_missing=missing, drifted=spec.drifted):
            return None
        options = Options().changed(spec.given, is_root=False)
        intent = _intent(ROOT, spec, owner, options, previous)
        was_dir = Kind.DIR in kinds
        return _output(Single(root, intent, was_dir, options.policies, place, places), record)


class _EndHandler(coco.TargetHandler[Conclude, None, None]):
    """Passes on what is to be done at the end of an update; nothing of it is stored."""

    def reconcile(
        self, _key: coco.StableKey, declared: Any, _previous: Any, _missing: bool, /
    ) -> coco.TargetReconcileOutput[Any, Any, Any] | None:
        """Returns the declared action."""
        if coco.is_non_existence(declared):
            return None
        return coco.TargetReconcileOutput(
            action=declared, sink=_sink, tracking_record=coco.NON_EXISTENCE
        )


def _spec_of(declared: _Declared) -> Spec:
    """Returns a declaration; :data:`GONE` for a path that is no longer declared."""
    return GONE if coco.is_non_existence(declared) else declared


def _intent(  # noqa: PLR0917
    name: Name,
    spec: Spec,
    owner: str,
    options: Options,
    previous: _Previous,
    container: str = "",
) -> Intent:
    """Returns the intent of a declaration."""
    return Intent(
        name,
        spec.state,
        owner,
        container,
        spec.component or max((record.component for record in previous), default=""),
        spec.content,
        remembered_digests(previous),
        options.on_conflict,
        spec.create_parent_dirs,
        options.durable,
        spec.rival,
    )


def _output(action: Action, record: Record | Absent, *, reruns: bool = False) -> _Output:
    """Returns an action, and the tracking record for when it has been applied."""
    return coco.TargetReconcileOutput(
        action=action,
        sink=_sink,
        tracking_record=coco.NON_EXISTENCE if isinstance(record, Absent) else record,
        child_invalidation="lossy" if reruns else None,
    )


def _child_of(_context_provider: Any, action: Action) -> ChildHandler | None:
    """Returns the handler of the children of a directory; ``None`` for other actions."""
    place = action.child if isinstance(action, Mount | Change) else None
    if place is None:
        return None
    place.update.declarations.owner = place.owner
    return ChildHandler(place)


_sink = make_sink(apply_actions, _child_of)
END: Final = coco.register_root_target_states_provider("cocoindex_fsmirror/end", _EndHandler())
"""What is declared here is done once all components below have ended."""
