"""An adopted file fares as ``fsmirror why`` says; ``fsmirror adopt`` makes it count as written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror._mirror import adopt as _adopt
from tests.command.commands import run, told
from tests.support import backups, contents, exact_state, snapshot
from tests.target.flows import Flow


@pytest.fixture(params=["flow", "sync"])
def adopted(
    request: pytest.FixtureRequest, tmp_path: Path, make_flow: Callable[..., Flow]
) -> tuple[Path, Callable[[], object]]:
    """A mirror with an adopted file ``a``, and a function that no longer declares it."""
    flow, source = make_flow(), tmp_path / "source"
    flow.root.mkdir()
    (flow.root / "a").write_bytes(b"a")
    if request.param == "sync":
        source.mkdir()
        for name in ("a", "b"):
            (source / name).write_bytes(name.encode())
        assert run("sync", source, flow.root).exit_code == 0

        def undeclare() -> None:
            (source / "a").unlink()
            assert run("sync", source, flow.root).exit_code == 0

        return flow.root, undeclare
    flow.files = {"a": b"a", "b": b"b"}
    flow.update()

    def undeclare_in_flow() -> None:
        flow.files = {"b": b"b"}
        flow.update()

    return flow.root, undeclare_in_flow


def test_undeclared_adopted_file_is_backed_up_as_why_says(
    adopted: tuple[Path, Callable[[], object]],
) -> None:
    root, undeclare = adopted
    assert (
        "by default, it goes to the backup area once it is no longer declared"
        in run("why", root / "a").stdout
    )
    undeclare()
    assert not (root / "a").exists()
    assert backups(root) == [b"a"]


def test_adopted_file_survives_a_drop_as_why_says(
    adopted: tuple[Path, Callable[[], object]],
) -> None:
    root, _ = adopted
    assert (
        "origin       found there, not written by us: drop leaves it in place;"
        in run("why", root / "a").stdout
    )
    assert run("drop", root, "--yes").exit_code == 0
    assert contents(snapshot(root)) == {"a": b"a"}


def test_claimed_file_is_removed_without_a_backup(
    adopted: tuple[Path, Callable[[], object]],
) -> None:
    root, undeclare = adopted
    assert told("adopt", root) == {"root": str(root), "adopted": ["a"], "differ": []}
    assert "origin" not in run("why", root / "a").stdout
    undeclare()
    assert not (root / "a").exists()
    assert backups(root) == []


@pytest.fixture
def found(src: Path, dst: Path) -> Path:
    """A mirror of ``src`` in which everything was found right."""
    shutil.copytree(src, dst, symlinks=True)
    assert run("sync", src, dst).exit_code == 0
    return dst


def test_drop_removes_claimed_files_links_and_folders(found: Path) -> None:
    (found / "mine").write_bytes(b"mine")
    assert run("adopt", found).stdout.endswith(": 10 paths adopted\n")
    assert run("verify", found).exit_code == 0
    assert run("drop", found, "--yes").exit_code == 0
    assert snapshot(found) == {"mine": b"mine"}


def test_edited_file_is_not_claimed(found: Path) -> None:
    (found / "index.html").write_bytes(b"edited")
    (found / "docs/link").unlink()
    result = run("adopt", found)
    assert result.exit_code == 0
    assert "modified  index.html" in result.stdout
    assert ": 8 paths adopted, 2 stay yours\n" in result.stdout
    assert told("adopt", found)["differ"] == ["docs/link", "index.html"]
    assert run("drop", found, "--yes").exit_code == 0
    assert contents(snapshot(found)) == {"index.html": b"edited"}


def test_dry_run_of_adopt_lists_and_changes_nothing(found: Path) -> None:
    before = exact_state(found)
    assert "adopt     docs/deep/run.sh\n" in run("adopt", found, "--dry-run").stdout
    assert len(told("adopt", found, "--dry-run")["adopted"]) == 10
    assert exact_state(found) == before
    assert len(told("adopt", found)["adopted"]) == 10
    assert told("adopt", found)["adopted"] == []


def test_names_that_are_not_utf_8_are_claimed(
    src: Path, dst: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_adopt, "_PAGE", 1)
    for name in (b"\xff", b"\xffa", "\u1000".encode(), b"\xed\xa0"):
        (src / os.fsdecode(name)).write_bytes(name)
    shutil.copytree(src, dst, symlinks=True)
    assert run("sync", src, dst).exit_code == 0
    assert run("adopt", dst).stdout.endswith(": 14 paths adopted\n")
    assert run("drop", dst, "--yes").exit_code == 0
    assert snapshot(dst) == {}


@pytest.mark.parametrize("page", [1, 3])
def test_all_pages_are_claimed_with_the_folders_above(
    tmp_path: Path, make_flow: Callable[..., Flow], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(_adopt, "_PAGE", page)
    flow = make_flow()
    flow.files = {f"d/{number}/{number}": b"1" for number in range(4)}
    for name, content in flow.files.items():
        (flow.root / name).parent.mkdir(parents=True)
        (flow.root / name).write_bytes(content)
    flow.update()
    assert len(told("adopt", flow.root)["adopted"]) == 4
    flow.files = {}
    flow.update()
    assert (flow.tree, backups(flow.root)) == ({}, [])
