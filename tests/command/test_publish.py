"""``fsmirror publish``: readers of a link see a whole update, or none of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cocoindex_fsmirror import RootError
from cocoindex_fsmirror._disk import sources as _sources
from cocoindex_fsmirror._mirror import versions as _versions
from cocoindex_fsmirror._mirror.session import Session
from tests.command.commands import run, told
from tests.command.syncing import state
from tests.support import contents, exact_state, snapshot

FILES = 5


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """The path of a link that is not made yet."""
    return tmp_path / "site"


def publish(source: Path, link: Path, *options: str) -> str:
    """Publishes; returns the name of the version that the link points to."""
    result = run("publish", source, link, *options)
    assert result.exit_code == 0, result.output
    return os.readlink(link)


def test_updates_go_to_versions_in_turn(src: Path, link: Path) -> None:
    expected = state(src)
    assert publish(src, link) == "site.a"
    assert state(link.resolve()) == expected
    (src / "index.html").write_bytes(b"later")
    assert publish(src, link) == "site.b"
    assert state(link.resolve()) == state(src) != expected
    assert state(link.with_name("site.a")) == expected
    assert publish(src, link) == "site.a"
    assert state(link.resolve()) == state(link.with_name("site.b")) == state(src)
    assert {path.name for path in link.parent.iterdir()} == {"site", "site.a", "site.b", "src"}


def test_report_names_link_and_version(source: Path, link: Path) -> None:
    figures = told("publish", source, link)
    assert (figures["link"], figures["version"]) == (str(link), "site.a")
    assert (figures["root"], figures["written"]) == (str(link.with_name("site.a")), 3)
    assert run("publish", source, link).stdout.splitlines()[-1] == f"{link} -> site.b"


@contextlib.contextmanager
def blocked(folder: Path) -> Iterator[None]:
    """Puts a foreign folder in the place of a file."""
    (folder / "a").unlink(missing_ok=True)
    (folder / "a" / "theirs").mkdir(parents=True)
    yield
    (folder / "a" / "theirs").rmdir()
    (folder / "a").rmdir()


def test_failure_leaves_the_link_where_it_is(source: Path, link: Path) -> None:
    publish(source, link)
    publish(source, link)
    (source / "a").write_bytes(b"new")
    before = state(link.resolve())
    with blocked(link.with_name("site.a")):
        result = run("publish", source, link)
        assert result.exit_code == 3
        assert "a directory is in the way" in result.stderr
        assert os.readlink(link) == "site.b"
        assert state(link.resolve()) == before
        # What is not complete is nothing to go back to.
        assert run("publish", source, link, "--rollback").exit_code == 3
    assert publish(source, link) == "site.a"
    assert contents(snapshot(link))["a"] == b"new"


def test_too_many_removals_leave_the_link_where_it_is(source: Path, link: Path) -> None:
    publish(source, link)
    publish(source, link)
    (source / "a").unlink()
    result = run("publish", source, link, "--max-delete", "0")
    assert result.exit_code == 3
    assert os.readlink(link) == "site.b"
    assert publish(source, link, "--max-delete", "1") == "site.a"


def test_rollback_moves_the_link_to_the_version_before(source: Path, link: Path) -> None:
    for content in (b"1", b"2", b"3"):
        (source / "a").write_bytes(content)
        publish(source, link, "--keep", "2")
    assert os.readlink(link) == "site.c"
    for name, content in (("site.b", b"2"), ("site.a", b"1")):
        assert publish(source, link, "--rollback") == name
        assert (link / "a").read_bytes() == content
    result = run("publish", source, link, "--rollback")
    assert result.exit_code == 3
    assert "has no complete version before the current one" in result.stderr
    assert publish(source, link, "--keep", "2") == "site.b"  # The oldest of the others.
    assert (link / "a").read_bytes() == b"3"


def test_rollback_without_a_link_is_refused(source: Path, link: Path) -> None:
    publish(source, link)
    link.unlink()
    assert run("publish", source, link, "--rollback").exit_code == 3
    assert not link.is_symlink()
    assert publish(source, link) == "site.b"


def test_rollback_goes_to_the_newest_if_the_current_one_lost_its_number(
    source: Path, link: Path
) -> None:
    """A power cut may take the last commits of a ledger, after the link was moved."""
    for _ in range(3):
        publish(source, link, "--keep", "2")
    with closing(Session(str(link.resolve()))) as session:
        session.run(lambda _tree, ledger: ledger.note(_versions._NOTE, ""))
    assert publish(source, link, "--rollback") == "site.b"


def test_rollback_takes_no_dry_run(source: Path, link: Path) -> None:
    result = run("publish", source, link, "--rollback", "--dry-run")
    assert result.exit_code == 2
    assert "can't be given together" in result.stderr


def test_dry_run_lists_changes_and_makes_none(source: Path, link: Path) -> None:
    assert run("publish", source, link, "--dry-run").exit_code == 0
    assert sorted(path.name for path in link.parent.iterdir()) == ["src"]
    publish(source, link)
    before = exact_state(link.parent)
    listed = told("publish", source, link, "--dry-run")
    written = {change["path"] for change in listed["changes"] if change["action"] == "write"}
    assert written == {"a", "d/b", "link"}
    assert exact_state(link.parent) == before


@pytest.mark.parametrize("what", ["folder", "file", "elsewhere", "above"])
def test_anything_but_our_link_is_refused_and_stays(source: Path, link: Path, what: str) -> None:
    if what == "folder":
        link.mkdir()
    elif what == "file":
        link.write_bytes(b"theirs")
    else:
        link.symlink_to("src" if what == "elsewhere" else "../site.a")
    before = exact_state(link.parent)
    result = run("publish", source, link)
    assert result.exit_code == (2 if what == "file" else 3)
    assert f"{link}" in result.stderr
    told = {"folder": "can't be read as a link", "file": "is a file"}
    assert told.get(what, "and not to a version beside it") in result.stderr
    assert exact_state(link.parent) == before


def test_options_are_those_of_sync(source: Path, link: Path) -> None:
    publish(source, link, "--exclude", "d")
    assert set(snapshot(link)) == {"a", "link"}
    (link.with_name("site.b")).mkdir()
    (link.with_name("site.b") / "theirs").write_bytes(b"1")
    publish(source, link, "--exact")
    assert set(snapshot(link)) == {"a", "d", "d/b", "link"}


def test_each_version_keeps_backups_as_long_as_the_one_before(source: Path, link: Path) -> None:
    for options, kept in ((("--keep-backups", "1h"), "1h"), ((), "1h"), ((), "1h")):
        publish(source, link, *options)
        assert told("status", link.resolve())["keep_backups"] == kept
    for options in (("--keep-backups", "all"), (), ()):
        publish(source, link, *options)
        assert told("status", link.resolve())["keep_backups"] == "all"


def test_publication_that_is_cut_off_before_the_link_moves_goes_on(
    source: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(source, link)
    (source / "a").write_bytes(b"new")

    def fail(path: str, _target: str) -> None:
        (Path(path).parent / ".site.new").symlink_to("site.b")
        raise RootError(path, "was cut off", "")

    with monkeypatch.context() as patch:
        patch.setattr(_versions, "point_link", fail)
        assert run("publish", source, link).exit_code == 3
    assert os.readlink(link) == "site.a"
    assert publish(source, link) == "site.b"
    assert (link / "a").read_bytes() == b"new"
    assert not (link.parent / ".site.new").is_symlink()


def test_version_that_became_current_meanwhile_is_not_changed(
    source: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(source, link)
    publish(source, link)
    before = state(link.resolve())
    (source / "a").write_bytes(b"new")
    monkeypatch.setattr(_versions.Versions, "next", lambda _self, _keep: "site.b")
    result = run("publish", source, link)
    assert result.exit_code == 3
    assert "was moved by another process meanwhile" in result.stderr
    assert state(link.resolve()) == before


def test_version_that_was_dropped_is_made_anew(source: Path, link: Path) -> None:
    publish(source, link)
    publish(source, link)
    assert run("drop", link.with_name("site.a"), input="y\n").exit_code == 0
    assert publish(source, link) == "site.a"
    assert state(link.resolve()) == state(link.with_name("site.b"))


def test_contents_are_shared_with_the_current_version(
    source: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source may be elsewhere, and a clone of the current version needs no room."""
    opened = list[str]()
    real = _sources._open

    def watched(path: str, within: object = None) -> tuple[int, os.stat_result]:
        opened.append(path)
        return real(path, within)  # type: ignore[arg-type]

    publish(source, link)
    (source / "a").write_bytes(b"new")
    monkeypatch.setattr(_sources, "_open", watched)
    publish(source, link)
    current = link.with_name("site.a")
    assert sorted(opened) == [str(current / "d" / "b"), str(source / "a")]
    assert state(link.resolve()) == state(source)


