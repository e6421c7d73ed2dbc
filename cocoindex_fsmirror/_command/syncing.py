"""Syncing: mirrors a source folder, once or again and again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import msgspec

from .._core.errors import FsMirrorError
from .._core.names import ROOT, Name
from .._disk.tree import dress_folder
from .._mirror.comparison import Comparison, Declared, check_removals
from .._mirror.exact import foreign, sweep
from .._mirror.mirror import Mirror
from .._mirror.outcome import Outcome
from .._mirror.reading import count, noted
from .._mirror.session import held
from .._mirror.teardown import remove_engine
from .._mirror.update import apply_all, begin
from .interrupts import Interrupts
from .survey import Survey
from .wanted import OWNER, SOURCE, Options, check_survey, declared, known_in

__all__ = ["Summary", "Syncing"]

_BY: Final = "fsmirror sync"


class Summary(msgspec.Struct):
    """The result of a run, in files and links.

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
    """A source that is mirrored; nobody else can mirror to the same root until it is closed.

    Args:
        root: The root of the mirror; it is made if it is missing.
        options: How it is mirrored.

    Attributes:
        on_progress: Is told how many entries of the source were compared, and how many more
            bytes were written.

    Raises:
        LockedError: Another process is doing it; the message says which.
        RootError: The root can't be used.
    """

    def __init__(self, root: str, options: Options) -> None:
        self.mirror = Mirror(root, on_outcome=self._add, on_bytes=self._go_on)
        self.on_progress: Callable[[int, int], None] = lambda _seen, _size: None
        self._options = options
        self._interrupts = Interrupts()
        self._begin(Survey(""), "")
        self.mirror.create()
        self._open = contextlib.ExitStack()
        self._open.enter_context(self.mirror)
        self._open.enter_context(held(self.mirror.session))

    def close(self) -> None:
        """Releases the root; after a Ctrl-C, completes or undoes what was begun."""
        if self._interrupts.is_pressed:
            with contextlib.suppress(FsMirrorError):
                self.mirror.create()  # It recovers.
        self._open.close()

    def has_drifted(self) -> bool:
        """True if somebody else has changed the mirror."""
        if self.mirror.observe().names:
            return True
        return self._options.exact and bool(foreign(self.mirror.root, known_in(self._survey)))

    def run(self, survey: Survey, suspects: Iterable[Name] | None = None) -> Summary:
        """Mirrors what a survey found.

        Args:
            survey: What the source holds.
            suspects: What a look at the mirror did not prove to be unchanged, by name; by
                default the mirror is looked at now.

        Raises:
            FsMirrorError: The mirror can't be used, or nothing at all may be done.
            KeyboardInterrupt: Ctrl-C was pressed; the next run completes what is missing.
        """
        started, mirror, options = time.monotonic(), self.mirror, self._options
        root, limit, is_durable = mirror.root, options.max_delete, options.durability != "none"
        check_survey(survey)
        check_removals(root, noted(root, OWNER), declared(survey), limit, "--max-delete")
        owner = begin(mirror.session, OWNER, _BY, durable=is_durable)
        if noted(root, SOURCE) != survey.source:
            mirror.session.run(lambda _tree, ledger: ledger.note(SOURCE, survey.source))
        self._begin(survey, owner)
        with self._interrupts:
            if options.exact:
                swept = sweep(mirror.session, known_in(survey))
                self._add(swept)
                self._failures += map(str, swept.failures)
            remove_engine(mirror.session)
            apply = partial(mirror.apply, read=options.checksum)
            to_do = self._comparison.batches(self._declared(), suspects)
            self._failures += map(str, apply_all(apply, to_do))
        mirror.session.run(lambda tree, _ledger: dress_folder(tree, ROOT, survey.attributes))
        return self._concluded(time.monotonic() - started)

    def _begin(self, survey: Survey, owner: str) -> None:
        """Resets what is counted for a run."""
        options = self._options
        self._survey = survey
        self._compared = 0
        self._comparison = Comparison(
            self.mirror.root,
            owner,
            options.on_conflict,
            durable=options.durability != "none",
            read=options.checksum,
        )
        self._summary = Summary(skipped=survey.skipped)
        self._failures = list(survey.errors)

    def _declared(self) -> Declared:
        """Yields what is declared, and counts it; stops after a Ctrl-C."""
        for each in declared(self._survey):
            self._interrupts.check()
            self._compared += 1
            yield each

    def _add(self, outcome: Outcome) -> None:
        """Counts one batch."""
        summary = self._summary
        done = [*outcome.written, *outcome.dressed]
        healed = sum(1 for name in done if name in self._comparison.drifted)
        summary.written += len(done) - healed
        summary.healed += healed
        summary.adopted += len(outcome.adopted)
        summary.deleted += len(outcome.removed)
        summary.backed_up += len(outcome.backed_up)
        summary.size += outcome.size

    def _go_on(self, size: int) -> None:
        """Reports bytes as they are written, and stops after a Ctrl-C."""
        self.on_progress(self._compared, size)
        self._interrupts.check()

    def _concluded(self, seconds: float) -> Summary:
        """Completes the summary."""
        summary = self._summary
        summary.failures = [*self._failures, *map(str, self._comparison.unread.values())]
        done = summary.written + summary.adopted + summary.healed
        summary.unchanged = max(count(self.mirror.root) - done, 0)
        summary.seconds = seconds
        return summary
