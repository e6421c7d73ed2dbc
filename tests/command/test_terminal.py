"""``fsmirror sync SRC DST`` as a terminal user meets it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._command.main import main
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._disk import sources as _source
from cocoindex_fsmirror._disk.locks import lock
from cocoindex_fsmirror._disk.roots import open_root
from tests.support import backups, beside_ours, command_environment, contents, snapshot


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source with a few folders."""
    source = tmp_path / "src"
    (source / "guide" / "deep").mkdir(parents=True)
    (source / "index.html").write_bytes(b"<p>index")
    (source / "guide" / "one.html").write_bytes(b"one")
    (source / "guide" / "deep" / "two.bin").write_bytes(bytes(range(256)))
    return source


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    """Where the mirror is made."""
    return tmp_path / "dst"


def sync(*arguments: object) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(main, ["sync", *map(str, arguments)])


def test_the_first_run_mirrors_everything(src: Path, dst: Path) -> None:
    result = sync(src, dst)
    assert result.exit_code == 0, result.output
    assert snapshot(dst) == snapshot(src)
    assert result.stdout.count("\n") == 1
    assert (
        "3 written, 0 adopted, 0 healed, 0 deleted, 0 backed up, 0 unchanged, 267 B"
        in result.stdout
    )


def test_a_second_run_reads_and_writes_nothing(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    before, read, real = beside_ours(dst), list[str](), _source._open

    def opened(path: str) -> tuple[int, os.stat_result]:
        read.append(path)
        return real(path)

    monkeypatch.setattr(_source, "_open", opened)
    result = sync(src, dst)
    assert result.exit_code == 0, result.output
    assert (
        "0 written, 0 adopted, 0 healed, 0 deleted, 0 backed up, 3 unchanged, 0 B" in result.stdout
    )
    assert beside_ours(dst) == before
    assert read == []
    sync(src, dst, "--checksum")
    assert len(read) == 3  # So it would have been seen.


def test_a_changed_a_new_and_a_deleted_file_follow(src: Path, dst: Path) -> None:
    sync(src, dst)
    (src / "index.html").write_bytes(b"<p>changed")
    (src / "new").mkdir()
    (src / "new" / "file").write_bytes(b"new")
    (src / "guide" / "deep" / "two.bin").unlink()
    (src / "guide" / "deep").rmdir()
    result = sync(src, dst)
    assert "2 written" in result.stdout
    assert "1 deleted" in result.stdout
    assert snapshot(dst) == snapshot(src)


def test_a_tampered_and_a_deleted_output_come_back(src: Path, dst: Path) -> None:
    sync(src, dst)
    (dst / "index.html").write_bytes(b"tampered")
    (dst / "guide" / "one.html").unlink()
    result = sync(src, dst)
    assert result.exit_code == 0, result.output
    assert snapshot(dst) == snapshot(src)
    assert backups(dst) == [b"tampered"]


def test_the_mode_of_a_file_follows(src: Path, dst: Path) -> None:
    (src / "index.html").chmod(0o750)
    sync(src, dst)
    assert (dst / "index.html").stat().st_mode & 0o7777 == 0o750
    (src / "index.html").chmod(0o640)
    sync(src, dst)
    (dst / "guide" / "one.html").chmod(0o600)
    sync(src, dst)
    assert (dst / "index.html").stat().st_mode & 0o7777 == 0o640
    assert (dst / "guide" / "one.html").stat().st_mode == (
        src / "guide" / "one.html"
    ).stat().st_mode


def test_an_empty_folder_is_mirrored_and_removed(src: Path, dst: Path) -> None:
    (src / "empty").mkdir()
    sync(src, dst)
    assert (dst / "empty").is_dir()
    (src / "empty").rmdir()
    sync(src, dst)
    assert snapshot(dst) == snapshot(src)


def test_a_file_that_becomes_a_folder_and_back(src: Path, dst: Path) -> None:
    sync(src, dst)
    (src / "index.html").unlink()
    (src / "index.html").mkdir()
    (src / "index.html" / "inner").write_bytes(b"inner")
    assert sync(src, dst).exit_code == 0
    assert snapshot(dst) == snapshot(src)
    (src / "index.html" / "inner").unlink()
    (src / "index.html").rmdir()
    (src / "index.html").write_bytes(b"a file again")
    assert sync(src, dst).exit_code == 0
    assert snapshot(dst) == snapshot(src)


def test_what_was_never_mirrored_stays(src: Path, dst: Path) -> None:
    dst.mkdir()
    (dst / "mine.txt").write_bytes(b"mine")
    sync(src, dst)
    sync(src, dst)
    assert contents(snapshot(dst)) == {**contents(snapshot(src)), "mine.txt": b"mine"}


def test_special_files_are_skipped_and_counted(src: Path, dst: Path) -> None:
    os.mkfifo(src / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(src / "socket"))
        result = sync(src, dst)
    assert result.exit_code == 0, result.output
    assert "skipped 2 special files: pipe, socket" in result.stderr
    assert snapshot(dst).keys() == snapshot(src).keys() - {"pipe", "socket"}


def test_a_name_that_is_no_text_fails_by_name_and_the_rest_goes_on(src: Path, dst: Path) -> None:
    bad = os.fsencode(src) + b"/bad\xff"
    with open(bad, "wb"):
        pass
    result = sync(src, dst)
    assert result.exit_code == 3
    assert r"bad\udcff" in result.stderr
    assert contents(snapshot(dst)).keys() == {
        "index.html",
        "guide/one.html",
        "guide/deep/two.bin",
    }


def test_a_conflict_fails_by_name_and_the_rest_goes_on(src: Path, dst: Path) -> None:
    (dst / "guide" / "one.html").mkdir(parents=True)
    (dst / "guide" / "one.html" / "mine").write_bytes(b"mine")
    result = sync(src, dst)
    assert result.exit_code == 3
    assert "guide/one.html" in result.stderr
    assert "Traceback" not in result.stderr
    assert (dst / "index.html").read_bytes() == b"<p>index"
    assert (dst / "guide" / "one.html" / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("nothing", "dst", "no such source"),
        ("src/index.html", "dst", "the source is not a directory"),
        ("src", "src/guide", "the destination lies inside the source"),
        ("src/guide", "src", "the source lies inside the destination"),
        ("src", "src", "are the same directory"),
        ("src", "src/index.html", "the destination is a file"),
        ("src/guide", "src/index.html/sub/deep", "the destination lies below a file"),
        ("", "dst", "Invalid value for 'SRC': the path is empty"),
        ("src", "", "Invalid value for 'DST': the path is empty"),
        ("src\udcff", "dst", r"src\udcff' is not UTF-8"),
        ("src", "dst\udcff", r"dst\udcff' is not UTF-8"),
        ("src\0", "dst", r"src\x00' is not UTF-8"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    src: Path, source: str, target: str, problem: str
) -> None:
    before = snapshot(src.parent)
    result = sync(*(path and f"{src.parent}/{path}" for path in (source, target)))
    assert result.exit_code == 2
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert snapshot(src.parent) == before


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A source that is deeper than Python's stack."""
    source = tmp_path / "deep"
    source.mkdir()
    at = os.open(source, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=at)
        os.mkdir("e", dir_fd=at)
        at, above = os.open("d", os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)
    yield source
    subprocess.run(["rm", "-rf", source], check=True)  # What pytest uses can't.


def test_a_source_of_any_depth_is_listed_and_each_folder_before_those_in_it(deep: Path) -> None:
    found = survey(str(deep))
    down = ["/".join(["d"] * depth) for depth in range(1101)]
    up = [f"{path}/e".lstrip("/") for path in reversed(down[:-1])]
    assert [name for name, _ in found.entries()] == [*down[1:], *up]
    assert (found.unread, found.errors) == ([], [])


def test_a_very_long_path_is_mirrored(src: Path, dst: Path) -> None:
    inner = Path(*[letter * 250 for letter in "abcd"])
    (src / inner).mkdir(parents=True)
    (src / inner / "file").write_bytes(b"far below")
    (src / inner.parent / "file").write_bytes(b"below")
    result = sync(src, dst)
    assert result.exit_code == 0, result.output
    assert snapshot(dst) == snapshot(src)
    assert "5 unchanged" in sync(src, dst).stdout
    (src / inner / "file").unlink()
    assert "1 deleted" in sync(src, dst).stdout
    assert snapshot(dst) == snapshot(src)


def test_a_link_to_the_inside_of_the_source_is_seen_through(src: Path, dst: Path) -> None:
    dst.symlink_to(src / "guide")
    assert sync(src, dst).exit_code == 2


@pytest.fixture
def locked(dst: Path) -> Iterator[None]:
    """Somebody else holds the destination."""
    dst.mkdir()
    tree, _ = open_root(str(dst))
    lock(tree, 0)
    yield
    tree.close()


@pytest.mark.usefixtures("locked")
def test_a_destination_in_use_is_one_message(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cocoindex_fsmirror._command.syncing.Mirror", lambda *a, **k: Mirror(*a, **k, patience=0)
    )
    result = sync(src, dst)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"fsmirror: {dst}: another part of this process held it")
    assert result.stderr.count("\n") == 1


def _as_nobody(act: Callable[[], str]) -> str:
    """What a function returns to a user without rights, in a process of its own."""
    # Who has no rights may not read the folders of Python either: what an error needs is there.
    assert sync("/dev/null/none", "/dev/null/none").exit_code == 2
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child never touches a thread.
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, act().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


def _let_everybody_reach(tmp_path: Path) -> None:
    """Opens the folders that pytest made above a test's own."""
    for above in (tmp_path, *tmp_path.parents):
        if above.is_relative_to(tempfile.gettempdir()) and str(above) != tempfile.gettempdir():
            above.chmod(above.stat().st_mode | 0o055)


@pytest.mark.root
def test_a_destination_without_permission_is_one_message(src: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who may not write")
    closed = tmp_path / "closed"
    closed.mkdir()
    _let_everybody_reach(tmp_path)

    def told() -> str:
        result = sync(src, closed / "dst")
        return f"{result.exit_code} {result.stderr}"

    assert _as_nobody(told).startswith(f"3 fsmirror: {closed / 'dst'}: may not be opened")


def test_the_installed_command_runs(src: Path, dst: Path) -> None:
    command = Path(sys.executable).with_name("fsmirror")
    ran = subprocess.run(
        [command, "sync", src, dst],
        capture_output=True,
        text=True,
        check=True,
        env=command_environment(),
    )
    assert "3 written" in ran.stdout
    assert ran.stderr == ""
    assert snapshot(dst) == snapshot(src)


def test_a_mirror_can_be_mirrored_without_its_own_folder(src: Path, dst: Path) -> None:
    sync(src, dst)
    result = sync(dst, dst.with_name("second"))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert snapshot(dst.with_name("second")) == snapshot(src)


def test_a_source_that_cannot_be_read_whole_changes_nothing(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(src, dst)
    before, real = snapshot(dst), os.scandir
    (src / "index.html").write_bytes(b"changed")

    def scandir(path: str) -> object:
        if path.endswith("deep"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        result = sync(src, dst)
    assert result.exit_code == 3
    assert "guide/deep: Permission denied (nothing was changed)" in result.stderr
    assert snapshot(dst) == before


@pytest.mark.root
def test_a_source_without_permission_is_one_message(src: Path, dst: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who may not read")
    _let_everybody_reach(tmp_path)
    src.chmod(0o700)

    def told() -> str:
        result = sync(src, dst)
        return f"{result.exit_code} {result.stderr}"

    answer = _as_nobody(told)
    assert answer.startswith("2 ")
    assert f"{src}' is not readable" in answer
