"""A program declares files without an engine: ``with mirror.update() as files``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest

from cocoindex_fsmirror import (
    ApplyError,
    ConflictError,
    InvalidNameError,
    Mirror,
    Outcome,
    RootError,
    SourceError,
    TooManyRemovalsError,
    Update,
)
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._mirror.owners import owners
from tests.support import backups, beside_ours, exact_state, send_far, snapshot

LARGE = (1 << 16) + 1  # bytes; more than is held in memory


@pytest.fixture
def outcomes() -> list[Outcome]:
    """The outcomes of the site's batches."""
    return []


@pytest.fixture
def site(root: Path, outcomes: list[Outcome]) -> Mirror:
    """A mirror that does not exist yet."""
    return Mirror(root, on_outcome=outcomes.append)


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    """A source that is too large to be held in memory, and long unchanged."""
    path = tmp_path / "logo.png"
    path.write_bytes(os.urandom(LARGE))
    path.chmod(0o640)
    os.utime(path, ns=(5, 5))
    while coarse_now_ns() <= path.stat().st_ctime_ns:
        pass
    return path


def test_declared_files_are_written_and_undeclared_ones_removed(
    site: Mirror, root: Path, logo: Path
) -> None:
    with site, site.update() as files:
        files.write("index.html", "<p>å")
        files.write(PurePath("data") / "raw.bin", bytes(range(256)), mode=0o600, mtime_ns=7)
        files.copy("logo.png", logo)
        files.symlink("latest", "index.html")
        files.folder("uploads", mode=0o711)
        assert not root.exists()  # Nothing is written before the block ends.
    assert snapshot(root) == {
        "index.html": "<p>å".encode(),
        "data": "dir",
        "data/raw.bin": bytes(range(256)),
        "logo.png": logo.read_bytes(),
        "latest": "-> index.html",
        "uploads": "dir",
    }
    assert stat.S_IMODE((root / "data" / "raw.bin").stat().st_mode) == 0o600
    assert (root / "data" / "raw.bin").stat().st_mtime_ns == 7
    assert stat.S_IMODE((root / "logo.png").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "uploads").stat().st_mode) == 0o711
    with site, site.update() as files:
        files.write("index.html", "changed")
    assert snapshot(root) == {"index.html": b"changed"}
    assert backups(root) == []
    with site.update():
        pass
    assert snapshot(root) == {}
    site.close()


@pytest.mark.parametrize("is_there", [False, True])
def test_exception_inside_the_block_changes_nothing(
    site: Mirror, root: Path, is_there: bool
) -> None:
    if is_there:
        with site, site.update() as files:
            files.write("a", "1")
    before = exact_state(root)
    with pytest.raises(ZeroDivisionError), site.update() as files:  # noqa: PT012
        files.write("a", "2")
        files.write("b", "2")
        raise ZeroDivisionError
    assert exact_state(root) == before
    assert root.exists() == is_there


def _declare(files: Update, logo: Path) -> None:
    """Declares one path of each kind."""
    files.write("a", "1")
    files.write("large", b"x" * LARGE)
    files.copy("logo.png", logo, preserve=("mode", "mtime"))
    files.symlink("link", "a")
    files.folder("folder", mtime_ns=5)
    files.write("folder/b", "2")


