"""``--state``: a mirror keeps ledger and copies in another directory, and commands find them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command.commands import run, told
from tests.command.following import Follower
from tests.support import contents, exact_state, snapshot, unmark
from tests.target.flows import Flow, ran
from tests.target.projects import end

FILES = {"a": b"a", "d/b": b"bb"}
LOOKS = [
    ["status"],
    ["verify"],
    ["verify", "--exact"],
    ["heal", "-n"],
    ["backups", "list"],
    ["adopt", "--dry-run"],
]


@pytest.fixture
def apart(source: Path, dst: Path, state: Path) -> Path:
    """A mirror of ``source`` whose state is elsewhere."""
    assert run("sync", source, dst, "--state", state, "--copies", "all").exit_code == 0
    return dst


def folders(state: Path) -> list[str]:
    """Lists the state folders in a state directory, by the names of their roots."""
    return sorted(each.name.rpartition("-")[0] for each in state.iterdir())


def test_mirror_holds_nothing_of_ours(source: Path, apart: Path, state: Path) -> None:
    assert sorted(os.listdir(apart)) == ["a", "d", "link"]
    assert folders(state) == ["dst"]
    before = exact_state(apart)
    run("sync", source, apart, "--state", state, "--copies", "all")
    assert exact_state(apart) == before


@pytest.mark.parametrize("look", LOOKS, ids=str)
@pytest.mark.parametrize("is_gone", [False, True])
def test_look_with_the_state_directory(
    apart: Path, state: Path, look: list[str], is_gone: bool
) -> None:
    if is_gone:
        shutil.rmtree(apart)
    before = exact_state(apart.parent)
    result = run(*look, apart, "--state", state)
    lacks = is_gone and look[0] in {"status", "verify"}
    if is_gone and look[0] == "adopt":
        assert (result.exit_code, "is missing" in result.stderr) == (3, True)
    else:
        assert (result.exit_code, result.stderr) == (int(lacks), "")
    assert exact_state(apart.parent) == before


@pytest.mark.parametrize("look", [*LOOKS, ["drop", "--yes"]], ids=str)
def test_command_without_the_state_directory_says_how_to_name_it(
    apart: Path, look: list[str]
) -> None:
    unmark(apart)
    result = run(*look, apart)
    assert result.exit_code == 2
    assert "is no mirror" in result.stderr
    assert "--state" in result.stderr or look[0] == "backups"


def test_why_finds_the_mirror_of_a_path(apart: Path, state: Path) -> None:
    assert "managed, a file" in run("why", apart / "d" / "b", "--state", state).stdout
    assert "managed, a file" in run("why", apart / "d" / "b").stdout
    unmark(apart)
    assert run("why", apart / "d" / "b").exit_code == 2


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_mark_on_the_root_tells_where_the_state_is(apart: Path, look: list[str]) -> None:
    assert run(*look, apart).exit_code == 0


def test_mark_of_a_copied_root_leads_nowhere(source: Path, apart: Path, state: Path) -> None:
    copied = apart.with_name("copied")
    subprocess.run(["cp", "-a", apart, copied], check=True)
    assert run("verify", copied).exit_code == 2
    assert run("sync", source, copied).exit_code == 0
    assert folders(state) == ["dst"]
    assert (copied / ".fsmirror" / "ledger.sqlite3").exists()


def test_mirror_that_is_lost_whole_is_healed(apart: Path, state: Path) -> None:
    shutil.rmtree(apart)
    foreseen = told("heal", apart, "--state", state, "-n")
    assert told("heal", apart, "--state", state)["healed"] == foreseen["healed"]
    assert contents(snapshot(apart)) == FILES
    assert run("verify", apart, "--state", state).exit_code == 0


def test_mirror_moves_its_state_and_knows_its_files_still(
    source: Path, target: Path, state: Path
) -> None:
    assert told("sync", source, target, "--state", state)["unchanged"] == 3
    assert sorted(os.listdir(target)) == ["a", "d", "link"]
    (source / "a").unlink()
    assert told("sync", source, target, "--state", state)["deleted"] == 1


def test_dry_run_moves_nothing(source: Path, target: Path, state: Path) -> None:
    before = exact_state(target.parent)
    assert told("sync", source, target, "--state", state, "-n")["changes"] == []
    assert exact_state(target.parent) == before


def test_note_is_followed_by_all_commands(source: Path, dst: Path, state: Path) -> None:
    run("sync", source, dst, "--state", state, "--state-note")
    for look in LOOKS:
        assert run(*look, dst).exit_code == 0
    (source / "a").write_bytes(b"new")
    assert told("sync", source, dst)["written"] == 1
    assert folders(state) == ["dst"]
    assert "managed" in run("why", dst / "a").stdout
    run("sync", source, dst, "--state", dst)
    assert folders(state) == []
    assert run("verify", dst).exit_code == 0
    assert not (dst / ".fsmirror" / "location").exists()


def test_look_moves_nothing_to_a_directory_that_it_names(target: Path, state: Path) -> None:
    assert run("heal", target, "--state", state).exit_code == 2
    assert run("verify", target).exit_code == 0
    assert not state.exists()


@pytest.mark.parametrize("is_gone", [False, True])
def test_drop_leaves_nothing(apart: Path, state: Path, is_gone: bool) -> None:
    if is_gone:
        shutil.rmtree(apart)
    assert run("drop", apart, "--state", state, "--yes").exit_code == 0
    assert not apart.exists()
    assert folders(state) == []


def test_backups_are_in_the_state_directory(source: Path, apart: Path, state: Path) -> None:
    (apart / "a").write_bytes(b"edited")
    run("sync", source, apart, "--state", state)
    (found,) = told("backups", "list", apart, "--state", state)["backups"]
    assert (found["path"], Path(found["where"]).read_bytes()) == ("a", b"edited")
    assert state in Path(found["where"]).parents
    shown = run("backups", "diff", apart, "a", "--state", state)
    assert (shown.exit_code, "-edited" in shown.stdout) == (1, True)
    run("backups", "restore", apart, found["where"], "--to", "b", "--state", state)
    assert (apart / "b").read_bytes() == b"edited"
    assert sorted(os.listdir(apart)) == ["a", "b", "d", "link"]
    assert told("backups", "list", apart, "--state", state)["backups"] == []


def test_backups_of_a_dropped_mirror_are_restored(source: Path, apart: Path, state: Path) -> None:
    (apart / "a").write_bytes(b"edited")
    run("sync", source, apart, "--state", state)
    assert str(state) in run("drop", apart, "--state", state, "--yes").stdout
    assert not apart.exists()
    assert run("backups", "restore", apart, "a", "--state", state).exit_code == 0
    assert (apart / "a").read_bytes() == b"edited"
    assert os.listdir(apart) == ["a"]
    assert folders(state) == []


@pytest.mark.parametrize("place", ["dst/state", "src/state", "src"])
def test_state_inside_of_the_mirror_or_the_source_is_refused(
    source: Path, dst: Path, tmp_path: Path, place: str
) -> None:
    before = exact_state(source)
    result = run("sync", source, dst, "--state", tmp_path / place)
    assert result.exit_code in {2, 3}
    assert "inside" in result.stderr
    assert exact_state(source) == before
    assert not dst.exists()


def test_watch_goes_on_while_areas_come_and_go(source: Path, dst: Path, state: Path) -> None:
    with Follower(source, dst, "--state", state) as follower:
        assert follower.run()["written"] == 3
        for number in range(3):
            (source / "new").write_bytes(b"%d" % number)
            figures = follower.run()
            assert (figures["written"], figures["failures"]) == (1, [])
        (dst / "a").write_bytes(b"edited")
        assert follower.run()["healed"] == 1
    assert contents(snapshot(dst)) == FILES | {"new": b"2"}
    assert folders(state) == ["dst"]


def test_publish_keeps_the_state_of_all_versions(source: Path, tmp_path: Path, state: Path) -> None:
    link = tmp_path / "site"
    for content in (b"one", b"two", b"three"):
        (source / "a").write_bytes(content)
        assert run("publish", source, link, "--state", state).exit_code == 0
        assert (link / "a").read_bytes() == content
    assert sorted(os.listdir(f"{link}.a")) == sorted(os.listdir(f"{link}.b")) == ["a", "d", "link"]
    assert folders(state) == ["site.a", "site.b"]
    assert run("publish", source, link, "--rollback", "--state", state).exit_code == 0
    assert (link / "a").read_bytes() == b"two"


def test_state_of_a_flow_is_found_and_healed_from(flow: Flow, state: Path) -> None:
    flow.files, flow.options = dict(FILES), {"state": state}
    flow.update()
    end(flow)
    shutil.rmtree(flow.root / "d")
    result = run("heal", flow.root, "--state", state, "--json")
    assert json.loads(result.stdout)["healed"] == ["d/b"]
    flow.update()
    assert ran == []
    assert contents(flow.tree) == FILES
