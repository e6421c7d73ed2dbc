"""Unusual names, deep trees, many files and few descriptors."""

from __future__ import annotations

import inspect
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.names import parse_name
from cocoindex_fsmirror._disk.roots import open_root
from tests.support import contents, delete, exact_state, folder, snapshot, write

NASTY = [
    "n" * 255,
    "é" * 127,
    "two\nlines",
    "-rf",
    "--",
    "back\\slash",
    "C:\\x",
    "🦜🇨🇭",
    "e\u0301",
    "\u00e9",
    "\u212bngstro\u0308m",
    "trailing ",
    "trailing.",
    " leading",
    "...",
    "~",
    "*?[x]",
    "%2e%2e",
    "\x01\x7f",
    "\u202egnp.exe",
    "name.old",
    "ledger.sqlite3",
    "tmp",
    "CON",
]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Mirror]:
    """A mirror whose deep tree is removed without recursion, since pytest would recurse."""
    (tmp_path / "root").mkdir()
    with Mirror(tmp_path / "root") as opened:
        yield opened
    subprocess.run(["rm", "-rf", "--", str(tmp_path / "root")], check=True)


def _read_deep(root: Path, name: str) -> bytes:
    """Reads a file whose path is too long for one system call."""
    at = os.open(root, os.O_RDONLY)
    try:
        for part in name.split("/"):
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.read(at, 1 << 20)
    finally:
        os.close(at)


@pytest.mark.parametrize("above", ["", "deep/er/"])
def test_nasty_names_are_written_seen_replaced_and_removed(
    mirror: Mirror, root: Path, above: str
) -> None:
    names = [above + name for name in NASTY] + [above + f"{name[:100]}.d/x" for name in NASTY[:10]]
    intents = [write(name, name.encode()) for name in names]
    mirror.apply(intents)
    expected = {name: name.encode() for name in names}
    assert contents(snapshot(root)) == expected
    assert mirror.managed() == sorted(names)
    assert mirror.verify(content=True) == []
    before = exact_state(root)
    mirror.apply(intents)
    assert exact_state(root) == before
    mirror.apply([write(name, b"new") for name in names])
    assert contents(snapshot(root)) == dict.fromkeys(names, b"new")
    mirror.apply([delete(name) for name in names])
    assert snapshot(root) == {}


def test_nasty_names_are_backed_up_under_their_own_names(mirror: Mirror, root: Path) -> None:
    for name in NASTY:
        (root / name).write_bytes(name.encode())
    mirror.apply([write(name, b"new") for name in NASTY])
    (moment,) = (root / ".fsmirror" / "backup").iterdir()
    assert contents(snapshot(moment)) == {name: name.encode() for name in NASTY}


def test_path_longer_than_4096_bytes_is_written_and_removed(deep: Mirror) -> None:
    root, name = Path(deep.root), "/".join(["p" * 250] * 18) + "/file"
    for content in (b"1", b"2"):
        deep.apply([write(name, content, durable=False)])
        assert _read_deep(root, name) == content
    assert deep.verify(content=True) == []
    deep.apply([delete(name, durable=False)])
    assert snapshot(root) == {}


def test_path_may_have_more_folders_than_python_has_frames(deep: Mirror) -> None:
    name, usual = "d/" * 300 + "file", sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 250)
    try:
        deep.apply([write(name, b"1", durable=False)])
        found = _read_deep(Path(deep.root), name)
        deep.apply([delete(name, durable=False)])
    finally:
        sys.setrecursionlimit(usual)
    assert found == b"1"
    assert snapshot(Path(deep.root)) == {}


def test_foreign_file_at_a_path_beyond_4096_bytes_is_backed_up(deep: Mirror) -> None:
    root, name = Path(deep.root), "/".join(["p" * 250] * 18)
    deep.apply([write(f"{name}/file", b"1", durable=False)])
    at = os.open(root, os.O_RDONLY)
    for part in name.split("/"):
        below = os.open(part, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    with os.fdopen(os.open("file", os.O_WRONLY | os.O_TRUNC, dir_fd=at), "wb") as file:
        file.write(b"edited")
    os.close(at)
    deep.apply([write(f"{name}/file", b"2", durable=False)])
    (moment,) = (root / ".fsmirror" / "backup").iterdir()
    assert _read_deep(moment, f"{name}/file") == b"edited"
    assert _read_deep(root, f"{name}/file") == b"2"


def test_batch_writes_two_thousand_files(mirror: Mirror, root: Path) -> None:
    names = [f"{number % 90:02}/{number:04}" for number in range(2_000)]
    mirror.apply([write(name, name.encode()) for name in names])
    assert contents(snapshot(root)) == {name: name.encode() for name in names}
    assert mirror.status().files == 2_000
    mirror.apply([delete(name) for name in names[1_000:]])
    assert sorted(contents(snapshot(root))) == sorted(names[:1_000])
    assert mirror.verify() == []


FEW = 48
SCRIPT = """
import resource, sys
from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._disk.roots import open_root
from cocoindex_fsmirror._core.names import parse_name
from tests.support import delete, folder, write
few = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
names = [f"{n}/a/b/file" for n in range(200)]
with Mirror(sys.argv[1]) as mirror:
    mirror.create()
    mirror.apply([write(name, b"1") for name in names])
    mirror.apply([write(name, b"2") for name in names])
    assert mirror.verify(content=True) == [], mirror.verify(content=True)
    mirror.apply([delete(name) for name in names[100:]])
print("done")
"""


def test_batch_works_with_few_descriptors(root: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > FEW
    command = [sys.executable, "-c", SCRIPT, str(root), str(FEW)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "done\n", result.stderr
    assert contents(snapshot(root)) == {f"{number}/a/b/file": b"2" for number in range(100)}


def test_batch_leaves_no_descriptor_open(mirror: Mirror) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    mirror.apply([write("0/x", b"1")])
    before = opened()
    for number in range(1, 6):
        mirror.apply([write(f"{number}/{n}/x", b"1") for n in range(20)])
        mirror.apply([delete(f"{number}/{n}/x") for n in range(20)])
    assert opened() == before


def test_deep_folder_is_opened_with_two_descriptors_to_spare(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("a/b/c/d/e/f/g", b"1")])
    tree, _ = open_root(str(root))
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    holes = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(holes) + 3, was[1]))
        assert os.listdir(tree.folder(parse_name("a/b/c/d/e/f"))) == ["g"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
        for fd in holes:
            os.close(fd)
        tree.close()


def test_most_descriptors_are_left_to_others(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}" for number in range(10)]
    mirror.apply([folder(name) for name in names])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (48, 48))
    tree, _ = open_root(str(root))
    before = len(os.listdir("/proc/self/fd"))
    opened = []
    for name in names:
        tree.folder(parse_name(name))
        opened.append(len(os.listdir("/proc/self/fd")))
    tree.close()
    assert max(opened) == before + 3
