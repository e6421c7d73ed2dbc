"""Sync: a source folder is mirrored, once or again and again.

The engine and the flow are in :mod:`._flow`, which is loaded when it has something to do;
the engine's database lives in ``DST/.fsmirror/engine``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from . import __version__
from ._apply import Outcome
from ._beside import Beside
from ._brake import Limit, allowance
from ._draft import Draft
from ._errors import RootError, SourceError, TooManyRemovalsError
from ._fs import is_there
from ._mirror import Drift, Mirror
from ._paths import Name, join
from ._source import Found, found_at, open_source
from ._state import Row
from ._survey import Entry, Listing, Survey

if TYPE_CHECKING:
    from ._flow import App
    from ._specs import Durability, OnConflict, Verify

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

_AT_ONCE: Final = 4096  # entries that are compared with what is last-written in one go
OWNER: Final = "sync: owner"
"""The note of the identity under which ``fsmirror sync`` writes to a mirror."""
SOURCE: Final = "sync: source"
"""The note of the source that was mirrored last."""
_MIRRORED: Final = "sync: what was mirrored, with nothing that failed"
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


class Summary(msgspec.Struct):
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
    failures: list[str] = msgspec.field(default_factory=list)
    skipped: list[str] = msgspec.field(default_factory=list)


class Syncing:
    """A source that is mirrored, once or again and again.

    Nobody else can do so with the same destination until it is closed.

    Args:
        root: The destination; it is made if it is missing.
        options: How.
        beside: Another process that reads small files.
        look: Waits for the first look for drift, if that was begun.

    Attributes:
        on_progress: Is told of files that are in place, and of bytes that are written, as
            they come.

    Raises:
        LockedError: Another process is doing it; the message says which.
        RootError: The destination can't be used.
    """

    def __init__(
        self,
        root: str,
        options: Options,
        beside: Beside | None = None,
        look: Callable[[], Drift] | None = None,
    ) -> None:
        self.mirror = Mirror(root, on_outcome=self.add, on_bytes=self._go_on)
        self._options = options
        self._beside = beside
        self._look = look
        self.on_progress: Callable[[int, int], None] = lambda _files, _size: None
        self._app: App | None = None
        self._is_interrupted = False
        self._begin(Survey(""))
        self.mirror.create()
        self._open = contextlib.ExitStack()
        self._open.enter_context(self.mirror)
        self._open.enter_context(self.mirror.held())

    def close(self) -> None:
        """Lets others have the destination."""
        if self._app is not None:
            self._app.close()
            self._app = None
        if self._is_interrupted:
            with contextlib.suppress(RootError):
                self.mirror.create()  # It recovers.
        self._open.close()

    def _begin(self, survey: Survey) -> None:
        """A run begins."""
        self.survey = survey
        self.summary = Summary(skipped=survey.skipped)
        self.drift = Drift()
        self._told: list[str] = []  # By the engine, perhaps with what others have told already.
        self._retry: set[str] = set()
        self._failed: set[str] = set()
        self._drafts: dict[str, Draft] = {}  # by path; begun, and not taken up yet

    # For the command

    def has_drifted(self) -> bool:
        """Whether somebody else has changed the mirror."""
        if self.mirror.observe().names:
            return True
        return self._options.exact and bool(self.mirror.foreign(places_of(self.survey)))

    def outlook(self, survey: Survey) -> tuple[int, int]:
        """How many files and links seem to be new or changed, and how many bytes they have."""
        entries = (
            (join(Name(listing.path), Name(entry.name)), entry)
            for listing in survey.listings
            for entry in listing.entries()
        )
        count = size = 0
        while chunk := list(islice(entries, _AT_ONCE)):
            rows = self.mirror.rows_named(name for name, _ in chunk)
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
        check_removals(self.mirror, survey, self._options.max_delete)
        self._retry = set(json.loads(self.mirror.noted(_FAILED) or "[]"))
        if self._options.exact:
            self.mirror.sweep(places_of(survey))
        self._begin_drafts()
        try:
            self.drift = self._observe()
            if not self._is_settled():
                self._update()
        finally:
            for draft in self._drafts.values():
                draft.give_up()
            self._drafts.clear()
        self.mirror.dress(survey.mode, survey.mtime_ns)
        self._conclude(time.monotonic() - started)
        return self.summary

    def _observe(self) -> Drift:
        """Looks for drift, unless that was begun already."""
        look, self._look = self._look, None
        return look() if look is not None else self.mirror.observe(content=self._options.checksum)

    def _is_settled(self) -> bool:
        """Whether the source is as it was mirrored, and so is the mirror: all is done.

        The engine would find the same. It is asked if anything at all may be otherwise.
        """
        options, mirror = self._options, self.mirror
        return (
            not (options.exact or options.checksum)
            and mirror.noted(_MIRRORED) == self._mirrored()
            and mirror.has_engine()
            and mirror.is_settled(mirror.noted(OWNER), self.drift)
        )

    def _mirrored(self) -> str:
        """What is noted of a source once all of it is mirrored."""
        return f"{self.survey.digest()} {__version__}"

    def _begin_drafts(self) -> None:
        """Begins to copy the first large files while the engine starts."""
        for path in self.survey.large:
            name = Name(path)
            with contextlib.suppress(SourceError):  # It is told when it is read.
                source = open_source(os.path.join(self.survey.source, path))
                try:
                    draft = self.mirror.draft(name, source)
                finally:
                    os.close(source)
                if draft is not None:
                    self._drafts[name] = draft

    def find(self, paths: list[str]) -> list[Found | None]:
        """What small files hold; ``None`` for each that is not, or can't be read.

        Threads that each call the system for one small file after the other hand the
        interpreter's lock to and fro, which takes three times as long as what they do: so
        another process reads, or else no batch runs meanwhile.
        """
        if self._beside is not None and self._beside.is_there:
            return self._beside.ask(found_at, paths)
        with self.mirror.at_rest():
            return found_at(paths)

    def draft(self, name: str, source: int) -> Draft | None:
        """A copy of a large open file that was begun, or is now."""
        return self._drafts.pop(name, None) or self.mirror.draft(name, source)

    def _update(self) -> None:
        """Has the engine do what is to be done."""
        if self.mirror.noted(_MIRRORED):
            self.mirror.note(_MIRRORED, "")  # Until it is done, and the source may change back.
        with _own_stdout():
            self._run_engine(self._opened())
        if self._failed or self._retry:
            self.mirror.note(_FAILED, json.dumps(sorted(self._failed)))
        if not (self.summary.failures or self._told):
            self.mirror.note(_MIRRORED, self._mirrored())

    def _run_engine(self, app: App) -> None:
        """Runs it. Ctrl-C winds it up soon, and a second one ends the process at once."""
        with ThreadPoolExecutor(1) as beside:  # Where the engine waits, interrupts don't arrive.
            update = beside.submit(app.update)
            try:
                update.result()
            except RuntimeError as error:
                problem = f"the engine can't go on: {error}"
                hint = "if this remains, remove .fsmirror/engine: no file is lost by that"
                raise RootError(self.mirror.root, problem, hint) from error
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
        summary.unchanged = max(self.mirror.count() - done, 0)
        summary.seconds = seconds

    def add(self, outcome: Outcome) -> None:
        """Counts one batch."""
        summary = self.summary
        done = [*outcome.written, *outcome.dressed]
        healed = sum(1 for name in done if name in self.drift.names)
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

    def _opened(self) -> App:
        """The app; a damaged database is set aside, once."""
        from ._flow import App  # noqa: PLC0415  # With the engine, which takes its time.

        if self._app is None:
            folder = self.mirror.make_engine_folder()
            try:
                self._app = App(self, folder)
            except RuntimeError as error:
                self.mirror.set_engine_aside(str(error))
                self._app = App(self, self.mirror.make_engine_folder())
        return self._app

    def settings(self) -> tuple[Durability, Verify, OnConflict]:
        """How the mirror is treated."""
        options = self._options
        return options.durability, "content" if options.checksum else "stat", options.on_conflict

    def begin(self, owner: str) -> None:
        """Notes whose files they are: now, so that the next run knows it if this one is cut off."""
        for key, value in ((OWNER, owner), (SOURCE, self.survey.source)):
            if self.mirror.noted(key) != value:
                self.mirror.note(key, value)

    def tell(self, error: str) -> None:
        """Notes an error of the engine."""
        self._told.append(error)


def check_removals(mirror: Mirror, survey: Survey, limit: Limit | None) -> None:
    """Stops before anything is done, if too much would be removed.

    Raises:
        TooManyRemovalsError: It would.
    """
    if limit is None or not is_there(mirror.root):
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
