"""Flow: a source folder is mirrored by a real CocoIndex app.

There is one component for each folder of the source (or for each part of a large one),
memoized on the folder's listing, so that a run over an unchanged source neither reads
nor declares anything.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import cocoindex as coco

from . import _handlers, _target
from ._draft import Draft
from ._engine import release
from ._errors import SourceError
from ._handlers import Durability, OnConflict, Verify
from ._mirror import Mirror
from ._paths import Name, join, parse_name
from ._source import Source, fingerprint
from ._state import LinkState
from ._survey import TOO_FAR, Entry, Listing, Survey, can_be_kept

__all__ = ["App", "Run"]

_AT_ONCE: Final = 64  # entries of a folder that are read in one go
_UNDER_WAY: Final = 4096  # entries of components that are under way at the same time
_COMPONENTS: Final = 1024  # and how many components at most


class Run(Protocol):
    """Who has a source mirrored, and is told how it goes.

    Attributes:
        mirror: Where to.
        survey: What the source holds.
    """

    @property
    def mirror(self) -> Mirror: ...

    @property
    def survey(self) -> Survey: ...

    def settings(self) -> tuple[Durability, Verify, OnConflict]:
        """How the mirror is treated."""

    def begin(self, owner: str, drifted: frozenset[Name]) -> None:
        """The mirror is ready: whose files they are, and what others changed."""

    def check(self) -> None:
        """Raises if all is to end."""

    def must_run(self, listing: Listing) -> bool:
        """Whether a folder is to be looked at though its listing is the same."""

    def draft(self, name: str, source: int) -> Draft | None:
        """A copy of a large open file that was begun, or is now."""

    def fail(self, listing: Listing, error: SourceError) -> None:
        """A file can't be read."""

    def tell(self, error: str) -> None:
        """The engine met an error."""


class App:
    """The engine with its database, and the app that mirrors in it.

    Args:
        run: What for.
        database: The folder of the database.

    Raises:
        RuntimeError: The engine can't open it.
    """

    def __init__(self, run: Run, database: str) -> None:
        _handlers.share(run.mirror)
        self._environment = coco.Environment(coco.Settings(db_path=Path(database)))
        config = coco.AppConfig(
            name="fsmirror-sync",
            environment=self._environment,
            max_inflight_components=_under_way(run.survey),
        )
        self._app: coco.App[[Run], None] | None = coco.App(config, _mirror_all, run)

    def update(self) -> None:
        """Mirrors what the survey of now found.

        Raises:
            RuntimeError: The engine can't go on.
        """
        assert self._app is not None
        self._app.update_blocking()

    def close(self) -> None:
        """Lets others have the database."""
        self._app = None
        release(self._environment)
        del self._environment
        gc.collect()  # An error may still refer to what keeps the database open.


class _Work:
    """One folder, as a memoized component takes it."""

    def __init__(self, listing: Listing, run: Run) -> None:
        self.listing = listing
        self.run = run

    def __coco_memo_key__(self) -> object:
        listing = self.listing
        return (listing.path, listing.part, listing.mode, listing.mtime_ns, listing.packed)

    def __coco_memo_state__(self, prev_state: object) -> coco.MemoStateOutcome:
        return coco.MemoStateOutcome(state=1, memo_valid=not self.run.must_run(self.listing))


async def _mirror_all(run: Run) -> None:
    """The flow: one component for each folder."""

    async def note(error: BaseException, _context: object) -> None:
        run.tell(str(error))

    durability, verify, on_conflict = run.settings()
    out = await _target.mount_dir_target(
        Path(run.mirror.root), durability=durability, verify=verify, on_conflict=on_conflict
    )
    run.begin(out._watch.owner, out._watch.drift.names)  # noqa: SLF001
    works = ((listing.key, _Work(listing, run)) for listing in run.survey.listings)
    async with coco.exception_handler(note):
        handle = await coco.mount_each(_mirror_folder, works, out)
        await handle.ready()


@coco.fn(memo=True)
async def _mirror_folder(work: _Work, out: _target.DirTarget) -> None:
    """Declares a folder, and what is in it."""
    listing, run = work.listing, work.run
    if listing.path and not listing.part:
        out.declare_dir_target(listing.path, mode=listing.mode, mtime_ns=listing.mtime_ns)
    entries = listing.entries()
    while chunk := list(islice(entries, _AT_ONCE)):
        run.check()
        names = [join(Name(listing.path), parse_name(entry.name)) for entry in chunk]
        contents = await asyncio.to_thread(_read, run.survey.source, names, chunk, run.draft)
        for name, content in zip(names, contents, strict=True):
            if isinstance(content, SourceError):
                run.fail(listing, content)
                out._keep(name)  # noqa: SLF001
            elif isinstance(content, LinkState):
                out._declare(name, content, None, None, True)  # noqa: SLF001
            else:
                dress = content.mode, content.mtime_ns
                out._declare(name, content, *dress, True)  # noqa: SLF001


def _read(
    source: str,
    names: list[Name],
    entries: list[Entry],
    draft: Callable[[str, int], Draft | None],
) -> list[Source | LinkState | SourceError]:
    """What some entries of a folder hold."""
    found: list[Source | LinkState | SourceError] = []
    for name, entry in zip(names, entries, strict=True):
        path = os.path.join(source, name)
        try:
            read = None if entry.kind == "link" else fingerprint(path, partial(draft, name))
            mtime_ns = read.mtime_ns if read else entry.mtime_ns
            if not can_be_kept(mtime_ns):
                raise SourceError(path, TOO_FAR)
            found.append(read or LinkState(entry.target, mtime_ns))
        except SourceError as error:
            found.append(error)
    return found


def _under_way(survey: Survey) -> int:
    """How many components may be under way, so that their files fit into memory."""
    sizes = sorted((len(listing.packed) for listing in survey.listings), reverse=True)
    room = _UNDER_WAY * 64  # bytes of a packed entry, more or less
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return max(count, 2)
    return _COMPONENTS
