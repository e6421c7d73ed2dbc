"""``fsmirror why`` says where a path comes from, and how it differs."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.command.commands import run, told


def test_why_shows_owner_time_and_difference_of_a_path(source: Path, target: Path) -> None:
    found = told("why", target / "d" / "b")
    assert found.pop("written").endswith(" UTC")
    assert len(found.pop("fingerprint")) == 32
    assert found == {
        "root": str(target),
        "path": "d/b",
        "state": "managed",
        "kind": "file",
        "by": f"fsmirror sync {source}",
        "component": "",
        "bytes": 2,
        "target": "",
        "adopted": False,
        "differs": "",
    }
    (target / "d" / "b").unlink()
    result = run("why", target / "d" / "b")
    assert result.exit_code == 1
    assert "now          missing" in result.stdout


def test_why_knows_links_folders_adopted_foreign_and_absent_paths(
    source: Path, target: Path, tmp_path: Path
) -> None:
    (target / "mine").touch()
    assert "target       a" in run("why", target / "link").stdout
    assert "d: managed, a dir" in run("why", target / "d").stdout
    assert "foreign: not written by a mirror" in run("why", target / "mine").stdout
    assert "absent, and not managed" in run("why", target / "nothing").stdout
    shutil.copytree(source, tmp_path / "copy", symlinks=True)
    run("sync", source, tmp_path / "copy")
    assert "not written by us" in run("why", tmp_path / "copy" / "a").stdout


def test_why_knows_the_mirror_itself_and_our_own_folder(
    source: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("dst")
    for path in (
        target,
        f"{target}/d/..",
        f"{target}/.",
        f"{target}/",
        f"{target}/d/../",
        tmp_path / "link",
    ):
        result = run("why", path)
        assert (result.exit_code, result.stdout) == (0, f"{target}: the mirror itself\n")
    assert told("why", target) == {"root": str(target), "path": ".", "state": "mirror"}
    for name in (".fsmirror", ".fsmirror/ledger.sqlite3", ".fsmirror/nothing"):
        result = run("why", target / name)
        assert result.exit_code == 0
        assert "holds the ledger and the backups of the mirror" in result.stdout
        assert told("why", target / name) == {"root": str(target), "path": name, "state": "ours"}


def test_why_resolves_a_path_as_the_system_does(source: Path, target: Path, tmp_path: Path) -> None:
    for path in (f"{target}/d/../a", f"{target}/d/./../a", tmp_path / "src" / ".." / "dst" / "a"):
        assert "a: managed, a file" in run("why", path).stdout
    (source / "to a mirror").symlink_to(tmp_path / "other")
    run("sync", source, target)
    run("sync", source, tmp_path / "other")
    assert "to a mirror: managed, a link" in run("why", target / "to a mirror").stdout
