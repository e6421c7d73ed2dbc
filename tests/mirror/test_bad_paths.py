"""One path that fails at every system call stops only itself, and what lies in it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from tests.steps import CHANGES, LOOKS, failing_at
from tests.support import OWNER, backups, contents, delete, folder, link, snapshot, staged, write

pytestmark = pytest.mark.usefixtures("no_waiting")

BEFORE = {
    "edited": b"1",
    "same/x": b"1",
    "same/y": b"1",
    "gone/a": b"1",
    "gone/b": b"1",
    "emptied/deep/x": b"1",
    "now-a-file/x": b"1",
    "now-a-folder": b"1",
}
AFTER = {
    "edited": b"2",
    "same/x": b"2",
    "same/y": b"1",
    "gone/a": b"1",
    "now-a-file": b"2",
    "now-a-folder/x": b"2",
    "new/deep/x": b"2",
    "new/deep/y": b"2",
    "new/z": b"2",
    "foreign/x": b"2",
    "declared/x": b"2",
}
FOLDERS = ["declared", "foreign", "gone", "new", "new/deep", "now-a-folder", "same"]
PATHS = sorted(
    {
        *(str(path) for name in {**BEFORE, **AFTER} for path in (name, *Path(name).parents)),
        "link",
    }
    - {"."}
)


def _batch() -> list[Intent]:
    """Returns a batch with a step of every kind."""
    return [
        *(write(name, content) for name, content in AFTER.items() if name != "same/y"),
        write("same/y", b"1", mode=0o600),
        folder("declared", mode=0o750),
        link("link", "edited"),
        *(delete(name) for name in BEFORE.keys() - AFTER.keys()),
        delete("emptied"),
    ]


def _failed(act: Callable[[], object]) -> set[str]:
    """Calls a function; returns the paths that failed."""
    try:
        act()
    except ApplyError as error:
        return {getattr(each, "path", "?") for each in error.exceptions}
    return set()


@pytest.fixture
def busy(mirror: Mirror, root: Path) -> Mirror:
    """A mirror with files of ours, and a foreign one in the way."""
    mirror.apply([*(write(name, content) for name, content in BEFORE.items()), folder("emptied")])
    (root / "foreign").mkdir()
    (root / "foreign" / "x").write_bytes(b"foreign")
    return mirror


@pytest.mark.parametrize("fails", [CHANGES | LOOKS, CHANGES], ids=["looks", "changes"])
@pytest.mark.parametrize("bad", PATHS)
def test_bad_path_stops_only_itself(
    busy: Mirror, root: Path, bad: str, fails: frozenset[str]
) -> None:
    with failing_at(root / bad, errno.EIO, fails):
        failed = _failed(lambda: busy.apply(_batch()))
    assert staged(root) == []
    inside = {name for name in (*BEFORE, *AFTER, *PATHS) if f"{name}/".startswith(f"{bad}/")}
    assert failed <= inside | ({"now-a-file"} if bad == "now-a-file/x" else set())
    tree = snapshot(root)
    assert {name: tree.get(name) for name in AFTER.keys() - failed} == {
        name: content for name, content in AFTER.items() if name not in failed
    }
    assert not contents(tree).keys() & (BEFORE.keys() - AFTER.keys() - failed)
    busy.apply(_batch())
    assert busy.verify() == []
    assert snapshot(root) == AFTER | dict.fromkeys(FOLDERS, "dir") | {"link": "-> edited"}
    assert backups(root) == [b"foreign"]


@pytest.mark.parametrize("fails", [CHANGES | LOOKS, CHANGES - {"unlink"}], ids=["looks", "changes"])
@pytest.mark.parametrize("slot", [*map(str, range(14)), "*/x", "*/z", "*/deep"])
def test_bad_slot_stops_only_its_path(
    busy: Mirror, root: Path, slot: str, fails: frozenset[str]
) -> None:
    with failing_at(root / ".fsmirror/tmp/*" / slot, errno.EIO, fails):
        failed = _failed(lambda: busy.apply(_batch()))
    tree = snapshot(root)
    assert {name: tree.get(name) for name in AFTER.keys() - failed} == {
        name: content for name, content in AFTER.items() if name not in failed
    }
    busy.apply(_batch())
    assert staged(root) == []
    assert busy.verify() == []
    assert snapshot(root) == AFTER | dict.fromkeys(FOLDERS, "dir") | {"link": "-> edited"}
    assert backups(root) == [b"foreign"]


@pytest.mark.parametrize("fails", [CHANGES | LOOKS, CHANGES], ids=["looks", "changes"])
@pytest.mark.parametrize("bad", ["edited", "same", "same/x", "emptied", "emptied/deep"])
def test_bad_path_stops_only_itself_at_teardown(
    busy: Mirror, root: Path, bad: str, fails: frozenset[str]
) -> None:
    with failing_at(root / bad, errno.EPERM, fails):
        failed = _failed(lambda: busy.tear_down(OWNER))
    inside = {name for name in (*BEFORE, *PATHS) if f"{name}/".startswith(f"{bad}/")}
    assert failed
    assert failed <= inside
    left = contents(snapshot(root)).keys() - {"foreign/x"}
    assert left == BEFORE.keys() & failed
    busy.tear_down(OWNER)
    assert snapshot(root) == {"foreign": "dir", "foreign/x": b"foreign"}
