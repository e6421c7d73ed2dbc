"""``fsmirror sync --copies`` and the figures of ``fsmirror status`` about copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.command.commands import run, told
from tests.command.following import Follower
from tests.command.syncing import sync
from tests.support import answer_of_child, backups, contents, snapshot
from tests.target.flows import Flow, memoized, ran

LARGE = 100_000


def copies_in(root: Path) -> tuple[int, int]:
    """Returns for how many files a mirror has a copy, and the bytes that these take."""
    figures = told("status", root)["copies"]
    ours = root / ".fsmirror"
    found = [path for path in ours.glob("copies*/*") if path.is_file()]
    found += [path for path in ours.glob("copies.sqlite3*") if not path.name.endswith("-shm")]
    assert figures["bytes"] == sum(path.stat().st_size for path in found)
    return figures["files"], figures["bytes"]


def test_sync_keeps_copies_only_if_all_are_asked_for(source: Path, tmp_path: Path) -> None:
    (source / "large").write_bytes(bytes(LARGE))
    root = tmp_path / "dst"
    for policy in ("auto", "none"):
        sync(source, root, "--copies", policy)
        assert copies_in(root) == (0, 0)
        assert "copies " not in run("status", root).stdout
    assert sync(source, root, "--copies", "all").exit_code == 0
    files, size = copies_in(root)
    assert files == 3
    assert size > LARGE
    sync(source, root, "--copies", "all")
    assert copies_in(root) == (files, size)
    sync(source, root)  # The default drops them again.
    assert copies_in(root)[0] == 0
    assert [*root.glob(".fsmirror/copies/*")] == []
    assert sync(source, root, "--copies", "some").exit_code == 2


def test_dry_run_of_sync_keeps_no_copies(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "dst"
    sync(source, root)
    sync(source, root, "--copies", "all", "--dry-run")
    assert copies_in(root) == (0, 0)


def test_copies_follow_changes_of_the_source(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "dst"
    sync(source, root, "--copies", "all")
    (source / "a").write_bytes(b"new")
    (source / "d" / "b").unlink()
    sync(source, root, "--copies", "all")
    assert copies_in(root)[0] == 1
    shutil.rmtree(source)
    (root / "a").unlink()
    assert run("heal", root).exit_code == 0
    assert (root / "a").read_bytes() == b"new"


def test_status_tells_of_copies_in_text_and_json(make_flow: Callable[..., Flow]) -> None:
    flow = make_flow(memoized)
    flow.files = {"a": b"A", "same": b"A", "b": b"B"}
    flow.update()
    assert copies_in(flow.root)[0] == 3
    (line,) = [each for each in run("status", flow.root).stdout.splitlines() if "  copies " in each]
    assert line.startswith("  copies       of 3 files, ")
    assert line.endswith(" (fsmirror heal restores from them)")
    assert json.loads(run("status", flow.root, "--json").stdout)["copies"]["files"] == 3


def test_drop_takes_the_copies_along(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "dst"
    (source / "large").write_bytes(bytes(LARGE))
    sync(source, root, "--copies", "all")
    assert run("drop", root, "--yes").exit_code == 0
    assert not root.exists()


# Beside others


def test_healing_beside_a_watching_sync_and_a_flow_converges(
    make_flow: Callable[..., Flow], source: Path
) -> None:
    flow = make_flow(memoized)
    flow.files = {f"f/{n}": b"%d" % n for n in range(50)}
    flow.update()
    with Follower(source, flow.root) as follower:
        assert follower.run()["written"] == 3
        for round_ in range(5):
            for name in ("a", "f/7", "f/8"):
                (flow.root / name).write_bytes(b"tampered %d" % round_)
            assert run("heal", flow.root).exit_code == 0
            (flow.root / "f" / "9").unlink()
            flow.update()
            assert ran == []
            assert contents(flow.tree).items() >= flow.files.items()
        status, _, errors = follower.rest()
    assert status == 130
    assert "Traceback" not in errors
    assert contents(flow.tree) == flow.files | contents(snapshot(source))
    assert run("verify", flow.root, "--content").exit_code == 0


def test_two_that_heal_at_once_restore_all_and_keep_one_backup(target: Path) -> None:
    (target / "a").write_bytes(b"tampered")
    (target / "d" / "b").unlink()

    def heals() -> str:
        return str(int(run("heal", target).exit_code))

    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(lambda _: answer_of_child(heals), range(3))] == ["0"] * 3
    assert contents(snapshot(target)) == {"a": b"a", "d/b": b"bb"}
    assert backups(target) == [b"tampered"]


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_heal_says_that_nothing_differs(target: Path, option: tuple[str, ...]) -> None:
    result = run("heal", target, *option)
    assert result.exit_code == 0
    if option:
        assert json.loads(result.stdout) == {
            "root": str(target),
            "restored": False,
            "healed": [],
            "backed_up": [],
            "left": [],
            "failures": [],
        }
    else:
        assert result.stdout == f"{target}: 0 paths healed\n"
