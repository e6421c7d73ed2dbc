"""Compares what is declared, what was last written and what is on the disk, path by path.

Both sides are walked in the order of the names, so that neither has to be held whole. Only
hints come from here: an intent is planned under the lock, with another look at its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from .._core.errors import SourceError, TooManyRemovalsError
from .._core.intents import Intent, OnConflict
from .._core.names import Name
from .._core.rows import Kind, Row
from .._core.signatures import Signature
from .._core.states import ABSENT, Content, Desired, FileState
from .brake import Limit, allowance
from .suspects import LastWritten, last_written, rows

__all__ = ["Comparison", "Wanted", "batches", "check_removals"]

_T = TypeVar("_T")
_MOST: Final = 4096  # paths in a batch
_LARGEST: Final = 1 << 30  # bytes in a batch, which need room beside the old versions


class Wanted(NamedTuple):
    """What a path should hold, where its bytes are, and the signature of what is copied."""

    desired: Desired
    content: bytes | Content | None = None
    source: Signature | None = None


@dataclass
class Comparison(Generic[_T]):
    """Makes an intent of each path that is not as it is declared.

    Args:
        root: The root of the mirror.
        owner: Who declares.
        is_said: True if a row says what is declared, so that nothing is to be done if the
            disk holds it.
        wanted: Tells what a declaration wants; is given the row of the path if the owner
            wrote it. May raise :class:`SourceError`; then the path stays as it is.
        on_conflict: What happens to foreign bytes.
        durable: True if the batches have to survive a power cut.
        check: Is called before each path; what it raises ends the comparison.

    Attributes:
        drifted: Paths in the last batch whose actual state was not proven to be the
            last-written one.
        unread: Paths whose source can't be read, with the error.
        seen: How many declarations were compared.
    """

    root: str
    owner: str
    is_said: Callable[[_T, Row], bool]
    wanted: Callable[[Name, _T, Row | None], Wanted | None]
    on_conflict: OnConflict = "backup"
    durable: bool = True
    check: Callable[[], None] = lambda: None
    drifted: set[Name] = field(default_factory=set, init=False)
    unread: dict[Name, SourceError] = field(default_factory=dict, init=False)
    seen: int = field(default=0, init=False)

    def batches(
        self, declared: Iterable[tuple[Name, _T]], suspects: Iterable[Name] | None = None
    ) -> Iterator[list[Intent]]:
        """Yields what has to be done, as many intents as are applied together.

        Args:
            declared: What each path should hold, by name.
            suspects: Paths of which a look did not prove that they hold what was written;
                by default they are looked for.
        """
        for batch in batches(self._intents(declared, suspects)):
            yield batch
            self.drifted.clear()

    def _intents(
        self, declared: Iterable[tuple[Name, _T]], suspects: Iterable[Name] | None
    ) -> Iterator[Intent]:
        """Yields what has to be done, by path."""
        for name, declaration, last in _merged(declared, last_written(self.root, suspects)):
            mine = last.row if last is not None and last.row.owner == self.owner else None
            is_untouched = mine is not None and last is not None and last.is_untouched
            container = ""
            if declaration is not None:
                self.check()
                self.seen += 1
                if mine is not None and is_untouched and self.is_said(declaration, mine):
                    continue
                wanted = self._asked(name, declaration, mine)
            elif mine is not None:
                wanted, container = Wanted(ABSENT), mine.container
            else:
                continue
            if wanted is not None:
                if mine is not None and not is_untouched:
                    self.drifted.add(name)
                yield self._intent(name, wanted, container)

    def _asked(self, name: Name, declaration: _T, row: Row | None) -> Wanted | None:
        """Asks what a declaration wants; ``None`` if the path stays as it is."""
        try:
            return self.wanted(name, declaration, row)
        except SourceError as error:
            self.unread[name] = error
            return None

    def _intent(self, name: Name, wanted: Wanted, container: str) -> Intent:
        """Makes an intent."""
        desired, content, source = wanted
        return Intent(
            name,
            desired,
            self.owner,
            container,
            content=content,
            on_conflict=self.on_conflict,
            durable=self.durable,
            source=source,
        )


def _merged(
    declared: Iterable[tuple[Name, _T]], written: Iterable[LastWritten]
) -> Iterator[tuple[Name, _T | None, LastWritten | None]]:
    """Yields each path, by name, with what is declared and what was last written there."""
    rows = iter(written)
    last = next(rows, None)
    for name, declaration in declared:
        while last is not None and last.row.name < name:
            yield last.row.name, None, last
            last = next(rows, None)
        if last is not None and last.row.name == name:
            yield name, declaration, last
            last = next(rows, None)
        else:
            yield name, declaration, None
    while last is not None:
        yield last.row.name, None, last
        last = next(rows, None)


def batches(intents: Iterable[Intent]) -> Iterator[list[Intent]]:
    """Yields intents some at a time, as many as are applied together."""
    batch: list[Intent] = []
    size = 0
    for intent in intents:
        batch.append(intent)
        size += intent.desired.size if isinstance(intent.desired, FileState) else 0
        if len(batch) == _MOST or size >= _LARGEST:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def check_removals(
    root: str, owner: str, leaves: Iterable[Name], limit: Limit | None, option: str
) -> None:
    """Stops before anything is done, if too much would be removed.

    Args:
        root: The root of the mirror.
        owner: Who declares.
        leaves: The files and links that stay declared, by name.
        limit: How many may be removed; ``None`` for any number.
        option: What the limit is called, for the message.

    Raises:
        TooManyRemovalsError: More files would be removed than the limit allows.
    """
    if limit is None:
        return
    managed = gone = 0
    declared = ((name, True) for name in leaves)
    written = (LastWritten(row, False) for row in rows(root))
    for _, stays, last in _merged(declared, written):
        if last is not None and last.row.owner == owner and last.row.kind != Kind.DIR:
            managed += 1
            gone += stays is None
    allowed = allowance(limit, managed)
    if gone > allowed:
        shown = f"{limit:.0%}" if isinstance(limit, float) else str(limit)
        raise TooManyRemovalsError(root, gone, managed, allowed, f"{option} {shown}")
