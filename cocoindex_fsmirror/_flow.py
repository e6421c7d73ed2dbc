"""Flow: a source folder is mirrored by a real CocoIndex app.

There is one component for each folder of the source (or for each part of a large one),
memoized on the folder's listing, so that a run over an unchanged source neither reads
nor declares anything.
"""

from __future__ import annotations

import asyncio
import gc
import os
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import cocoindex as coco

from . import _target
from ._draft import Draft
from ._engine import release
from ._errors import ApplyError, SourceError
from ._mirror import Drift, Mirror
from ._open_mirrors import share
from ._paths import Name, join, parse_name
from ._source import Found, Source, fingerprint
from ._specs import Durability, OnConflict, Options, Verify, Watch
from ._state import LinkState
from ._survey import TOO_FAR, Entry, Listing, Survey, can_be_kept

__all__ = ["App", "Run"]

_AT_ONCE: Final = 64  # entries of a folder that are read in one go
_SMALL: Final = 1 << 22  # bytes of such a chunk that is read while nothing is written
_UNDER_WAY: Final = 8192  # entries of components that are under way at the same time
_COMPONENTS: Final = 1024  # and how many components at most
_Content: TypeAlias = Source | LinkState | SourceError


class Run(Protocol):
    """Who has a source mirrored, and is told how it goes.

    Attributes:
        mirror: Where to.
        survey: What the source holds.
        drift: What others changed in the mirror.
    """

    @property
    def mirror(self) -> Mirror: ...

    @property
    def survey(self) -> Survey: ...

    @property
    def drift(self) -> Drift: ...

    def settings(self) -> tuple[Durability, Verify, OnConflict]:
        """How the mirror is treated."""

    def begin(self, owner: str) -> None:
        """The mirror is ready, and it is known whose files they are."""

    def check(self) -> None:
        """Raises if all is to end."""

    def must_run(self, listing: Listing) -> bool:
        """Whether a folder is to be looked at though its listing is the same."""

    def find(self, paths: list[str]) -> list[Found | None]:
        """What small files hold; ``None`` for each that is not, or can't be read."""

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
        share(run.mirror)
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
        if not isinstance(error, ApplyError):  # The mirror has told what failed.
            run.tell(str(error))

    durability, verify, on_conflict = run.settings()
    options = Options(durability, verify, on_conflict)
    watch = Watch(run.drift)
    out = await _target.mount_watched(Path(run.mirror.root), options, watch)
    run.begin(watch.owner)
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
        contents = await _contents(run, names, chunk)
        for name, content in zip(names, contents, strict=True):
            if isinstance(content, SourceError):
                run.fail(listing, content)
                out._keep(name)  # noqa: SLF001
            elif isinstance(content, LinkState):
                out._declare(name, content, None, None, True)  # noqa: SLF001
            else:
                dress = content.mode, content.mtime_ns
                out._declare(name, content, *dress, True)  # noqa: SLF001


async def _contents(run: Run, names: list[Name], entries: list[Entry]) -> list[_Content]:
    """What some entries of a folder hold; the loop stays free while large ones are read."""
    if sum(entry.size for entry in entries) > _SMALL:
        return await asyncio.to_thread(_read, run, names, entries)
    return _read(run, names, entries)


def _read(run: Run, names: list[Name], entries: list[Entry]) -> list[_Content]:
    """The same."""
    paths = [os.path.join(run.survey.source, name) for name in names]
    files = [path for path, entry in zip(paths, entries, strict=True) if entry.kind == "file"]
    found = dict(zip(files, run.find(files), strict=True))
    return [
        _content(run, name, path, entry, found.get(path))
        for name, path, entry in zip(names, paths, entries, strict=True)
    ]


def _content(run: Run, name: Name, path: str, entry: Entry, found: Found | None) -> _Content:
    """What one entry holds."""
    try:
        read: Source | LinkState
        if entry.kind == "link":
            read = LinkState(entry.target, entry.mtime_ns)
        elif found is not None:
            read = Source(path, found)
        else:
            read = fingerprint(path, partial(run.draft, name))
        if read.mtime_ns is None or not can_be_kept(read.mtime_ns):
            raise SourceError(path, TOO_FAR)
    except SourceError as error:
        return error
    return read


def _under_way(survey: Survey) -> int:
    """How many components may be under way, so that their files fit into memory."""
    sizes = sorted((len(listing.packed) for listing in survey.listings), reverse=True)
    room = _UNDER_WAY * 64  # bytes of a packed entry, more or less
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return max(count, 2)
    return _COMPONENTS
