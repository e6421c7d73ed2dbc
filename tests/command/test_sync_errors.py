"""``fsmirror sync`` fails by name of a path or of an argument."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import SourceError
from cocoindex_fsmirror._disk import sources as _source
from cocoindex_fsmirror._disk.roots import lock, open_root
from cocoindex_fsmirror._mirror.session import Session
from tests.command.syncing import as_user, let_everybody_reach, sync
from tests.support import snapshot


def test_special_files_are_skipped_and_counted(pages: Path, dst: Path) -> None:
    os.mkfifo(pages / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(pages / "socket"))
        result = sync(pages, dst)
    assert result.exit_code == 0, result.output
    assert "skipped 2 special files: pipe, socket" in result.stderr
    assert snapshot(dst).keys() == snapshot(pages).keys() - {"pipe", "socket"}


def test_a_conflict_fails_by_name_and_the_rest_goes_on(pages: Path, dst: Path) -> None:
    (dst / "guide" / "one.html").mkdir(parents=True)
    (dst / "guide" / "one.html" / "mine").write_bytes(b"mine")
    result = sync(pages, dst)
    assert result.exit_code == 3
    assert "guide/one.html" in result.stderr
    assert "Traceback" not in result.stderr
    assert (dst / "index.html").read_bytes() == b"<p>index"
    assert (dst / "guide" / "one.html" / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("nothing", "dst", "/nothing' does not exist."),
        ("src/index.html", "dst", "index.html' is a file."),
        ("src", "src/guide", "the destination lies inside the source"),
        ("src/guide", "src", "the source lies inside the destination"),
        ("src", "src", "are the same directory"),
        ("src", "src/index.html", "index.html' is a file."),
        ("src/guide", "src/index.html/sub/deep", "the destination lies below a file"),
        ("", "dst", "Invalid value for 'SRC': the path is empty"),
        ("src", "", "Invalid value for 'DST': the path is empty"),
        ("src\0", "dst", r"src\x00' holds a NUL character, which no path can"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    pages: Path, source: str, target: str, problem: str
) -> None:
    before = snapshot(pages.parent)
    result = sync(*(path and f"{pages.parent}/{path}" for path in (source, target)))
    assert result.exit_code == 2
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert snapshot(pages.parent) == before


def test_destination_that_links_into_the_source_is_refused(pages: Path, dst: Path) -> None:
    dst.symlink_to(pages / "guide")
    assert sync(pages, dst).exit_code == 2


@pytest.mark.parametrize("more", [(), ("--on-conflict", "error")])
def test_failed_paths_are_not_counted_as_unchanged(
    pages: Path, dst: Path, more: tuple[str, ...]
) -> None:
    (pages / "other.html").write_bytes(b"other")
    assert sync(pages, dst).exit_code == 0
    (dst / "index.html").unlink()
    (dst / "index.html").mkdir()
    (dst / "index.html" / "mine").touch()
    shutil.rmtree(dst / "guide")
    (dst / "guide").write_bytes(b"mine")
    result = sync(pages, dst, *more)
    # The files below the folder fail with it, if what is in its place may not be moved.
    done = "0 healed, 0 deleted, 0 backed up" if more else "2 healed, 0 deleted, 1 backed up"
    assert (result.exit_code, f"{done}, 1 unchanged" in result.stdout) == (3, True), result.output


def test_file_whose_source_is_unreadable_is_not_counted_as_unchanged(
    pages: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sync(pages, dst).exit_code == 0
    (pages / "index.html").write_bytes(b"<p>changed")

    def opened(path: str, *_place: object) -> tuple[int, os.stat_result]:
        raise SourceError(path, "can't be read: Permission denied")

    monkeypatch.setattr(_source, "_open", opened)
    result = sync(pages, dst)
    assert (result.exit_code, "0 written" in result.stdout) == (3, True)
    assert "2 unchanged" in result.stdout


@pytest.fixture
def locked(dst: Path) -> Iterator[None]:
    """Locks the destination, as another process would."""
    dst.mkdir()
    tree, _ = open_root(str(dst))
    lock(tree, 0)
    yield
    tree.close()


@pytest.mark.usefixtures("locked")
def test_destination_in_use_is_one_message(
    pages: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cocoindex_fsmirror._command.syncing.Session", lambda root: Session(root, patience=0)
    )
    result = sync(pages, dst)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"fsmirror: {dst}: another part of this process held it")
    assert result.stderr.count("\n") == 1


@pytest.mark.root
def test_destination_without_permission_is_one_message(pages: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who may not write")
    closed = tmp_path / "closed"
    closed.mkdir()
    let_everybody_reach(tmp_path)

    def told() -> str:
        result = sync(pages, closed / "dst")
        return f"{result.exit_code} {result.stderr}"

    assert as_user(told).startswith(f"3 fsmirror: {closed / 'dst'}: may not be opened")


@pytest.mark.parametrize("more", [(), ("--exact",), ("--max-delete", "0")])
def test_folder_that_can_not_be_listed_stays_as_it_is(
    pages: Path, dst: Path, more: tuple[str, ...], unlistable: Callable[[Path], None]
) -> None:
    (pages / "guide-2").mkdir()  # To the ledger this is before what is in ``guide``.
    (pages / "guide" / "deep" / "far").mkdir()
    sync(pages, dst)
    (dst / "guide" / "deep" / "far" / "foreign").touch()
    before = snapshot(dst / "guide" / "deep")
    shutil.rmtree(pages / "guide" / "deep")
    (pages / "guide" / "deep").mkdir()
    (pages / "index.html").write_bytes(b"changed")
    unlistable(pages / "guide" / "deep")
    told_first = sync(pages, dst, "-n", *more)
    result = sync(pages, dst, *more)
    for told in (told_first, result):
        assert (told.exit_code, "'guide/deep': Permission denied" in told.output) == (3, True)
    assert snapshot(dst / "guide" / "deep") == before
    assert (dst / "index.html").read_bytes() == b"changed"


@pytest.fixture
def unlistable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder unlistable, also for root."""

    def act(path: Path) -> None:
        real, inode = os.scandir, path.stat().st_ino

        def scandir(fd: int) -> object:
            if os.stat(fd).st_ino == inode:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(fd)

        monkeypatch.setattr(os, "scandir", scandir)

    return act


def test_source_that_can_not_be_listed_changes_nothing(
    pages: Path, dst: Path, unlistable: Callable[[Path], None]
) -> None:
    sync(pages, dst)
    before = snapshot(dst)
    (pages / "index.html").write_bytes(b"changed")
    unlistable(pages)
    result = sync(pages, dst)
    assert result.exit_code == 3
    assert f"{pages}: can't be read: Permission denied (nothing was changed)" in result.stderr
    assert snapshot(dst) == before


@pytest.mark.root
def test_source_without_permission_is_one_message(pages: Path, dst: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who may not read")
    let_everybody_reach(tmp_path)
    pages.chmod(0o700)

    def told() -> str:
        result = sync(pages, dst)
        return f"{result.exit_code} {result.stderr}"

    answer = as_user(told)
    assert answer.startswith("2 ")
    assert f"{pages}' is not readable" in answer
