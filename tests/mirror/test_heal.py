"""Drift is healed from copies; one that is damaged, or lost, only leaves its path to the owner."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import LedgerError, Mirror
from cocoindex_fsmirror._mirror.session import Session
from tests.mirror.keeping import (
    FILES,
    SMALL,
    copies,
    database,
    declare,
    large,
    names_of,
    recorded,
)
from tests.mirror.test_ledger_formats import _kept
from tests.support import backups, contents, exact_state, snapshot, staged

LARGE = FILES["large"]
Damage = Callable[[Path], None]


@pytest.fixture
def kept(root: Path) -> Path:
    """A closed mirror with copies of small and large contents."""
    with Mirror(root) as mirror:
        declare(mirror, FILES)
    return root


def lose_all(root: Path) -> None:
    """Removes all managed files."""
    for name in FILES:
        (root / name).unlink(missing_ok=True)


def heal(root: Path) -> list[str]:
    """Heals a mirror; returns what was healed."""
    with Mirror(root) as mirror:
        return mirror.heal().healed


def converge(root: Path) -> None:
    """Updates, as the owner does, and asserts that all copies are in order then."""
    with Mirror(root) as mirror:
        declare(mirror, {name: content + b", new" for name, content in FILES.items()})
        declare(mirror, FILES)
        assert mirror.verify(content=True) == []
        lose_all(root)
        assert mirror.heal().healed == sorted(FILES)
        assert contents(snapshot(root)) == FILES
        assert staged(root) == []
    assert copies(root) == recorded(root) == names_of(*FILES.values())


def _execute(sql: str) -> Damage:
    """Returns a function that runs a statement on the small copies."""

    def act(root: Path) -> None:
        with contextlib.closing(sqlite3.connect(database(root))) as stored:
            stored.execute(sql)
            stored.commit()

    return act


def _overwrite(place: Callable[[Path], Path], content: bytes) -> Damage:
    """Returns a function that replaces the bytes of a file."""
    return lambda root: void(place(root).write_bytes(content))


def void(_result: object) -> None:
    """Returns nothing."""


def _become(place: Callable[[Path], Path], make: Callable[[Path], object]) -> Damage:
    """Returns a function that puts something else in the place of a file or folder."""

    def act(root: Path) -> None:
        path = place(root)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return act


def _link_elsewhere(path: Path) -> None:
    """Makes a link to a file, or folder, that holds the same."""
    path.symlink_to(path.parent.parent.parent / "elsewhere")


def _fill(path: Path) -> None:
    """Makes a folder with a file in it."""
    path.mkdir()
    (path / "inner").write_bytes(b"x")


def _folder(root: Path) -> Path:
    """Returns the folder of the large copies."""
    return large(root, LARGE).parent


def _large(root: Path) -> Path:
    """Returns the large copy."""
    return large(root, LARGE)


_BOMB = bytes.fromhex("28b52ffde0ffffffffffffff3f010000")
"""A frame of zstandard that claims to hold 2^62 bytes."""
_SMALL_DAMAGES: dict[str, Damage] = {
    "another content": _execute("UPDATE contents SET content = x'00'"),
    "no content": _execute("UPDATE contents SET content = x'', is_packed = 1"),
    "text": _execute("UPDATE contents SET content = CAST(x'ff41' AS TEXT), is_packed = 0"),
    "a number": _execute("UPDATE contents SET content = 7, is_packed = 1"),
    "a claim of much": _execute(f"UPDATE contents SET content = x'{_BOMB.hex()}', is_packed = 1"),
    "packed once more": _execute("UPDATE contents SET is_packed = NOT is_packed WHERE content"),
    "no rows": _execute("DELETE FROM contents"),
    "no table": _execute("DROP TABLE contents"),
    "another table": _execute("ALTER TABLE contents RENAME COLUMN content TO other"),
    "no database": _overwrite(database, b"no database" * 1000),
    "an empty file": _overwrite(database, b""),
    "no file": lambda root: database(root).unlink(),
    "a folder": _become(database, Path.mkdir),
    "a full folder": _become(database, _fill),
    "a FIFO": _become(database, os.mkfifo),
    "a link": _become(database, _link_elsewhere),
    "a link to nothing": _become(database, lambda path: path.symlink_to("nothing")),
    "a FIFO as its log": lambda root: os.mkfifo(f"{database(root)}-wal"),
    "a folder as its journal": lambda root: os.mkdir(f"{database(root)}-journal"),
}
_LARGE_DAMAGES: dict[str, Damage] = {
    "another content": _overwrite(_large, LARGE.upper()),
    "less": _overwrite(_large, b"less"),
    "no file": lambda root: _large(root).unlink(),
    "a folder": _become(_large, Path.mkdir),
    "a full folder": _become(_large, _fill),
    "a FIFO": _become(_large, os.mkfifo),
    "a link": _become(_large, _link_elsewhere),
    "no folder": lambda root: shutil.rmtree(_folder(root)),
    "a file as the folder": _become(_folder, Path.touch),
    "a FIFO as the folder": _become(_folder, os.mkfifo),
    "a link as the folder": _become(_folder, _link_elsewhere),
}


@pytest.mark.parametrize("damage", _SMALL_DAMAGES.values(), ids=_SMALL_DAMAGES)
def test_damaged_small_copies_are_left_to_the_owner(kept: Path, damage: Damage) -> None:
    damage(kept)
    lose_all(kept)
    assert set(heal(kept)) <= {"a", "d/b", "d/c", "large"}
    found = contents(snapshot(kept))
    assert found == {name: FILES[name] for name in found}
    assert found["large"] == LARGE
    assert not list((kept / ".fsmirror").glob("*.corrupt-*"))  # The ledger is sound.
    converge(kept)


@pytest.mark.parametrize("damage", _LARGE_DAMAGES.values(), ids=_LARGE_DAMAGES)
def test_damaged_large_copy_is_left_to_the_owner(kept: Path, damage: Damage) -> None:
    (kept.parent / "elsewhere").write_bytes(b"theirs")
    damage(kept)
    lose_all(kept)
    assert heal(kept) == sorted(FILES.keys() - {"large"})
    assert (kept.parent / "elsewhere").read_bytes() == b"theirs"
    assert recorded(kept) == names_of(*({*FILES.values()} - {LARGE}))
    converge(kept)


@pytest.mark.parametrize("damage", [*_SMALL_DAMAGES.values(), *_LARGE_DAMAGES.values()])
def test_mirror_with_damaged_copies_can_be_looked_at(kept: Path, damage: Damage) -> None:
    damage(kept)
    with contextlib.suppress(LedgerError):
        assert Mirror(kept).status().files == 4
        assert Mirror(kept).verify(content=True) == []


@pytest.mark.parametrize("damage", [*_SMALL_DAMAGES.values(), *_LARGE_DAMAGES.values()])
def test_damaged_copies_keep_no_update_from_being_made(kept: Path, damage: Damage) -> None:
    damage(kept)
    with Mirror(kept) as mirror:
        declare(mirror, {"a": b"new", "large": LARGE[1:]})
        assert mirror.verify(content=True) == []
    assert contents(snapshot(kept)) == {"a": b"new", "large": LARGE[1:]}
    assert names_of(b"new", LARGE[1:]) <= copies(kept)
    assert recorded(kept) == names_of(b"new", LARGE[1:])


def test_torn_copy_is_replaced_when_its_content_is_written_again(kept: Path) -> None:
    _large(kept).write_bytes(b"less")
    with Mirror(kept) as mirror:
        declare(mirror, FILES | {"again": LARGE})
        (kept / "large").unlink()
        assert mirror.heal().healed == ["large"]


def test_recovery_tells_of_no_copy_that_is_lost(kept: Path) -> None:
    _execute("DELETE FROM contents")(kept)
    (kept / ".fsmirror" / "tmp" / "cut-off").mkdir(parents=True)
    with Mirror(kept) as mirror:
        mirror.create()
    assert copies(kept) == recorded(kept) == names_of(LARGE)


def test_database_that_is_replaced_between_batches_is_opened_anew(kept: Path) -> None:
    with Mirror(kept) as mirror:
        (kept / "a").unlink()
        assert mirror.heal().healed == ["a"]
        database(kept).rename(database(kept).with_name("aside"))
        shutil.copy(database(kept).with_name("aside"), database(kept))
        declare(mirror, {"a": b"new"})
        (kept / "a").unlink()
        assert mirror.heal().healed == ["a"]
    assert (kept / "a").read_bytes() == b"new"


def test_hard_linked_mirror_does_not_share_its_copies(kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["cp", "-al", str(kept), str(other)], check=True)
    ours = {path: path.read_bytes() for path in [database(kept), _large(kept)]}
    with Mirror(other) as mirror:
        declare(mirror, {name: content[:-1] for name, content in FILES.items()})
        declare(mirror, {"new": b"new" * SMALL, "small": b"small"})
    assert {path: path.read_bytes() for path in ours} == ours
    with Mirror(kept) as mirror:  # Before that it would not believe its ledger.
        declare(mirror, FILES)
    lose_all(kept)
    assert heal(kept) == sorted(FILES)
    assert copies(other) == recorded(other) == names_of(b"new" * SMALL, b"small")


@pytest.mark.parametrize("name", ["copies", "copies.sqlite3"])
@pytest.mark.parametrize("change", ["owner", "mode"])
def test_copies_that_others_may_have_written_are_refused(
    kept: Path, name: str, change: str
) -> None:
    path = kept / ".fsmirror" / name
    if change == "mode":
        path.chmod(0o777)
    elif os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        pytest.skip("changing the owner needs root")
    lose_all(kept)
    with pytest.raises(LedgerError, match=f"{name}: .*(belongs to|others may write)"):
        heal(kept)
    assert contents(snapshot(kept)) == {}


def test_foreign_edit_goes_to_the_backup_area(kept: Path) -> None:
    (kept / "a").write_bytes(b"foreign")
    assert heal(kept) == ["a"]
    assert (kept / "a").read_bytes() == FILES["a"]
    assert backups(kept) == [b"foreign"]


def test_healed_mirror_is_at_rest(kept: Path) -> None:
    lose_all(kept)
    with Mirror(kept) as mirror:
        mirror.heal()
        before = exact_state(kept)
        assert mirror.heal().healed == []
        declare(mirror, FILES)
        assert exact_state(kept) == before


def test_migrated_ledger_gets_its_copies_at_the_next_update(root: Path) -> None:
    _kept(root, 4)
    with Mirror(root) as mirror:
        declare(mirror, FILES, copies="none")
        mirror.close()
    file = root / ".fsmirror" / "ledger.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as ledger:  # As format 4 has it.
        ledger.executescript("DROP INDEX copied; DROP TABLE policies; PRAGMA user_version = 4;")
        ledger.execute("ALTER TABLE rows DROP COLUMN copied")
        ledger.commit()
    with Mirror(root) as mirror:
        declare(mirror, FILES)
    assert names_of(*FILES.values()) <= copies(root)
    assert copies(root) == recorded(root)
    lose_all(root)
    assert set(FILES) <= set(heal(root))


_IN_TURNS = """
import sys
from pathlib import Path
from typing import Any
from cocoindex_fsmirror import Mirror
from tests.mirror.keeping import declare
root, me = Path(sys.argv[1]), sys.argv[2]
for turn in range(12):
    with Mirror(root, patience=60) as mirror:
        shared = {f"{me}/{n}": b"shared %d" % (n + turn) for n in range(5)}
        declare(mirror, shared | {f"{me}/own": me.encode() * turn * 9999}, by=me)
        (root / me / "0").unlink()
        mirror.heal()
