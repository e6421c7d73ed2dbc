"""Rows and copies agree after a death at any step, a power cut, and on full disks."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.ownership import CopyPolicy, Policies
from cocoindex_fsmirror._mirror.contents import Contents
from tests.crash.disks import Cut, Disk, made_disk
from tests.crash.harness import die_at, leave_out_barriers, lose_power_after, lose_power_at
from tests.disk.test_turns import KIB, files_of, fill
from tests.mirror.keeping import copies, declare, large, names_of, recorded
from tests.support import contents, snapshot, staged, write

OLD = {
    "gone": b"gone" * 2000,
    "large": b"large, old" * 9999,
    "replaced": b"old",
    "same": b"same",
}
NEW = {"large": b"large, new" * 9999, "new/x": b"x" * 5000, "replaced": b"new", "same": b"same"}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Leaves out the log."""
    caplog.set_level("CRITICAL")


def lay_out(root: Path, policy: CopyPolicy = "all") -> None:
    """Makes the old mirror, and loses one of its files."""
    with Mirror(root) as mirror:
        declare(mirror, OLD, copies=policy)
        mirror.prepare(Owner("one"), DriftReport(), policies=Policies("all", "backup"))
        theirs = {"one/edited": b"edits", "one/large": b"one's" * 9999, "one/same": b"same"}
        mirror.apply([write(name, content, owner="one") for name, content in theirs.items()])
    (root / "same").unlink()


def update(root: Path, policy: CopyPolicy = "all") -> None:
    """Brings the new files to the disk."""
    with Mirror(root) as mirror:
        declare(mirror, NEW, copies=policy)


def heal(root: Path) -> None:
    """Heals what was lost."""
    with Mirror(root) as mirror:
        mirror.heal()


def lose_some(root: Path) -> None:
    """Heals large and small contents, one of which is damaged."""
    copy = large(root, OLD["large"])
    copy.write_bytes(copy.read_bytes().upper())
    for name in ("large", "gone"):
        (root / name).unlink()


def change_policy(root: Path) -> None:
    """Drops all copies, and copies everything again."""
    with Mirror(root) as mirror:
        for policy in ("none", "auto", "all"):
            declare(mirror, OLD, copies=policy)


def end_owner(root: Path) -> None:
    """Tears down one of two owners; what somebody has edited stays, and nobody knows it."""
    if (root / "one").exists():
        (root / "one" / "edited").write_bytes(b"edited")
    with Mirror(root) as mirror:
        mirror.tear_down("one")


ACTS: list[Callable[[Path], None]] = [update, heal, change_policy, end_owner]


def problems(root: Path) -> list[str]:
    """Lists contents without a row that refers to them, and rows without their copy."""
    found, told = copies(root), recorded(root)
    return [f"orphan: {each}" for each in found - told] + [f"lost: {e}" for e in told - found]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("part", range(2))
