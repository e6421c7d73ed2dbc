"""Works as on Linux with the calls of macOS, through a stand-in for its C library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
LIKE_ELSEWHERE = [
    *(
        "tests/mirror/test_mirror_basics.py",
        "tests/mirror/test_heal.py",
        "tests/mirror/test_races.py",
    ),
    *(
        "tests/mirror/test_copies.py",
        "tests/mirror/test_update.py",
        "tests/disk/test_names_on_disk.py",
    ),
]
"""Tests that hold on every system."""

BEGIN = """
from tests.disk.macos import called
import errno, fcntl, logging, os, sys
from pathlib import Path
from cocoindex_fsmirror import BarrierError, Mirror

root, large = Path(sys.argv[1]), b"large" * 20_000
def update(copies="auto", **files):
    with Mirror(root) as mirror, mirror.update(copies=copies) as update:
        for name, content in files.items():
            update.write(name, content)
def count(name, *more):
    return sum(1 for call in called if call[:1 + len(more)] == (name, *more))
"""


def run(code: str, tmp_path: Path, refused: str = "") -> str:
    """Runs code after :data:`BEGIN`; returns what it prints."""
    command = [sys.executable, "-c", BEGIN + code, str(tmp_path / "root")]
    environment = {**os.environ, "MACOS_REFUSES": refused, "PYTHONPATH": str(TOP)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_files_are_exchanged_and_never_replaced(tmp_path: Path) -> None:
    run(
        """
update(a=b"1", b=b"2")
assert count("renameatx_np", 4) >= 2
called.clear()
(root / "b").write_bytes(b"edited")
update(a=b"new", b=b"2")
assert count("renameatx_np", 2) == 2
assert (root / "a").read_bytes() == b"new" and (root / "b").read_bytes() == b"2"
with Mirror(root) as mirror:
    assert [each.name for each in mirror.backups()] == ["b"]
""",
        tmp_path,
    )


def test_every_file_is_synced_to_the_drive(tmp_path: Path) -> None:
    said = run(
        """
synced = os.fsync
os.fsync = lambda fd: sys.exit("only to the cache of the drive")
update(a=b"1", b=b"2")
inodes = {call[1] for call in called if call[0] == "F_FULLFSYNC"}
assert {(root / name).stat().st_ino for name in ("a", "b", ".")} <= inodes
""",
        tmp_path,
    )
    assert "syncfs" not in said


def test_sync_falls_back_where_the_file_system_has_no_full_one(tmp_path: Path) -> None:
    run(
        """
synced = []
sync, os.fsync = os.fsync, lambda fd: synced.append(os.fstat(fd).st_ino) or sync(fd)
update(a=b"1")
assert (root / "a").stat().st_ino in synced
""",
        tmp_path,
        "F_FULLFSYNC",
    )


def test_failing_sync_is_not_believed(tmp_path: Path) -> None:
    run(
        """
update(a=b"1")
control = fcntl.fcntl
def fail(fd, command, argument=0):
    if command == 51:
        raise OSError(errno.EIO, "Input/output error")
    return control(fd, command, argument)
fcntl.fcntl = fail
try:
    update(a=b"2")
except Exception as error:
    assert "Input/output error" in str(error), repr(error)
else:
    sys.exit("the update was believed")
fcntl.fcntl = control
update(a=b"2")
assert (root / "a").read_bytes() == b"2"
""",
        tmp_path,
    )


def test_large_contents_are_kept_as_clones(tmp_path: Path) -> None:
    run(
        """
update(a=large)
os.chmod(root / "a", 0o640)
assert count("fclonefileat") == 1
(root / "a").unlink()
with Mirror(root) as mirror:
    assert mirror.heal().healed == ["a"]
assert (root / "a").read_bytes() == large
""",
        tmp_path,
    )


def test_no_clone_is_kept_where_the_file_system_shares_no_blocks(tmp_path: Path) -> None:
    run(
        """
update(a=large)
with Mirror(root) as mirror:
    assert mirror.status().copied == 0
update("all", a=large)
with Mirror(root) as mirror:
    assert mirror.status().copied == 1
""",
        tmp_path,
        "fclonefileat",
    )


def test_room_for_the_ledger_is_kept(tmp_path: Path) -> None:
    run("update(a=b'1')\nassert count('F_PREALLOCATE') > 0", tmp_path)


def test_tests_of_mirrors_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.disk.macos", *LIKE_ELSEWHERE]
    environment = {**os.environ, "MACOS_REFUSES": "fclonefileat"}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp", tmp_path / "inner"],
        cwd=TOP,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:]
