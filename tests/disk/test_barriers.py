"""A batch has two barriers, each in its place; a failed one is never believed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cocoindex_fsmirror import BarrierError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._mirror.exact import sweep
from tests.steps import CHANGES, identity, recorded
from tests.support import OWNER, contents, delete, folder, snapshot, staged, write


@pytest.fixture(autouse=True)
def _needs_syncfs(mirror: Mirror) -> None:
    """Makes the ledger first, so that its own syncs are over; skips without syncfs."""
    if _calls.syncfs is None:
        pytest.skip("this C library has no syncfs")
    mirror.apply([write("earlier", b"0"), write("gone", b"0"), write("kind/x", b"0")])


@pytest.fixture
def fail_barrier(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes one of the next barriers fail, counted from 1, as a disk with an error does."""

    def act(which: int) -> None:
        real, count = _calls.syncfs, 0
        assert real is not None

        def syncfs(fd: int) -> None:
            nonlocal count
            count += 1
            real(fd)
            if count == which:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(_calls, "syncfs", syncfs)

    return act


def _batch(files: int) -> list[Intent]:
    """Returns a batch that does a bit of everything."""
    many = [write(f"d{n % 7}/{n}", b"%d" % n) for n in range(files)]
    return [*many, write("earlier", b"1"), delete("gone"), write("kind", b"1"), delete("kind/x")]


@pytest.mark.parametrize("files", [0, 1, 300])
def test_batch_of_any_size_makes_two_barriers(mirror: Mirror, files: int) -> None:
    with recorded() as calls:
        mirror.apply(_batch(files))
    names = [name for name, _ in calls]
    assert names.count("syncfs") == 2
    assert names.count("fsync") == 0


def test_batch_without_work_makes_no_barrier(mirror: Mirror) -> None:
    mirror.apply(_batch(5))
    with recorded() as calls:
        mirror.apply([write("earlier", b"1")])
    assert not (CHANGES - {"mkdir"}) & {name for name, _ in calls}


def test_batch_without_durability_makes_no_barrier(mirror: Mirror, root: Path) -> None:
    with recorded() as calls:
        mirror.apply([write("a", b"1", durable=False), delete("gone", durable=False)])
    assert not {"syncfs", "fsync"} & {name for name, _ in calls}
    assert contents(snapshot(root)).keys() == {"a", "earlier", "kind/x"}


def test_durable_path_makes_the_whole_batch_durable(mirror: Mirror) -> None:
    with recorded() as calls:
        mirror.apply([write("a", b"1", durable=False), write("b", b"1")])
    assert [name for name, _ in calls].count("syncfs") == 2


def test_steps_of_a_batch_happen_in_order(mirror: Mirror) -> None:
    with recorded() as calls:
        mirror.apply([*_batch(20), folder("declared")])
    names = [name for name, _ in calls]
    first, second = (at for at, name in enumerate(names) if name == "syncfs")
    places = [at for at, name in enumerate(names) if name in ("renameat2", "rename", "rmdir")]
    writes = [at for at, name in enumerate(names) if name == "write"]
    assert names.index("begin") < min(writes)
    assert max(writes) < first < min(places)
    assert max(places) < second < names.index("commit")
    assert names.count("begin") == names.count("commit") == 1
    changes = {"mkdir", "unlink", "rename", "renameat2", "rmdir", "write", "fchmod"}
    assert not changes & set(names[second:])


def test_barrier_is_on_a_descriptor_older_than_the_first_write(mirror: Mirror, root: Path) -> None:
    with recorded() as calls:
        mirror.apply(_batch(3))
    opened = [args[0] for name, args in calls if name == "open" and str(args[0]) == str(root)]
    assert len(opened) == 1
    assert calls[[name for name, _ in calls].index("open")][1][0] == str(root)


def test_nothing_is_in_place_after_a_failed_first_barrier(
    mirror: Mirror, root: Path, fail_barrier: Callable[[int], None]
) -> None:
    before = snapshot(root)
    fail_barrier(1)
    with pytest.raises(BarrierError, match=str(root)):
        mirror.apply(_batch(5))
    assert snapshot(root) == before
    assert not staged(root)
    assert mirror.verify() == []
    mirror.apply(_batch(5))
    assert (root / "d3" / "3").read_bytes() == b"3"


def test_bytes_are_written_anew_after_a_failed_second_barrier(
    mirror: Mirror, root: Path, fail_barrier: Callable[[int], None]
) -> None:
    fail_barrier(2)
    with pytest.raises(BarrierError, match=str(root)):
        mirror.apply(_batch(3))
    names = ["d0/0", "d1/1", "d2/2", "earlier", "kind"]
    failed = {name: (root / name).lstat().st_ino for name in names}
    assert set(names) <= set(mirror.verify())
    mirror.apply(_batch(3))
    for name in names:
        assert (root / name).lstat().st_ino != failed[name]
    assert contents(snapshot(root)).keys() == set(names)
    assert mirror.verify() == []
    settled = {name: identity(root / name) for name in names}
    mirror.apply(_batch(3))
    assert {name: identity(root / name) for name in names} == settled


def test_failed_barrier_is_not_believed_by_the_next_process(
    mirror: Mirror, root: Path, fail_barrier: Callable[[int], None]
) -> None:
    fail_barrier(2)
    with pytest.raises(BarrierError):
        mirror.apply([write("a", b"1")])
    before = (root / "a").lstat().st_ino
    mirror.close()
    with Mirror(root) as other:
        assert other.verify() == ["a"]
        other.apply([write("a", b"1")])
    assert (root / "a").lstat().st_ino != before


def test_failed_barrier_makes_nothing_foreign_ours(
    mirror: Mirror, root: Path, fail_barrier: Callable[[int], None]
) -> None:
    (root / "theirs").write_bytes(b"same")
    fail_barrier(2)
    with pytest.raises(BarrierError):
        mirror.apply([write("theirs", b"same"), write("a", b"1")])
    mirror.apply([write("theirs", b"same"), write("a", b"1")])
    mirror.apply([delete("theirs")])
    assert b"same" in {*contents(snapshot(root)).values(), *_backed_up(root)}


def test_teardown_and_sweep_end_with_a_barrier(mirror: Mirror, root: Path) -> None:
    (root / "theirs").write_bytes(b"foreign")
    acts: list[Callable[[], object]] = [
        partial(mirror.session.run, sweep),
        partial(mirror.tear_down, OWNER),
    ]
    for act in acts:
        with recorded() as calls:
            act()
        names = [name for name, _ in calls]
        changes = [at for at, name in enumerate(names) if name in ("renameat2", "unlink", "rmdir")]
        assert max(changes) < max(at for at, name in enumerate(names) if name == "syncfs")


def _backed_up(root: Path) -> set[bytes]:
    """Returns the contents of the backup area."""
    found = contents(snapshot(root, ours=True))
    return {content for name, content in found.items() if name.startswith("backup/")}
