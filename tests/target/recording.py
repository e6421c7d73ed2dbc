"""An app whose handlers and sink record what the engine asks of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cocoindex as coco

from tests.target.flows import IS_NEW, BoomError


@dataclass(frozen=True)
class Record:
    """A tracking record as an earlier release stored it."""

    content: bytes


@dataclass(frozen=True)
class LaterRecord:
    """The record of a later release, which added fields with defaults."""

    content: bytes
    mode: int | None = None
    component: str = ""


AnyRecord = TypeVar("AnyRecord", Record, LaterRecord)


class Asked(NamedTuple):
    """One call of ``reconcile``, without the key."""

    desired: bytes | None
    previous: list[bytes]
    may_be_missing: bool


@dataclass
class Engine:
    """The calls of the last update, and the answers of handlers in the next one."""

    events: list[str] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    previous: list[Record | LaterRecord] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    contexts: list[tuple[str, str]] = field(default_factory=list)
    fails: Callable[[Sequence[str]], bool] = lambda _: False
    invalidation: Any = None
    later: bool = False

    def clear(self) -> None:
        """Forgets the last update."""
        for seen in (self.events, self.asked, self.previous, self.batches, self.contexts):
            seen.clear()


engine = Engine()


class Files(coco.TargetHandler[bytes, Record, None]):
    """A handler that records each call of ``reconcile``."""

    def reconcile(
        self,
        key: coco.StableKey,
        desired: bytes | coco.NonExistenceType,
        previous: Collection[Record],
        may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[str, Record, None] | None:
        return reconciled(Record, key, desired, previous, may_be_missing)


class LaterFiles(coco.TargetHandler[bytes, LaterRecord, None]):
    """The handler of a later release."""

    def reconcile(
        self,
        key: coco.StableKey,
        desired: bytes | coco.NonExistenceType,
        previous: Collection[LaterRecord],
        may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[str, LaterRecord, None] | None:
        return reconciled(LaterRecord, key, desired, previous, may_be_missing)


def reconciled(
    make_record: Callable[[bytes], AnyRecord],
    key: coco.StableKey,
    desired: bytes | coco.NonExistenceType,
    previous: Collection[AnyRecord],
    may_be_missing: bool,
) -> coco.TargetReconcileOutput[str, AnyRecord, None] | None:
    """Returns an action, unless every previous record is the desired one."""
    known = [record.content for record in previous]
    wanted = None if coco.is_non_existence(desired) else desired
    engine.previous.extend(previous)
    engine.events.append(f"reconcile {key!s}")
    engine.asked[str(key)] = Asked(wanted, known, may_be_missing)
    if wanted is None:
        return coco.TargetReconcileOutput(
            action=f"delete {key!s}", sink=SINK, tracking_record=coco.NON_EXISTENCE
        )
    if not may_be_missing and all(content == wanted for content in known):
        return None
    return coco.TargetReconcileOutput(
        action=f"write {key!s}", sink=SINK, tracking_record=make_record(wanted)
    )


class Roots(coco.TargetHandler[str, str, Any]):
    """A container that always yields an action."""

    def reconcile(
        self,
        key: coco.StableKey,
        desired: str | coco.NonExistenceType,
        _previous: Collection[str],
        _may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[str, str, Any] | None:
        engine.events.append("reconcile the root")
        if coco.is_non_existence(desired):
            return coco.TargetReconcileOutput(
                action="drop", sink=SINK, tracking_record=coco.NON_EXISTENCE
            )
        return coco.TargetReconcileOutput(
            action="mount", sink=SINK, tracking_record="", child_invalidation=engine.invalidation
        )


def apply(_context: Any, actions: Sequence[str]) -> Any:
    """Records a batch; the sink."""
    engine.batches.append(list(actions))
    engine.events.extend(actions)
    if engine.fails(actions):
        raise BoomError(", ".join(actions))
    if not IS_NEW:
        return [coco.ChildTargetDef(handler=files()) if a == "mount" else None for a in actions]
    return None


def files(*_: Any) -> Any:
    """Returns the handler of the children."""
    return LaterFiles() if engine.later else Files()


SINK: coco.TargetActionSink[str] = (
    coco.TargetActionSink.from_fn(apply, child_handler=files)
    if IS_NEW
    else coco.TargetActionSink.from_fn(apply)
)
ROOTS = coco.register_root_target_states_provider("tests/target_facts", Roots())


class Target:
    """A target that takes part in the validation of a memoized component."""

    invalid: Collection[str] = ()

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    def declare(self, name: str, content: bytes) -> None:
        """Declares a file."""
        coco.declare_target_state(self.provider.target_state(name, content))

    def __coco_memo_key__(self) -> object:
        return self.provider.memo_key

    def __coco_memo_state__(self, _previous: object) -> coco.MemoStateOutcome:
        path = str(coco.get_component_context())
        engine.contexts.append(("state", path))
        return coco.MemoStateOutcome(state=1, memo_valid=path not in Target.invalid)


@coco.fn(memo=True)
async def component(item: tuple[str, bytes], target: Target) -> None:
    """Declares one file, in a memoized component."""
    engine.contexts.append(("body", str(coco.get_component_context())))
    target.declare(*item)


class Scene:
    """An app that declares a dict of contents."""

    def __init__(self, at: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.mounted = True
        self.memoized = False
        self.failed: list[str] = []
        env = coco.Environment(
            coco.Settings(db_path=at / "db"),
            exception_handler=lambda error, _: self.failed.append(str(error)),
        )
        self.app = coco.App(coco.AppConfig("facts", environment=env), _main, self)

    def update(self) -> bool:
        """Runs one update; true if it succeeded."""
        engine.clear()
        self.failed.clear()
        try:
            self.app.update_blocking()
        except Exception as error:
            self.failed.append(str(error))
        return not self.failed


async def _main(scene: Scene) -> None:
    """Declares the contents; the main function of every app."""
    if not scene.mounted:
        return
    target = Target(await coco.mount_target(ROOTS.target_state("root", "")))
    if scene.memoized:
        await coco.mount_each(component, [(n, (n, c)) for n, c in scene.files.items()], target)
    else:
        for name, content in scene.files.items():
            target.declare(name, content)
