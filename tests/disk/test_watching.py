"""Waiting for changes of a mirror and its source, in this process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror._disk import inotify
from cocoindex_fsmirror._disk.watch import Timing, Watching

SHORT = 0.3


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """Watches a mirror and its source."""
    for name in ("src/d", "dst/d", "dst/.fsmirror"):
        (tmp_path / name).mkdir(parents=True)
    target = tmp_path / "dst"
    places = str(target), str(target / ".fsmirror"), str(tmp_path / "src")
    with Watching(*places, timing=Timing(settle=0.01)) as started:
        yield started


def never() -> bool:
    """Answers no."""
    return False


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda folder: (folder / "d" / "new").write_bytes(b"new"),
    "mode": lambda folder: (folder / "d").chmod(0o700),
    "time": lambda folder: os.utime(folder / "d", (1, 1)),
    "link": lambda folder: (folder / "link").symlink_to("nowhere"),
    "removal": lambda folder: (folder / "d").rmdir(),
    "move": lambda folder: (folder / "d").rename(folder / "e"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_kind_of_change_of_the_source_is_heard(
    tmp_path: Path, watching: Watching, change: Callable[[Path], object]
) -> None:
    assert watching.wait(never, SHORT) == "time"
    change(tmp_path / "src")
    assert watching.wait(never, 60) == "change"
    assert watching.wait(never, SHORT) == "time"


def test_folder_that_may_not_be_read_is_heard_once_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(fd: int, path: bytes, mask: int) -> int:
        if is_shut and path.endswith(b"/shut"):  # Root may read every folder.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(fd, path, mask)

    real, is_shut = inotify._add, True
    monkeypatch.setattr(inotify, "_add", add)
    for name in ("src/d/shut", "dst"):
        (tmp_path / name).mkdir(parents=True)
    target = str(tmp_path / "dst")
    with Watching(target, target, str(tmp_path / "src"), timing=Timing(settle=0.01)) as started:
        (tmp_path / "src/d/shut/file").write_bytes(b"not heard")
        assert started.wait(never, SHORT) == "time"
        is_shut = False
        (tmp_path / "src/d/shut").chmod(0o700)
        assert started.wait(never, 60) == "change"
        (tmp_path / "src/d/shut/file").write_bytes(b"heard")
        assert started.wait(never, 60) == "change"


def test_change_of_the_mirror_counts_if_it_has_drifted(tmp_path: Path, watching: Watching) -> None:
    for has_drifted, cause in ((never, "time"), (lambda: True, "change")):
        (tmp_path / "dst" / "d" / "file").write_bytes(b"edited")
        assert watching.wait(has_drifted, SHORT) == cause


def test_our_own_folder_is_not_heard(tmp_path: Path, watching: Watching) -> None:
    (tmp_path / "dst" / ".fsmirror" / "file").write_bytes(b"ours")
    (tmp_path / "src" / ".fsmirror").mkdir()
    assert watching.wait(lambda: True, SHORT) == "time"


def test_change_of_the_mirror_may_mend_what_failed(tmp_path: Path, watching: Watching) -> None:
    def remove_late() -> bool:
        """Is asked first, after what the failed run itself has changed was heard."""
        (tmp_path / "dst" / "in the way").unlink(missing_ok=True)
        return False

    (tmp_path / "dst" / "in the way").touch()
    assert watching.wait(never, SHORT, is_mended=never) == "time"
    assert watching.wait(never, 60, is_mended=remove_late) == "change"


def test_failure_may_be_mended_without_a_change(watching: Watching) -> None:
    assert watching.wait(never, 60, is_mended=lambda: True) == "change"


def test_interval_bounds_the_wait(tmp_path: Path) -> None:
    for timing in (Timing(rescan=SHORT), Timing(poll=SHORT)):
        (tmp_path / "dst").mkdir(exist_ok=True)
        with Watching(str(tmp_path / "dst"), str(tmp_path / "dst"), timing=timing) as watching:
            assert watching.wait(never) == "time"


@pytest.mark.parametrize("what", ["dst", "state"])
def test_mirror_is_out_of_date_once_its_folder_or_its_state_is_another(
    tmp_path: Path, what: str
) -> None:
    for name in ("dst", "state"):
        (tmp_path / name).mkdir()
    with Watching(str(tmp_path / "dst"), str(tmp_path / "state")) as watching:
        assert not watching.is_out_of_date()
        (tmp_path / what).rename(tmp_path / "old")
        assert watching.is_out_of_date()
        (tmp_path / what).mkdir()
        assert watching.is_out_of_date()


def test_mirror_that_is_made_again_with_its_inode_number_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ext4 does, which uses the number of a folder that was removed again."""
    monkeypatch.setattr(Watching, "_look", staticmethod(lambda _path: (1, 1)))
    (tmp_path / "dst").mkdir()
    with Watching(str(tmp_path / "dst"), str(tmp_path)) as watching:
        assert not watching.changed(SHORT)
        (tmp_path / "dst").rmdir()
        (tmp_path / "dst").mkdir()
        assert watching.changed(SHORT)
        assert watching.is_out_of_date()
