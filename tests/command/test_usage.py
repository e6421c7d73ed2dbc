"""Help, bad input and errors of every command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cocoindex_fsmirror._command.backups import backups
from cocoindex_fsmirror._command.main import main
from tests.command.commands import run
from tests.command.following import PROGRAM
from tests.support import command_environment, exact_state, snapshot

PLAIN = ("status", "verify", "why", "adopt", "drop", "backups")  # Commands that take one path.


@pytest.mark.parametrize("command", ["sync", "status", "verify", "why", "backups", "drop"])
def test_every_command_has_help_with_its_exit_codes_and_json(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    looks = command in ("status", "verify", "why")
    done = "0 in order, 1 differences found" if looks else "0 done"
    done += ", 1 something was changed (with --exit-code)" if command == "sync" else ""
    assert f"Exit status: {done}, 2 used wrongly, 3 failed, 130 interrupted." in shown
    assert "--json" in shown


def test_package_can_be_run_as_the_command() -> None:
    command = [sys.executable, "-m", "cocoindex_fsmirror", "sync", "--help"]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, env=command_environment()
    ).stdout
    assert shown.startswith("Usage: python -m cocoindex_fsmirror sync ")


@pytest.mark.parametrize(
    ("words", "completed"), [("fsmirror he", "heal"), ("fsmirror sync --dr", "--dry-run")]
)
def test_shell_completes_commands_and_options(words: str, completed: str) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    for kind in ("source", "complete"):
        environment = command_environment() | asked | {"_FSMIRROR_COMPLETE": f"bash_{kind}"}
        shown = subprocess.run(
            [PROGRAM], capture_output=True, text=True, check=kind == "complete", env=environment
        ).stdout
        assert shown == f"plain,{completed}\n" if kind == "complete" else "complete" in shown


@pytest.mark.parametrize("command", ["sync", "publish", "heal"])
@pytest.mark.parametrize("option", ["--settle", "--rescan", "--poll"])
def test_times_of_watching_belong_to_it(tmp_path: Path, command: str, option: str) -> None:
    (tmp_path / "src").mkdir()
    assert run("sync", tmp_path / "src", tmp_path / "dst").exit_code == 0
    places = [tmp_path / "dst"] if command == "heal" else [tmp_path / "src", tmp_path / "other"]
    refused = run(command, *places, option, "1")
    assert (refused.exit_code, "belong to --watch" in refused.stderr) == (2, True)
    assert run(command, *places, "--watch", option, "0").exit_code == 2


@pytest.mark.parametrize("command", [*main.commands, *(f"backups {c}" for c in backups.commands)])
def test_help_of_each_command_has_an_example_with_options_that_exist(command: str) -> None:
    shown = run(*command.split(), "--help").stdout
    _, *found = re.split(rf"fsmirror {command} ", shown.partition("\n")[2])
    assert found
    for example in found:
        options = re.findall(r"(?<= )--?[a-z][a-z-]*", re.split(r'"|\n\n', example)[0])
        assert all(re.search(rf"{option}\b", shown.partition("Options:")[2]) for option in options)


def test_help_lists_commands_in_the_order_of_their_use() -> None:
    listed = run("--help").stdout.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in listed if line[2:3].strip()]
    assert names[:9] == [
        *("sync", "publish", "status", "verify", "heal", "why", "backups", "adopt", "drop"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        *(("status", "nowhere"), ("verify", "nowhere"), ("why", "nowhere/x"), ("drop", "nowhere")),
        *(("status", "plain"), ("verify", "plain"), ("why", "plain/x"), ("backups", "plain")),
        *(("drop", "plain", "--yes"), ("backups", "plain", "list"), ("status",), ("why",)),
        *(("nonsense",), ("verify", "plain", "--nonsense"), ("sync", "plain")),
        *(("backups", "plain", "purge", "--older-than", "1d"), ("backups", "plain", "restore")),
        *((command, path) for command in PLAIN for path in ("", "\udcff", "a\nb\x1b[0m")),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path)
    before = exact_state(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("fsmirror: ")
    assert result.stderr.count("\n") == 1
    assert exact_state(tmp_path) == before


@pytest.mark.parametrize("arguments", [(), ("backups",)])
def test_call_without_arguments_shows_the_help(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == run(*arguments, "--help").stdout
    assert result.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments",
    [
        *((command, "nowhere") for command in PLAIN),
        *(("sync", "nowhere", "dst"), ("sync", "src"), ("verify", "dst", "--nonsense")),
        *(("sync", "src", "dst", "--max-delete", "many"), ("backups", "dst", "restore", "none")),
        ("sync", "src", "dst", "--exclude", "!"),
    ],
)
@pytest.mark.usefixtures("target")
def test_json_shows_the_error_of_a_wrong_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, "--json")
    assert result.exit_code == 2
    assert f"fsmirror: {json.loads(result.stdout)['error']}\n" == result.stderr
    assert run(*arguments).stdout == ""


def test_path_named_like_an_option_is_no_option() -> None:
    result = run("status", "--", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr == "fsmirror: Invalid value for 'DST': Directory '--json' does not exist.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("sync", "src", "dst", "--max-delete", "0"), ""),
        (("sync", "src", "dst", "--max-delete", "0", "--dry-run"), ""),
        (("sync", "src", "dst", "--gitignore"), ""),
        (("sync", "src", "dst", "--gitignore", "--dry-run"), ""),
        (("drop", "dst"), "n\n"),
    ],
)
def test_json_shows_the_error_of_a_failed_run(
    source: Path,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    given: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(target)
    (source / "a").unlink()
    (source / ".gitignore").write_text("!")
    result = run(*arguments, "--json", input=given)
    assert result.exit_code == 3
    assert f"fsmirror: {json.loads(result.stdout)['error']}\n" in result.stderr
    assert run(*arguments, input=given).stdout == ""
    assert snapshot(target) == before


NASTY = "na\nsty\x1b[31m:smile:"
SHOWN = NASTY.encode("unicode_escape").decode()


def test_nasty_name_breaks_neither_a_line_nor_a_terminal(tmp_path: Path) -> None:
    source, target = tmp_path / NASTY, tmp_path / f"{NASTY}2"
    (source / NASTY).mkdir(parents=True)
    (source / f"{NASTY}3").symlink_to(NASTY)
    os.mkfifo(source / f"{NASTY}4")
    commands: list[tuple[object, ...]] = [
        *(("sync", source, target), ("sync", source, target, "-n"), ("status", target)),
        *(("verify", target), ("why", target), ("why", target / f"{NASTY}3")),
        *(("why", target / NASTY), ("backups", target), ("status", source), ("why", source)),
        *(("sync", source, target / f"{NASTY}5"), ("sync", tmp_path / f"{NASTY}6", target)),
        *(("backups", target, "purge", "--older-than", "1d"), ("drop", target)),
        ("drop", target, "--yes"),
    ]
    for command in commands:
        result = run(*command, input="n\n")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        told = result.output.replace("Remove 1 file from", "fsmirror: ")
        assert SHOWN in told
        assert NASTY[-7:] in told  # The name is not rendered as an emoji.
        assert all(line.isprintable() for line in told.splitlines())
        assert "sty" not in {line[:3] for line in told.splitlines()}


def test_nasty_name_breaks_no_line_of_the_log(source: Path, tmp_path: Path) -> None:
    target = tmp_path / NASTY
    run("sync", source, target)
    (target / "a").write_bytes(b"tampered")
    result = run("sync", source, target)
    assert f"{SHOWN}: foreign 'a' was moved to" in result.stderr
    assert result.stderr.count("\n") == 1
