"""The handlers and the sink: between the engine and the mirrors.

Keys and records are stored in users' databases and never change silently.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import cocoindex as coco
import msgspec

from ._brake import Brake, Limit, check_limit
from ._draft import Draft
from ._engine import make_sink
from ._errors import ApplyError, FsMirrorError, RootError
from ._fs import is_there
from ._mirror import Drift, Mirror
from ._paths import ROOT, Name, ancestors, join, parent, parse_name
from ._reconcile import Record, is_settled, owner_of, record_of, remembered_digests
from ._state import (
    ABSENT,
    Absent,
    Content,
    Desired,
    DirState,
    FileState,
    Intent,
    Kind,
    LinkState,
    digest_of,
)

__all__ = [
    "ChildHandler",
    "DirSpec",
    "Durability",
    "FileSpec",
    "KeepSpec",
    "OnConflict",
    "Options",
    "RootHandler",
    "RootKey",
    "Spec",
    "Verify",
    "Watch",
    "share",
]

Durability: TypeAlias = Literal["batch", "none"]
Verify: TypeAlias = Literal["stat", "content", "none"]
OnConflict: TypeAlias = Literal["backup", "overwrite", "error"]

_log = logging.getLogger("cocoindex_fsmirror")
_OPEN_MIRRORS: Final = 32  # ledgers that stay open between batches
_SMALL: Final = 32_768  # bytes; more would take longer to copy than the engine takes to give up
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode


# What a flow declares


@dataclass(frozen=True, slots=True)
class Options:
    """How a directory target treats its files."""

    durability: Durability = "batch"
    verify: Verify = "stat"
    on_conflict: OnConflict = "backup"
    exact: bool = False
    max_delete: Limit | None = None

    def __post_init__(self) -> None:
        """Refuses a value that is none of the documented ones."""
        check_limit(self.max_delete)
        for name, known in (
            ("durability", Durability),
            ("verify", Verify),
            ("on_conflict", OnConflict),
        ):
            if getattr(self, name) not in get_args(known):
                listed = ", ".join(repr(value) for value in get_args(known))
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {listed}")
        if self.exact and self.verify == "none":
            # With the ledger lost all is foreign, and nobody would declare it again.
            raise ValueError("exact=True needs verify='stat' or verify='content'")

    @property
    def durable(self) -> bool:
        """Whether barriers are made."""
        return self.durability != "none"


_DEFAULTS: Final = Options()
_ANY_FOLDER: Final = DirState()


class Watch:
    """What was seen of a root when it was mounted, whose mirror it is, and what is declared.

    Components declare from several threads.
    """

    def __init__(self, drift: Drift | None = None, max_delete: Limit | None = None) -> None:
        self.drift = drift or Drift()
        self.has_looked = drift is not None
        self.owner = ""
        self.mirror: Mirror | None = None  # Once it is ready.
        self.brake = None if max_delete is None else Brake(max_delete)
        self._lock = threading.Lock()
        self._files: dict[Name, _Declarer] = {}
        self._below: dict[Name, tuple[Name, _Declarer]] = {}  # by folder: one of the paths in it
        self._declarers: dict[tuple[str, str], _Declarer] = {}  # There are far fewer than files.
        self._around: tuple[Name, _Declarer] | None = None  # Of the declaration before.

    def draft(self, name: Name, source: int) -> Draft | None:
        """Begins a copy of a large open file that may go to a path below the root."""
        return None if self.mirror is None else self.mirror.draft(name, source)

    def declare(self, name: Name, place: str, component: str, *, is_file: bool) -> Name:
        """Notes a declaration.

        Args:
            name: The path below the root.
            place: The directory target that declares it, as a chain.
            component: The component that declares it.
            is_file: Whether it is a file, not a directory.

        Returns:
            What another component has declared, during this update, and can't be
            there together with it; :data:`ROOT` if there is nothing like that.
        """
        with self._lock:
            me = self._declarers.get((place, component))
            if me is None:
                me = self._declarers[place, component] = _Declarer(place, component)
            around = parent(name), me
            is_first = around != self._around  # Most follow one that is declared beside them.
            if is_first or name in self._files or name in self._below:
                for rival, other in self._rivals(name, is_first=is_first, is_file=is_file):
                    is_contrary = (rival, other.place) != (name, place)
                    if other is not me and other.component != component and is_contrary:
                        return rival
            if is_file:
                self._files[name] = me
            if is_first:
                for folder in ancestors(name):
                    if folder not in self._below:
                        self._below[folder] = name, me
                self._around = around
        return ROOT

    def _rivals(
        self, name: Name, *, is_first: bool, is_file: bool
    ) -> Iterator[tuple[Name, _Declarer]]:
        """What was declared that may contradict a declaration."""
        if name in self._files:
            yield name, self._files[name]
        if is_first:
            for path in ancestors(name):
                if path in self._files:
                    yield path, self._files[path]
        if is_file and name in self._below:
            yield self._below[name]

    def withdraw(self, name: Name, place: str) -> None:
        """Forgets a declaration."""
        with self._lock:
            self._around = None
            declarer = self._files.get(name)
            if declarer is not None and declarer.place == place:
                del self._files[name]
            for folder in ancestors(name):
                below, declarer = self._below.get(folder, (ROOT, None))
                if below == name and declarer is not None and declarer.place == place:
                    del self._below[folder]


class _Declarer(NamedTuple):
    """Who declares a path: through which directory target, and in which component."""

    place: str
    component: str


class FileSpec(msgspec.Struct, frozen=True, gc=False):
    """A declared file, or a link, which has its state for a content."""

    content: bytes | Content | LinkState
    mode: int | None
    create_parent_dirs: bool
    component: str
    rival: Name = ROOT
    options: Options = _DEFAULTS
    fresh_owner: str = ""
    drifted: bool = False
    mtime_ns: int | None = None

    @property
    def state(self) -> FileState | LinkState:
        """The desired state."""
        content = self.content
        if isinstance(content, LinkState):
            return content
        if isinstance(content, bytes):
            return FileState(digest_of(content), len(content), self.mode, self.mtime_ns)
        return FileState(content.digest, content.size, self.mode, self.mtime_ns)

    @property
    def payload(self) -> bytes | Content | None:
        """What a file holds, or where that is."""
        return None if isinstance(self.content, LinkState) else self.content

    def packed(self) -> FileSpec | bytes:
        """The same in the form that the engine takes: a small file as bytes.

        The engine tries to pickle every value that is no scalar, and keeps the value
        itself where that fails, as it does here after 5 us. To pack takes 1 us.
        """
        if not isinstance(self.content, bytes) or len(self.content) > _SMALL:
            return self
        above, by = self.create_parent_dirs, self.component
        return _pack((self.content, self.mode, self.mtime_ns, above, by, self.rival))

    @classmethod
    def unpacked(cls, packed: bytes) -> FileSpec:
        """A file that is declared in a directory, from its packed form."""
        content, mode, mtime_ns, above, by, rival = _unpack(packed)
        return cls(content, mode, above, by, rival, mtime_ns=mtime_ns)


class DirSpec(msgspec.Struct, frozen=True, gc=False):
    """A declared directory; options that are ``None`` are inherited."""

    create_parent_dirs: bool
    component: str = ""
    rival: Name = ROOT
    durability: Durability | None = None
    verify: Verify | None = None
    on_conflict: OnConflict | None = None
    fresh_owner: str = ""
    watch: Watch | None = None
    state: DirState = _ANY_FOLDER
    exact: bool = False
    by: str = ""

    def options(self, inherited: Options) -> Options:
        """The options that hold here."""
        return replace(
            inherited,
            durability=self.durability or inherited.durability,
            verify=self.verify or inherited.verify,
            on_conflict=self.on_conflict or inherited.on_conflict,
        )


@dataclass(frozen=True, slots=True)
class KeepSpec:
    """A path that stays as it is: what it should hold can't be told now."""


