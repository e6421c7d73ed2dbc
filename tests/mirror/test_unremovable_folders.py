"""A folder of ours that may not be removed is named once, and stops nothing else."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.owners import Owner
from tests.command.syncing import sync
from tests.steps import failing_at
from tests.support import (
    OWNER,
    Mount,
    delete,
    failing,
    folder,
    ledger_rows,
    snapshot,
    staged,
    write,
)

pytestmark = pytest.mark.usefixtures("no_waiting")
RMDIR = ["rmdir"]


def test_folder_that_may_not_be_removed_fails_once(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("d/e/x", b"1"), write("a", b"1")])
    with failing_at(root / "d" / "e", errno.EPERM, RMDIR):
        with failing("remove 'd/e': Operation not permitted .is it immutable"):
            mirror.apply([delete("d/e/x"), write("a", b"2")])
        assert snapshot(root) == {"a": b"2", "d": "dir", "d/e": "dir"}
        assert mirror.verify() == []
        assert staged(root) == []
        for _ in range(2):
            mirror.prepare(Owner(OWNER), DriftReport())
            mirror.apply([delete("d/e/x"), write("a", b"2")])
        assert [row.name for row in ledger_rows(mirror)] == ["a", "d", "d/e"]
    mirror.prepare(Owner(OWNER), DriftReport())
    assert snapshot(root) == {"a": b"2"}
    assert [row.name for row in ledger_rows(mirror)] == ["a"]


def test_declared_folder_that_may_not_be_removed_fails_once(mirror: Mirror, root: Path) -> None:
    """Also if it had drifted before, and an update saw that."""
    mirror.apply([folder("d", mode=0o755)])
    (root / "d").chmod(0o700)
    mirror.prepare(Owner(OWNER), mirror.observe())
    with failing_at(root / "d", errno.EBUSY + 1000, RMDIR), failing("remove 'd'"):
        mirror.apply([delete("d")])
    assert mirror.verify() == []


def test_folder_that_is_declared_again_fails_anew(mirror: Mirror, root: Path) -> None:
    with failing_at(root / "d", errno.EPERM, RMDIR):
        for _ in range(2):
            mirror.apply([write("d/x", b"1"), folder("d")])
            with failing("remove 'd'"):
                mirror.apply([delete("d/x"), delete("d")])


def test_update_that_can_not_remove_a_folder_raises_once(mirror: Mirror, root: Path) -> None:
    with mirror.update() as files:
        files.write("d/x", b"1")
    with failing_at(root / "d", errno.EPERM, RMDIR):
        with failing("remove 'd'"), mirror.update() as files:
            files.write("y", b"1")
        with mirror.update() as files:
            files.write("y", b"2")
    assert snapshot(root) == {"d": "dir", "y": b"2"}
    with mirror.update() as files:
        files.write("y", b"2")
    assert snapshot(root) == {"y": b"2"}


def test_sync_that_can_not_remove_a_folder_fails_once(tmp_path: Path, root: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "x").write_bytes(b"1")
    assert sync(source, root).exit_code == 0
    (source / "d" / "x").unlink()
    (source / "d").rmdir()
    with failing_at(root / "d", errno.EPERM, RMDIR):
        first, second = sync(source, root, "--max-delete", "1"), sync(source, root)
    assert first.exit_code == 3
    assert first.stderr.count("remove 'd'") == 1
    assert (second.exit_code, second.stderr) == (0, "")
    assert sync(source, root).exit_code == 0
    assert snapshot(root) == {}


def test_deserted_folder_that_may_not_be_removed_is_logged_once(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder is deserted if it stayed for a foreign file that went later."""
    mirror.apply([write("d/x", b"1")])
    (root / "d" / "theirs").write_bytes(b"foreign")
    mirror.apply([delete("d/x")])
    (root / "d" / "theirs").unlink()
    with failing_at(root / "d", errno.EPERM, RMDIR):
        for _ in range(2):
            mirror.prepare(Owner(OWNER), DriftReport())
    assert caplog.text.count("remove 'd': Operation not permitted") == 1


def test_second_teardown_leaves_a_folder_that_it_may_not_remove(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("d/x", b"1"), write("y", b"1")])
    with failing_at(root / "d", errno.EPERM, RMDIR):
        with failing("remove 'd'"):
            mirror.tear_down(OWNER)
        assert snapshot(root) == {"d": "dir"}
        assert mirror.tear_down(OWNER).left == ["d"]
    assert "left in place" in caplog.text
    assert snapshot(root) == {"d": "dir"}


def test_teardown_that_fails_calls_nothing_of_ours_foreign(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("d/x", b"1"), write("d/y", b"1")])
    with failing_at(root / "d*", errno.EPERM, [*RMDIR, "rename"]):
        for _ in range(2):
            with failing("remove 'd/x'"):
                mirror.tear_down(OWNER)
    assert "not ours" not in caplog.text


def test_state_folder_that_may_not_be_removed_does_not_fail_a_teardown(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.apply([write("x", b"1")])
    with failing_at(root / ".fsmirror", errno.EPERM, RMDIR):
        mirror.tear_down(OWNER)
    assert "'.fsmirror' can't be removed" in caplog.text
    assert snapshot(root) == {}


@pytest.mark.root
def test_mount_point_that_was_a_folder_of_ours_stays(
    mirror: Mirror, root: Path, mount: Mount
) -> None:
    mirror.apply([write("d/x", b"1"), write("y", b"1")])
    (root / "d" / "x").unlink()
    mount(root / "d", "-t", "tmpfs", "tmpfs")
    mirror.apply([delete("d/x"), write("y", b"2")])
    assert snapshot(root) == {"d": "dir", "y": b"2"}
    assert mirror.verify() == []
    with pytest.raises(ApplyError, match="z"):
        mirror.apply([write("z/x", b"1"), write("z", b"1")])
