"""Handlers and a sink that record the calls of an engine, real or modelled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, cast

import cocoindex as coco
from cocoindex.connectorkits.fingerprint import fingerprint_object

from cocoindex_fsmirror.testing import Update
from tests.target.flows import IS_NEW

REMOVED: Final = "(removed)"
"""Stands for the components that are not mounted any more; the engine deletes them last."""
TOGETHER: Final = "(together)"
"""Stands for the components whose actions come in one batch."""

Content: TypeAlias = "Record | bytes"
Kind: TypeAlias = Literal["records", "fingerprints"]
Output: TypeAlias = coco.TargetReconcileOutput[Any, Any, None]


@dataclass(frozen=True)
class Record:
    """A tracking record."""

    value: str


class Question(NamedTuple):
    """One call of ``reconcile``, without the key; records in the order in which they came."""

    desired: str | None
    records: tuple[Content, ...]
    may_be_missing: bool


@dataclass
class Turn:
    """The calls of handler and sink for one component in one update.

    The order of keys is the engine's own, so they and the actions of a batch are sets.
    """

    component: str
    asked: dict[str, Question] = field(default_factory=dict)
    batches: list[frozenset[str]] = field(default_factory=list)


@dataclass(eq=False)
class Recording:
    """The calls since the last update began."""

    turns: list[Turn] = field(default_factory=list)

    def begin(self, component: str) -> None:
        """Begins the turn of a component, to which later calls belong."""
        if not self.turns or self.turns[-1].component != component:
            self.turns.append(Turn(component))

    def asks(self, key: str, question: Question) -> None:
        """Records a call of ``reconcile``; one repeated within a turn must be equal."""
        assert self.turns[-1].asked.setdefault(key, question) == question

    def delivers(self, actions: Collection[str]) -> None:
        """Records a batch of the sink."""
        self.turns[-1].batches.append(frozenset(actions))

    def take(self) -> list[Turn]:
        """Takes the turns in which anything was called."""
        turns = [turn for turn in self.turns if turn.asked or turn.batches]
        for turn in turns:
            if turn.component == REMOVED:  # Components that are deleted at once have no order.
                turn.batches.sort(key=sorted)
        self.turns = []
        return turns


class Scene(Protocol):
    """The surroundings of a handler, modelled or real."""

    recording: Recording


class RealScene(Scene, Protocol):
    """The surroundings of a container and a sink."""

    kind: Kind
    step: Update

    def apply(self, actions: list[str]) -> None:
        """Applies a batch."""

    def hold(self) -> None:
        """Waits, if the sink is to be held up."""


# The handlers, of the model and of the real engine


class Action(NamedTuple):
    """An action of the sink."""

    text: str
    scene: Scene


def _answer(
    scene: Scene, key: str, question: Question, record: Callable[[str], Content]
) -> Output | None:
    """Returns the answer that a value (or, for a deletion, the key) asks for."""
    desired, records, may_be_missing = question
    scene.recording.asks(key, question)
    wanted = desired if desired is not None else "buried" if key == "c" else "gone"
    agrees = not may_be_missing and all(known == record(wanted) for known in records)
    is_spared = desired == "never" or (desired is None and key == "d")
    if is_spared or (agrees and desired != "always" and wanted != "gone"):
        return None
    is_tracked = wanted not in ("gone", "untracked")
    tracked = record(wanted) if is_tracked else coco.NON_EXISTENCE
    return coco.TargetReconcileOutput(Action(f"{key} is {wanted}", scene), SINK, tracked)


def _question(desired: object, previous: Collection[Content], may_be_missing: bool) -> Question:
    """Returns a call, to be recorded."""
    wanted = desired if isinstance(desired, str) else None
    return Question(wanted, tuple(previous), may_be_missing)


class WithRecords(coco.TargetHandler[str, Record, None]):
    """A handler that tracks values in a record of its own."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def reconcile(
        self,
        key: Any,
        desired: str | coco.NonExistenceType,
        previous: Collection[Record],
        may_be_missing: bool,
        /,
    ) -> Output | None:
        return _answer(self._scene, key, _question(desired, previous, may_be_missing), Record)


class WithFingerprints(coco.TargetHandler[str, bytes, None]):
    """A handler that lets newer engines track the fingerprint of values."""

    tracks_value_fingerprint = True

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def reconcile(
        self,
        key: Any,
        desired: str | coco.NonExistenceType,
        previous: Collection[bytes],
        may_be_missing: bool,
        /,
    ) -> Output | None:
        question = _question(desired, previous, may_be_missing)
        return _answer(self._scene, key, question, fingerprint_object)


def make_handler(kind: Kind, scene: Scene) -> WithRecords | WithFingerprints:
    """Makes a handler that records its calls in ``scene.recording``."""
    return WithRecords(scene) if kind == "records" else WithFingerprints(scene)


# What is around them, with the real engine


class _Roots(coco.TargetHandler[Any, str, Any]):
    """A container that acts on every update, as the scene says."""

    def reconcile(
        self, key: Any, desired: Any, _previous: Collection[str], _missing: bool, /
    ) -> coco.TargetReconcileOutput[Any, str, Any] | None:
        return coco.TargetReconcileOutput(
            Action("mount", desired), SINK, "", desired.step.invalidation
        )


def _apply(_context: Any, actions: Sequence[Action]) -> Any:
    """Applies every batch; the sink."""
    scene = cast("RealScene", actions[0].scene)
    texts = [action.text for action in actions]
    if texts == ["plug"]:
        scene.hold()
    elif texts != ["mount"]:
        scene.apply(texts)
    if IS_NEW:
        return None
    return [
        coco.ChildTargetDef(handler=_child(_context, action)) if action.text == "mount" else None
        for action in actions
    ]


def _child(_context: Any, action: Action) -> Any:
    """Returns the handler of the container's children."""
    return make_handler(cast("RealScene", action.scene).kind, action.scene)


SINK: coco.TargetActionSink[Any] = (
    coco.TargetActionSink.from_fn(_apply, child_handler=_child)
    if IS_NEW
    else coco.TargetActionSink.from_fn(_apply)
)


class _Plugs(coco.TargetHandler[Any, str, None]):
    """Another target of the same sink, by which it can be held up."""

    def reconcile(
        self, key: Any, desired: Any, _previous: Collection[str], _missing: bool, /
    ) -> coco.TargetReconcileOutput[Any, str, None] | None:
        if coco.is_non_existence(desired):
            return None
        return coco.TargetReconcileOutput(Action("plug", desired), SINK, "")


PLUGS = coco.register_root_target_states_provider("tests/kit/plugs", _Plugs())
ROOTS = coco.register_root_target_states_provider("tests/kit/real_engine", _Roots())