Spec: TypeAlias = FileSpec | DirSpec | KeepSpec | bytes
"""What is declared; bytes are a :class:`FileSpec` in its packed form."""


class RootKey(NamedTuple):
    """The engine's key of a root: a context key and a path below it, or an absolute path."""

    base_dir_key: str | None
    path: str

    def resolve(self, context_provider: Any) -> str:
        """The absolute path, by what the context says now.

        Raises:
            RootError: The context says nothing.
        """
        if self.base_dir_key is None:
            return self.path
        try:
            base = context_provider.get(self.base_dir_key, Path)
        except KeyError:
            problem = "is a context key for which nothing is provided"
            raise RootError(self.base_dir_key, problem, "provide a directory for it") from None
        return os.path.abspath(os.path.join(base, self.path))

    def __str__(self) -> str:
        if self.base_dir_key is None:
            return self.path
        return self.base_dir_key if self.path == "." else f"{self.base_dir_key}:{self.path}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory target: the root it belongs to, and where in it."""

    root: RootKey
    owner: str
    options: Options
    watch: Watch = field(repr=False, compare=False)
    prefix: Name = ROOT
    container: str = ""

    def inside(self, key: Name, spec: DirSpec) -> _Place:
        """The directory target that is declared below this one."""
        return replace(
            self,
            prefix=join(self.prefix, key),
            container=f"{self.container}{key}//",
            options=spec.options(self.options),
        )


