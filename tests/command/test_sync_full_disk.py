"""``fsmirror sync`` to a full disk."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._command.syncing import Syncing
from cocoindex_fsmirror._mirror import turns
from tests.command.commands import run, told
from tests.disk.test_turns import KIB, files_of, fill
from tests.support import contents, snapshot, staged

Tmpfs = Callable[[str], Path]
pytestmark = pytest.mark.root


def _write_all(top: Path, files: dict[str, bytes]) -> None:
    """Writes files, whose folders are made."""
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source of 5 MB."""
    _write_all(tmp_path / "src", files_of(200, 30_000, 0))
    return tmp_path / "src"


@pytest.fixture
def dst(tmpfs: Tmpfs, src: Path) -> Path:
    """A mirror of it on a disk that is nearly full."""
    disk = tmpfs("8m")
    assert run("sync", src, disk / "dst").exit_code == 0
    fill(disk, 200 * KIB)
    return disk / "dst"


def test_one_run_replaces_most_of_a_full_disk_and_counts_each_path_once(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_MOST", 64)
    _write_all(src, dict([*files_of(200, 30_000, 1).items()][:120]))
    for name in [*files_of(200, 30_000, 0)][150:160]:
        (dst / name).write_bytes(b"tampered")
    figures = told("sync", src, dst, "--on-conflict", "overwrite")
    assert (figures["written"], figures["healed"], figures["unchanged"]) == (120, 10, 70)
    assert (figures["failures"], figures["size"]) == ([], 130 * 30_000)
    assert contents(snapshot(dst)) == files_of(200, 30_000, 1, 0.6)
    assert run("verify", dst, "--content").exit_code == 0
    assert staged(dst) == []


def test_files_that_go_last_make_room_for_those_that_come_first(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_MOST", 16)
    shutil.rmtree(src / "d2")
    _write_all(src / "d0", {f"new{number}": b"n" * 30_000 for number in range(60)})
    assert run("sync", src, dst).exit_code == 0
    assert contents(snapshot(dst)) == contents(snapshot(src))


def test_paths_that_do_not_fit_are_named_and_come_once_there_is_room(src: Path, dst: Path) -> None:
    _write_all(src, {"new/a": b"a" * 300 * KIB, "new/b": b"b" * 300 * KIB, "small": b"s"})
    figures = told("sync", src, dst)
    assert [(each["operation"], each["path"]) for each in figures["failures"]] == [
        ("write", "new/a"),
        ("write", "new/b"),
    ]
    assert (figures["written"], figures["unchanged"]) == (1, 200)
    (dst.parent / "filler").unlink()
    assert run("sync", src, dst).exit_code == 0
    assert contents(snapshot(dst)) == contents(snapshot(src))


def test_interrupt_on_a_full_disk_ends_the_run_and_the_next_completes_it(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_all(src, files_of(200, 30_000, 1))
    real, begun = Syncing._go_on, 0

    def go_on(self: Syncing, size: int) -> None:
        nonlocal begun
        begun += not size
        if begun == 5:
            signal.raise_signal(signal.SIGINT)
        real(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(Syncing, "_go_on", go_on)
        assert run("sync", src, dst).exit_code != 0
    assert begun == 5
    found, old, new = contents(snapshot(dst)), files_of(200, 30_000, 0), files_of(200, 30_000, 1)
    assert all(content in (old[name], new[name]) for name, content in found.items())
    assert staged(dst) == []
    assert run("sync", src, dst).exit_code == 0
    assert contents(snapshot(dst)) == new


def test_drift_that_was_put_right_is_not_remembered(src: Path, dst: Path) -> None:
    for name in [*files_of(200, 30_000, 0)][150:160]:
        (dst / name).unlink()
    options = Options(str(src), str(dst))
    with (
        contextlib.closing(Syncing(options)) as syncing,
        contextlib.closing(survey(options)) as found,
    ):
        assert syncing.run(found).healed == 10
        assert syncing._comparison.drifted.isdisjoint(files_of(200, 30_000, 0))
