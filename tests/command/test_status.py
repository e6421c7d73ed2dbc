"""``fsmirror status`` counts files, drift and backups, and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cocoindex as coco
from msgspec.structs import replace

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._core.rows import Pending
from cocoindex_fsmirror._mirror.drift import row_of
from tests.command.commands import run, told
from tests.support import exact_state
from tests.target.flows import OUT, Flow


def test_status_verify_why_and_backups_change_nothing(target: Path) -> None:
    before = exact_state(target)
    for command in (("status",), ("verify",), ("verify", "--content", "--exact"), ("backups",)):
        assert run(command[0], target, *command[1:]).exit_code == 0
    assert run("why", target / "a").exit_code == 0
    assert exact_state(target) == before


def test_status_counts_owners_files_drift_and_backups(source: Path, target: Path) -> None:
    found = told("status", target)
    (mirror,) = found.pop("mirrors")
    assert mirror.pop("since") <= found.pop("updated")
    assert mirror == {"by": f"fsmirror sync {source}", "files": 3, "lost": False}
    assert found == {
        "root": str(target),
        "files": 3,
        "folders": 1,
        "bytes": 4,
        "drifted": 0,
        "unread": 0,
        "backups": 0,
        "keep_backups": "all",
        "copies": {"files": 0, "bytes": 0},
        "restored": False,
        "orphans": 0,
    }
    (target / "a").write_bytes(b"tampered")
    result = run("status", target)
    assert result.exit_code == 1
    assert "drifted      1  (fsmirror verify lists them)" in result.stdout
    run("sync", source, target)
    assert told("status", target)["backups"] == 1


def test_status_and_verify_agree_during_a_batch(target: Path) -> None:
    with Mirror(target) as mirror:
        row = row_of(mirror.root, Name("a"))
        assert row is not None
        note = Pending("batch", ROOT, "0", False, replace(row, digest=b"1" * 16))
        mirror.session.run(lambda _tree, ledger: ledger.begin([note], durable=False))
        assert mirror.verify() == ["a"]  # It may hold what the unfinished batch wrote.
    assert told("status", target)["drifted"] == 0
    assert told("verify", target)["differences"] == []


def test_status_tells_of_files_that_a_lost_database_has_left(
    make_flow: Callable[..., Flow],
) -> None:
    async def main(flow: Flow) -> None:
        """Mounts the root in a way in which the end of an update is not noticed."""
        out = await coco.use_mount(fsmirror.declare_dir_target, OUT)
        for name, content in flow.files.items():
            out.declare_file(name, content)

    flow = make_flow(main)
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    (mirror,) = told("status", flow.root)["mirrors"]
    assert mirror["by"] == f"{flow.database} tests/target/out"
    flow.close()
    shutil.rmtree(flow.database)
    flow.files = {"a": b"1"}  # Nothing declares b any more.
    flow.update()
    for look in ("status", "verify"):
        assert told(look, flow.root)["restored"]
        assert run(look, flow.root).exit_code == 1
    flow.update()  # It goes at the beginning of the next update.
    assert [path.name for path in flow.root.glob("[ab]")] == ["a"]
    for look in ("status", "verify"):
        assert run(look, flow.root).exit_code == 0


def test_two_apps_of_one_database_may_share_a_mirror(tmp_path: Path) -> None:
    async def declares(name: str) -> None:
        out = await fsmirror.mount_dir_target(tmp_path / "out")
        out.declare_file(name, "1")

    env = coco.Environment(coco.Settings(db_path=tmp_path / "db"))
    first, second = (
        coco.App(coco.AppConfig(name, environment=env), declares, name) for name in ("a", "b")
    )
    for app in (first, second, first):
        app.update_blocking()
    found = told("status", tmp_path / "out")
    assert found["orphans"] == 0
    assert [(m["files"], m["lost"]) for m in found["mirrors"]] == [(1, False), (1, False)]
    assert run("status", tmp_path / "out").exit_code == 0
    second.drop_blocking()
    assert [path.name for path in (tmp_path / "out").glob("[ab]")] == ["a"]
