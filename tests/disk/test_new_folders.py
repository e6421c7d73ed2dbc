"""A new folder is staged with its contents, and placed by one rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import ApplyError, Mirror
from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._core.rows import Pending, Row
from cocoindex_fsmirror._core.states import Kind
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import tree as _fs
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._disk.staging import Staging
from tests.steps import recorded, run_with_event, watched
from tests.support import (
    OWNER,
    backups,
    delete,
    failing,
    folder,
    ledger_rows,
    link,
    snapshot,
    write,
)

STEPS = 60  # More than a batch here has calls.
INTENTS = [
    write("top/a", b"1"),
    write("top/sub/b", b"1"),
    link("top/sub/link", "b"),
    folder("top/empty"),
    write("beside", b"1"),
]
MADE = {
    "beside": b"1",
    "top": "dir",
    "top/a": b"1",
    "top/empty": "dir",
    "top/sub": "dir",
    "top/sub/b": b"1",
    "top/sub/link": "-> b",
}


def _staged(root: Path) -> list[str]:
    """Returns the paths that are left in the staging area."""
    return os.listdir(root / ".fsmirror" / "tmp")


def test_new_folder_is_placed_by_one_rename(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("earlier")])
    with recorded() as calls:
        mirror.apply(INTENTS)
    names = [name for name, _ in calls]
    assert snapshot(root) == {**MADE, "earlier": b""}
    assert names.count("renameat2") == 2  # Of the folder, and of the file beside it.
    assert _staged(root) == []
    assert mirror.verify(content=True) == []
    assert mirror.status().folders == 3
    assert mirror.status().files == len(mirror.managed()) == 5


def test_new_folder_is_placed_whole(mirror: Mirror, root: Path) -> None:
    seen: list[list[str]] = []

    def look(name: str, args: tuple[Any, ...]) -> None:
        found = snapshot(root)
        seen.append(sorted(path for path in found if path.startswith("top")))

    with watched(look):
        mirror.apply(INTENTS)
    assert [names for k, names in enumerate(seen) if names != seen[k - 1]] == [
        [],
        sorted(name for name in MADE if name.startswith("top")),
    ]


def test_look_at_a_staged_file_proves_its_content(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look happens while the file is staged; a look in the file's own tick proves nothing."""
    real, could_edit = coarse_now_ns, list[bool]()

    def clock() -> int:
        could_edit.append((root / "top").exists())
        return real()

    mirror.create()
    monkeypatch.setattr(_calls, "coarse_now_ns", clock)
    mirror.apply([write("top/a", b"1")])
    assert not could_edit[0]
    (row,) = (row for row in ledger_rows(mirror) if row.name == "top/a")
    assert row.ctime_ns < row.recorded_ns


