"""The ``fsmirror`` command.

``fsmirror sync`` runs a real CocoIndex app with one component for each folder of
the source, memoized on the folder's listing, so that a run over an unchanged
source neither reads nor declares anything. The engine's database lives in
``DST/.fsmirror/engine``.
"""

from __future__ import annotations

import os

# Before cocoindex is imported: it would send a usage event, and say so if it can't.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import asyncio
import logging
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import cocoindex as coco
from rich.console import Console

from . import __version__, _handlers, _target
from ._apply import Outcome
from ._errors import FsMirrorError, InvalidNameError, RootError
from ._mirror import Mirror
from ._paths import RESERVED, parse_name

__all__ = ["main"]

_USED_WRONGLY = 2
_FAILED = 3


@dataclass(frozen=True, slots=True)
class _Entry:
    """A regular file in the source, as its folder lists it."""

    name: str
    size: int
    mtime_ns: int
    inode: int
    mode: int


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of the source, and what it listed when the run began."""

    source: str
    path: str
    files: tuple[_Entry, ...]

    def __coco_memo_key__(self) -> object:
        return (self.path, tuple((f.name, f.size, f.mtime_ns, f.inode, f.mode) for f in self.files))


@dataclass
class _Survey:
    """What a walk through the source found."""

    folders: list[_Folder] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class _Tally:
    """What the batches of a run did."""

    written: int = 0
    adopted: int = 0
    removed: int = 0
    backed_up: int = 0
    failures: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Counts one batch."""
        self.written += len(outcome.written)
        self.adopted += len(outcome.kept)
        self.removed += len(outcome.removed)
        self.backed_up += len(outcome.backed_up)
        self.failures.extend(str(failure) for failure in outcome.failures)

    def messages(self) -> list[str]:
        """One line for each thing that failed.

        The engine may hand an error of a path on as a text with a traceback; the
        path has told of it already.
        """
        others = (e for e in self.errors if not any(known in e for known in self.failures))
        return [*self.failures, *(other.strip().rpartition("\n")[2] for other in others)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fsmirror")
def main() -> None:
    """Keep directories in their desired state."""


@main.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
def sync(src: Path, dst: Path) -> None:
    """Mirror the regular files and folders of SRC into DST.

    DST then holds what SRC holds: changed files are replaced in one step, files
    that went are removed, and files of DST that were edited or deleted come
    back. What was never mirrored stays as it is. Symbolic links and special
    files are skipped. All state is kept in DST/.fsmirror.

    Exit status: 0 in order, 2 used wrongly, 3 something failed.
    """
    source, target = _checked(src, dst)
    started, tally = time.monotonic(), _Tally()
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    logging.basicConfig(format="fsmirror: %(message)s", level=logging.WARNING)
    with Mirror(target, on_outcome=tally.add) as mirror:
        try:
            mirror.create()
            survey = _survey(source)
            if survey.unread:
                # What can't be seen is not gone: its copies would be removed.
                shown = "; ".join(survey.unread[:3])
                raise RootError(source, f"can't be read whole: {shown}", "nothing was changed")
            _run(mirror, survey, tally)
            files = mirror.status().files
        except FsMirrorError as error:
            errors.print(f"fsmirror: {error}")
            raise SystemExit(_FAILED) from None
    _report(errors, survey, tally)
    unchanged = max(files - tally.written - tally.adopted, 0)
    click.echo(
        f"{target}: {tally.written:,} written, {tally.adopted:,} adopted, "
        f"{tally.removed:,} removed, {tally.backed_up:,} backed up, "
        f"{unchanged:,} unchanged, {time.monotonic() - started:.1f} s"
    )
    if survey.errors or tally.messages():
        raise SystemExit(_FAILED)


def _checked(src: Path, dst: Path) -> tuple[str, str]:
    """The absolute paths of source and target, if they make sense together."""
    source, target = os.path.realpath(src), os.path.realpath(dst)
    if not os.path.lexists(src):
        raise click.UsageError(f"{src}: no such source")
    if not os.path.isdir(source):
        raise click.UsageError(f"{src}: the source is not a directory")
    if os.path.lexists(target) and not os.path.isdir(target):
        raise click.UsageError(f"{dst}: the destination is a file, not a directory")
    if source == target:
        raise click.UsageError(f"{dst}: source and destination are the same directory")
    if _is_inside(target, source):
        raise click.UsageError(f"{dst}: the destination lies inside the source")
    if _is_inside(source, target):
        raise click.UsageError(f"{src}: the source lies inside the destination")
    return source, target


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path lies in a folder."""
    return os.path.commonpath([path, folder]) == folder


def _survey(source: str) -> _Survey:
    """Lists every folder of the source."""
    survey = _Survey()
    for path in _walk(source, "", survey):
        survey.folders.append(path)
    return survey


def _walk(source: str, path: str, survey: _Survey) -> Iterator[_Folder]:
    """The folders at and below a path that hold regular files."""
    files: list[_Entry] = []
    try:
        with os.scandir(os.path.join(source, path)) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        survey.unread.append(f"{path or source}: {error.strerror}")
        return
    if path and not entries:
        survey.empty.append(path)
    for entry in entries:
        inner = os.path.join(path, entry.name)
        if not path and entry.name == RESERVED:
            continue
        seen = _seen(entry, inner, survey)
        if seen is None:
            continue
        if stat.S_ISDIR(seen.st_mode):
            yield from _walk(source, inner, survey)
        elif stat.S_ISREG(seen.st_mode):
            mode = stat.S_IMODE(seen.st_mode)
            files.append(_Entry(entry.name, seen.st_size, seen.st_mtime_ns, seen.st_ino, mode))
        else:
            survey.skipped.append(inner)
    if files:
        yield _Folder(source, path, tuple(files))


def _seen(entry: os.DirEntry[str], path: str, survey: _Survey) -> os.stat_result | None:
    """What an entry of the source is; ``None`` if it is left out."""
    try:
        parse_name(path)
        return entry.stat(follow_symlinks=False)
    except InvalidNameError as error:
        survey.errors.append(str(error))
    except FileNotFoundError:
        pass  # It went while we looked.
    except OSError as error:
        survey.unread.append(f"{path}: {error.strerror}")
    return None


@coco.fn(memo=True)
async def _mirror_folder(folder: _Folder, out: _target.DirTarget) -> None:
    """Declares the files of one folder."""
    for entry in folder.files:
        inner = os.path.join(folder.path, entry.name)
        content = await asyncio.to_thread(Path(folder.source, inner).read_bytes)
        out.declare_file(inner, content, mode=entry.mode)


async def _mirror_all(target: str, survey: _Survey, tally: _Tally) -> None:
    """The flow: one component for each folder."""

    async def note(error: BaseException, _context: object) -> None:
        tally.errors.append(str(error))

    out = await _target.mount_dir_target(Path(target))
    for path in survey.empty:
        out.declare_dir_target(path)
    async with coco.exception_handler(note):
        folders = ((folder.path or ".", folder) for folder in survey.folders)
        handle = await coco.mount_each(_mirror_folder, dict(folders).items(), out)
        await handle.ready()


def _run(mirror: Mirror, survey: _Survey, tally: _Tally) -> None:
    """Updates the app of one mirror."""
    _handlers.share(mirror)
    engine = Path(mirror.root, RESERVED, "engine")
    environment = coco.Environment(coco.Settings(db_path=engine))
    config = coco.AppConfig(name="fsmirror-sync", environment=environment)
    coco.App(config, _mirror_all, mirror.root, survey, tally).update_blocking()


def _report(errors: Console, survey: _Survey, tally: _Tally) -> None:
    """Says on stderr what was left out, and what failed."""
    for line in dict.fromkeys((*survey.errors, *tally.messages())):
        errors.print(f"fsmirror: {line}")
    if survey.skipped:
        shown = ", ".join(survey.skipped[:3]) + (", ..." if len(survey.skipped) > 3 else "")
        errors.print(f"fsmirror: skipped {len(survey.skipped)} links and special files: {shown}")
