"""Nothing outside the root changes, whatever is a link or becomes one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, FsMirrorError, LedgerError, Mirror, RootError
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._mirror.session import held
from tests.steps import run_with_event, watched
from tests.support import OWNER, delete, exact_state, failing, folder, snapshot, write

STEPS = 400  # More than a batch here has calls.
NAMES = ["x", "replaced", "removed", "new/y", "kind", "kind/z", "edited", "edited-removed"]


pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the root, with files under the names that are written."""
    top = tmp_path / "outside"
    for name in NAMES:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and name != "kind":
            path.write_bytes(b"outside")
    return top


def _first(top: str, owner: str = OWNER) -> list[Intent]:
    """Returns the files of an earlier update, below a folder."""
    names = ["replaced", "removed", "edited", "edited-removed", "kind/z", "e/x"]
    return [write(f"{top}/{name}", b"1", durable=False, owner=owner) for name in names]


def _second(top: str) -> list[Intent]:
    """Returns a batch with every kind of work."""
    writes = ["x", "replaced", "new/y", "kind", "edited", "e/x"]
    deletes = ["removed", "kind/z", "edited-removed"]
    return [
        *(write(f"{top}/{name}", b"2", durable=False) for name in writes),
        *(delete(f"{top}/{name}", durable=False) for name in deletes),
    ]


def _prepare(mirror: Mirror, *owners: str) -> None:
    """Makes our files in a folder for each step; two of them are edited."""
    tops = {k: f"{k}/d" for k in range(STEPS)}
    mirror.apply(
        [i for k, top in tops.items() for i in _first(top, owners[k] if owners else OWNER)]
    )
    for top in tops.values():
        for name in ("edited", "edited-removed"):
            (Path(mirror.root) / top / name).write_bytes(b"edited")


def _swap(path: Path, aside: Path, target: Path) -> None:
    """Puts a link where a folder was; the folder stays inside the root."""
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        path.symlink_to(target)


def _swap_back(path: Path, aside: Path) -> None:
    """Undoes a swap, if there was one."""
    if aside.exists():
        if os.path.lexists(path):
            path.unlink() if path.is_symlink() else path.rename(f"{aside}.later")
        aside.rename(path)


def test_linked_folder_is_moved_to_the_backup_area_not_followed(
    mirror: Mirror, root: Path, outside: Path
) -> None:
    (root / "d").symlink_to(outside)
    before = exact_state(outside)
    mirror.apply([write("d/x", b"1")])
    assert snapshot(root) == {"d": "dir", "d/x": b"1"}
    (moment,) = (root / ".fsmirror" / "backup").iterdir()
    assert os.readlink(moment / "d") == str(outside)
    assert exact_state(outside) == before


def test_linked_folder_is_an_error_if_links_may_not_be_moved(
    mirror: Mirror, root: Path, outside: Path
) -> None:
    (root / "d").symlink_to(outside)
    before = exact_state(outside)
    with pytest.raises(ApplyError, match="'d/x'"):
        mirror.apply([write("d/x", b"1", on_conflict="error")])
    assert (root / "d").is_symlink()
    assert exact_state(outside) == before


@pytest.mark.parametrize("act", ["delete", "close", "tear down"])
def test_files_behind_a_link_in_the_place_of_a_folder_are_not_removed(
    mirror: Mirror, root: Path, outside: Path, act: str
) -> None:
    intents = [folder("d"), write("d/x", b"outside"), write("d/new/y", b"outside")]
    mirror.apply(intents)
    (root / "d").rename(root / "aside")
    (root / "d").symlink_to(outside)
    before = exact_state(outside)
    if act == "delete":
        mirror.apply([delete("d/x"), delete("d/new/y"), delete("d")])
    elif act == "close":
        mirror.apply([], closed=[(OWNER, "")])
    else:
        mirror.tear_down(OWNER)
    assert exact_state(outside) == before


@pytest.mark.parametrize("inner", ["", "tmp", "backup", "ledger.sqlite3"])
def test_planted_link_in_our_own_folder_is_not_followed(
    root: Path, outside: Path, inner: str
) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        _prepare(mirror)
    own = root / ".fsmirror" / inner if inner else root / ".fsmirror"
    if own.exists():
        own.rename(root / "moved")
    own.symlink_to(outside / "x" if inner == "ledger.sqlite3" else outside)
    before = exact_state(outside)
    with Mirror(root) as mirror:
        _suppressed(lambda: mirror.apply(_second("0/d")))()
        assert exact_state(outside) == before
        _suppressed(lambda: mirror.tear_down(OWNER))()
        assert exact_state(outside) == before


def test_own_folder_that_is_a_link_is_an_error_with_the_root(root: Path, outside: Path) -> None:
    root.mkdir()
    (root / ".fsmirror").symlink_to(outside)
    with Mirror(root) as mirror, pytest.raises(RootError, match=str(root)):
        mirror.apply([write("x", b"1")])


