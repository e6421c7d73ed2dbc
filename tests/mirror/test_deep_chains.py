"""Paths beyond PATH_MAX, and chains of more than 1,000 folders: nothing recurs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._mirror.backups import restore
from cocoindex_fsmirror._mirror.exact import foreign, sweep
from tests.command.commands import run
from tests.support import OWNER, delete, failing, folder, write

CHAIN = "/".join(["d"] * 1_100)
LONG = "/".join(["d" * 200] * 25)  # 5,000 bytes, where 4,096 is the limit
pytestmark = pytest.mark.usefixtures("no_waiting", "cleared")


@pytest.fixture
def cleared(root: Path) -> Iterator[None]:
    """Removes the root in the end; Python's own ways to do so recur."""
    yield
    subprocess.run(["rm", "-rf", "--", str(root)], check=True)


def _opened(root: Path, name: str, *, make: bool = False) -> int:
    """Opens a folder by way of those above it, which are made on request."""
    fd = os.open(root, os.O_RDONLY)
    for part in name.split("/"):
        if make:
            os.mkdir(part, dir_fd=fd)
        inner = os.open(part, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    return fd


def _read(root: Path, name: str) -> bytes:
    """Reads a file whose path may be too long for the system."""
    folder, _, base = name.rpartition("/")
    above = _opened(root, folder)
    fd = os.open(base, os.O_RDONLY, dir_fd=above)
    os.close(above)
    with open(fd, "rb") as file:
        return file.read()


def _write(root: Path, name: str, content: bytes, *, make: bool = False) -> None:
    """Writes a foreign file there."""
    folder, _, base = name.rpartition("/")
    above = _opened(root, folder, make=make)
    fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=above)
    os.close(above)
    with open(fd, "wb") as file:
        file.write(content)


def test_path_beyond_the_limit_is_written_healed_and_removed(mirror: Mirror, root: Path) -> None:
    name = f"{LONG}/x"
    with mirror.update() as files:
        files.write(name, b"1")
    assert _read(root, name) == b"1"
    _write(root, name, b"edited")
    assert mirror.verify() == [name]
    with mirror.update() as files:
        files.write(name, b"1")
    assert _read(root, name) == b"1"
    assert mirror.verify(content=True) == []
    (backup,) = mirror.backups()
    assert backup.name == name
    with mirror.update():
        pass
    assert set(os.listdir(root)) == {".fsmirror"}
    mirror.session.run(lambda tree, _ledger: restore(tree, backup, Name(f"{name}2")))
    assert _read(root, f"{name}2") == b"edited"


def test_commands_take_paths_beyond_the_limit(mirror: Mirror, root: Path) -> None:
    mirror.apply([write(f"{LONG}/x", b"1")])
    _write(root, f"{LONG}/theirs", b"2")
    assert "managed, a file" in run("why", root / LONG / "x").stdout
    assert "foreign" in run("why", root / LONG / "theirs").stdout
    assert "absent" in run("why", root / LONG / "none").stdout
    assert run("verify", root).exit_code == 0
    assert f"{LONG}/theirs" in run("verify", "--exact", root).stdout
    _write(root, f"{LONG}/x", b"edited")
    assert f"modified  {LONG}/x" in run("verify", root).stdout
    assert "drifted      1" in run("status", root).stdout
    assert run("drop", "--yes", root).exit_code == 0
    assert _read(root, f"{LONG}/x") == b"edited"


def test_large_file_beyond_the_limit_is_adopted(mirror: Mirror, root: Path, tmp_path: Path) -> None:
    """A large source is read only if a file of its size may be at the target."""
    content = b"x" * 100_000
    (tmp_path / "source").write_bytes(content)
    _write(root, f"{LONG}/x", content, make=True)
    with mirror.update() as files:
        files.copy(f"{LONG}/x", tmp_path / "source")
    assert mirror.backups() == []


@pytest.mark.slow
def test_chain_of_ours_is_made_replaced_and_removed(mirror: Mirror, root: Path) -> None:
    for content in (b"1", b"2"):
        mirror.apply([write(f"{CHAIN}/x", content)])
        assert _read(root, f"{CHAIN}/x") == content
    _write(root, f"{CHAIN}/x", b"edited")
    assert mirror.verify() == [f"{CHAIN}/x"]
    mirror.apply([write(f"{CHAIN}/x", b"2")])
    assert [backup.name for backup in mirror.backups()] == [f"{CHAIN}/x"]
    mirror.apply([write("d", b"3"), delete(f"{CHAIN}/x")])
    assert (root / "d").read_bytes() == b"3"
    mirror.apply([delete("d"), folder(CHAIN)])
    os.close(_opened(root, CHAIN))
    mirror.tear_down(OWNER)
    assert os.listdir(root) == [".fsmirror"]


@pytest.mark.slow
def test_foreign_chain_is_in_the_way_and_swept(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    _write(root, f"{CHAIN}/theirs", b"2", make=True)
    with failing("a directory is in the way"):
        mirror.apply([write("d", b"1")])
    listed, unlisted = foreign(str(root))
    assert (len(listed), unlisted) == (1_101, [])
    outcome = mirror.session.run(sweep)
    assert (list(outcome.backed_up), outcome.failures) == ([f"{CHAIN}/theirs"], [])
    assert set(os.listdir(root)) == {".fsmirror", "x"}
    assert [backup.name for backup in mirror.backups()] == [f"{CHAIN}/theirs"]


@pytest.mark.slow
def test_chain_of_deserted_folders_goes_with_the_next_update(mirror: Mirror, root: Path) -> None:
    mirror.apply([write(f"{CHAIN}/x", b"1")])
    _write(root, f"{CHAIN}/theirs", b"2")
    mirror.apply([delete(f"{CHAIN}/x")])
    above = _opened(root, CHAIN)
    os.unlink("theirs", dir_fd=above)
    os.close(above)
    mirror.prepare(Owner(OWNER), mirror.observe())
    assert os.listdir(root) == [".fsmirror"]
