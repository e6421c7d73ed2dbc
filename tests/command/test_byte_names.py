"""Names that are not UTF-8 are mirrored and shown by every command, and can be read back."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror._command import survey as _survey
from cocoindex_fsmirror._command.options import Options
from tests.command.commands import run, told
from tests.support import contents, snapshot

LATIN, BYTE, DEEP, LINK = map(os.fsdecode, (b"caf\xe9", b"\xff", b"d\xfe/in\xff", b"l\xe9"))
FACE = "\U0001f600"  # As text it comes after the surrogates of the others, as bytes before.
FILES = {LATIN: b"1", BYTE: b"2", DEEP: b"3", FACE: b"4", f"{FACE}.d/{BYTE}": b"5", "plain": b"6"}
# What comes between a folder and the entries in it, and after them.
FILES |= {f"{LATIN}.d/x": b"7", f"{LATIN}.d!": b"8", f"{LATIN}.d0": b"9"}


@pytest.fixture
def byte_source(tmp_path: Path) -> Path:
    """A source whose names are not all UTF-8; neither is its own."""
    source = tmp_path / os.fsdecode(b"src\xff")
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / LINK).symlink_to(LATIN)
    return source


@pytest.fixture
def mirrored(byte_source: Path, tmp_path: Path) -> Path:
    """The mirror of that source."""
    target = tmp_path / os.fsdecode(b"dst\xff")
    assert run("sync", byte_source, target).exit_code == 0
    return target


def _read_back(shown: Any) -> str:
    """Returns the name that JSON tells."""
    return os.fsdecode(b64decode(shown["bytes"])) if isinstance(shown, dict) else str(shown)


def test_byte_names_are_mirrored_and_found_unchanged(byte_source: Path, mirrored: Path) -> None:
    assert snapshot(mirrored) == snapshot(byte_source)
    for _ in range(2):
        again = told("sync", byte_source, mirrored)
        assert again["unchanged"] == len(FILES) + 1
        assert again["written"] == again["healed"] == again["deleted"] == 0
    assert told("verify", mirrored, "--content", "--exact")["differences"] == []
    for name in (LATIN, f"{FACE}.d/{BYTE}", f"{LATIN}.d/x"):
        (byte_source / name).unlink()
    assert told("sync", byte_source, mirrored)["deleted"] == 3
    assert told("sync", byte_source, mirrored)["deleted"] == 0
    assert snapshot(mirrored) == snapshot(byte_source)


def test_drift_of_byte_names_is_told_and_healed(byte_source: Path, mirrored: Path) -> None:
    (mirrored / LATIN).write_bytes(b"edited")
    (mirrored / DEEP).unlink()
    (mirrored / f"foreign{BYTE}").touch()
    differences = told("verify", mirrored, "--exact")["differences"]
    assert {_read_back(each["path"]): each["how"] for each in differences} == {
        LATIN: "modified",
        DEEP: "missing",
        os.path.dirname(DEEP): "mode",  # Its time.
        f"foreign{BYTE}": "foreign",
    }
    lines = run("verify", mirrored).stdout.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == [r"caf\udce9", r"d\udcfe"]
    planned = told("sync", byte_source, mirrored, "--dry-run")["changes"]
    assert {_read_back(each["path"]) for each in planned if each["action"] == "heal"} == {
        LATIN,
        DEEP,
    }
    assert told("sync", byte_source, mirrored)["healed"] == 2
    assert contents(snapshot(mirrored)) == FILES | {f"foreign{BYTE}": b""}


def test_json_tells_names_apart_that_are_shown_alike(tmp_path: Path) -> None:
    source, names = tmp_path / "src", {r"\udcff", "\udcff"}
    source.mkdir()
    for name in names:
        (source / name).touch()
    assert run("sync", source, tmp_path / "dst").exit_code == 0
    for name in names:
        (tmp_path / "dst" / name).unlink()
    differences = told("verify", tmp_path / "dst")["differences"]
    assert {_read_back(each["path"]) for each in differences} == names
    assert {"bytes": b64encode(b"\xff").decode()} in [each["path"] for each in differences]


def test_why_takes_a_path_that_is_no_text(mirrored: Path) -> None:
    shown = told("why", mirrored / DEEP)
    assert _read_back(shown["path"]) == DEEP
    assert _read_back(shown["root"]) == str(mirrored)
    assert (shown["state"], shown["differs"]) == ("managed", "")
    assert _read_back(told("why", mirrored / LINK)["target"]) == LATIN
    assert told("why", (mirrored / DEEP).parent)["state"] == "managed"
    assert told("why", mirrored / f"{DEEP}x")["state"] == "absent"
    assert r"d\udcfe/in\udcff: managed, a file" in run("why", mirrored / DEEP).stdout


def test_backups_of_byte_names_are_listed_restored_and_purged(
    byte_source: Path, mirrored: Path
) -> None:
    (mirrored / LATIN).write_bytes(b"edited")
    (mirrored / BYTE).write_bytes(b"theirs")
    assert run("sync", byte_source, mirrored).exit_code == 0
    listed = told("backups", mirrored)["backups"]
    assert {_read_back(each["path"]) for each in listed} == {LATIN, BYTE}
    (mirrored / LATIN).unlink()
    restored = told("backups", mirrored, "restore", LATIN)
    assert _read_back(restored["to"]) == LATIN
    assert (mirrored / LATIN).read_bytes() == b"edited"
    where = _read_back(next(b["where"] for b in listed if _read_back(b["path"]) == BYTE))
    moved = told("backups", mirrored, "restore", where, "--to", f"new{BYTE}/{BYTE}")
    assert _read_back(moved["restored"]) == where
    assert (mirrored / f"new{BYTE}" / BYTE).read_bytes() == b"theirs"
    assert told("backups", mirrored)["backups"] == []
    assert run("sync", byte_source, mirrored).exit_code == 0
    assert told("backups", mirrored, "purge", "--older-than", "0s")["purged"] == 1


def test_exact_mirror_of_byte_names_moves_only_foreign_ones(
    byte_source: Path, mirrored: Path
) -> None:
    foreign = os.fsdecode(b"d\xfe/foreign\xfe")
    (mirrored / foreign).write_bytes(b"theirs")
    assert told("sync", byte_source, mirrored, "--exact")["backed_up"] == 1
    assert snapshot(mirrored) == snapshot(byte_source)
    assert [_read_back(b["path"]) for b in told("backups", mirrored)["backups"]] == [foreign]


def test_drop_removes_byte_names_and_tells_what_stays(mirrored: Path) -> None:
    (mirrored / f"foreign{BYTE}").touch()
    (mirrored / LATIN).write_bytes(b"edited")
    dropped = told("drop", mirrored, "--yes")
    assert dropped["deleted"] == len(FILES)
    assert {_read_back(name) for name in dropped["left"]} == {LATIN, f"foreign{BYTE}"}
    assert snapshot(mirrored).keys() == {LATIN, f"foreign{BYTE}"}


def test_patterns_leave_byte_names_out(byte_source: Path, tmp_path: Path) -> None:
    (byte_source / ".gitignore").write_bytes(b"/caf\xe9\nin*\n")
    run("sync", byte_source, tmp_path / "dst", "--gitignore", "--exclude", f"*.d/{BYTE}")
    left_out = {LATIN, DEEP, f"{FACE}.d/{BYTE}"}
    assert contents(snapshot(tmp_path / "dst")).keys() >= FILES.keys() - left_out
    assert not snapshot(tmp_path / "dst").keys() & left_out


def test_status_shows_a_root_that_is_no_text(byte_source: Path, mirrored: Path) -> None:
    figures = told("status", mirrored)
    assert _read_back(figures["root"]) == str(mirrored)
    assert figures["mirrors"][0]["by"].endswith(r"src\udcff")
    assert r"dst\udcff" in run("status", mirrored).stdout


def test_failure_of_a_byte_name_is_told_as_text(byte_source: Path, tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"other\xff")
    (target / LATIN / "theirs").mkdir(parents=True)
    told_here = told("sync", byte_source, target)
    (failure,) = told_here["failures"]
    assert failure["path"] == {"bytes": b64encode(os.fsencode(LATIN)).decode()}
    assert r"caf\udce9" in failure["problem"]
    assert failure["problem"].encode()
    assert contents(snapshot(target)).keys() >= FILES.keys() - {LATIN}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_process_in_any_locale_takes_and_shows_byte_names(
    byte_source: Path, tmp_path: Path, locale: str
) -> None:
    call = "from cocoindex_fsmirror._command.process import run; run()"
    target = tmp_path / os.fsdecode(b"dst\xfe")
    for arguments in (("sync", byte_source, target), ("why", target / DEEP)):
        done = subprocess.run(
            [sys.executable, "-c", call, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"LC_ALL": locale},
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert r"d\udcfe/in\udcff: managed" in done.stdout
    assert snapshot(target) == snapshot(byte_source)


def test_survey_packs_byte_names(byte_source: Path) -> None:
    """A large source has to fit into memory, whatever its names are."""
    found = _survey.survey(Options(str(byte_source)))
    assert all(isinstance(packed, bytes) for packed in found.folders.values())
    names = [os.fsencode(name) for name, _ in found.declared()]
    assert names == sorted(names)
