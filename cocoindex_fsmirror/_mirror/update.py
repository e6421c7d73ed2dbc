"""Update: the files that a program declares, compared and applied when it has declared all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Literal

from .._core.attributes import checked_attributes, checked_content, checked_preserve
from .._core.errors import ApplyError, FsMirrorError, PathError
from .._core.intents import Intent
from .._core.names import Name, parse_link_target, parse_name
from .._core.ownership import OnConflict
from .._core.states import DirState, FileState, LinkState, digest_of
from .._disk.sources import spool, unread_source
from .._disk.tree import Tree
from .apply import prepare
from .brake import Limit
from .comparison import Comparison, Wanted, batches, check_removals
from .drift import DriftReport
from .ledger import Ledger
from .reading import noted
from .session import Session

__all__ = ["Update", "apply_all", "apply_update", "begin"]

Preserved = tuple[Literal["mode", "mtime"], ...]


class Update:
    """The files that a program declares for a mirror, until its ``with`` block ends.

    Nothing is written before. A path that is declared twice holds what was declared last.
    Contents of more than 64 KiB wait in temporary files, smaller ones in memory.
    """

    def __init__(self) -> None:
        self._declared: dict[Name, Wanted] = {}

    def write(
        self,
        name: str | PurePath,
        content: bytes | str,
        *,
        mode: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a file.

        Args:
            name: Its path relative to the root; missing folders are made.
            content: Its content; text is stored as UTF-8.
            mode: Its permission bits, such as ``0o640``; by default a new file gets what the
                umask leaves, and an existing one keeps its own.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by default that
                of the write.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the content, the mode or the time is of a wrong type.
            ValueError: The mode or the time is out of range, or the mode is decimal.
        """
        checked = checked_content(content)
        state = FileState(digest_of(checked), len(checked), checked_attributes(mode, mtime_ns))
        self._declared[parse_name(name)] = Wanted(state, spool(str(name), checked))

    def copy(
        self,
        name: str | PurePath,
        source: str | os.PathLike[str],
        *,
        preserve: Preserved = ("mode",),
        mode: int | None = None,
    ) -> None:
        """Declares a file with the content of another one.

        A source that is as it was when it was copied last is not even read. It is read when
        the block ends, so it has to stay until then; one that changes meanwhile fails its
        path, and nothing else.

        Args:
            name: Its path relative to the root; missing folders are made.
            source: The path of the other file, whose links are followed.
            preserve: What the copy takes over from the source, beside the content.
            mode: Its permission bits, instead of those of the source.

        Raises:
            InvalidNameError: The name is refused.
            SourceError: The source can't be opened, or is no regular file.
            TypeError: The name, ``preserve`` or the mode is of a wrong type.
            ValueError: The mode is out of range or decimal, or ``preserve`` has an unknown
                value.
        """
        checked, path = checked_preserve(preserve), os.path.abspath(source)
        own, found = checked_attributes(mode), unread_source(path)
        state = FileState(None, found.size, own.of_copy(found.attributes, checked))
        wanted = Wanted(state, None, path, found.signature, own, checked)
        self._declared[parse_name(name)] = wanted

    def symlink(
        self,
        name: str | PurePath,
        target: str | PurePath,
        *,
        allow_escape: bool = False,
        mtime_ns: int | None = None,
    ) -> None:
        """Declares a symbolic link; what it points at need not exist.

        Args:
            name: Its path relative to the root; missing folders are made.
            target: What it points at, as it is to be stored.
            allow_escape: True if it may lead out of the root: be absolute, climb above the
                root, or climb (``..``) after a name, which may be a link.
            mtime_ns: The time of its last change, in nanoseconds since 1970; by default that
                of the write.

        Raises:
            InvalidNameError: The name is refused, or the target may lead out of the root.
            TypeError: The name, the target or the time is of a wrong type.
            ValueError: The time is out of range.
        """
        path = parse_name(name)
        pointed = parse_link_target(target, None if allow_escape else path)
        self._declared[path] = Wanted(LinkState(pointed, checked_attributes(None, mtime_ns)))

    def folder(
        self, name: str | PurePath, *, mode: int | None = None, mtime_ns: int | None = None
    ) -> None:
        """Declares a folder, which may stay empty.

        Args:
            name: Its path relative to the root; missing folders above it are made.
            mode: Its permission bits; it stays accessible for its owner (``0o700``).
            mtime_ns: The time of its last change, in nanoseconds since 1970, also after files
                in it have changed.

        Raises:
            InvalidNameError: The name is refused.
            TypeError: The name, the mode or the time is of a wrong type.
            ValueError: The mode or the time is out of range, or the mode is decimal.
        """
        state = DirState(checked_attributes(mode, mtime_ns).of_folder())
        self._declared[parse_name(name)] = Wanted(state)

    def declared(self) -> list[tuple[Name, Wanted]]:
        """Lists what is declared, by name."""
        return sorted(self._declared.items(), key=lambda pair: pair[0])