"""


@pytest.mark.slow
def test_two_processes_keep_copies_at_once(kept: Path) -> None:
    command = [sys.executable, "-c", _IN_TURNS, str(kept)]
    both = [subprocess.Popen([*command, me]) for me in ("one", "two")]
    assert [each.wait(120) for each in both] == [0, 0]
    assert copies(kept) == recorded(kept)
    with Mirror(kept) as mirror:
        assert mirror.verify(content=True) == []
        shutil.rmtree(kept / "one")
        assert len(mirror.heal().healed) == 6


NEWER = {"a": b"newer", "d/b": b"", "new": b"new"}


@pytest.mark.parametrize("step", range(3))
def test_update_of_another_process_is_never_undone(
    kept: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    lose_all(kept)
    run, count = Session.run, iter(range(100))

    def overtaken(session: Session, *args: Any, **more: Any) -> Any:
        if next(count) == step:  # Between two turns of this process.
            with Mirror(kept) as other:
                declare(other, NEWER)
        return run(session, *args, **more)

    with Mirror(kept) as mirror:
        monkeypatch.setattr(Session, "run", overtaken)
        healing = mirror.heal()
    monkeypatch.undo()
    assert contents(snapshot(kept)) == NEWER
    assert {*healing.healed} <= {*FILES}
    assert backups(kept) == []
    with Mirror(kept) as mirror:
        assert mirror.verify(content=True) == []