@pytest.mark.parametrize("swapped", ["d", "d/kind"])
def test_folder_that_becomes_a_link_at_any_step_is_not_followed(
    mirror: Mirror, root: Path, outside: Path, swapped: str
) -> None:
    _prepare(mirror)
    before = exact_state(outside)
    for k in range(STEPS):
        path, aside = root / f"{k}" / swapped, root / f"{k}" / "aside"
        batch = _suppressed(partial(mirror.apply, _second(f"{k}/d")))
        more = run_with_event(batch, partial(_swap, path, aside, outside), k)
        assert exact_state(outside) == before, f"changed by a swap before call {k}"
        if not more:
            break
    assert STEPS - 1 > k > 60


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [".fsmirror", ".fsmirror/tmp"])
def test_own_folder_that_becomes_a_link_at_any_step_is_not_followed(
    root: Path, outside: Path, swapped: str
) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        _prepare(mirror)
    before = exact_state(outside)
    for k in range(STEPS):
        with Mirror(root) as mirror:
            batch = _suppressed(partial(mirror.apply, _second(f"{k}/d")))
            path, aside = root / swapped, root / f"aside{k}"
            more = run_with_event(batch, partial(_swap, path, aside, outside), k)
            assert exact_state(outside) == before, f"changed by a swap before call {k}"
        _swap_back(path, aside)
        if not more:
            break
    assert STEPS - 1 > k > 60


@pytest.mark.parametrize("swapped", ["d", "d/e"])
def test_teardown_removes_nothing_behind_a_link_of_any_step(
    mirror: Mirror, root: Path, outside: Path, swapped: str
) -> None:
    mirror.apply([write("keep", b"1")])
    _prepare(mirror, *(f"owner-{k}" for k in range(STEPS)))
    before = exact_state(outside)
    for k in range(STEPS):
        path, aside = root / f"{k}" / swapped, root / f"{k}" / "aside"
        batch = _suppressed(partial(mirror.tear_down, f"owner-{k}", durable=False))
        more = run_with_event(batch, partial(_swap, path, aside, outside), k)
        assert exact_state(outside) == before, f"changed by a swap before call {k}"
        if not more:
            break
    assert STEPS - 1 > k > 40


def _suppressed(act: Callable[[], object]) -> Callable[[], None]:
    """Runs a batch, and ignores our own errors only."""

    def batch() -> None:
        with contextlib.suppress(FsMirrorError):
            act()

    return batch


@pytest.mark.parametrize("name", ["../outside/x", "d/../../outside/x", "/etc/hostname"])
def test_ledger_with_a_name_that_leaves_the_root_is_refused(
    root: Path, outside: Path, name: str
) -> None:
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write("d/x", b"outside")])
    with contextlib.closing(sqlite3.connect(root / ".fsmirror" / "ledger.sqlite3")) as ledger:
        ledger.execute("UPDATE rows SET name = ? WHERE name = 'd/x'", (name,))
        ledger.commit()
    before = exact_state(outside)
    with Mirror(root) as mirror:
        _suppressed(partial(mirror.apply, [], closed=[(OWNER, "")]))()
        _suppressed(partial(mirror.tear_down, OWNER))()
    assert exact_state(outside) == before


def test_ledger_that_a_link_leads_to_meanwhile_is_not_opened(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    """SQLite takes a path, and the root may be another one by the time it opens that."""
    mirror.apply([write("x", b"1")])
    mirror.close()
    other = tmp_path / "other"
    shutil.copytree(root, other)
    before = exact_state(other)

    def replace(name: str, _args: tuple[object, ...]) -> None:
        if name == "connect" and not root.is_symlink():
            root.rename(tmp_path / "moved")
            root.symlink_to(other)

    with watched(replace), pytest.raises(LedgerError, match="was replaced while we opened it"):
        mirror.apply([write("x", b"2")])
    assert exact_state(other) == before


def test_folder_that_is_moved_out_before_the_barrier_gets_no_file(
    mirror: Mirror, root: Path, tmp_path: Path
) -> None:
    """The folder was opened to be looked at, and a barrier can take long."""
    mirror.apply([write("d/x", b"1")])
    moved = tmp_path / "moved"

    def move_out(name: str, _args: tuple[object, ...]) -> None:
        if name == "syncfs" and not moved.exists():
            (root / "d").rename(moved)
            (root / "d").mkdir()

    with watched(move_out):
        mirror.apply([write("d/y", b"2")])
    assert snapshot(moved) == {"x": b"1"}
    assert snapshot(root) == {"d": "dir", "d/y": b"2"}


def test_planted_link_in_the_place_of_the_lock_is_not_followed(
    mirror: Mirror, root: Path, outside: Path
) -> None:
    """A lock behind a link would be made there."""
    mirror.create()
    (root / ".fsmirror" / "lock").symlink_to(outside / "new-lock")
    before = exact_state(outside)
    with pytest.raises(RootError, match=str(root)), held(mirror.session):
        pass
    assert exact_state(outside) == before


def test_file_is_not_forgotten_if_a_planted_link_stops_its_removal(
    mirror: Mirror, root: Path, outside: Path
) -> None:
    """The error of our own folder must not pass for a file that is gone."""
    mirror.apply([write("x", b"1")])
    (root / ".fsmirror" / "tmp").rmdir()
    (root / ".fsmirror" / "tmp").symlink_to(outside)
    with failing("'x'"):
        mirror.apply([delete("x")])
    assert mirror.managed() == ["x"]
    (root / ".fsmirror" / "tmp").unlink()
    mirror.apply([delete("x")])
    assert snapshot(root) == {}