def _folder_appears(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _folder_appears_with_our_name_in_it(path: Path) -> None:
    path.mkdir(exist_ok=True)
    if not (path / "a").exists():
        (path / "a").write_bytes(b"foreign")


def _folder_appears_with_all_in_it(path: Path) -> None:
    _folder_appears_with_our_name_in_it(path)
    (path / "sub").mkdir(exist_ok=True)
    if not (path / "sub" / "b").exists():
        (path / "sub" / "b").write_bytes(b"foreign")


@pytest.mark.parametrize(
    "event",
    [_folder_appears, _folder_appears_with_our_name_in_it, _folder_appears_with_all_in_it],
)
def test_folder_that_appears_at_any_step_is_filled_and_loses_nothing(
    tmp_path: Path, event: Callable[[Path], None]
) -> None:
    for k in range(STEPS):
        root = tmp_path / str(k)
        with Mirror(root) as mirror:
            mirror.create()
            try:
                run_with_event(partial(mirror.apply, INTENTS), partial(event, root / "top"), k)
            except ApplyError:
                mirror.apply(INTENTS)
            found = snapshot(root)
            written = {name: held for name, held in found.items() if held != b"foreign"}
            assert written.items() <= MADE.items()
            foreign = sum(held == b"foreign" for held in found.values())
            mirror.apply(INTENTS)
            assert snapshot(root) == MADE
            assert len(backups(root)) >= foreign
            assert set(backups(root)) <= {b"foreign"}
            assert _staged(root) == []


def test_failed_file_of_a_new_folder_leaves_the_others_whole(mirror: Mirror, root: Path) -> None:
    long = "n" * 255
    real = Staging.write

    def write_or_fail(self: Staging, slot: Any, *args: Any) -> Any:
        if slot.entry.endswith(long):
            raise OSError(5, os.strerror(5))
        return real(self, slot, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staging, "write", write_or_fail)
        with failing("Input/output error"):
            fails = [write(f"{folder}/{long}") for folder in ("top", "top/alone", "alone")]
            mirror.apply([*INTENTS, *fails])
    assert snapshot(root) == MADE
    assert _staged(root) == []
    assert mirror.verify(content=True) == []


def test_new_folder_that_can_not_be_staged_is_made_in_place(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Staging.put

    def refuse_folders(self: Staging, slot: Any, name: Any) -> None:
        if name == "top":
            raise OSError(18, os.strerror(18))
        real(self, slot, name)

    monkeypatch.setattr(Staging, "put", refuse_folders)
    mirror.apply(INTENTS)
    assert snapshot(root) == MADE
    assert _staged(root) == []
    assert mirror.verify(content=True) == []


def test_new_folder_is_not_placed_if_its_way_can_not_be_cleared(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the obstacle goes by itself: a placed folder that is not noted would stay."""
    mirror.apply([write("top", b"1")])
    real = Staging.take

    def refuse_and_lose(self: Staging, slot: Any, name: Any) -> None:
        (root / name).unlink()
        raise OSError(1, os.strerror(1))

    monkeypatch.setattr(Staging, "take", refuse_and_lose)
    with pytest.raises(ApplyError, match="'top'"):
        mirror.apply([write("top/a", b"2"), delete("top")])
    assert snapshot(root) == {}
    monkeypatch.setattr(Staging, "take", real)
    mirror.apply([write("top/a", b"2")])
    mirror.tear_down(OWNER)
    assert snapshot(root) == {}


def test_new_folder_is_made_in_place_without_descriptors(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fs, "_KEPT", 1)
    (root / "top").mkdir()
    real = Staging.put

    def refuse_folders(self: Staging, slot: Any, name: Any) -> None:
        if name in ("top/x", "top/y"):
            raise OSError(18, os.strerror(18))
        real(self, slot, name)

    monkeypatch.setattr(Staging, "put", refuse_folders)
    mirror.apply([write(f"top/{d}/{n}", b"1") for d in "xy" for n in "ab"])
    assert sorted(snapshot(root)) == [
        *("top", "top/x", "top/x/a", "top/x/b", "top/y", "top/y/a", "top/y/b")
    ]
    assert mirror.verify(content=True) == []


def test_foreign_files_in_the_staging_area_are_kept(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    theirs = root / ".fsmirror" / "tmp" / ("a" * 32) / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "a").write_bytes(b"foreign")
    mirror.apply([write("x", b"2")])
    assert backups(root) == [b"foreign"]
    assert _staged(root) == []


def test_remains_of_a_staged_folder_go_though_its_note_is_lost(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1")])
    torn = root / ".fsmirror" / "tmp" / ("a" * 32) / "0" / "sub"
    torn.mkdir(parents=True)
    (torn / "a").write_bytes(b"to")
    mirror.apply([write("x", b"2")])
    assert snapshot(root) == {"x": b"2"}
    assert backups(root) == []
    assert _staged(root) == []


def test_foreign_folder_that_was_taken_out_is_backed_up_as_a_whole(
    mirror: Mirror, root: Path
) -> None:
    """A folder took the name of a removed file, and the process died with it in a slot."""
    mirror.apply([write("x", b"1")])
    taken = root / ".fsmirror" / "tmp" / ("a" * 32 + ".ready") / "0"
    taken.mkdir(parents=True)
    (taken / "inside").write_bytes(b"foreign")
    assert mirror.session.ledger is not None
    removal = Row(Name("gone"), Kind.FILE, "", "")
    mirror.session.ledger.begin([Pending("a" * 32, ROOT, "0", True, removal)])
    mirror.apply([write("x", b"2")])
    (moment,) = (root / ".fsmirror" / "backup").iterdir()
    assert snapshot(moment) == {"gone": "dir", "gone/inside": b"foreign"}
    assert _staged(root) == []