def apply_update(
    session: Session,
    apply: Callable[[list[Intent]], object],
    files: Update,
    *,
    by: str,
    on_conflict: OnConflict,
    durable: bool,
    max_delete: Limit | None,
) -> None:
    """Brings what was declared to the disk, as :meth:`Mirror.update` tells.

    Args:
        session: That of the root.
        apply: Applies a batch; raises :class:`ApplyError` for paths that failed.
        files: What was declared.
        by: Who declares.
        on_conflict: What happens to foreign bytes.
        durable: True if the update has to survive a power cut.
        max_delete: How many files may be removed.
    """
    root, note, declared = session.root, f"update: {by}", files.declared()
    check_removals(root, noted(root, note), declared, max_delete, "max_delete")
    owner = begin(session, note, by, durable=durable)
    comparison = Comparison(root, owner, on_conflict, durable)
    failures = apply_all(apply, comparison.batches(declared))
    failures += comparison.unread.values()
    if failures:
        raise ApplyError(root, failures)


def begin(session: Session, note: str, by: str, *, durable: bool) -> str:
    """Begins an update; makes the root if it is missing.

    Args:
        session: That of the root.
        note: The key of the note that keeps the declarer's identity.
        by: Who declares, for people.
        durable: True if a root that was made has to survive a power cut.

    Returns:
        The identity of the declarer.
    """

    def act(tree: Tree, ledger: Ledger) -> str:
        owner = ledger.identity(note)
        prepare(tree, ledger, owner, by, DriftReport())
        return owner

    return session.run(act, create=True, durable=durable)


def apply_all(
    apply: Callable[[list[Intent]], object], to_do: Iterable[list[Intent]]
) -> list[FsMirrorError]:
    """Applies batch after batch, and tries again what did not fit on a full disk.

    Old versions that went may have made room; it is tried as long as that helps.

    Args:
        apply: Applies a batch; raises :class:`ApplyError` for paths that failed.
        to_do: The batches.

    Returns:
        What failed.
    """
    failures: list[FsMirrorError] = []
    count = None
    while True:
        unfitting: list[tuple[Intent, FsMirrorError]] = []
        for batch in to_do:
            try:
                apply(batch)
            except ApplyError as error:
                intents = {intent.name: intent for intent in batch}
                for failure in error.exceptions:
                    assert isinstance(failure, PathError)
                    if _is_full(failure):
                        unfitting.append((intents[Name(failure.path)], failure))
                    else:
                        failures.append(failure)
        if not unfitting or len(unfitting) == count:
            return [*failures, *(failure for _, failure in unfitting)]
        count = len(unfitting)
        to_do = batches(intent for intent, _ in unfitting)


def _is_full(failure: PathError) -> bool:
    """True if a path failed since the disk, or the quota, is full."""
    cause = failure.__cause__  # Of an error of the system, that error.
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
