"""Sync: a source folder is mirrored by a real CocoIndex app.

There is one component for each folder of the source (or for each part of a large one),
memoized on the folder's listing, so that a run over an unchanged source neither reads
nor declares anything. The engine's database lives in ``DST/.fsmirror/engine``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import cocoindex as coco

from . import _handlers, _target
from ._apply import Outcome
from ._brake import Limit, allowance
from ._engine import release
from ._errors import RootError, SourceError, TooManyRemovalsError
from ._handlers import Durability, OnConflict
from ._mirror import Mirror
from ._paths import Name, join, parse_name
from ._source import Source, fingerprint
from ._state import LinkState, Row
from ._survey import TOO_FAR, Entry, Listing, Survey, can_be_kept

__all__ = [
    "OWNER",
    "SOURCE",
    "Options",
    "Summary",
    "Syncing",
    "check_removals",
    "is_as_written",
    "paths_of",
    "places_of",
]

_AT_ONCE: Final = 64  # entries of a folder that are read in one go
_UNDER_WAY: Final = 4096  # entries of components that are under way at the same time
_COMPONENTS: Final = 1024  # and how many components at most
OWNER: Final = "sync: owner"
"""The note of the identity under which ``fsmirror sync`` writes to a mirror."""
SOURCE: Final = "sync: source"
"""The note of the source that was mirrored last."""
_FAILED: Final = "sync: listings with sources that could not be read"


class Interrupted(Exception):  # noqa: N818  # As KeyboardInterrupt is called.
    """Ctrl-C came while the engine was at work."""


class Options(NamedTuple):
    """How a source is mirrored.

    Attributes:
        durability: As in :func:`~cocoindex_fsmirror.mount_dir_target`.
        on_conflict: As there.
        checksum: Whether every file is read, in the source and in the mirror.
        exact: Whether what is not managed is moved to the backup area in the end.
        max_delete: How many files may be removed.
    """

    durability: Durability = "batch"
    on_conflict: OnConflict = "backup"
    checksum: bool = False
    exact: bool = False
    max_delete: Limit | None = None


@dataclass
class Summary:
    """What a run did, in files and links.

    Attributes:
        written: Put in place, or given another mode or time, as they were new or had changed.
        adopted: Found right though they were not known, and recorded.
        healed: Put right, because somebody else had changed or removed them.
        deleted: Removed, because they are gone in the source.
        backed_up: Foreign ones that were moved to the backup area.
        unchanged: All others.
        size: Bytes that were written.
        seconds: How long it took.
        failures: What failed, each as a sentence.
        skipped: What the source holds and is neither file, link nor folder.
    """

    written: int = 0
    adopted: int = 0
    healed: int = 0
    deleted: int = 0
    backed_up: int = 0
    unchanged: int = 0
    size: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Syncing:
    """A source that is mirrored, once or again and again.

    Nobody else can do so with the same destination until it is closed.

    Args:
        root: The destination; it is made if it is missing.
        options: How.

    Attributes:
        on_progress: Is told of files that are in place, and of bytes that are written, as
            they come.

    Raises:
        LockedError: Another process is doing it; the message says which.
        RootError: The destination can't be used.
    """

    def __init__(self, root: str, options: Options) -> None:
        self._mirror = Mirror(root, on_outcome=self.add, on_bytes=self._go_on)
        self._options = options
        self.on_progress: Callable[[int, int], None] = lambda _files, _size: None
        self._app: coco.App[[Syncing], None] | None = None
        self._is_interrupted = False
        self._begin(Survey(""))
        self._mirror.create()
        self._open = contextlib.ExitStack()
        self._open.enter_context(self._mirror)
        self._open.enter_context(self._mirror.held())

    def close(self) -> None:
        """Lets others have the destination."""
        if self._app is not None:
            self._app = None
            release(self._environment)
            del self._environment
            gc.collect()  # An error may still refer to what keeps the database open.
        if self._is_interrupted:
            with contextlib.suppress(RootError):
                self._mirror.create()  # It recovers.
        self._open.close()

    def _begin(self, survey: Survey) -> None:
        """A run begins."""
        self.survey = survey
        self.summary = Summary(skipped=survey.skipped)
        self.drifted: frozenset[Name] = frozenset()
        self._told: list[str] = []  # By the engine, perhaps with what others have told already.
        self._retry: set[str] = set()
        self._failed: set[str] = set()

    # For the command

    def has_drifted(self) -> bool:
        """Whether somebody else has changed the mirror."""
        if self._mirror.observe().names:
            return True
        return self._options.exact and bool(self._mirror.foreign(places_of(self.survey)))

    def outlook(self, survey: Survey) -> tuple[int, int]:
        """How many files and links seem to be new or changed, and how many bytes they have."""
        entries = (
            (join(Name(listing.path), Name(entry.name)), entry)
            for listing in survey.listings
            for entry in listing.entries()
        )
        count = size = 0
        while chunk := list(islice(entries, _UNDER_WAY)):
            rows = self._mirror.rows_named(name for name, _ in chunk)
            changed = [entry for name, entry in chunk if not is_as_written(entry, rows.get(name))]
            count += len(changed)
            size += sum(entry.size for entry in changed if entry.kind == "file")
        return count, size

    def run(self, survey: Survey) -> Summary:
        """Mirrors what a survey found.

        Raises:
            FsMirrorError: The mirror can't be used, or nothing at all may be done.
        """
        started = time.monotonic()
        self._begin(survey)
        if survey.unread:
            # What can't be seen is not gone: its copies would be removed.
            shown = "; ".join(survey.unread[:3])
            raise RootError(survey.source, f"can't be read whole: {shown}", "nothing was changed")
        check_removals(self._mirror, survey, self._options.max_delete)
        self._retry = set(json.loads(self._mirror.noted(_FAILED) or "[]"))
        if self._options.exact:
            self._mirror.sweep(places_of(survey))
        with _own_stdout():
            self._update(self._opened())
        if self._failed or self._retry:
            self._mirror.note(_FAILED, json.dumps(sorted(self._failed)))
        self._mirror.dress(survey.mode, survey.mtime_ns)
        self._conclude(time.monotonic() - started)
        return self.summary

    def _update(self, app: coco.App[[Syncing], None]) -> None:
        """Runs the engine. Ctrl-C winds it up soon, and a second one ends the process at once."""
        with ThreadPoolExecutor(1) as beside:  # Where the engine waits, interrupts don't arrive.
            update = beside.submit(app.update_blocking)
            try:
                update.result()
            except RuntimeError as error:
                problem = f"the engine can't go on: {error}"
                hint = "if this remains, remove .fsmirror/engine: no file is lost by that"
                raise RootError(self._mirror.root, problem, hint) from error
            except KeyboardInterrupt:
                self._is_interrupted = True
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                raise

    def _conclude(self, seconds: float) -> None:
        """Completes the summary."""
        summary = self.summary
        others = (e for e in self._told if not any(known in e for known in summary.failures))
        summary.failures += [other.strip().rpartition("\n")[2] for other in others]
        summary.failures = list(dict.fromkeys([*self.survey.errors, *summary.failures]))
        done = summary.written + summary.adopted + summary.healed
        summary.unchanged = max(self._mirror.status().files - done, 0)
        summary.seconds = seconds

    def add(self, outcome: Outcome) -> None:
        """Counts one batch."""
        summary = self.summary
        done = [*outcome.written, *outcome.dressed]
        healed = sum(1 for name in done if name in self.drifted)
        summary.written += len(done) - healed
        summary.healed += healed
        summary.adopted += len(outcome.adopted)
        summary.deleted += len(outcome.removed)
        summary.backed_up += len(outcome.backed_up)
        summary.size += outcome.size
        summary.failures.extend(str(failure) for failure in outcome.failures)
        self.on_progress(len(done) + len(outcome.adopted), 0)

    def _go_on(self, size: int) -> None:
        """Counts bytes that were written, as they come."""
        self.on_progress(0, size)
        self.check()

    # For the flow

    def check(self) -> None:
        """Ends whatever asks, if all is to end.

        Raises:
            Interrupted: It is.
        """
        if self._is_interrupted:
            raise Interrupted

    def must_run(self, listing: Listing) -> bool:
        """Whether a folder is to be looked at though its listing is the same."""
        return self._options.checksum or listing.key in self._retry

    def fail(self, listing: Listing, error: SourceError) -> None:
        """Notes a file that can't be read, for this run and the next."""
        self.summary.failures.append(str(error))
        self._failed.add(listing.key)

    def _opened(self) -> coco.App[[Syncing], None]:
        """The app."""
        if self._app is None:
            _handlers.share(self._mirror)
            self._environment = self._opened_environment()
            config = coco.AppConfig(
                name="fsmirror-sync",
                environment=self._environment,
                max_inflight_components=_under_way(self.survey),
            )
            self._app = coco.App(config, _mirror_all, self)
        return self._app

    def _opened_environment(self) -> coco.Environment:
        """The engine with its database; a damaged one is set aside, once."""
        settings = coco.Settings(db_path=Path(self._mirror.make_engine_folder()))
        try:
            return coco.Environment(settings)
        except RuntimeError as error:
            self._mirror.set_engine_aside(str(error))
            self._mirror.make_engine_folder()
            return coco.Environment(settings)

    async def mount(self) -> None:
        """The body of the flow."""

        async def note(error: BaseException, _context: object) -> None:
            self._told.append(str(error))

        options = self._options
        out = await _target.mount_dir_target(
            Path(self._mirror.root),
            durability=options.durability,
            verify="content" if options.checksum else "stat",
            on_conflict=options.on_conflict,
        )
        self.drifted = out._watch.drift.names  # noqa: SLF001
        # Now, so that the next run knows it also if this one is cut off.
        for key, value in ((OWNER, out._watch.owner), (SOURCE, self.survey.source)):  # noqa: SLF001
            if self._mirror.noted(key) != value:
                self._mirror.note(key, value)
        works = ((listing.key, _Work(listing, self)) for listing in self.survey.listings)
        async with coco.exception_handler(note):
            handle = await coco.mount_each(_mirror_folder, works, out)
            await handle.ready()


