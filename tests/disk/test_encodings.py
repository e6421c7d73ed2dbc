"""Processes that take file names for another encoding than UTF-8 are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror, RootError
from tests.support import command_environment, snapshot, write


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_process_with_other_file_names_is_refused(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """In Latin-1 it would write other names than the ledger holds."""
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    with pytest.raises(RootError, match=rf"file names for {encoding}.*PYTHONUTF8=1"):
        mirror.apply([write("é", b"1")])
    with pytest.raises(RootError, match="PYTHONUTF8=1"):
        mirror.backups()
    assert snapshot(root) == {}


def test_command_that_can_not_be_restarted_says_what_to_do(tmp_path: Path) -> None:
    """An option of the interpreter outranks the environment."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "é").write_bytes(b"1")
    code = "from cocoindex_fsmirror._command.process import run; run()"
    command = [sys.executable, "-X", "utf8=0", "-c", code, "sync", "src", "dst"]
    environment = command_environment(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="1")
    ran = subprocess.run(command, check=False, capture_output=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 3
    assert b"takes file names for ascii, and not for UTF-8" in ran.stderr
    assert not (tmp_path / "dst").exists()
