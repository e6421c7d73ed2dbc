"""``fsmirror status``, ``verify``, ``why``, ``backups`` and ``drop``."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._command.main import main
from cocoindex_fsmirror._core.names import ROOT
from cocoindex_fsmirror._mirror.notes import Pending
from cocoindex_fsmirror._mirror.reading import row as row_of
from tests.support import backups, command_environment, contents, exact_state, snapshot
from tests.target.flows import Flow


def run(*arguments: object, **more: Any) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)], **more)


def told(*arguments: object) -> dict[str, Any]:
    """What a command prints for programs: one object, and nothing else."""
    figures: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return figures


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A small source."""
    source = tmp_path / "src"
    (source / "d").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    (source / "d" / "b").write_bytes(b"bb")
    (source / "link").symlink_to("a")
    return source


@pytest.fixture
def dst(src: Path, tmp_path: Path) -> Path:
    """Its mirror."""
    assert run("sync", src, tmp_path / "dst").exit_code == 0
    return tmp_path / "dst"


# In general


PLAIN = ("status", "verify", "why", "drop", "backups")  # Those that take one path.


@pytest.mark.parametrize("command", ["sync", "status", "verify", "why", "backups", "drop"])
def test_every_command_has_help_with_its_exit_codes_and_json(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    shown = " ".join(result.stdout.split())
    assert "0 in order, 1 differences found, 2 used wrongly, 3 failed" in shown
    assert "--json" in shown


def test_the_help_lists_commands_in_the_order_of_their_use() -> None:
    listed = run("--help").stdout.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in listed if line[2:3].strip()]
    assert names[:6] == ["sync", "status", "verify", "why", "backups", "drop"]


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
def test_asked_for_nothing_it_shows_its_help(arguments: tuple[str, ...]) -> None:
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
@pytest.mark.usefixtures("dst")
def test_programs_are_told_of_what_is_used_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, "--json")
    assert result.exit_code == 2
    assert f"fsmirror: {json.loads(result.stdout)['error']}\n" == result.stderr
    assert run(*arguments).stdout == ""