class _Work:
    """One folder, as a memoized component takes it."""

    def __init__(self, listing: Listing, syncing: Syncing) -> None:
        self.listing = listing
        self.syncing = syncing

    def __coco_memo_key__(self) -> object:
        listing = self.listing
        return (listing.path, listing.part, listing.mode, listing.mtime_ns, listing.packed)

    def __coco_memo_state__(self, prev_state: object) -> coco.MemoStateOutcome:
        return coco.MemoStateOutcome(state=1, memo_valid=not self.syncing.must_run(self.listing))


async def _mirror_all(syncing: Syncing) -> None:
    """The flow: one component for each folder."""
    await syncing.mount()


@coco.fn(memo=True)
async def _mirror_folder(work: _Work, out: _target.DirTarget) -> None:
    """Declares a folder, and what is in it."""
    listing, source = work.listing, work.syncing.survey.source
    if listing.path and not listing.part:
        out.declare_dir_target(listing.path, mode=listing.mode, mtime_ns=listing.mtime_ns)
    entries = listing.entries()
    while chunk := list(islice(entries, _AT_ONCE)):
        work.syncing.check()
        names = [join(Name(listing.path), parse_name(entry.name)) for entry in chunk]
        contents = await asyncio.to_thread(_read, source, names, chunk)
        for name, content in zip(names, contents, strict=True):
            if isinstance(content, SourceError):
                work.syncing.fail(listing, content)
                out._keep(name)  # noqa: SLF001
            elif isinstance(content, LinkState):
                out._declare(name, content, None, None, True)  # noqa: SLF001
            else:
                dress = content.mode, content.mtime_ns
                out._declare(name, content, *dress, True)  # noqa: SLF001