# What the engine is asked to apply


class _Change(msgspec.Struct, frozen=True, gc=False):
    """One path below a root. ``child`` is set for a directory that is declared."""

    place: _Place
    intent: Intent
    closed: tuple[tuple[str, str], ...] = ()
    child: _Place | None = None
    is_settled: bool = False

    def __repr__(self) -> str:
        line = _line(str(self.intent.name), self.intent.desired)
        return line.replace("make", "keep", 1) if self.is_settled else line


@dataclass(frozen=True, slots=True)
class _Single:
    """A file that is declared by itself; its mirror is the folder that holds it."""

    path: RootKey
    intent: Intent
    was_dir: bool

    def __repr__(self) -> str:
        return _line(str(self.path), self.intent.desired)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A root that is declared."""

    child: _Place
    create_parent_dirs: bool
    why_all_run: str
    was_file: Intent | None
    by: str = ""

    def __repr__(self) -> str:
        return f"mirror {self.child.root}"


@dataclass(frozen=True, slots=True)
class _Drop:
    """A root that is no longer declared."""

    root: RootKey
    owner: str

    def __repr__(self) -> str:
        return f"drop {self.root}"


_Action: TypeAlias = _Change | _Single | _Mount | _Drop


def _line(name: str, desired: Desired) -> str:
    """One short line for a preview."""
    shown = name if name.isprintable() else repr(name)
    if isinstance(desired, FileState):
        return f"write {shown} ({_size(desired.size)})"
    if isinstance(desired, LinkState):
        return f"link {shown}"
    return f"make {shown}/" if isinstance(desired, DirState) else f"delete {shown}"


def _size(count: int) -> str:
    """A number of bytes for people."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:.1f} {'KMGT'[power - 1]}iB"


# Reconcile


class ChildHandler(coco.TargetHandler[Spec, Record, "ChildHandler"]):
    """Reconciles the files and directories declared below a directory target."""

    __slots__ = ("_place",)

    def __init__(self, place: _Place) -> None:
        self._place = place

    def reconcile(
        self,
        key: coco.StableKey,
        desired_target_state: Spec | coco.NonExistenceType,
        prev_possible_records: Collection[Record],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[_Action, Record, ChildHandler] | None:
        """Decides what one path needs."""
        place, spec = self._place, desired_target_state
        if isinstance(spec, bytes):
            spec = FileSpec.unpacked(spec)
        if isinstance(spec, KeepSpec):
            return None
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
        change = _Change(place, intent, closed, child, settled)
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
    ) -> coco.TargetReconcileOutput[_Action, Record, ChildHandler] | None:
        """Decides what one root needs."""
        root, spec = RootKey(*cast("tuple[str | None, str]", key)), desired_target_state
        kinds = {record.kind for record in prev_possible_records}
        ours = remembered_digests(prev_possible_records)
        if coco.is_non_existence(spec):
            owner = owner_of(prev_possible_records, "")
            if Kind.FILE in kinds:
                gone = Intent(ROOT, ABSENT, owner, ours=ours)
                return _output(_Single(root, gone, Kind.DIR in kinds), ABSENT)
            return _output(_Drop(root, owner), ABSENT)
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
            return _output(_Single(root, _single(spec, owner, ours), Kind.DIR in kinds), record)
        watch = spec.watch or Watch()
        why = _why_all_run(watch, owner, prev_possible_records)
        was_file = Intent(ROOT, ABSENT, owner, ours=ours) if Kind.FILE in kinds else None
        place = _Place(root, owner, spec.options(Options()), watch)
        if spec.exact and watch.has_looked:
            place = replace(place, options=replace(place.options, exact=True))
        by = f"{spec.by} {root}".strip()
        action = _Mount(place, spec.create_parent_dirs, why, was_file, by)
        return coco.TargetReconcileOutput(
            action=action,
            sink=_sink,
            tracking_record=cast("Record", record_of(DirState(), "", owner)),
            child_invalidation="lossy" if why else None,
        )


def _desired(spec: FileSpec | DirSpec | coco.NonExistenceType) -> Desired:
    """The desired state in the terms of the core."""
    return ABSENT if coco.is_non_existence(spec) else spec.state


def _single(spec: FileSpec, owner: str, ours: frozenset[bytes]) -> Intent:
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
    action: _Action, record: Record | Absent
) -> coco.TargetReconcileOutput[_Action, Record, ChildHandler]:
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


def _apply_actions(context_provider: Any, actions: Sequence[_Action]) -> None:
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