def test_what_is_called_as_the_option_is_not_the_option() -> None:
    result = run("status", "--", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "fsmirror: --json: no such directory\n"


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
def test_programs_are_told_of_what_failed(
    src: Path,
    dst: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    given: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(dst)
    (src / "a").unlink()
    (src / ".gitignore").write_text("!")
    result = run(*arguments, "--json", input=given)
    assert result.exit_code == 3
    assert f"fsmirror: {json.loads(result.stdout)['error']}\n" in result.stderr
    assert run(*arguments, input=given).stdout == ""
    assert snapshot(dst) == before


NASTY = "na\nsty\x1b[31m:smile:"
SHOWN = NASTY.encode("unicode_escape").decode()


def test_no_name_breaks_a_line_or_a_terminal(tmp_path: Path) -> None:
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
        assert NASTY[-7:] in told  # And is no picture.
        assert all(line.isprintable() for line in told.splitlines())
        assert "sty" not in {line[:3] for line in told.splitlines()}


def test_what_is_logged_breaks_no_line(src: Path, tmp_path: Path) -> None:
    target = tmp_path / NASTY
    run("sync", src, target)
    (target / "a").write_bytes(b"tampered")
    result = run("sync", src, target)
    assert f"{SHOWN}: foreign 'a' was moved to" in result.stderr
    assert result.stderr.count("\n") == 1


# Looking, in general


def test_looking_changes_nothing(dst: Path) -> None:
    before = exact_state(dst)
    for command in (("status",), ("verify",), ("verify", "--content", "--exact"), ("backups",)):
        assert run(command[0], dst, *command[1:]).exit_code == 0
    assert run("why", dst / "a").exit_code == 0
    assert exact_state(dst) == before


# status


def test_status_tells_who_mirrors_how_much_and_what_is_to_be_known(src: Path, dst: Path) -> None:
    found = told("status", dst)
    (mirror,) = found.pop("mirrors")
    assert mirror.pop("since") <= found.pop("updated")
    assert mirror == {"by": f"fsmirror sync {src}", "files": 3, "lost": False}
    assert found == {
        "root": str(dst),
        "files": 3,
        "folders": 1,
        "bytes": 4,
        "drifted": 0,
        "backups": 0,
        "orphans": 0,
    }
    (dst / "a").write_bytes(b"tampered")
    result = run("status", dst)
    assert result.exit_code == 1
    assert "drifted      1  (fsmirror verify lists them)" in result.stdout
    run("sync", src, dst)
    assert told("status", dst)["backups"] == 1


def test_status_counts_what_verify_lists_also_while_a_batch_is_under_way(dst: Path) -> None:
    with Mirror(dst) as mirror:
        row = row_of(mirror.root, "a")
        assert row is not None
        note = Pending("batch", ROOT, "0", False, row)
        mirror.session.run(lambda _tree, ledger: ledger.begin([note], durable=False))
        assert mirror.verify() == ["a"]  # Nobody knows whether it is to be believed.
    assert told("status", dst)["drifted"] == 0
    assert told("verify", dst)["differences"] == []


def test_status_names_the_database_of_a_flow_and_the_orphans_of_one_that_was_lost(
    make_flow: Callable[..., Flow],
) -> None:
    flow = make_flow()
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    (mirror,) = told("status", flow.root)["mirrors"]
    assert mirror["by"] == f"{flow.database} tests/target/out"
    flow.close()
    shutil.rmtree(flow.database)
    flow.files = {"a": b"1"}  # Nobody declares b any more.
    flow.update()
    found = told("status", flow.root)
    assert found["orphans"] == 1
    assert [(m["files"], m["lost"]) for m in found["mirrors"]] == [(1, True), (1, False)]
    assert run("status", flow.root).exit_code == 1


# verify


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other bytes": (lambda dst: (dst / "a").write_bytes(b"tampered"), "modified"),
    "gone": (lambda dst: (dst / "a").unlink(), "missing"),
    "another mode": (lambda dst: (dst / "a").chmod(0o600), "mode"),
    "another time": (lambda dst: os.utime(dst / "a"), "mode"),
    "a link": (lambda dst: _becomes(dst / "a", lambda at: at.symlink_to("d")), "foreign"),
    "a folder": (lambda dst: _becomes(dst / "a", Path.mkdir), "foreign"),
    "a fifo": (lambda dst: _becomes(dst / "a", os.mkfifo), "foreign"),
}


def _becomes(path: Path, make: Callable[[Path], object]) -> None:
    """A file gives way to something else."""
    path.unlink()
    make(path)


@pytest.mark.parametrize(("tamper", "how"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_verify_tells_how_a_file_differs(
    dst: Path, tamper: Callable[[Path], object], how: str
) -> None:
    tamper(dst)
    assert told("verify", dst)["differences"] == [{"path": "a", "how": how}]
    result = run("verify", dst, "--content")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"{how:8}  a"
    assert result.stdout.splitlines()[-1] == f"{dst}: 1 differs (3 files)"


def test_verify_is_silent_of_what_is_foreign_unless_it_is_to_be_exact(dst: Path) -> None:
    (dst / "mine").touch()
    os.utime(dst, ns=(5, 5))
    assert run("verify", dst).exit_code == 0
    result = run("verify", dst, "--exact")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "foreign   mine")


def test_verify_finds_an_edit_that_hides_its_time_only_by_content(dst: Path) -> None:
    with Mirror(dst) as mirror:
        row = row_of(mirror.root, "a")
        assert row is not None
        (dst / "a").write_bytes(b"x")
        os.utime(dst / "a", ns=(row.mtime_ns, row.mtime_ns))
        there = (dst / "a").lstat()
        hidden = replace(row, ctime_ns=there.st_ctime_ns, recorded_ns=there.st_ctime_ns + 10**10)
        mirror.session.run(lambda _tree, ledger: ledger.commit([hidden], ()))
    assert run("verify", dst).exit_code == 0
    assert told("verify", dst, "--content")["differences"] == [{"path": "a", "how": "modified"}]


# why


def test_why_tells_who_declared_a_path_when_and_what_differs(src: Path, dst: Path) -> None:
    found = told("why", dst / "d" / "b")
    assert found.pop("written").endswith(" UTC")
    assert len(found.pop("fingerprint")) == 32
    assert found == {
        "root": str(dst),
        "path": "d/b",
        "state": "managed",
        "kind": "file",
        "by": f"fsmirror sync {src}",
        "component": "",
        "bytes": 2,
        "target": "",
        "adopted": False,
        "differs": "",
    }
    (dst / "d" / "b").unlink()
    result = run("why", dst / "d" / "b")
    assert result.exit_code == 1
    assert "now          missing" in result.stdout


def test_why_knows_links_folders_adopted_foreign_and_absent_paths(
    src: Path, dst: Path, tmp_path: Path
) -> None:
    (dst / "mine").touch()
    assert "target       a" in run("why", dst / "link").stdout
    assert "d: managed, a dir" in run("why", dst / "d").stdout
    assert "foreign: not written by a mirror" in run("why", dst / "mine").stdout
    assert "absent, and not managed" in run("why", dst / "nothing").stdout
    shutil.copytree(src, tmp_path / "copy", symlinks=True)
    run("sync", src, tmp_path / "copy")
    assert "not written by us" in run("why", tmp_path / "copy" / "a").stdout


def test_why_knows_the_mirror_itself_and_our_own_folder(
    src: Path, dst: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("dst")
    for path in (dst, f"{dst}/d/..", f"{dst}/.", f"{dst}/", f"{dst}/d/../", tmp_path / "link"):
        result = run("why", path)
        assert (result.exit_code, result.stdout) == (0, f"{dst}: the mirror itself\n")
    assert told("why", dst) == {"root": str(dst), "path": ".", "state": "mirror"}
    for name in (".fsmirror", ".fsmirror/ledger.sqlite3", ".fsmirror/nothing"):
        result = run("why", dst / name)
        assert result.exit_code == 0
        assert "holds the ledger and the backups of the mirror" in result.stdout
        assert told("why", dst / name) == {"root": str(dst), "path": name, "state": "ours"}


def test_why_takes_a_path_as_the_system_does(src: Path, dst: Path, tmp_path: Path) -> None:
    for path in (f"{dst}/d/../a", f"{dst}/d/./../a", tmp_path / "src" / ".." / "dst" / "a"):
        assert "a: managed, a file" in run("why", path).stdout
    (src / "to a mirror").symlink_to(tmp_path / "other")
    run("sync", src, dst)
    run("sync", src, tmp_path / "other")
    assert "to a mirror: managed, a link" in run("why", dst / "to a mirror").stdout


# backups


@pytest.fixture
def edited(src: Path, dst: Path) -> Path:
    """The mirror, with two backups of one path."""
    for number in range(2):
        (dst / "a").write_bytes(b"edited %d" % number)
        assert run("sync", src, dst).exit_code == 0
    return dst


def test_backups_are_listed_the_oldest_first(edited: Path) -> None:
    found = told("backups", edited)
    assert [each["path"] for each in found["backups"]] == ["a", "a"]
    assert found["bytes"] == 16
    assert told("backups", edited, "list") == found
    lines = run("backups", edited).stdout.splitlines()
    assert lines[-1] == f"{edited}: 2 backups, 16 B"
    assert lines[0].endswith("Z/a") or lines[0].endswith("/a")


def test_a_backup_is_restored_to_another_path_and_replaces_nothing(edited: Path) -> None:
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
def test_a_backup_that_is_not_there_is_one_line(edited: Path, path: str) -> None:
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


# drop


def test_drop_asks_first(dst: Path) -> None:
    before = snapshot(dst)
    for answer in ("n\n", "\n"):
        result = run("drop", dst, input=answer)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith(f"Remove 3 files from {dst}?")
        assert result.stderr.endswith("fsmirror: nothing was removed\n")
        assert snapshot(dst) == before
    result = run("drop", dst, input="")
    assert (result.exit_code, snapshot(dst)) == (2, before)
    assert result.stderr.endswith("fsmirror: no terminal to ask on; pass --yes\n")
    assert run("drop", dst, input="y\n").exit_code == 0
    assert not dst.exists()


def test_drop_removes_what_was_mirrored_and_only_that(src: Path, dst: Path) -> None:
    (dst / "mine").write_bytes(b"mine")
    (dst / "d" / "b").write_bytes(b"edited")
    found = told("drop", dst, "--yes")
    assert found == {"root": str(dst), "deleted": 2, "left": ["d/b", "mine"]}
    assert contents(snapshot(dst)) == {"mine": b"mine", "d/b": b"edited"}
    assert not (dst / ".fsmirror").exists()
    assert run("status", dst).exit_code == 2
    assert run("sync", src, dst).exit_code == 0
    assert (dst / "a").read_bytes() == b"a"


def test_drop_names_what_stays_of_several_mirrors_and_only_that(
    src: Path, dst: Path, make_flow: Callable[..., Flow]
) -> None:
    flow = make_flow()
    flow.files = {"flow/a": b"1", "flow/b": b"2"}
    flow.update()
    assert run("sync", src, flow.root).exit_code == 0
    (flow.root / "flow" / "b").write_bytes(b"edited")
    result = run("drop", flow.root, "--yes")
    assert result.stdout == f"{flow.root}: 4 deleted, 1 left that is not ours\n"
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


# As a terminal shows it


def as_a_terminal_shows_it(*arguments: object, **environment: str) -> tuple[int, str]:
    """Status and output of a command whose output is a terminal."""
    import pty

    shown = bytearray()

    def read(fd: int) -> bytes:
        shown.extend(os.read(fd, 65536))
        return b"\0"  # Nothing more is written to our own standard output.

    command = [str(Path(sys.executable).with_name("fsmirror")), *map(str, arguments)]
    clean = command_environment(TERM="xterm", **environment)
    status = pty.spawn(["env", "-i", *(f"{k}={v}" for k, v in clean.items()), *command], read)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_on_a_terminal_there_is_a_progress_bar_and_the_summary_is_on_stdout(
    src: Path, tmp_path: Path
) -> None:
    """The bar goes to standard error, and is gone in the end."""
    (src / "large").write_bytes(os.urandom(3_000_000))
    status, text = as_a_terminal_shows_it("sync", src, tmp_path / "seen")
    assert status == 0
    assert "of 5 paths" in text
    assert "MiB" in text
    assert "4 written" in text
    assert stat.S_ISDIR((tmp_path / "seen").stat().st_mode)


def test_colours_show_on_a_terminal_only(dst: Path) -> None:
    (dst / "a").unlink()
    status, text = as_a_terminal_shows_it("verify", dst)
    assert (status, text.splitlines()[0]) == (1, "\x1b[31mmissing \x1b[0m  a")
    status, text = as_a_terminal_shows_it("verify", dst, NO_COLOR="1")
    assert (status, text.splitlines()[0]) == (1, "missing   a")
    assert run("verify", dst).stdout.splitlines()[0] == "missing   a"
