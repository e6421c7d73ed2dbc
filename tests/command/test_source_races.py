"""Nothing outside the source is read, whatever becomes of a path while it is mirrored."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import FsMirrorError
from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._command.syncing import Syncing
from cocoindex_fsmirror._disk.sources import SMALL
from tests.command.syncing import sync
from tests.steps import run_with_event
from tests.support import contents, exact_state, snapshot

SECRET = b"TOP SECRET"
STEPS = 120  # More than the calls of a run until its last read.
LINKED = ["d", "d/e", "d/e/small", "d/e/large", "d/link", "d/.gitignore"]
SWAPS = [("FIFO", "d/e"), ("FIFO", "d/e/small"), *(("link", name) for name in LINKED)]

pytestmark = pytest.mark.usefixtures("no_waiting")


def _fill(top: Path, content: bytes) -> None:
    """Makes files of a content under the names of the source."""
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e" / "small").write_bytes(content)
    (top / "d" / "e" / "large").write_bytes(content * (SMALL // len(content) + 1))
    (top / "d" / "link").symlink_to("e")
    (top / "d" / ".gitignore").write_bytes(b"")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the source, with secrets under the same names, and in a link's target."""
    top = tmp_path / "outside"
    _fill(top, SECRET)
    (top / "d" / ".gitignore").write_bytes(b"*\n")
    (top / "d" / "link").unlink()
    (top / "d" / "link").symlink_to(SECRET.decode())
    return top


def _mirror(src: Path, dst: Path) -> None:
    """Mirrors a source; our own errors do not count."""
    options = Options(str(src), str(dst), gitignore=True, durability="none")
    with (
        contextlib.suppress(FsMirrorError),
        contextlib.closing(Syncing(options)) as syncing,
        contextlib.closing(survey(options)) as found,
    ):
        syncing.run(found)


def _swap(path: Path, make: Callable[[Path], object]) -> None:
    """Puts something else in the place of a path, which stays in the source."""
    path.rename(path.with_name("aside"))
    make(path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "swapped"), SWAPS)
def test_nothing_is_read_behind_a_link_of_any_step(
    tmp_path: Path, outside: Path, kind: str, swapped: str
) -> None:
    before, dst = exact_state(outside), tmp_path / "dst"
    make = os.mkfifo if kind == "FIFO" else lambda path: path.symlink_to(outside / swapped)
    for k in range(STEPS):
        src = tmp_path / f"{k}"
        _fill(src, b"harmless")
        more = run_with_event(partial(_mirror, src, dst), partial(_swap, src / swapped, make), k)
        found = snapshot(dst)
        assert SECRET not in b"".join(contents(found).values()), f"read after call {k}"
        assert f"-> {SECRET.decode()}" not in found.values(), f"read after call {k}"
        shutil.rmtree(src)
        shutil.rmtree(dst)
        if not more:
            break
    assert exact_state(outside) == before
    assert k > 60


def test_file_that_is_a_link_now_fails_by_name_and_its_copy_stays(
    tmp_path: Path, outside: Path
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    _fill(src, b"harmless")
    sync(src, dst)
    (src / "d" / "e" / "small").write_bytes(b"changed")
    options = Options(str(src), str(dst))
    with (
        contextlib.closing(Syncing(options)) as syncing,
        contextlib.closing(survey(options)) as found,
    ):
        _swap(src / "d/e/small", lambda path: path.symlink_to(outside / "d/e/small"))
        (failure,) = syncing.run(found).failures
    assert "small' was moved or replaced while it was read" in failure.message
    assert (dst / "d" / "e" / "small").read_bytes() == b"harmless"


def test_source_itself_may_be_a_link(tmp_path: Path) -> None:
    _fill(tmp_path / "src", b"harmless")
    (tmp_path / "link").symlink_to("src")
    assert sync(tmp_path / "link", tmp_path / "dst").exit_code == 0
    assert snapshot(tmp_path / "dst") == snapshot(tmp_path / "src")


def test_gitignore_file_that_is_a_link_does_not_count(tmp_path: Path, outside: Path) -> None:
    _fill(tmp_path / "src", b"harmless")
    _swap(tmp_path / "src" / "d" / ".gitignore", lambda path: path.symlink_to(outside / "d/e"))
    assert sync(tmp_path / "src", tmp_path / "dst", "--gitignore").exit_code == 0
    assert snapshot(tmp_path / "dst") == snapshot(tmp_path / "src")


def test_paths_beyond_the_limit_of_the_system_are_mirrored(tmp_path: Path) -> None:
    src, dst, folders = tmp_path / "src", tmp_path / "dst", ["n" * 250] * 20
    src.mkdir()
    with contextlib.ExitStack() as opened:
        fd = _opened(opened, src, [], None)
        for folder in folders:
            os.mkdir(folder, dir_fd=fd)
            fd = _opened(opened, folder, [], fd)
        for name, size in (("small", 1), ("large", SMALL + 1)):
            with open(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
                file.write(b"x" * size)
        os.symlink("large", "link", dir_fd=fd)
    result = sync(src, dst)
    assert result.exit_code == 0, result.output
    with contextlib.ExitStack() as opened:
        fd = _opened(opened, dst, folders, None)
        found = {name: os.stat(name, dir_fd=fd).st_size for name in sorted(os.listdir(fd))}
    assert found == {"large": SMALL + 1, "link": SMALL + 1, "small": 1}
    assert "3 unchanged" in sync(src, dst).stdout


def _opened(
    opened: contextlib.ExitStack, top: Path | str, folders: list[str], above: int | None
) -> int:
    """Opens a folder, one component at a time, until the stack is closed."""
    fd = os.open(top, os.O_RDONLY, dir_fd=above)
    opened.callback(os.close, fd)
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY, dir_fd=fd)
        opened.callback(os.close, fd)
    return fd
