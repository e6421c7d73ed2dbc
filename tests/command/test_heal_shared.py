"""``fsmirror heal`` beside other owners, memories of another time, damage and interruptions."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import LedgerError, Mirror
from cocoindex_fsmirror._mirror import heal as _heal
from tests.command.commands import run, told
from tests.command.healing import NO_COPY, healed, heals_as_foreseen
from tests.support import backups, contents, exact_state, snapshot
from tests.target.flows import Flow, failing_step, memoized, ran
from tests.target.projects import copy_over, end


@pytest.fixture
def flow(make_flow: Callable[..., Flow]) -> Flow:
    """A flow that has written four files, and has ended."""
    flow = make_flow(memoized)
    flow.files = {"a": b"A", "d/b": b"B" * 5000, "d/deep/c": b"", "e": b"E"}
    flow.update()
    end(flow)
    return flow


def test_mirror_of_two_owners_is_healed_for_both(flow: Flow, source: Path) -> None:
    shutil.rmtree(source / "d")
    (source / "a").rename(source / "synced")
    (source / "link").unlink()
    assert run("sync", source, flow.root).exit_code == 0
    for name in ("a", "synced"):
        (flow.root / name).write_bytes(b"tampered")
    assert heals_as_foreseen(flow.root) == (0, ["a", "synced"], {})
    assert contents(snapshot(flow.root)) == flow.files | {"synced": b"a"}
    flow.update()
    assert ran == []
    assert told("sync", source, flow.root)["unchanged"] == 1


def test_contested_path_is_not_called_healed(flow: Flow, source: Path) -> None:
    run("sync", source, flow.root)  # It declares the file a, too.
    assert (flow.root / "a").read_bytes() == b"a"
    assert heals_as_foreseen(flow.root) == (0, [], {})
    (flow.root / "a").unlink()
    assert heals_as_foreseen(flow.root) == (0, ["a"], {})
    assert (flow.root / "a").read_bytes() == b"a"


@pytest.mark.parametrize("kind", ["sync", "flow"])
def test_mirror_of_another_time_is_left_to_its_next_update(
    flow: Flow, source: Path, target: Path, tmp_path: Path, kind: str
) -> None:
    root = {"sync": target, "flow": flow.root}[kind]
    copy_over(root, tmp_path / "backup")
    if kind == "flow":
        flow.files["a"] = b"later"
        flow.update()
        end(flow)
    else:
        (source / "a").write_bytes(b"later")
        run("sync", source, root)
    shutil.rmtree(root / ".fsmirror")  # The files are of now, the ledger is of then.
    copy_over(tmp_path / "backup" / ".fsmirror", root / ".fsmirror")
    (root / "d" / "b").unlink()
    for _ in range(2):
        status, done, left = heals_as_foreseen(root)
        differ = [each["path"] for each in told("verify", root)["differences"]]
        assert {"a", "d/b"} <= {*differ}
        assert (status, done, [*left]) == (1, [], differ)
        assert {*left.values()} == {"the mirror was copied or put back; the next update will tell"}
    if kind == "flow":  # Also after others have opened the ledger.
        assert run("backups", root, "purge", "--older-than", "1d").exit_code == 0
        assert heals_as_foreseen(root)[:2] == (1, [])
    assert "copied or put back" in run("heal", root).stdout.splitlines()[-1]
    assert told("heal", root)["restored"]
    assert backups(root) == []


@pytest.mark.parametrize("name", ["a", "copies"])
def test_damaged_ledger_fails_the_command(flow: Flow, name: str) -> None:
    ledger = flow.root / ".fsmirror" / "ledger.sqlite3"
    ledger.write_bytes(ledger.read_bytes()[:4096] + b"\xff" * (ledger.stat().st_size - 4096))
    (flow.root / "a").unlink()
    before = exact_state(flow.root)
    for more in ((), ("--dry-run",), (name,)):
        result = run("heal", flow.root, *more, "--json")
        assert result.exit_code == 3
        assert "damaged" in json.loads(result.stdout)["error"]
    with pytest.raises(LedgerError):
        Mirror(flow.root).heal()
    assert exact_state(flow.root) == before


@pytest.mark.parametrize("step", range(0, 24, 3))
def test_interrupted_batch_is_settled_first(source: Path, target: Path, step: int) -> None:
    for name in ("a", "c"):
        (source / name).write_bytes(b"new")
    (target / "d" / "b").unlink()
    with failing_step(step):
        run("sync", source, target)
    assert healed(target)[0] in (0, 1)  # Some of the new versions may be in place by then.
    assert (target / "d" / "b").read_bytes() == b"bb"
    assert (target / "a").read_bytes() in (b"a", b"new")
    assert [*(target / ".fsmirror" / "tmp").iterdir()] == []
    run("sync", source, target)
    assert heals_as_foreseen(target) == (0, [], {})
    assert contents(snapshot(target)) == contents(snapshot(source))


def test_batch_that_can_not_be_recorded_fails_the_command(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_heal, "apply_all", lambda *_: [LedgerError("no room to record it")])
    (target / "a").unlink()
    result = run("heal", target)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "fsmirror: no room to record it\n"


def test_file_of_a_flow_is_not_taken_from_the_source_of_sync(flow: Flow, source: Path) -> None:
    flow.options["copies"] = "none"
    flow.update()
    end(flow)
    shutil.rmtree(source / "d")
    run("sync", source, flow.root)  # It takes a from the flow.
    (source / "e").write_bytes(b"E")
    (flow.root / "e").unlink()
    assert heals_as_foreseen(flow.root) == (1, [], {"e": NO_COPY})


@pytest.mark.parametrize("lost", ["some", "all"])
def test_file_in_the_place_of_a_folder_goes_only_for_what_is_healed(flow: Flow, lost: str) -> None:
    condition = {"some": "is_packed", "all": "TRUE"}[lost]
    with sqlite3.connect(flow.root / ".fsmirror" / "copies.sqlite3") as database:
        database.execute(f"DELETE FROM contents WHERE {condition}")
    database.close()
    shutil.rmtree(flow.root / "d")
    (flow.root / "d").write_bytes(b"mine")
    status, done, left = heals_as_foreseen(flow.root)
    if lost == "some":
        assert (status, done, left) == (1, ["d/deep/c"], {"d/b": NO_COPY})
        assert backups(flow.root) == [b"mine"]
    else:
        assert (status, done, left) == (1, [], {"d/b": NO_COPY, "d/deep/c": NO_COPY})
        assert (flow.root / "d").read_bytes() == b"mine"


def test_damage_that_no_look_at_files_meets_fails_the_command(flow: Flow) -> None:
    with sqlite3.connect(flow.root / ".fsmirror" / "ledger.sqlite3") as database:
        columns = 'name, owner, container, component, "by", seen'
        database.execute(f"INSERT INTO displaced ({columns}) VALUES ('x', 'o', '', '', 'y', 7)")
    database.close()
    for more in ((), ("--dry-run",)):
        assert run("heal", flow.root, *more).exit_code == 3