def _steps(context_provider: Any, actions: Sequence[_Action]) -> list[Callable[[], object]]:
    """What a batch asks of each root: to be there, to change, to be given up."""
    mounts: list[Callable[[], object]] = []
    drops: list[Callable[[], object]] = []
    changes: dict[RootKey, list[_Change]] = {}
    for action in actions:
        if isinstance(action, _Mount):
            mounts.append(partial(_mount, context_provider, action))
        elif isinstance(action, _Change):
            changes.setdefault(action.place.root, []).append(action)
        elif isinstance(action, _Single):
            drops.append(partial(_write_single, context_provider, action))
        else:
            drops.append(partial(_drop, context_provider, action))
    applied = (partial(_change, context_provider, *pair) for pair in changes.items())
    return [*mounts, *applied, *drops]


def _change(context_provider: Any, root: RootKey, changes: list[_Change]) -> None:
    """Brings the paths of one root to their desired states."""
    closed = [pair for change in changes for pair in change.closed]
    for change in changes:
        if change.intent.desired is ABSENT:
            change.place.watch.withdraw(change.intent.name, change.intent.container)
    mirror = _mirror_at(root.resolve(context_provider))
    mirror.apply([change.intent for change in changes], closed, changes[0].place.watch.brake)


def _drop(context_provider: Any, action: _Drop) -> None:
    """Gives a root up."""
    _mirror_at(action.root.resolve(context_provider)).tear_down(action.owner)


def _mount(context_provider: Any, action: _Mount) -> None:
    """Makes a root ready."""
    place = action.child
    root = place.root.resolve(context_provider)
    if action.was_file is not None:
        _write_single(context_provider, _Single(place.root, action.was_file, False))
    if action.why_all_run:
        _log.warning("%s: every component below it runs again: %s", root, action.why_all_run)
    mirror = _mirror_at(root)
    mirror.prepare(
        place.owner,
        place.watch.drift,
        parents=action.create_parent_dirs,
        durable=place.options.durable,
        exact=place.options.exact,
        by=action.by,
    )
    place.watch.mirror = mirror


def _write_single(context_provider: Any, action: _Single) -> None:
    """Brings a file that is declared by itself to its desired state."""
    path = action.path.resolve(context_provider)
    intent = msgspec.structs.replace(action.intent, name=parse_name(os.path.basename(path)))
    if action.was_dir:
        _mirror_at(path).tear_down(intent.owner, durable=intent.durable)
    mirror = _mirror_at(os.path.dirname(path))
    if intent.desired is not ABSENT:
        mirror.prepare(intent.owner, Drift(), parents=intent.create_parents, durable=intent.durable)
        mirror.apply([intent])
    elif is_there(mirror.root):
        mirror.apply([intent])
        mirror.tear_down(intent.owner, durable=intent.durable)


def _child_of(_context_provider: Any, action: _Action) -> ChildHandler:
    """The handler of what is declared below a directory."""
    assert isinstance(action, _Mount | _Change)
    assert action.child is not None
    action.child.watch.owner = action.child.owner
    return ChildHandler(action.child)


def _is_container(action: _Action) -> bool:
    """Whether an action is about a directory that is declared."""
    return isinstance(action, _Mount | _Change) and action.child is not None


def _apply_at_pace(context_provider: Any, actions: Sequence[_Action]) -> None:
    """What the engine calls."""
    with _pace.kept():
        _apply_actions(context_provider, actions)


_sink = make_sink(_apply_at_pace, _child_of, _is_container)

_mirrors: dict[str, Mirror] = {}
_mirrors_lock = threading.Lock()
_abandoned: list[Mirror] = []


def _mirror_at(root: str) -> Mirror:
    """The mirror of a root; its ledger stays open between batches."""
    with _mirrors_lock:
        mirror = _mirrors.pop(root, None) or Mirror(root)
        _mirrors[root] = mirror
        if len(_mirrors) > _OPEN_MIRRORS:
            _mirrors.pop(next(iter(_mirrors))).close()
        return mirror


def share(mirror: Mirror) -> None:
    """Makes the target use this very mirror for its root."""
    with _mirrors_lock:
        _mirrors[mirror.root] = mirror


@atexit.register
def _close_mirrors() -> None:
    """Folds each ledger's log into its file."""
    with _mirrors_lock:
        for mirror in _mirrors.values():
            mirror.close()
        _mirrors.clear()


def _forget_mirrors() -> None:
    """In a forked child: SQLite forbids to use, or even to close, a parent's connection."""
    global _mirrors_lock  # noqa: PLW0603  # The old one may be held by a thread that is not here.
    _mirrors_lock = threading.Lock()
    _abandoned.extend(_mirrors.values())
    _mirrors.clear()


os.register_at_fork(after_in_child=_forget_mirrors)
