"""The words of ``fsmirror backups``, in every order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command.commands import run, told


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A mirror with two backups of one path."""
    source, target = tmp_path / "src", tmp_path / "dst"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    target.mkdir()
    for number in range(2):
        (target / "a").write_bytes(b"edited %d" % number)
        assert run("sync", source, target).exit_code == 0
    return target


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
def test_each_command_of_backups_has_help_of_its_own_on_either_side_of_the_directory(
    words: str, usage: str, option: str
) -> None:
    result = run("backups", *words.split(), option)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: main backups {usage}\n")


@pytest.mark.parametrize("words", ["list dst", "--json dst", "dst --json", "-- dst", "./dst list"])
def test_backups_are_listed_whatever_the_order_of_the_words(
    edited: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(edited.parent)
    result = run("backups", *words.split())
    assert result.exit_code == 0
    if "--json" in words:
        assert len(json.loads(result.stdout)["backups"]) == 2
    else:
        assert len(result.stdout.splitlines()) == 3


def test_a_command_of_backups_stands_before_or_behind_the_directory(edited: Path) -> None:
    assert told("backups", edited, "restore", "a", "--to", "b")["to"] == "b"
    assert told("backups", "restore", edited, "a", "--to", "c")["to"] == "c"
    assert told("backups", "purge", edited, "--older-than", "1d")["purged"] == 0
    asked = run("backups", "restore", edited, "list")
    assert asked.stderr == "fsmirror: list: there is no such backup\n"


def test_a_mirror_that_is_called_as_a_command_of_backups_is_found(
    edited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited.rename(edited.with_name("restore"))
    monkeypatch.chdir(edited.parent)
    for arguments in (("restore", "list"), ("./restore",), ("list", "./restore")):
        assert len(told("backups", *arguments)["backups"]) == 2
    assert told("backups", "restore", "restore", "a", "--to", "b")["to"] == "b"