def test_edited_file_of_the_current_version_is_not_shared(source: Path, link: Path) -> None:
    publish(source, link)
    (link / "a").write_bytes(b"edited")
    publish(source, link)
    assert state(link.resolve()) == state(source)


# Readers


def read(link: Path) -> set[bytes]:
    """Opens the folder that a link points to once, and reads all of it."""
    folder = os.open(link, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = set()
        for number in range(FILES):
            fd = os.open(f"{number}", os.O_RDONLY, dir_fd=folder)
            found.add(os.read(fd, 100))
            os.close(fd)
        return found
    finally:
        os.close(folder)


@contextlib.contextmanager
def reading(link: Path) -> Iterator[list[set[bytes]]]:
    """Reads again and again; yields what was not of one update."""
    mixed, seen, ended = list[set[bytes]](), set[bytes](), threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            try:
                found = read(link)
            except OSError as error:  # There must be a version at every instant.
                found = {b"", str(error).encode()}
            seen.update(found)
            if len(found) != 1:
                mixed.append(found)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield mixed
    finally:
        ended.set()
        thread.join()
    assert len(seen) > 1


def fill(source: Path, number: int) -> None:
    """Gives every file of a source the same new content."""
    for name in range(FILES):
        (source / f"{name}").write_bytes(b"%d" % number)


def test_reader_never_sees_two_updates_mixed(tmp_path: Path, link: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    fill(source, 0)
    publish(source, link)
    with reading(link) as mixed:
        for number in range(1, 15):
            fill(source, number)
            publish(source, link, "--keep", "4")
    assert mixed == []


def test_link_is_moved_by_one_rename(
    source: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(source, link)
    renamed, removed = list[str](), list[str]()
    rename, unlink = os.rename, os.unlink

    def watched(old: str, new: str, **more: int) -> None:
        renamed.append(new)
        rename(old, new, **more)

    def kept(path: str, **more: int) -> None:
        removed.append(path)
        unlink(path, **more)

    monkeypatch.setattr(os, "rename", watched)
    monkeypatch.setattr(os, "unlink", kept)
    publish(source, link)
    assert renamed.count(str(link)) == 1
    assert str(link) not in removed


@pytest.mark.slow
def test_publisher_that_is_killed_at_any_moment_mixes_nothing(tmp_path: Path, link: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    fill(source, 0)
    publish(source, link)
    random.seed(5)
    program = Path(sys.executable).with_name("fsmirror")
    command = [str(each) for each in (program, "publish", source, link, "--keep", "4")]
    statuses = set[int]()
    with reading(link) as mixed:
        for number in range(1, 25):
            fill(source, number)
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(random.uniform(0.1, 0.6))
                process.kill()
            statuses.add(process.returncode)
            if number % 4 == 0:
                publish(source, link, "--keep", "4")
    assert mixed == []
    assert -signal.SIGKILL in statuses
    publish(source, link, "--keep", "4")
    assert read(link) == {b"24"}
