"""Declared modes and times of files and folders, also after later changes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.states import Signature, proves, signature_of
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._mirror import batch as batch_module
from tests.support import (
    FAR,
    Mount,
    backups,
    delete,
    exact_state,
    folder,
    link,
    send_far,
    snapshot,
    write,
)

THEN = 1_000_000_000_987_654_321


def _mtime(path: Path) -> int:
    """Returns the mtime, in nanoseconds."""
    return path.lstat().st_mtime_ns


@pytest.mark.parametrize("then", [THEN, 0, -5_000_000_000, 2**33 * 10**9])
def test_file_has_its_declared_time_and_a_second_run_changes_nothing(
    mirror: Mirror, root: Path, then: int
) -> None:
    mirror.apply([write("a", b"1", mtime_ns=then), write("b", b"1")])
    assert _mtime(root / "a") == then
    assert _mtime(root / "b") > THEN
    assert mirror.verify() == []
    before = exact_state(root)
    mirror.apply([write("a", b"1", mtime_ns=then), write("b", b"1")])
    assert exact_state(root) == before


def test_touched_file_is_drift_only_if_its_time_was_declared(mirror: Mirror, root: Path) -> None:
    intents = [write("asked", b"1", mtime_ns=THEN), write("free", b"1")]
    mirror.apply(intents)
    for name in ("asked", "free"):
        os.utime(root / name, ns=(5, 5))
    assert mirror.verify() == mirror.verify(content=True) == ["asked"]
    before = (root / "asked").stat().st_ino
    outcome = mirror.apply(intents)
    assert outcome.written == []
    assert (root / "asked").stat().st_ino == before
    assert (_mtime(root / "asked"), _mtime(root / "free")) == (THEN, 5)
    assert mirror.verify() == []


def test_edit_with_the_old_time_is_not_dressed_as_ours(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit happens between the plan's look and the change of the time."""
    mirror.apply([write("a", b"1", mtime_ns=THEN)])
    os.utime(root / "a", ns=(5, 5))
    real = os.open

    def edit(path: str, flags: int, *rest: int, **more: int) -> int:
        if path == "a" and not flags & os.O_CREAT and edits:
            (root / "a").write_bytes(edits.pop())
        return real(path, flags, *rest, **more)

    edits: list[bytes] = []
    intent = write("a", b"1", mtime_ns=THEN)
    plan_looks = batch_module.__dict__["view_of"]

    def looked(*args: object, **options: object) -> object:
        edits.append(b"2")
        edits.append(b"1")  # The first open is that of the plan, which reads it.
        return plan_looks(*args, **options)

    monkeypatch.setattr(batch_module, "view_of", looked)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", edit)
        mirror.apply([intent])
    assert edits == []
    assert (root / "a").read_bytes() == b"2"
    assert mirror.verify() == ["a"]


def test_changed_time_alone_is_set_without_a_write(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a", b"1", mtime_ns=THEN)])
    before = (root / "a").stat().st_ino
    assert mirror.apply([write("a", b"1", mtime_ns=THEN + 1)]).kept == ["a"]
    assert (_mtime(root / "a"), (root / "a").stat().st_ino) == (THEN + 1, before)
    assert mirror.apply([write("a", b"1")]).kept == ["a"]  # No time is declared any more.
    os.utime(root / "a")
    assert mirror.verify() == []


# Folders


def test_folder_keeps_mode_and_time_through_later_changes_in_it(mirror: Mirror, root: Path) -> None:
    mirror.apply([folder("d", mode=0o750, mtime_ns=THEN), write("d/a", b"1"), write("d/e/b", b"1")])
    changes = [
        [write("d/a", b"2"), write("d/new", b"1")],
        [delete("d/new")],
        [delete("d/e/b")],  # The folder goes.
        [write("d/e/f/g", b"1")],
        [folder("d/inner", mode=0o711, mtime_ns=THEN + 1)],
    ]
    for batch in changes:
        mirror.apply(batch)
        found = (root / "d").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o750, THEN)
        assert mirror.verify() == []
    assert _mtime(root / "d" / "inner") == THEN + 1
    assert stat.S_IMODE((root / "d" / "inner").stat().st_mode) == 0o711


