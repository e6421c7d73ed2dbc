"""Compares the desired, the last-written and the actual state of each path.

Both sides are walked in the order of the names, so that neither has to be held whole. Only
hints come from here: an intent is planned under the lock, with another look at its path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from .._core.declaration import Declaration, Declared
from .._core.errors import SourceError, TooManyRemovalsError
from .._core.intents import Intent
from .._core.names import Name, ancestors
from .._core.ownership import OnConflict, Policy
from .._core.rows import Row
from .._core.states import ABSENT, Absent, DirState, FileState, Kind
from .._core.text import precedes
from .._disk.locations import Root
from .._disk.sources import Source, look_at_source, may_be_at
from .._disk.tree import Folders
from .brake import Limit, allowance
from .drift import LastWritten, last_written, rows
from .sibling import Sibling
from .turns import batches

__all__ = ["Comparison", "check_removals"]

_MANY: Final = 100  # files, of which not more than half are removed without a word
_UNDECLARED: Final = Declaration(ABSENT)
Protects: TypeAlias = Callable[[Name, bool], bool]
"""A function of a path, and if it is a folder."""


def _protects_nothing(_name: Name, _is_folder: bool) -> bool:
    """Answers no."""
    return False


@dataclass
class Comparison:
    """Makes an intent of each path that is not as it is declared.

    Args:
        root: The root of the mirror.
        owner: The identity of the declarer.
        on_conflict: The policy for foreign bytes.
        durable: True if the batches have to survive a power cut.
        read: True to read every source, instead of trusting an unchanged signature.
        source: The folder that holds every source, and from which each is opened; by default
            each is opened by its own path.
        sibling: Another mirror of that folder, with which contents can be shared.
        protects: True of a path, and if it is a folder, that is left alone though it is declared
            no longer.
        on_removal: The policy for paths that are declared no longer; by default ``on_conflict``.

    Attributes:
        drifted: Paths that somebody else has changed if they need a write: their declaration
            is recorded, or the actual state is not proven. Whoever counts them takes them out.
        unread: Paths whose source can't be read, with the error. They stay as they are.
    """

    root: Root
    owner: str
    on_conflict: OnConflict = "backup"
    durable: bool = True
    read: bool = False
    source: Folders | None = None
    sibling: Sibling | None = None
    protects: Protects = _protects_nothing
    on_removal: Policy | None = None
    drifted: set[Name] = field(default_factory=set, init=False)
    unread: dict[Name, SourceError] = field(default_factory=dict, init=False)

    def batches(
        self, declared: Declared, suspects: Iterable[Name] | None = None
    ) -> Iterator[list[Intent]]:
        """Yields an intent for each path that differs, a batch at a time.

        Args:
            declared: The desired state of each path.
            suspects: The suspects, by name; by default they are looked for.
        """
        return batches(self._intents(declared, suspects))

    def _intents(self, declared: Declared, suspects: Iterable[Name] | None) -> Iterator[Intent]:
        """Yields an intent for each path that differs, by name."""
        written = last_written(self.root, suspects)
        mine = (last for last in written if last[0].owner == self.owner)
        for name, wanted, last in _merged(declared, mine, self.protects):
            if wanted is None:
                continue
            row, is_untouched = last or (None, False)
            is_recorded = row is not None and wanted.is_recorded(row)
            if is_recorded and is_untouched and not (self.read and wanted.source):
                continue
            try:
                intent = self._intent(name, wanted, row if is_recorded else None)
            except SourceError as error:
                self.unread[name] = error
                continue
            if row is not None and (is_recorded or not is_untouched):
                self.drifted.add(name)
            yield intent

    def _intent(self, name: Name, wanted: Declaration, recorded: Row | None) -> Intent:
        """Makes an intent; looks at the source of a copy, and reads it if that is needed.

        Args:
            name: The path.
            wanted: The desired state.
            recorded: The row of the path, if it records that state; the source need not be read.

        Raises:
            SourceError: The source can't be read.
        """
        state, content, seen = wanted.desired, wanted.content, wanted.source
        if isinstance(state, FileState) and seen is not None:
            path, within = wanted.copied, self.source
            if self.read:
                content = look_at_source(path, within=within)
            elif recorded is not None:
                attributes, digest = recorded.attributes, recorded.digest
                content = Source(path, digest, None, attributes, seen, within=within)
            else:
                shared = self.sibling and self.sibling.copy_of(name, seen, state.attributes)
                needs_digest = may_be_at(os.path.join(self.root, name))
                content = shared or look_at_source(path, needs_digest, within)
            try:
                attributes = wanted.own.of_copy(content.attributes, wanted.preserve)
            except ValueError as error:  # It was within range when it was declared.
                raise SourceError(wanted.copied, f"can't be copied: {error}") from error
            state = FileState(content.digest, content.size, attributes)
            seen = content.signature if content.is_provable else None
        return Intent(
            name,
            state,
            self.owner,
            content=content,
            on_conflict=(state is ABSENT and self.on_removal) or self.on_conflict,
            durable=self.durable,
            source=seen,
        )


def _protects(protects: Protects, row: Row) -> bool:
    """True if the path of a row is protected; asked only if it is not declared, for the time."""
    return protects(row.name, row.kind == Kind.DIR)


def _merged(
    declared: Declared, written: Iterable[LastWritten], protects: Protects
) -> Iterator[tuple[Name, Declaration | None, LastWritten | None]]:
    """Yields each path, by name, with its desired and its last-written state."""
    rows, stays = iter(written), set[Name]()

    def undeclared(row: Row) -> Declaration | None:
        is_kept = stays and not stays.isdisjoint(ancestors(row.name))
        return None if is_kept or _protects(protects, row) else _UNDECLARED

    last = next(rows, None)
    for name, wanted in declared:
        while last is not None and last[0].name != name and precedes(last[0].name, name):
            yield last[0].name, undeclared(last[0]), last
            last = next(rows, None)
        if wanted is None:
            stays.add(name)
        if last is not None and last[0].name == name:
            yield name, wanted, last
            last = next(rows, None)
        else:
            yield name, wanted, None
    while last is not None:
        yield last[0].name, undeclared(last[0]), last
        last = next(rows, None)


class _Removals(NamedTuple):
    """Numbers of managed files and links, some of which are to be removed.

    Attributes:
        managed: All of them.
        gone: Those that are declared no longer.
        moved: Those among them whose source is declared under another name.
        left: Files and links that are declared, or may be, since that can't be told.
    """

    managed: int
    gone: int
    moved: int
    left: int


def _removals(root: Root, owner: str, declared: Declared, protects: Protects) -> _Removals:
    """Counts what a run would remove, as far as the declared states tell."""
    managed = left = 0
    gone, come = list[tuple[int, int]](), set[tuple[int, int]]()
    mine = (row for row in rows(root) if row.owner == owner and row.kind != Kind.DIR)
    for _, wanted, last in _merged(declared, ((row, False) for row in mine), protects):
        if wanted is None and last is not None and _protects(protects, last[0]):
            continue
        goes = wanted is not None and isinstance(wanted.desired, Absent | DirState)
        managed += last is not None
        left += not goes
        if goes and last is not None:
            gone.append((last[0].source_inode, last[0].size))
        elif wanted is not None and wanted.source is not None:
            come.add((wanted.source.inode, wanted.source.size))
    return _Removals(managed, len(gone), sum(each in come for each in gone), left)


def check_removals(
    root: Root,
    owner: str,
    declared: Declared,
    limit: Limit | Literal["usual"] | None,
    option: str,
    *,
    protects: Protects = _protects_nothing,
) -> None:
    """Stops before anything is done, if too many files would be removed.

    Args:
        root: The root of the mirror.
        owner: The identity of the declarer.
        declared: The desired state of each path.
        limit: The most files and links that may be removed; ``None`` for any number. The usual
            one is half of a hundred or more, without those that were moved; of fewer all, but
            none if no file is declared any more.
        option: The name of the limit, for the message.
        protects: As that of a comparison.

    Raises:
        TooManyRemovalsError: More would be removed than the limit allows.
    """
    if limit is None:
        return
    managed, gone, moved, left = _removals(root, owner, declared, protects)
    if limit != "usual":
        shown = f"{option} {limit:.0%}" if isinstance(limit, float) else f"{option} {limit}"
        allowed, word = allowance(limit, managed), ""
    elif left:
        shown, word = f"a run without {option}", f"allow it once with {option} 100%"
        allowed, gone = managed // 2 if managed >= _MANY else managed, gone - moved
    else:
        shown, allowed, word = "an empty source", 0, f"allow it once with {option} 100%"
    if gone > allowed:
        raise TooManyRemovalsError(str(root), gone, managed, allowed, shown, word=word)
