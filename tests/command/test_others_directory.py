"""``fsmirror sync`` to a directory of somebody else, in which its group may write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.command.syncing import as_user, let_everybody_reach, sync
from tests.support import snapshot

pytestmark = pytest.mark.root
GROUP = 54_321


@pytest.fixture
def shared(source: Path, dst: Path, tmp_path: Path) -> Path:
    """A directory that belongs to root, and may be written by a group."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to a group that it is not in")
    dst.mkdir()
    os.chown(dst, 0, GROUP)
    dst.chmod(0o2775)
    let_everybody_reach(tmp_path)
    source.chmod(0o755)
    return dst


def test_attributes_of_anothers_directory_are_said_once_not_to_be_set(
    source: Path, shared: Path
) -> None:
    def act() -> str:
        results = [sync(source, shared) for _ in range(2)]
        assert [result.exit_code for result in results] == [0, 0]
        assert "3 written" in results[0].stdout
        assert "3 unchanged" in results[1].stdout
        verified = run("verify", shared)
        assert verified.exit_code == 0, verified.output
        return "".join(result.stderr for result in results)

    told = as_user(act, GROUP)
    assert told.count(f"{shared}: its mode or time can't be set: Operation not permitted") == 1
    assert told.count("\n") == 1
    assert snapshot(shared) == snapshot(source)
    assert oct(shared.stat().st_mode) == "0o42775"


def test_file_of_somebody_else_whose_mode_can_not_be_set_fails_by_name(
    source: Path, shared: Path
) -> None:
    (shared / "a").write_bytes(b"a")
    (shared / "a").chmod(0o600)
    (shared / "d").mkdir(mode=0o777)
    (shared / "d").chmod(0o777)

    def act() -> str:
        result = sync(source, shared)
        return f"{result.exit_code} {result.stderr}"

    told = as_user(act, GROUP)
    assert told.startswith("3 ")
    assert "set the mode or time of 'd': Operation not permitted" in told
    assert (shared / "d" / "b").read_bytes() == b"bb"
    assert snapshot(shared) == snapshot(source)
