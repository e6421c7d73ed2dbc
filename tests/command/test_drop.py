"""``fsmirror drop`` asks, removes what was mirrored, and says what stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.command.commands import run, told
from tests.support import backups, contents, snapshot
from tests.target.flows import Flow


def test_drop_asks_first(target: Path) -> None:
    before = snapshot(target)
    for answer in ("n\n", "\n"):
        result = run("drop", target, input=answer)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith(f"Remove 3 files from {target}?")
        assert result.stderr.endswith("fsmirror: nothing was removed\n")
        assert snapshot(target) == before
    result = run("drop", target, input="")
    assert (result.exit_code, snapshot(target)) == (2, before)
    assert result.stderr.endswith("fsmirror: no terminal to ask on; pass --yes\n")
    assert run("drop", target, input="y\n").exit_code == 0
    assert not target.exists()


def test_drop_removes_mirrored_files_and_only_those(source: Path, target: Path) -> None:
    (target / "mine").write_bytes(b"mine")
    (target / "d" / "b").write_bytes(b"edited")
    found = told("drop", target, "--yes")
    assert found == {"root": str(target), "deleted": 2, "left": ["d/b", "mine"]}
    assert contents(snapshot(target)) == {"mine": b"mine", "d/b": b"edited"}
    assert not (target / ".fsmirror").exists()
    assert run("status", target).exit_code == 2
    assert run("sync", source, target).exit_code == 0
    assert (target / "a").read_bytes() == b"a"


def test_drop_names_files_of_several_mirrors_that_stay(
    source: Path, target: Path, make_flow: Callable[..., Flow]
) -> None:
    flow = make_flow()
    flow.files = {"flow/a": b"1", "flow/b": b"2"}
    flow.update()
    assert run("sync", source, flow.root).exit_code == 0
    (flow.root / "flow" / "b").write_bytes(b"edited")
    result = run("drop", flow.root, "--yes")
    assert result.stdout == f"{flow.root}: 4 files deleted, 1 path left that is not ours\n"
    assert result.stderr == (
        f"fsmirror: {flow.root}: left in place, since it is not ours: 'flow/b'\n"
    )
    assert contents(snapshot(flow.root)) == {"flow/b": b"edited"}


def test_drop_keeps_the_backups(edited: Path) -> None:
    result = run("drop", edited, "--yes")
    assert result.exit_code == 0
    assert result.stdout.endswith(f"{edited}: 2 backups kept in .fsmirror/backup\n")
    assert backups(edited) == [b"edited 0", b"edited 1"]
    assert not (edited / ".fsmirror" / "engine").exists()
    assert snapshot(edited) == {}