def test_rows_and_copies_agree_after_a_death_at_any_step(
    act: Callable[[Path], None], part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_barriers(monkeypatch)
    wrong: dict[str, list[str]] = {}
    for step in itertools.count(part + 1, 2):
        root = tmp_path / "root"
        lay_out(root)
        if act is heal:
            lose_some(root)
        name = die_at(step, lambda root=root: act(root))  # type: ignore[misc]
        act(root)
        found = problems(root)
        update(root)
        found += [f"later, {each}" for each in problems(root)]
        for path in NEW:
            (root / path).unlink()
        with Mirror(root) as mirror:
            if mirror.heal().healed != sorted(NEW):
                found.append("not all was healed")
        wrong[f"{step}, {name}"] = found
        shutil.rmtree(root)
        if name is None:
            break
    assert len(wrong) > 20
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.root
def test_copies_survive_a_power_cut_that_the_ledger_survives(disk: Disk) -> None:
    root = disk.at / "root"
    lay_out(root)
    disk.sync()
    mirror = Mirror(root)  # Its databases stay open, as in an engine's process.
    lose_power_after(disk, lambda: declare(mirror, NEW))
    with Mirror(root) as again:
        again.create()  # Recovers, if the record was lost.
        assert problems(root) == []
        for name in NEW:
            (root / name).unlink()
        assert again.heal().healed == sorted(NEW)
    assert {name: (root / name).read_bytes() for name in NEW} == NEW


@pytest.mark.root
def test_power_cut_in_a_batch_leaves_no_orphans(disk: Disk) -> None:
    wrong = {}
    for step in itertools.count(7, 13):
        root = disk.at / f"root-{step}"
        lay_out(root)
        disk.sync()
        name = lose_power_at(step, disk, lambda root=root: update(root))  # type: ignore[misc]
        update(root)
        wrong[f"{step}, {name}"] = problems(root)
        for path in NEW:
            (root / path).unlink()
        with Mirror(root) as mirror:
            assert mirror.heal().healed == sorted(NEW), (step, name)
        if name is None:
            break
    assert len(wrong) > 5
    assert {step: found for step, found in wrong.items() if found} == {}


@pytest.mark.root
@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_large_contents_are_kept_as_clones_where_blocks_are_shared(
    kind: str, tmp_path: Path
) -> None:
    size = 24 << 20
    content = os.urandom(size)
    with made_disk(Cut(kind, "copy"), tmp_path / "disks") as made, Mirror(made.at / "r") as mirror:
        declare(mirror, {"x": content}, copies="auto")
        assert copies(made.at / "r") == recorded(made.at / "r") == names_of(content)
        made.sync()
        used = (os.statvfs(made.at).f_blocks - os.statvfs(made.at).f_bfree) * 4096
        (made.at / "r" / "x").unlink()
        assert mirror.heal().healed == ["x"]
        assert (made.at / "r" / "x").read_bytes() == content
        made.sync()
        now = (os.statvfs(made.at).f_blocks - os.statvfs(made.at).f_bfree) * 4096
        assert now - used < size // 2  # What was healed shares its blocks, too.
        (made.at / "r" / "x").write_bytes(b"edited in place")
        assert mirror.heal().healed == ["x"]
        assert (made.at / "r" / "x").read_bytes() == content
        declare(mirror, {}, copies="auto")
        assert copies(made.at / "r") == set()


@pytest.mark.parametrize("policy", ["auto", "all"])
def test_copies_give_way_to_outputs_on_a_full_disk(
    tmpfs: Callable[[str], Path], policy: CopyPolicy
) -> None:
    disk = tmpfs("8m")
    root = disk / "root"
    small, large_ones = files_of(60, 30_000, 0), files_of(10, 150_000, 0)
    files = small | {f"large/{name}": content for name, content in large_ones.items()}
    with Mirror(root) as mirror:
        declare(mirror, files, copies=policy)  # 3.3 MB, and as much in copies.
        fill(disk, 300 * KIB)
        more = files | {f"more/{name}": c for name, c in files_of(30, 30_000, 1).items()}
        declare(mirror, more, copies=policy)  # 900 KiB, where copies are.
        assert contents(snapshot(root)) == more
        assert copies(root) == recorded(root)
        assert mirror.verify(content=True) == []
        last = {name: content[::-1] for name, content in more.items()}
        declare(mirror, last, copies=policy)
        assert contents(snapshot(root)) == last
        assert copies(root) == recorded(root)
        assert staged(root) == []


def test_changed_policy_fills_no_disk(tmpfs: Callable[[str], Path]) -> None:
    disk = tmpfs("8m")
    root = disk / "root"
    files = files_of(30, 100_000, 0)
    with Mirror(root) as mirror:
        declare(mirror, files, copies="none")
        fill(disk, 1000 * KIB)
        for _ in range(2):
            declare(mirror, files, copies="all")
            assert copies(root) == recorded(root)
        new = {name: content[::-1] for name, content in files.items()}
        declare(mirror, new, copies="all")
        assert contents(snapshot(root)) == new
        assert copies(root) == recorded(root) == set()  # They would take the room of what waits.


_LIMITED = """
import resource, sys
from pathlib import Path
from cocoindex_fsmirror import ApplyError, LedgerError, Mirror
from tests.disk.test_turns import files_of
from tests.mirror.keeping import declare
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))
with Mirror(Path(sys.argv[1])) as mirror:
    declare(mirror, files_of(40, 30_000, 1))
    assert mirror.verify(content=True) == []
"""


def test_limit_of_file_sizes_stops_copies_and_not_outputs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    command = [sys.executable, "-c", _LIMITED, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(snapshot(root)) == files_of(40, 30_000, 1)
    with Mirror(root) as mirror:
        mirror.create()
        assert copies(root) == recorded(root)
        declare(mirror, files_of(40, 30_000, 2))
    assert copies(root) == recorded(root) == names_of(*files_of(40, 30_000, 2).values())


def test_read_only_database_of_copies_stops_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    lay_out(root)
    database = root / ".fsmirror" / "copies.sqlite3"
    with monkeypatch.context() as patch:
        patch.setattr(Contents, "_options", lambda _self, _folder: "mode=ro")
        update(root)
        with Mirror(root) as mirror:
            assert mirror.verify(content=True) == []
            (root / "same").unlink()
            assert mirror.heal().healed in ([], ["same"])
    assert database.exists()
    update(root)
    (root / "same").unlink()
    heal(root)
    assert (root / "same").exists() or "same" in Mirror(root).verify()
