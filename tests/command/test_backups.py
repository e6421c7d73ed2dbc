"""``fsmirror backups`` lists, restores and purges, whatever the order of its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror._mirror.session import Session
from tests.command.commands import run, told
from tests.support import backups


def test_backups_are_listed_the_oldest_first(edited: Path) -> None:
    found = told("backups", edited)
    assert [each["path"] for each in found["backups"]] == ["a", "a"]
    assert found["bytes"] == 16
    assert told("backups", edited, "list") == found
    lines = run("backups", edited).stdout.splitlines()
    assert lines[-1] == f"{edited}: 2 backups, 16 B"
    assert lines[0].endswith("Z/a") or lines[0].endswith("/a")


def test_backup_is_restored_to_another_path_and_replaces_nothing(edited: Path) -> None:
    result = run("backups", edited, "restore", "a")
    assert result.exit_code == 3
    assert "something is there already" in result.stderr
    assert told("backups", edited, "restore", "a", "--to", "mine/a")["to"] == "mine/a"
    assert (edited / "mine" / "a").read_bytes() == b"edited 1"
    shown = run("backups", edited).stdout.split()[5]
    (edited / "a").unlink()
    assert run("backups", edited, "restore", shown).exit_code == 0
    assert (edited / "a").read_bytes() == b"edited 0"
    assert backups(edited) == []


@pytest.mark.parametrize("path", ["nothing", "../a", "/etc/passwd", ""])
def test_restore_of_a_missing_backup_is_one_line(edited: Path, path: str) -> None:
    result = run("backups", edited, "restore", path)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("to", ["../x", "/tmp/x", ".fsmirror/x", ""])
def test_nothing_is_restored_out_of_the_mirror(edited: Path, to: str) -> None:
    result = run("backups", edited, "restore", "a", "--to", to)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert len(backups(edited)) == 2


def test_old_backups_are_purged(edited: Path) -> None:
    assert told("backups", edited, "purge", "--older-than", "1h")["purged"] == 0
    assert len(backups(edited)) == 2
    first, second = sorted((edited / ".fsmirror" / "backup").iterdir())
    first.rename(first.with_name("2020-01-01T000000Z"))
    result = run("backups", edited, "purge", "--older-than", "30d")
    assert result.stdout == f"{edited}: 1 backup purged, 8 B\n"
    assert [path.name for path in (edited / ".fsmirror" / "backup").iterdir()] == [second.name]
    for age in ("0", "30", "d", "-1d", "1.5d", "1y"):
        result = run("backups", edited, "purge", "--older-than", age)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "words",
    ["backups {} restore a --to b", "backups {} purge --older-than 1h", "drop --yes {}"],
    ids=["restore", "purge", "drop"],
)
def test_command_closes_the_ledger_that_it_opened(
    edited: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Session] = []
    real = Session._locked

    def lock(session: Session, **options: bool) -> Any:
        opened.append(session)
        return real(session, **options)

    monkeypatch.setattr(Session, "_locked", lock)
    assert run(*words.format(edited).split()).exit_code == 0
    assert opened
    assert {session.ledger for session in opened} == {None}


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("", "[OPTIONS] [COMMAND] DST ..."),
        ("dst", "[OPTIONS] [COMMAND] DST ..."),
        *((words, "list [OPTIONS] DST") for words in ("list", "list dst", "dst list")),
        ("restore", "restore [OPTIONS] DST PATH"),
        ("dst restore", "restore [OPTIONS] DST PATH"),
        ("dst restore a", "restore [OPTIONS] DST PATH"),
        *((words, "purge [OPTIONS] DST") for words in ("purge", "dst purge")),
    ],
)
def test_subcommand_has_its_own_help_on_either_side_of_the_directory(
    words: str, usage: str, option: str
) -> None:
    result = run("backups", *words.split(), option)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: main backups {usage}\n")


@pytest.mark.parametrize("words", ["list dst", "--json dst", "dst --json", "-- dst", "./dst list"])
def test_backups_are_listed_in_any_order_of_the_words(
    edited: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(edited.parent)
    result = run("backups", *words.split())
    assert result.exit_code == 0
    if "--json" in words:
        assert len(json.loads(result.stdout)["backups"]) == 2
    else:
        assert len(result.stdout.splitlines()) == 3


def test_subcommand_stands_before_or_behind_the_directory(edited: Path) -> None:
    assert told("backups", edited, "restore", "a", "--to", "b")["to"] == "b"
    assert told("backups", "restore", edited, "a", "--to", "c")["to"] == "c"
    assert told("backups", "purge", edited, "--older-than", "1d")["purged"] == 0
    asked = run("backups", "restore", edited, "list")
    assert asked.stderr == "fsmirror: list: there is no such backup\n"


def test_mirror_named_like_a_subcommand_is_found(
    edited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited.rename(edited.with_name("restore"))
    monkeypatch.chdir(edited.parent)
    for arguments in (("restore", "list"), ("./restore",), ("list", "./restore")):
        assert len(told("backups", *arguments)["backups"]) == 2
    assert told("backups", "restore", "restore", "a", "--to", "b")["to"] == "b"


def _diff(root: Path, path: str) -> tuple[int, list[str]]:
    """Returns exit status and lines of a comparison."""
    result = run("backups", root, "diff", path)
    assert result.stderr == ""
    return result.exit_code, result.stdout.splitlines()


def test_backup_is_compared_with_the_file_that_came_instead(edited: Path) -> None:
    (edited / "a").write_bytes(b"one\ntwo\nthree\n")
    (target := max((edited / ".fsmirror" / "backup").iterdir()) / "a").write_bytes(
        b"one\nzwei\x1b[31m\t\nthree\n"
    )
    where = str(target.relative_to(edited))
    assert _diff(edited, "a") == (
        1,
        [
            f"--- {where}",
            "+++ a",
            "@@ -1,4 +1,4 @@",
            " one",
            "-zwei\\x1b[31m\t",
            "+two",
            " three",
            " ",
        ],
    )
    assert _diff(edited, where) == _diff(edited, "a")
    assert told("backups", edited, "diff", "a")["diff"][4] == "-zwei\x1b[31m\t"


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (b"edited 1", None),
        (b"edited 1\n", "+"),
        (b"\xff", "differ, but not in lines of text"),
        (bytes(5 << 20), "differ, but not in lines of text"),
        (None, "-edited 1"),
        ("nowhere", "+a link to nowhere"),
    ],
)
def test_backup_is_compared_with_whatever_is_there(
    edited: Path, there: bytes | str | None, says: str | None
) -> None:
    (edited / "a").unlink()
    if isinstance(there, str):
        (edited / "a").symlink_to(there)
    elif there is not None:
        (edited / "a").write_bytes(there)
    status, lines = _diff(edited, "a")
    assert status == (says is not None)
    assert (says in lines or lines[0].endswith(says)) if says else lines == []


def test_comparison_with_no_backup_is_one_line(edited: Path) -> None:
    result = run("backups", edited, "diff", "nothing")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