def _read(
    source: str, names: list[Name], entries: list[Entry]
) -> list[Source | LinkState | SourceError]:
    """What some entries of a folder hold."""
    found: list[Source | LinkState | SourceError] = []
    for name, entry in zip(names, entries, strict=True):
        path = os.path.join(source, name)
        try:
            read = None if entry.kind == "link" else fingerprint(path)
            mtime_ns = read.mtime_ns if read else entry.mtime_ns
            if not can_be_kept(mtime_ns):
                raise SourceError(path, TOO_FAR)
            found.append(read or LinkState(entry.target, mtime_ns))
        except SourceError as error:
            found.append(error)
    return found


def check_removals(mirror: Mirror, survey: Survey, limit: Limit | None) -> None:
    """Stops before anything is done, if too much would be removed.

    Raises:
        TooManyRemovalsError: It would.
    """
    if limit is None or not os.path.isdir(mirror.root):
        return
    owner = mirror.noted(OWNER)
    managed, staying = mirror.managed(owner) if owner else [], set(paths_of(survey))
    gone = sum(1 for name in managed if name not in staying)
    allowed = allowance(limit, len(managed))
    if gone > allowed:
        shown = f"{limit:.0%}" if isinstance(limit, float) else str(limit)
        raise TooManyRemovalsError(
            mirror.root, gone, len(managed), allowed, f"--max-delete {shown}"
        )


def is_as_written(entry: Entry, row: Row | None) -> bool:
    """Whether an entry of a source looks as it did when it was mirrored."""
    if row is None:
        return False
    if entry.kind == "link":
        return (row.target, row.asked_ns) == (entry.target, entry.mtime_ns)
    return (row.size, row.asked_ns, row.mode) == (entry.size, entry.mtime_ns, entry.mode)


def _under_way(survey: Survey) -> int:
    """How many components may be under way, so that their files fit into memory."""
    sizes = sorted((len(listing.packed) for listing in survey.listings), reverse=True)
    room = _UNDER_WAY * 64  # bytes of a packed entry, more or less
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return max(count, 2)
    return _COMPONENTS


def places_of(survey: Survey) -> set[str]:
    """The paths of all that a source holds, also folders, with ``/`` at their ends."""
    return {*paths_of(survey), *(f"{listing.path}/" for listing in survey.listings if listing.path)}


def paths_of(survey: Survey) -> Iterator[str]:
    """The paths of all files and links of a source."""
    for listing in survey.listings:
        prefix = f"{listing.path}/" if listing.path else ""
        yield from (f"{prefix}{entry.name}" for entry in listing.entries())


@contextlib.contextmanager
def _own_stdout() -> Iterator[None]:
    """Keeps standard output for ourselves: what the engine logs goes to standard error."""
    if sys.stdout is None:  # It was closed when the process began.
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