def test_unchanged_update_applies_no_batch_and_reads_no_source(
    site: Mirror,
    root: Path,
    logo: Path,
    outcomes: list[Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with site, site.update() as files:
        _declare(files, logo)
    before = beside_ours(root)
    outcomes.clear()
    monkeypatch.setattr(
        "cocoindex_fsmirror._disk.sources.digest_of_file", lambda _: pytest.fail("it was read")
    )
    with site, site.update() as files:
        _declare(files, logo)
    assert outcomes == []
    assert beside_ours(root) == before


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "edited": lambda root: (root / "a").write_bytes(b"edited"),
    "large edited": lambda root: (root / "large").write_bytes(b"edited"),
    "copy edited": lambda root: (root / "logo.png").write_bytes(b"edited"),
    "gone": lambda root: (root / "a").unlink(),
    "copy gone": lambda root: (root / "logo.png").unlink(),
    "link gone": lambda root: (root / "link").unlink(),
    "another mode": lambda root: (root / "logo.png").chmod(0o600),
    "another time": lambda root: os.utime(root / "logo.png"),
    "folder touched": lambda root: os.utime(root / "folder"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampered_paths_are_healed(
    site: Mirror, root: Path, logo: Path, tamper: Callable[[Path], object]
) -> None:
    def state() -> dict[str, tuple[int, int]]:
        times = {path: (root / path).lstat() for path in ("logo.png", "folder")}
        return {path: (seen.st_mode, seen.st_mtime_ns) for path, seen in times.items()}

    with site, site.update() as files:
        _declare(files, logo)
    before, attributes = snapshot(root), state()
    tamper(root)
    with site, site.update() as files:
        _declare(files, logo)
    assert (snapshot(root), state()) == (before, attributes)


def _edit_secretly(path: Path) -> None:
    """Writes other bytes of the same size, and restores the mtime; only the ctime tells."""
    path.write_bytes(os.urandom(LARGE))
    os.utime(path, ns=(5, 5))


EDITS: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_bytes(b"edited" * LARGE),
    "edited, with size and time kept": _edit_secretly,
    "another mode": lambda path: path.chmod(0o755),
    "replaced": lambda path: path.with_name("other").replace(path),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_copy_follows_its_source(
    site: Mirror, root: Path, logo: Path, edit: Callable[[Path], object]
) -> None:
    with site, site.update() as files:
        files.copy("logo.png", logo)
    logo.with_name("other").write_bytes(b"other")
    edit(logo)
    with site, site.update() as files:
        files.copy("logo.png", logo)
    assert (root / "logo.png").read_bytes() == logo.read_bytes()
    assert (root / "logo.png").stat().st_mode == logo.stat().st_mode
    assert backups(root) == []


def test_existing_copy_is_adopted_without_a_write(
    site: Mirror, root: Path, logo: Path, outcomes: list[Outcome]
) -> None:
    root.mkdir()
    (root / "logo.png").write_bytes(logo.read_bytes())
    inode = (root / "logo.png").stat().st_ino
    with site, site.update() as files:
        files.copy("logo.png", logo)
    assert [outcome.adopted for outcome in outcomes] == [["logo.png"]]
    assert (root / "logo.png").stat().st_ino == inode


def test_foreign_files_make_way_only_for_declared_paths(site: Mirror, root: Path) -> None:
    root.mkdir()
    (root / "mine").write_bytes(b"mine")
    (root / "a").write_bytes(b"in the way")
    with site, site.update() as files:
        files.write("a", "1")
    assert snapshot(root) == {"mine": b"mine", "a": b"1"}
    assert backups(root) == [b"in the way"]


def test_failing_path_is_named_and_all_others_are_applied(
    site: Mirror, root: Path, logo: Path
) -> None:
    root.mkdir()
    (root / "a").write_bytes(b"in the way")
    update = site.update(on_conflict="error")
    with pytest.raises(ApplyError) as caught, update as files:  # noqa: PT012
        files.write("a", "1")
        files.write("b", "2")
        files.copy("logo.png", logo)
        logo.unlink()
    conflict, unread = caught.value.exceptions
    assert isinstance(conflict, ConflictError)
    assert isinstance(unread, SourceError)
    assert str(logo) in str(unread)
    assert snapshot(root) == {"a": b"in the way", "b": b"2"}


def test_copy_of_a_vanished_source_stays(site: Mirror, root: Path, logo: Path) -> None:
    content = logo.read_bytes()
    with site, site.update() as files:
        files.copy("logo.png", logo)
    os.utime(logo, ns=(6, 6))
    with pytest.raises(ApplyError, match=r"logo\.png"), site.update() as files:  # noqa: PT012
        files.copy("logo.png", logo, preserve=("mtime",))
        logo.unlink()
    assert snapshot(root) == {"logo.png": content}


def test_source_that_gets_an_impossible_time_fails_alone(
    site: Mirror, root: Path, logo: Path
) -> None:
    with pytest.raises(ApplyError) as caught, site, site.update() as files:  # noqa: PT012
        files.copy("logo.png", logo, preserve=("mtime",))
        files.write("z", "1")
        send_far(logo)
    (error,) = caught.value.exceptions
    assert isinstance(error, SourceError)
    assert "does not fit into 64 bits" in str(error)
    assert snapshot(root) == {"z": b"1"}


def test_source_that_can_not_be_opened_is_refused_at_once(site: Mirror, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"), site.update() as files:
        files.copy("a", tmp_path / "none")
    with pytest.raises(SourceError, match="not a regular file"), site.update() as files:
        files.copy("a", tmp_path)


def test_last_declaration_of_a_path_counts(site: Mirror, root: Path) -> None:
    with site, site.update() as files:
        files.write("a", "1")
        files.symlink("a", "b")
        files.write("./a", "2")
    assert snapshot(root) == {"a": b"2"}


def test_contradicting_declarations_fail_by_name(site: Mirror, root: Path) -> None:
    with pytest.raises(ApplyError) as caught, site.update() as files:  # noqa: PT012
        files.write("a", "1")
        files.write("a/b", "2")
        files.write("c", "3")
    assert sorted(str(error.path) for error in caught.value.exceptions) == ["a", "a/b"]  # type: ignore[union-attr]
    assert snapshot(root) == {"c": b"3"}


def test_programs_that_share_a_mirror_remove_only_their_own_files(site: Mirror, root: Path) -> None:
    with site, site.update(by="pages") as files:
        files.write("index.html", "1")
    with site, site.update(by="feeds") as files:
        files.write("feed.xml", "2")
    assert snapshot(root) == {"index.html": b"1", "feed.xml": b"2"}
    with site, site.update(by="pages"):
        pass
    assert snapshot(root) == {"feed.xml": b"2"}
    assert [owner.by for owner in owners(site.root)] == ["pages", "feeds"]


def test_too_many_removals_stop_the_update_before_it_begins(site: Mirror, root: Path) -> None:
    with site, site.update() as files:
        for number in range(4):
            files.write(f"{number}", "1")
    before = snapshot(root)
    with pytest.raises(TooManyRemovalsError, match="max_delete 2"):  # noqa: SIM117
        with site, site.update(max_delete=2) as files:
            files.write("0", "changed")
    assert snapshot(root) == before
    with site, site.update(max_delete=0.75) as files:
        files.write("0", "changed")
    assert snapshot(root) == {"0": b"changed"}


REFUSED: dict[str, tuple[Callable[[Update], object], type[Exception]]] = {
    "name": (lambda files: files.write("../a", ""), InvalidNameError),
    "our own folder": (lambda files: files.folder(".fsmirror"), InvalidNameError),
    "content": (lambda files: files.write("a", 1), TypeError),  # type: ignore[arg-type]
    "mode": (lambda files: files.write("a", "", mode=0o10000), ValueError),
    "decimal mode": (lambda files: files.folder("a", mode=755), ValueError),
    "time": (lambda files: files.write("a", "", mtime_ns=1 << 63), ValueError),
    "escape": (lambda files: files.symlink("a", "/etc"), InvalidNameError),
    "preserve": (lambda files: files.copy("a", "/etc/passwd", preserve="mode"), TypeError),  # type: ignore[arg-type]
    "owner": (lambda files: files.copy("a", "/etc/passwd", preserve=("owner",)), ValueError),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("declare", "error"), REFUSED.values(), ids=REFUSED)
def test_bad_name_or_mode_is_refused_at_once(
    site: Mirror, root: Path, declare: Callable[[Update], object], error: type[Exception]
) -> None:
    with pytest.raises(error), site.update() as files:
        declare(files)
    assert not root.exists()


@pytest.mark.parametrize(
    "options",
    [
        {"max_delete": -1},
        {"max_delete": True},
        {"on_conflict": "backups"},
        {"on_conflict": "keep"},
        {"durability": "maybe"},
    ],
)
def test_options_are_checked_before_the_block(site: Mirror, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)), site.update(**options):
        pytest.fail("the block was entered")


def test_unusable_root_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RootError), Mirror(tmp_path / "file").update() as files:
        files.write("a", "1")


def test_files_that_fit_once_old_versions_are_gone_are_written(
    tmpfs: Callable[[str], Path],
) -> None:
    root = tmpfs("4m") / "root"
    for _ in range(2):
        with Mirror(root) as mirror, mirror.update() as files:
            for number in range(5):
                files.write(f"{number}", os.urandom(1 << 19))
    assert len(snapshot(root)) == 5