def test_changed_mode_or_time_of_a_folder_is_healed(mirror: Mirror, root: Path) -> None:
    asked, free = folder("asked", mode=0o750, mtime_ns=THEN), folder("free")
    mirror.apply([asked, free])
    for name in ("asked", "free"):
        (root / name / "theirs").touch()
        (root / name).chmod(0o777)
    assert mirror.verify() == ["asked"]
    mirror.apply([asked, free])
    assert _mtime(root / "asked") == THEN
    assert stat.S_IMODE((root / "asked").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "free").stat().st_mode) == 0o777
    assert mirror.verify() == []
    before = exact_state(root)
    mirror.apply([asked, free])
    assert exact_state(root) == before


def test_undeclared_folder_keeps_its_mode_and_time(mirror: Mirror, root: Path) -> None:
    mirror.apply([folder("d", mode=0o750, mtime_ns=THEN), write("d/a", b"1")])
    mirror.apply([delete("d")])
    mirror.apply([write("d/a", b"2")])
    assert snapshot(root) == {"d": "dir", "d/a": b"2"}
    mirror.apply([delete("d/a")])
    assert snapshot(root) == {}


@pytest.mark.root
@pytest.mark.parametrize("time_ns", [FAR, -FAR], ids=["2300", "1640"])
def test_files_with_times_that_no_ledger_holds_are_kept(
    tmpfs: Callable[[str], Path], time_ns: int
) -> None:
    root = tmpfs("4m") / "root"
    intents = [write("a", b"1"), folder("d", mtime_ns=THEN), link("l", "a", mtime_ns=THEN)]
    with Mirror(root) as mirror:
        mirror.create()
        mirror.apply([folder("d")])
        (root / "a").write_bytes(b"1")
        for _ in range(2):
            send_far(root / "d", time_ns)
            send_far(root / "a", time_ns)
            mirror.apply(intents)
            assert mirror.verify() == mirror.verify(content=True) == []
            assert _mtime(root / "d") == THEN
            send_far(root / "l", time_ns)
            assert mirror.verify() == ["l"]
        (root / "a").write_bytes(b"2")
        send_far(root / "a", time_ns)
        assert mirror.verify() == ["a", "l"]
        mirror.apply([*intents, write("a", b"3")])
        assert backups(root) == [b"2"]
        send_far(root / "a", time_ns)
        mirror.apply([delete("a"), delete("d"), delete("l")])
    assert (snapshot(root), backups(root)) == ({}, [b"2"])


def test_signature_holds_no_time_beyond_64_bits() -> None:
    """Of a FUSE file system also the ctime may be anything."""
    for time_ns in (FAR, -FAR):
        seen = SimpleNamespace(st_ino=1, st_size=2, st_mtime_ns=time_ns, st_ctime_ns=time_ns)
        signature = signature_of(cast("os.stat_result", seen))
        assert signature == Signature(1, 2, (1 << 63) - 1, (1 << 63) - 1)
        assert not proves(signature, signature, coarse_now_ns())


def test_output_that_gets_an_impossible_time_is_still_kept(mirror: Mirror, root: Path) -> None:
    intents = [write("a", b"1"), write("asked", b"1", mtime_ns=THEN)]
    (root / "a").write_bytes(b"1")
    send_far(root / "a")
    mirror.apply(intents)
    send_far(root / "asked")
    assert mirror.verify() == ["asked"]
    mirror.apply(intents)
    assert mirror.verify() == []
    assert _mtime(root / "asked") == THEN
    (root / "a").write_bytes(b"2")
    send_far(root / "a")
    assert mirror.verify() == ["a"]
    mirror.apply(intents)
    assert snapshot(root) == {"a": b"1", "asked": b"1"}
    assert backups(root) == [b"2"]


@pytest.mark.root
def test_whole_second_times_cause_no_drift(mount: Mount, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", str(image)], check=True)
    point = mount(tmp_path / "disk", "-o", "loop", str(image))
    intents = [write("a", b"1", mtime_ns=THEN), folder("d", mtime_ns=THEN)]
    with Mirror(point / "root") as mirror:
        mirror.create()
        mirror.apply(intents)
        assert _mtime(point / "root" / "a") == THEN // 10**9 * 10**9
        assert mirror.verify() == []
        mirror.apply(intents)
        assert mirror.verify() == []
