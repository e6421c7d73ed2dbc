"""Whatever could not be looked at is told, with exit status 3, and is never in order."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import FsMirrorError, Mirror
from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._disk import tree as _tree
from cocoindex_fsmirror._disk.tree import Tree
from tests.command.commands import run, told
from tests.support import exact_state, snapshot

LOOKS = (("verify",), ("verify", "--content"), ("verify", "--exact"), ("status",))


def _flip_a_page(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(4096))


def _change_a_kind(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as database:
        database.execute("UPDATE rows SET kind = 'fild' WHERE name = 'a'")
        database.commit()


@pytest.mark.parametrize("damage", [_flip_a_page, _change_a_kind])
@pytest.mark.parametrize("look", [*LOOKS, ("why",)])
def test_damaged_ledger_is_told_by_each_look(
    target: Path, damage: Callable[[Path], None], look: tuple[str, ...]
) -> None:
    ledger = target / ".fsmirror" / "ledger.sqlite3"
    damage(ledger)
    before = exact_state(target)
    command, *options = look
    arguments = (command, target / "d/b" if command == "why" else target, *options)
    result = run(*arguments)
    assert result.exit_code == 3
    assert "in order" not in result.output
    assert str(ledger) in result.stderr
    as_json = run(*arguments, "--json")
    assert as_json.exit_code == 3
    assert [*told(*arguments)] == ["error"]
    assert exact_state(target) == before


def test_sync_sets_a_damaged_ledger_aside_and_adopts(source: Path, target: Path) -> None:
    _flip_a_page(target / ".fsmirror" / "ledger.sqlite3")
    summary = told("sync", source, target)
    assert (summary["adopted"], summary["written"], summary["backed_up"]) == (3, 0, 0)
    assert run("verify", target, "--exact").exit_code == 0


# Paths that can't be looked at


@pytest.fixture
def closed_folder(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closes the folder ``d`` to this user."""
    real = Tree.folder

    def folder(tree: Tree, name: Name, besides: Name = ROOT) -> int:
        if name == "d":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(tree, name, besides)

    monkeypatch.setattr(Tree, "folder", folder)


@pytest.mark.usefixtures("closed_folder")
def test_path_in_a_closed_folder_is_unread(target: Path) -> None:
    result = run("verify", target)
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "unread    d/b",
        f"{target}: 0 paths differ, 1 path can't be read (3 files)",
    ]
    assert told("verify", target)["differences"] == [{"path": "d/b", "how": "unread"}]
    assert run("status", target).exit_code == 3
    assert "  unread       1  (fsmirror verify lists them)" in run("status", target).stdout
    figures = told("status", target)
    assert (figures["drifted"], figures["unread"]) == (0, 1)
    assert run("why", target / "d" / "b").exit_code == 3
    assert told("why", target / "d" / "b")["differs"] == "unread"
    assert Mirror(target).verify() == ["d/b"]


@pytest.mark.usefixtures("closed_folder")
def test_why_finds_the_mirror_above_a_closed_folder(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *more: Any, **options: Any) -> int:
        if str(path).startswith(str(target / "d")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert told("why", target / "d" / "b")["differs"] == "unread"
    assert run("why", target / "d" / "b").exit_code == 3


@pytest.mark.usefixtures("closed_folder")
def test_foreign_files_in_a_closed_folder_are_not_denied(source: Path, target: Path) -> None:
    (target / "mine").write_bytes(b"foreign")
    result = run("verify", target, "--exact")
    assert result.exit_code == 3
    assert {"unread    d", "foreign   mine"} <= {*result.stdout.splitlines()}
    assert {"path": "d", "how": "unread"} in told("verify", target, "--exact")["differences"]
    planned = run("sync", source, target, "--exact", "--dry-run")
    assert planned.exit_code == 3
    assert "list 'd': Permission denied" in planned.stdout
    assert "back up  mine" in planned.stdout
    synced = run("sync", source, target, "--exact")
    assert synced.exit_code == 3
    assert "list 'd': Permission denied" in synced.stderr


def test_error_of_the_disk_while_a_file_is_read_is_unread(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(_tree, "digest_of_file", fail)
    result = run("verify", target, "--content")
    assert result.exit_code == 3
    assert [line.split() for line in result.stdout.splitlines()[:2]] == [
        ["unread", "a"],
        ["unread", "d/b"],
    ]
    assert {each["how"] for each in told("verify", target, "--content")["differences"]} == {
        "unread"
    }
    assert Mirror(target).verify(content=True) == ["a", "d/b"]
    assert run("verify", target).exit_code == 0  # Each lstat proves its file.
    os.utime(target / "a", ns=(5, 5))
    assert told("verify", target)["differences"] == [{"path": "a", "how": "unread"}]
    assert run("status", target).exit_code == 3


def test_file_of_another_size_is_modified_though_it_is_unread(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tree, "_read", lambda *_: None)
    (target / "a").write_bytes(b"longer")
    assert told("verify", target)["differences"] == [{"path": "a", "how": "modified"}]
    assert run("verify", target).exit_code == 1


def test_root_that_cannot_be_opened_is_no_missing_mirror(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file would seem to be missing, and be declared again."""
    real = os.open

    def fail(path: Any, *arguments: Any, **more: Any) -> int:
        if path == str(target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", fail)
    for look in LOOKS:
        assert run(*look[:1], target, *look[1:]).exit_code == 3
    with pytest.raises(FsMirrorError):
        Mirror(target).observe()


# Newer formats


@pytest.fixture
def newer(target: Path) -> Path:
    """A mirror whose ledger a newer release has migrated, and filled with what we don't know."""
    with closing(sqlite3.connect(target / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE meta SET value = 77 WHERE key = 'format'")
        ledger.execute("UPDATE rows SET kind = 'fifo', digest = x'00'")
        ledger.execute("ALTER TABLE rows RENAME COLUMN made TO created")
        ledger.execute("DROP TABLE owners")
        ledger.commit()
    return target


@pytest.mark.parametrize(
    "arguments",
    [
        *(("status",), ("verify",), ("verify", "--exact", "--content"), ("backups",)),
        *(("backups", "restore", "a"), ("backups", "purge", "--older-than", "1d")),
        *(("drop", "--yes"), ("why",), ("sync",), ("sync", "--dry-run"), ("sync", "--exact")),
        ("sync", "--max-delete", "5"),
    ],
    ids=" ".join,
)
def test_ledger_of_a_newer_format_is_refused_by_each_command(
    source: Path, newer: Path, arguments: tuple[str, ...]
) -> None:
    before = snapshot(newer), snapshot(newer, ours=True)
    command, *rest = arguments
    at: list[object] = [source, newer] if command == "sync" else [newer]
    if command == "why":
        at = [newer / "a"]
    if command == "backups" and rest:
        command, rest = "backups", [*rest[:1], str(newer), *rest[1:]]
        at = []
    result = run(command, *at, *rest)
    assert result.exit_code == 3
    assert "has format 77" in result.stderr
    assert "update cocoindex-fsmirror" in result.stderr
    assert "has format 77" in told(command, *at, *rest)["error"]
    assert (snapshot(newer), snapshot(newer, ours=True)) == before
