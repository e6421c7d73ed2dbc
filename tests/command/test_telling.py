"""A run of ``fsmirror sync`` or ``publish`` tells more or less, also by its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command.commands import run
from tests.command.syncing import sync
from tests.support import command_environment


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A source that is mirrored, and has changed in every way since."""
    source, mirror = tmp_path / "src", tmp_path / "dst"
    for name in ("changed", "d/gone", "healed", "mode", "old/gone"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    assert sync(source, mirror).exit_code == 0
    (source / "changed").write_text("changed since")
    (source / "d" / "gone").unlink()
    (source / "old" / "gone").unlink()
    (source / "old").rmdir()
    (source / "mode").chmod(0o600)
    (source / "new").mkdir()
    (source / "new" / "link").symlink_to("nowhere")
    (source / "found").write_text("found")
    (mirror / "found").write_text("found")
    times = (source / "found").stat()
    os.utime(mirror / "found", ns=(times.st_atime_ns, times.st_mtime_ns))
    (mirror / "healed").write_text("edited")
    return source


DONE = {
    ("write", "changed"),
    ("write", "new/link"),
    ("heal", "healed"),
    ("back up", "healed"),
    ("update", "mode"),
    ("update", "d/"),
    ("update", "./"),
    ("make", "new/"),
    ("adopt", "found"),
    ("delete", "d/gone"),
    ("delete", "old/gone"),
    ("delete", "old/"),
}


def _parsed(line: str) -> tuple[str, str]:
    """Returns the word and the path of a line."""
    return line[:8].strip(), line[8:].strip().partition("  (")[0]


def _figures(shown: str) -> dict[str, Any]:
    """Parses an object."""
    figures: dict[str, Any] = json.loads(shown)
    return figures


@pytest.mark.parametrize("option", ["-v", "--verbose", "-i", "--itemize-changes"])
def test_verbose_run_lists_each_path_with_what_was_done(src: Path, dst: Path, option: str) -> None:
    result = sync(src, dst, option)
    *lines, last = result.stdout.splitlines()
    assert {*map(_parsed, lines)} == DONE
    assert len(lines) == len(DONE)
    assert last.startswith(f"{dst}: 3 written, 1 adopted, 1 healed, 2 deleted, 1 backed up, ")
    (only,) = sync(src, dst, option).stdout.splitlines()
    assert only.startswith(f"{dst}: 0 written")


def test_dry_run_lists_what_the_run_does(src: Path, dst: Path) -> None:
    def unified(changes: set[tuple[str, str]]) -> set[tuple[str, str]]:
        return changes - {("back up", "healed")}  # A note of the write tells of that.

    lines = sync(src, dst, "-n").stdout.splitlines()[:-1]
    assert unified({*map(_parsed, lines)}) == unified(DONE)
    before = _figures(sync(src, dst, "-n", "--json").stdout)["changes"]
    assert unified({(each["action"], each["path"]) for each in before}) == unified(DONE)


def test_object_has_all_paths(src: Path, dst: Path) -> None:
    figures = _figures(sync(src, dst, "--json", "-v").stdout)
    assert {(each["action"], each["path"]) for each in figures["changes"]} == DONE
    assert len(figures["changes"]) == len(DONE)
    assert _figures(sync(src, dst, "--json").stdout)["changes"] == []


def test_quiet_run_prints_only_failures(src: Path, dst: Path) -> None:
    (dst / "new").mkdir()
    (dst / "new" / "link").mkdir()
    (dst / "new" / "link" / "theirs").touch()
    os.mkfifo(src / "fifo")
    result = sync(src, dst, "-q", "-n")
    assert (result.exit_code, result.stdout) == (3, "")
    result = sync(src, dst, "--quiet")
    assert (result.exit_code, result.stdout) == (3, "")
    (line,) = [line for line in result.stderr.splitlines() if "was moved to" not in line]
    assert line.startswith("fsmirror: write 'new/link': a directory is in the way")
    assert _figures(sync(src, dst, "--quiet", "--json").stdout)["failures"] == [
        {
            "path": "new/link",
            "operation": "write",
            "problem": "a directory is in the way, with foreign entries:"
            " 'new/link', 'new/link/theirs'",
            "hint": "move it away",
        }
    ]


def test_exit_code_tells_of_a_change(src: Path, dst: Path) -> None:
    assert sync(src, dst, "-n").exit_code == 0
    for options, status in ((["-n"], 1), ([], 1), (["-n"], 0), ([], 0)):
        assert sync(src, dst, "--exit-code", *options).exit_code == status
    (src / "d").chmod(0o700)
    for options, status in ((["-n"], 1), ([], 1), ([], 0)):
        assert sync(src, dst, "--exit-code", *options).exit_code == status


def test_publish_tells_as_sync_does(src: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    result = run("publish", src, link, "-v", "--exit-code")
    assert (result.exit_code, "write    changed" in result.stdout) == (1, True)
    result = run("publish", src, link, "-q", "--exit-code")
    assert (result.exit_code, result.stdout) == (1, "")
    result = run("publish", src, link, "-q", "--exit-code")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("options", [["-v", "-q"], ["--exit-code", "--watch"]])
def test_options_that_contradict_each_other_are_refused(
    src: Path, dst: Path, options: list[str]
) -> None:
    result = sync(src, dst, *options)
    assert (result.exit_code, "can't be given together" in result.stderr) == (2, True)


def test_command_after_a_run_gets_the_paths(src: Path, dst: Path, tmp_path: Path) -> None:
    (src / "two\nlines").touch()
    after = f"cat >> '{tmp_path}/paths'; echo said"
    assert sync(src, dst, "--exec", after, "-n").exit_code == 0
    assert sync(src, dst, "--exec", after).exit_code == 0
    paths = {path for _, path in DONE} | {"two\\nlines"}
    assert sorted((tmp_path / "paths").read_text().splitlines()) == sorted(paths)
    (tmp_path / "paths").unlink()
    assert sync(src, dst, "--exec", after).exit_code == 0
    assert not (tmp_path / "paths").exists()  # Nothing was changed.


def test_failure_of_the_command_after_a_run_is_told(src: Path, dst: Path) -> None:
    for after, problem in (("exit 7", "failed with status 7"), ("kill -9 $$", "signal 9")):
        (src / "new" / "more").write_text(after)
        result = sync(src, dst, "--exec", after)
        assert result.exit_code == 3
        assert result.stderr.count(f"fsmirror: --exec {after}: ") == 1
        assert problem in result.stderr


def test_output_of_the_command_after_a_run_is_in_no_object(src: Path, dst: Path) -> None:
    program = [sys.executable, "-m", "cocoindex_fsmirror", "sync", str(src), str(dst)]
    done = subprocess.run(
        [*program, "--json", "--exec", "echo said"],
        capture_output=True,
        text=True,
        check=True,
        env=command_environment(),
    )
    assert len(_figures(done.stdout)["changes"]) == len(DONE)
    assert "said\n" in done.stderr
