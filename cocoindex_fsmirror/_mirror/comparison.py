"""Compares what is declared, what was last written and what is on the disk, path by path.

Both sides are walked in the order of the names, so that neither has to be held whole. Only
hints come from here: an intent is planned under the lock, with another look at its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from .._core.errors import SourceError, TooManyRemovalsError
from .._core.intents import Intent, OnConflict
from .._core.names import Name
from .._core.rows import Kind, Row
from .._core.signatures import Signature
from .._core.states import ABSENT, Content, Desired, FileState
from .brake import Limit, allowance
from .suspects import LastWritten, last_written

__all__ = ["Comparison", "Wanted", "batches", "check_removals"]

_T = TypeVar("_T")
_MOST: Final = 4096  # paths in a batch
_LARGEST: Final = 1 << 30  # bytes in a batch, which need room beside the old versions


class Wanted(NamedTuple):
    """What a path should hold, where its bytes are, and the signature of what is copied."""

    desired: Desired
    content: bytes | Content | None = None
    source: Signature | None = None


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

    def __init__(
        self,
        root: str,
        owner: str,
        *,
        is_said: Callable[[_T, Row], bool],
        wanted: Callable[[Name, _T, Row | None], Wanted | None],
        on_conflict: OnConflict = "backup",
        durable: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._owner = owner
        self._is_said = is_said
        self._wanted = wanted
        self._on_conflict = on_conflict
        self._durable = durable
        self._check = check
        self.drifted: set[Name] = set()
        self.unread: dict[Name, SourceError] = {}
        self.seen = 0

    def batches(
        self, declared: Iterable[tuple[Name, _T]], suspects: Iterable[Name]
    ) -> Iterator[list[Intent]]:
        """Yields what has to be done, as many intents as are applied together.

        Args:
            declared: What each path should hold, by name.
            suspects: Paths of which a look did not prove that they hold what was written.
        """
        for batch in batches(self._intents(declared, suspects)):
            yield batch
            self.drifted.clear()

    def _intents(
        self, declared: Iterable[tuple[Name, _T]], suspects: Iterable[Name]
    ) -> Iterator[Intent]:
        """Yields what has to be done, by path."""
        written = last_written(self._root, suspects)
        for name, declaration, last in _compare(self._counted(declared), written, self._is_so):
            mine = last if last is not None and last.row.owner == self._owner else None
            wanted = None
            if declaration is not None:
                wanted = self._asked(name, declaration, mine and mine.row)
            elif mine is not None:
                wanted = Wanted(ABSENT)
            if wanted is not None:
                if mine is not None and not mine.is_untouched:
                    self.drifted.add(name)
                yield self._intent(name, wanted, mine.row.container if mine is not None else "")

    def _counted(self, declared: Iterable[tuple[Name, _T]]) -> Iterator[tuple[Name, _T]]:
        """Yields what is declared, and counts it."""
        for pair in declared:
            self._check()
            self.seen += 1
            yield pair

    def _is_so(self, declaration: _T, last: LastWritten) -> bool:
        """True if what is declared was written, and is there."""
        row, is_untouched = last
        return is_untouched and row.owner == self._owner and self._is_said(declaration, row)

    def _asked(self, name: Name, declaration: _T, row: Row | None) -> Wanted | None:
        """Asks what a declaration wants; ``None`` if the path stays as it is."""
        try:
            return self._wanted(name, declaration, row)
        except SourceError as error:
            self.unread[name] = error
            return None

    def _intent(self, name: Name, wanted: Wanted, container: str) -> Intent:
        """Makes an intent."""
        desired, content, source = wanted
        return Intent(
            name,
            desired,
            self._owner,
            container if desired is ABSENT else "",
            content=content,
            on_conflict=self._on_conflict,
            durable=self._durable,
            source=source,
        )


Compared: TypeAlias = tuple[Name, _T | None, LastWritten | None]
"""A path, what is declared there, and what was last written there."""


def _compare(
    declared: Iterable[tuple[Name, _T]],
    written: Iterable[LastWritten],
    is_so: Callable[[_T, LastWritten], bool],
) -> Iterator[Compared[_T]]:
    """Yields the paths at which something may have to be done, by name."""
    rows = iter(written)
    last = next(rows, None)
    for name, declaration in declared:
        while last is not None and last.row.name < name:
            yield last.row.name, None, last
            last = next(rows, None)
        if last is None or last.row.name != name:
            yield name, declaration, None
            continue
        if not is_so(declaration, last):
            yield name, declaration, last
        last = next(rows, None)
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
    for _, stays, last in _compare(declared, last_written(root, None), lambda *_: False):
        if last is not None and last.row.owner == owner and last.row.kind != Kind.DIR:
            managed += 1
            gone += stays is None
    allowed = allowance(limit, managed)
    if gone > allowed:
        shown = f"{limit:.0%}" if isinstance(limit, float) else str(limit)
        raise TooManyRemovalsError(root, gone, managed, allowed, f"{option} {shown}")
