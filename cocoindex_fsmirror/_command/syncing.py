"""Syncing: mirrors a source folder, once or again and again.

Ctrl-C stops a run at the next batch, or while contents are staged, never in the middle of a rename;
the next run completes it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FrameType
from typing import Final

import msgspec

from .._core.attributes import UNASKED, Attributes
from .._core.declaration import Declared
from .._core.errors import FsMirrorError, PathError
from .._core.intents import Intent
from .._core.names import ROOT, Name
from .._core.owners import SYNC_OWNER, SYNC_SOURCE
from .._core.ownership import Policies
from .._disk.calls import say_once
from .._disk.dress import dress_folder
from .._disk.tree import Tree
from .._mirror.batch import apply_intents, begin
from .._mirror.comparison import Comparison, check_removals
from .._mirror.drift import find_drift
from .._mirror.exact import foreign, sweep
from .._mirror.expiry import expire
from .._mirror.known import noted
from .._mirror.ledger import Ledger
from .._mirror.outcome import Outcome, is_full
from .._mirror.session import Session, held
from .._mirror.sibling import opened_sibling
from .._mirror.turns import apply_all
from .options import Options
from .survey import Survey, known_in, protected_by
from .telling import Failure

__all__ = ["Summary", "Syncing"]

_BY: Final = "fsmirror sync"


class Summary(msgspec.Struct):
    """The result of a run, in files and links.

    Attributes:
        written: New or changed in the source, and put in place or given another mode or time.
        adopted: Unknown to the ledger, found right in the mirror, and recorded.
        healed: Changed or removed by somebody else, and put right.
        deleted: Gone in the source, and removed.
        backed_up: Foreign, and moved to the backup area.
        unchanged: Right already before the run; without those that failed.
        size: Bytes that were written.
        seconds: Duration of the run.
        failures: One for each path that failed.
        skipped: Paths in the source that are neither files, links nor folders.
    """

    written: int = 0
    adopted: int = 0
    healed: int = 0
    deleted: int = 0
    backed_up: int = 0
    unchanged: int = 0
    size: int = 0
    seconds: float = 0.0
    failures: list[Failure] = msgspec.field(default_factory=list)
    skipped: list[str] = msgspec.field(default_factory=list)


class Syncing:
    """A source that is mirrored; no other process can mirror to its root until this is closed.

    Args:
        options: The source, the mirror and the ways to mirror. A missing root is made.

    Attributes:
        options: As they were given.
        session: The session of the root.
        lacks_room: True if the last run found the disk full.
        on_change: Called with each path to which something was done, and that: a word as in
            :class:`~.dry_run.Change`.
        on_progress: Called with the number of entries of the source that were compared, and
            the number of bytes that were written since the last call.

    Raises:
        LockedError: Another process mirrors to the root; the message names it.
        RootError: The root can't be used.
    """

    def __init__(self, options: Options) -> None:
        self.on_progress: Callable[[int, int], None] = lambda _seen, _size: None
        self.on_change: Callable[[str, str], None] = lambda _action, _path: None
        self.options = options
        self.lacks_room = False
        self.session = Session(options.root)
        self._survey = Survey(options.source)
        self._open = contextlib.ExitStack()
        self.session.run(lambda _tree, _ledger: None, create=True)
        self._open.callback(self.session.close)
        self._open.enter_context(held(self.session))

    def close(self) -> None:
        """Releases the root."""
        self._open.close()

    def has_drifted(self) -> bool:
        """True if somebody else has changed the mirror, or may have, since a look fails."""
        root, is_exact = self.options.root, self.options.exact
        try:
            drift = find_drift(root).names
            return bool(drift or (is_exact and any(foreign(root, known_in(self._survey)))))
        except FsMirrorError:
            return True  # The next run will say what is wrong.

    def run(self, survey: Survey, suspects: Iterable[Name] | None = None) -> Summary:
        """Mirrors a source as a survey found it.

        Args:
            survey: The survey of the source.
            suspects: The suspects of an earlier look at the mirror, by name; by default they
                are looked for now.

        Raises:
            FsMirrorError: The mirror can't be used, or too many files would be removed.
            KeyboardInterrupt: Ctrl-C was pressed; the next run completes what is missing.
        """
        started, session, options = time.monotonic(), self.session, self.options
        root, limit, is_durable = options.root, options.max_delete, options.durability != "none"
        protects, noted_owner = protected_by(survey), noted(root, SYNC_OWNER)
        check_removals(
            root, noted_owner, survey.declared(), limit, "--max-delete", protects=protects
        )
        # A file is restored from the source, as long as that is as it was.
        policies = Policies("all" if options.copies == "all" else "none", options.on_conflict)
        act = partial(begin, note=SYNC_OWNER, by=_BY, policies=policies)
        owner = session.run(act, create=True, durable=is_durable)
        if noted(root, SYNC_SOURCE) != survey.source:
            session.run(lambda _tree, ledger: ledger.note(SYNC_SOURCE, survey.source))
        is_bare = session.run(lambda tree, _ledger: _lacks(tree, survey.attributes))
        self._survey, self._compared = survey, 0
        self._summary = Summary(skipped=survey.skipped)
        self._comparison = Comparison(
            root,
            owner,
            options.on_conflict,
            durable=is_durable,
            read=options.checksum,
            source=survey.tree,
            protects=protects,
            on_removal="save" if options.backup_deleted else None,
        )
        failures: list[FsMirrorError] = []
        try:
            with (
                _interruptible() as self._check,
                opened_sibling(options.sibling) as self._comparison.sibling,
            ):
                if options.exact:
                    swept = session.run(partial(sweep, besides=known_in(survey)))
                    failures += self._add(swept).failures
                batches = self._comparison.batches(self._declared(), suspects)
                failures += apply_all(self._apply, batches)
        except KeyboardInterrupt:
            with contextlib.suppress(FsMirrorError):
                session.run(lambda _tree, _ledger: None)  # Recovers the batch that was cut off.
            raise
        self.lacks_room = any(map(is_full, failures))
        session.run(self._finish)
        if is_bare:
            self.on_change("update", "./")
        self._conclude(failures)
        self._summary.seconds = time.monotonic() - started
        return self._summary

    def _declared(self) -> Declared:
        """Yields the declared paths, and counts them; stops after a Ctrl-C."""
        for each in self._survey.declared():
            self._check()
            self._compared += 1
            yield each

    def _apply(self, intents: list[Intent]) -> Outcome:
        """Applies one batch."""
        read = self.options.checksum
        self._go_on(0)
        outcome = self.session.run(
            lambda tree, ledger: apply_intents(
                tree, ledger, intents, read=read, on_bytes=self._go_on
            )
        )
        return self._add(outcome)

    def _finish(self, tree: Tree, ledger: Ledger) -> None:
        """Dresses the root, and removes backups that are too old."""
        _dress_root(tree, self._survey.attributes)
        expire(tree, ledger, self.options.keep_backups)

    def _go_on(self, size: int) -> None:
        """Reports bytes as they are written, and stops after a Ctrl-C."""
        self.on_progress(self._compared, size)
        self._check()

    def _add(self, outcome: Outcome) -> Outcome:
        """Adds an outcome to the summary."""
        summary = self._summary
        for word, names in (("write", outcome.written), ("update", outcome.dressed)):
            for name in names:
                is_healed = name in self._comparison.drifted
                summary.healed += is_healed
                summary.written += not is_healed
                self.on_change("heal" if is_healed else word, name)
            self._comparison.drifted.difference_update(names)
        self._tell("make", outcome.made, "/")
        self._tell("update", outcome.dressed_folders, "/")
        self._tell("adopt", outcome.adopted)
        self._tell("back up", outcome.backed_up)
        self._tell("delete", outcome.removed)
        self._tell("delete", outcome.pruned, "/")
        summary.adopted += len(outcome.adopted)
        summary.deleted += len(outcome.removed)
        summary.backed_up += len(outcome.backed_up)
        summary.size += outcome.size
        return outcome

    def _tell(self, action: str, names: Iterable[str], end: str = "") -> None:
        """Tells what was done to some paths."""
        for name in names:
            self.on_change(action, name + end)

    def _conclude(self, failures: list[FsMirrorError]) -> None:
        """Adds the failures and, from all counts, the number of unchanged paths to the summary."""
        summary, survey, unread = self._summary, self._survey, self._comparison.unread
        knows = known_in(survey)
        failed = {Name(each.path) for each in failures if isinstance(each, PathError)}
        leaves = [name for name in failed if knows(name, False) and not knows(name, True)]
        done = summary.written + summary.adopted + summary.healed
        summary.unchanged = survey.leaves - done - len(leaves) - len(unread)
        summary.failures = [*survey.errors, *map(Failure.of, failures)]
        for name, error in unread.items():
            summary.failures.append(Failure(str(error), name, "read", str(error)))


def _lacks(tree: Tree, wanted: Attributes) -> bool:
    """True if the root does not have some attributes, as far as its file system keeps them."""
    found = tree.abilities.attributes(os.fstat(tree.fd))
    return tree.abilities.kept(wanted).missing_in(found) != UNASKED


def _dress_root(tree: Tree, wanted: Attributes) -> None:
    """Sets mode and time of the root, which may belong to another user whose group may write."""
    try:
        dress_folder(tree, ROOT, wanted)
    except OSError as error:
        problem = f"its mode or time can't be set: {error.strerror}"
        say_once(f"{tree.path}: {problem} (is it owned by someone else? all in it is mirrored)")


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C back until the run can stop without a torn batch.

    A second Ctrl-C ends the process at once.

    Yields:
        A function that raises KeyboardInterrupt once Ctrl-C was pressed.
    """
    is_pressed = False

    def press(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_pressed
        is_pressed = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def check() -> None:
        if is_pressed:
            raise KeyboardInterrupt

    # A job in the background ignores Ctrl-C, and goes on to do so.
    if listens := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    check()  # After the last file, too: a script that runs this has to stop.
