"""Heal: restore last-written states, without running whoever declared them.

What drifted is planned and applied like any other intent; only its content comes from elsewhere:
from its copy, or from the source of ``fsmirror sync``, if that still holds the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from .._core.attributes import UNASKED
from .._core.errors import (
    FsMirrorError,
    NotAtHandError,
    PathError,
    SourceChangedError,
    SourceError,
)
from .._core.intents import Intent
from .._core.layout import LARGE_COPIES
from .._core.names import Name, leaf
from .._core.owners import SYNC_OWNER, SYNC_SOURCE
from .._core.ownership import OnConflict
from .._core.plan import Plan, Put, Remove, View
from .._core.planner import make_plan
from .._core.rows import Row
from .._core.states import Content, Kind, Signature, same, same_content
from .._core.text import encoded
from .._disk.calls import closing, digest_of_file, open_file
from .._disk.locations import Root
from .._disk.roots import is_there, open_spot
from .._disk.sources import Source, open_source
from .._disk.tree import Folders, Tree
from .contents import SMALL, Contents
from .copies import drop_damaged
from .known import find, known, opened
from .ledger import Ledger
from .look import look_at, view_of
from .outcome import Outcome
from .reader import LedgerReader
from .session import Session
from .shelf import file_of, take
from .turns import apply_all, batches

__all__ = ["Healing", "foresee", "heal", "in_doubt"]

_log = logging.getLogger("cocoindex_fsmirror")
_NAMED: Final = 10  # paths that a log line names before it says how many more


class Healing(msgspec.Struct, frozen=True):
    """The result of healing.

    Attributes:
        healed: The paths that hold their last-written state again, sorted.
        left: The paths that only whoever declared them can restore, each with the reason, sorted.
        failures: The paths that could not be restored, each with the error, sorted.
        backed_up: The paths at which something foreign was in the way, and went to the backup
            area, sorted.
    """

    healed: list[str] = []  # msgspec copies the defaults.
    left: dict[str, str] = {}
    failures: dict[str, FsMirrorError] = {}
    backed_up: list[str] = []


class _Shelf(NamedTuple):
    """The copies of one mirror: its root, and what takes a small one out."""

    tree: Folders
    take_small: Callable[[bytes], bytes | None]

    def take(self, digest: bytes) -> bytes:
        """Returns a small content.

        Raises:
            NotAtHandError: There is no sound copy.
        """
        content = self.take_small(digest)
        if content is None:
            raise NotAtHandError
        return content

    def open(self, digest: bytes) -> int:
        """Opens a large copy.

        Raises:
            NotAtHandError: There is none.
        """
        try:
            return open_file(leaf(file_of(digest)), self.tree.folder(LARGE_COPIES))
        except OSError as error:
            raise NotAtHandError from error


class _Copy(NamedTuple):
    """A content that is taken from its copy only when it is needed; a :class:`Content`."""

    shelf: _Shelf
    source: str
    digest: bytes
    size: int
    is_kept: bool

    @property
    def held(self) -> bytes | None:
        if not self.is_kept:
            raise NotAtHandError
        return self.shelf.take(self.digest) if self.size <= SMALL else None

    def open(self) -> int:
        """Opens a large copy."""
        return self.shelf.open(self.digest)

    def is_unchanged(self, _fd: int) -> bool:
        """True: only we write copies, and a digest tells if one is damaged."""
        return True


class _Scene(NamedTuple):
    """All that paths are healed from: the root, if it is there, rows, the source of ``sync``."""

    tree: Folders
    ledger: LedgerReader
    rows: dict[Name, Row]
    synced: str
    path: str
    source: Folders | None

    def source_of(self, row: Row) -> Folders | None:
        """Returns the folder from which a path is restored; ``None`` if from copies."""
        return None if row.copied or row.owner != self.synced else self.source

    def intents(self, shelf: _Shelf) -> Iterator[Intent]:
        """Yields the intents to restore the paths."""
        policies = self.ledger.policies()
        for row in self.rows.values():
            policy = policies.on_conflict(row.owner, row.container)
            yield _intent(row, _content_of(row, shelf, self.source_of(row)), policy)

    def problem(self, name: Name, failure: BaseException | None) -> FsMirrorError | None:
        """Returns what keeps a path from being restored, if its content is not there as it was."""
        if not isinstance(failure, NotAtHandError | SourceError):
            return None
        row = self.rows[name]
        if row.copied or row.owner != self.synced:
            return NotAtHandError()
        path = os.path.join(self.path, name) if self.source else self.path
        return NotAtHandError(
            f"no copy of its content is kept, and {path!r} has changed or is gone, or a link leads"
            " to it"
        )

    def healing(
        self, problems: Mapping[Name, FsMirrorError], backed_up: Collection[Name]
    ) -> Healing:
        """Returns the result, by what went wrong."""
        found = sorted(self.rows, key=encoded)
        left = {str(n): str(problems[n]) for n in found if _is_left(problems.get(n))}
        failures = {str(n): problems[n] for n in found if n in problems and n not in left}
        healed = [str(n) for n in found if n not in problems]
        return Healing(healed, left, failures, sorted(map(str, backed_up), key=encoded))


def _is_left(problem: FsMirrorError | None) -> bool:
    """True if a path can only be restored by whoever declared it."""
    return isinstance(problem, NotAtHandError)


def _opened(root: Root) -> contextlib.AbstractContextManager[Folders]:
    """Opens a root; if it is gone, only its state folder."""
    if is_there(str(root)):
        return opened(root)
    fd = open_spot(find(root).spot)
    return contextlib.closing(Folders(fd, str(root), os.dup(fd)))


@contextlib.contextmanager
def _scene(root: Root, names: Collection[Name]) -> Iterator[_Scene]:
    """Opens all that paths are healed from."""
    with _opened(root) as tree, known(root) as ledger, contextlib.ExitStack() as until:
        rows = {name: row for name, row in ledger.rows_named(names).items() if row.declared}
        source, path = None, ledger.noted(SYNC_SOURCE)
        if path and is_there(path):
            with contextlib.suppress(OSError):
                source = until.enter_context(contextlib.closing(open_source(path)))
        yield _Scene(tree, ledger, rows, ledger.noted(SYNC_OWNER), path, source)


def heal(
    session: Session,
    names: Collection[Name],
    apply: Callable[[list[Intent], Callable[[Tree, Ledger], list[Intent]]], Outcome],
) -> Healing:
    """Restores the last-written states of paths.

    Args:
        session: The session of the root.
        names: The paths.
        apply: Applies those intents of a batch that a function returns under the lock, and
            reads what is there: a look may have read it, too.

    Raises:
        BarrierError: The disk did not confirm.
        LedgerError: The ledger could not be read or written.
        RootError: The root can't be used.
    """
    if not names:
        return Healing()
    session.run(lambda _tree, _ledger: None, create=True)  # Recovers what was interrupted.
    with _scene(session.location, names) as scene:

        def take_small(digest: bytes) -> bytes | None:
            ledger = session.ledger  # Another one after each batch if its file was replaced.
            return take(scene.tree, ledger.contents, digest) if ledger is not None else None

        def apply_and_note(batch: list[Intent]) -> Outcome:
            outcome = apply(batch, partial(_still_wanted, batch, scene.rows))
            backed_up.update(outcome.backed_up)
            return outcome

        intents = scene.intents(_Shelf(scene.tree, take_small))
        problems, backed_up = dict[Name, FsMirrorError](), set[Name]()
        for failure in apply_all(apply_and_note, batches(intents)):
            if not isinstance(failure, PathError):
                raise failure  # Some paths were not tried.
            name = Name(failure.path)
            problems[name] = scene.problem(name, failure.__cause__) or failure
        healing, rows = scene.healing(problems, backed_up), scene.rows
        _log_healed(scene, healing.healed)
    damaged = [row for row in rows.values() if row.copied and row.name in healing.left]
    session.run(lambda tree, ledger: drop_damaged(tree, ledger, damaged))
    return healing


def _still_wanted(
    batch: list[Intent], rows: dict[Name, Row], tree: Tree, ledger: Ledger
) -> list[Intent]:
    """Returns the intents of paths that are to be as before, and are not.

    Others may have updated the rest meanwhile, which is forgotten: there is nothing to restore.
    """
    now = ledger.rows_named(intent.name for intent in batch)
    stays = {
        name
        for name, row in now.items()
        if name in rows
        and _is_same(row, rows[name])
        and (row.unsynced or not same(row.state, look_at(tree, name, row, read=True).state))
    }
    for intent in batch:
        if intent.name not in stays:
            rows.pop(intent.name, None)
    return [intent for intent in batch if intent.name in stays]


def _is_same(row: Row, other: Row) -> bool:
    """True if two rows record one state of one declaration, seen at different times."""
    is_declared = row.declared and row.declaration == other.declaration
    is_like = same_content(row.state, other.state) and row.attributes == other.attributes
    return is_declared and is_like and row.component == other.component


def in_doubt(ledger: LedgerReader, names: Collection[Name]) -> dict[str, str]:
    """Returns the paths of which the ledger may hold a state of another time, with the reason."""
    rows, owners = ledger.rows_named(names), ledger.owners()
    doubted = {identity for identity, owner in owners.items() if owner.in_doubt}
    found = [n for n, row in rows.items() if not ledger.is_believed or row.owner in doubted]
    return dict.fromkeys(found, "the mirror was copied or put back; the next update will tell")


def _log_healed(scene: _Scene, healed: list[str]) -> None:
    """Logs what was healed, and from where, in a line for each."""
    names = dict[str, list[str]]()
    for name in healed:
        source = scene.source_of(scene.rows[Name(name)])
        names.setdefault(source.path if source else "copies", []).append(name)
    for origin, some in sorted(names.items()):
        shown = ", ".join(map(repr, some[:_NAMED]))
        more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
        _log.info("%s: healed from %s: %s%s", scene.tree.path, origin, shown, more)


def foresee(root: Root, names: Collection[Name]) -> Healing:
    """Tells what :func:`heal` would do; changes nothing.

    Args:
        root: The root of the mirror.
        names: The paths.

    Raises:
        LedgerError: The ledger can't be read.
        RootError: The root can't be read.
    """
    with (
        _scene(root, names) as scene,
        contextlib.closing(Contents(find(root).spot.path, changes=False)) as contents,
    ):
        intents = [*scene.intents(_Shelf(scene.tree, partial(take, scene.tree, contents)))]

        def plan(some: list[Intent]) -> Plan:
            tree = scene.tree
            if not isinstance(tree, Tree):
                return make_plan(some, View({}, {}))
            return make_plan(some, view_of(tree, scene.ledger, some, read=True))

        whole = plan(intents)
        problems: dict[Name, FsMirrorError] = {Name(each.path): each for each in whole.failures}
        for put in whole.files:
            try:
                _check(put.intent)
            except (NotAtHandError, SourceError) as error:
                problems[put.name] = scene.problem(put.name, error) or error
        rest = plan([intent for intent in intents if intent.name not in problems])
        steps: list[Put | Remove] = [*rest.files, *rest.clear, *rest.remove]
        return scene.healing(problems, {step.name for step in steps if step.keep_copy})


def _check(intent: Intent) -> None:
    """Raises if the content of a path is not there as it was."""
    content = intent.content
    if content is not None and not isinstance(content, bytes) and content.held is None:
        with closing(content.open()) as fd:
            is_sound = content.is_unchanged(fd)
            if is_sound and isinstance(content, _Copy):
                is_sound = digest_of_file(fd) == content.digest
            if not is_sound:
                raise SourceChangedError(content.source)


def _content_of(row: Row, shelf: _Shelf, source: Folders | None) -> Content | None:
    """Returns where the last-written content of a path is found."""
    if row.kind != Kind.FILE or row.digest is None:
        return None
    if source is None:
        return _Copy(shelf, row.name, row.digest, row.size, row.copied)
    path = os.path.join(source.path, row.name)
    return Source(path, row.digest, None, UNASKED, _signature_of(row), within=source)


def _signature_of(row: Row) -> Signature:
    """Returns the signature that the source of a copy had."""
    mtime_ns = row.mtime_ns if row.asked_ns is None else row.asked_ns
    return Signature(row.source_inode, row.size, mtime_ns, row.source_ctime_ns)


def _intent(row: Row, content: Content | None, policy: OnConflict) -> Intent:
    """Returns the intent to restore a path."""
    return Intent(
        row.name,
        replace(row.state, attributes=row.attributes),
        row.owner,
        row.container,
        row.component,
        content,
        on_conflict=policy,
        source=_signature_of(row) if row.source_ctime_ns else None,
    )
