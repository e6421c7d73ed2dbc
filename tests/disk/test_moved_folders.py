"""A folder that somebody moves out of the root is looked for again before each step in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import FsMirrorError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.layout import LOCK, RESERVE
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk.roots import open_root
from cocoindex_fsmirror._disk.tree import Tree
from tests.support import delete, folder, snapshot, write

STEPS = 60  # More than a batch here has steps.

pytestmark = pytest.mark.usefixtures("no_waiting")


def _work(top: str) -> list[Intent]:
    """Returns a batch with every kind of work below a folder."""
    return [
        write(f"{top}/replaced", b"2", durable=False),
        write(f"{top}/dressed", b"1", mode=0o604, durable=False),
        write(f"{top}/new", b"2", durable=False),
        write(f"{top}/made/new", b"2", durable=False),
        folder(f"{top}/inner", mode=0o711, durable=False),
        write(f"{top}/inner/replaced", b"2", durable=False),
        delete(f"{top}/removed", durable=False),
        delete(f"{top}/pruned/removed", durable=False),
    ]


def _lay_out(mirror: Mirror) -> None:
    """Makes what the work changes, below a folder for each step."""
    names = ["replaced", "dressed", "inner/replaced", "removed", "pruned/removed"]
    mirror.apply([write(f"{k}/d/{n}", b"1", durable=False) for k in range(STEPS) for n in names])


@pytest.mark.parametrize("moved", ["d", "d/inner", ""])
def test_folder_that_is_moved_out_between_steps_is_left_alone(
    mirror: Mirror, root: Path, tmp_path: Path, moved: str
) -> None:
    _lay_out(mirror)
    (tmp_path / "elsewhere").mkdir()
    reached = 0
    for k in range(STEPS):
        aside, place = tmp_path / "elsewhere" / f"{k}", root / f"{k}" / moved
        states: list[object] = []
        with _moving(k, place, aside, states), contextlib.suppress(FsMirrorError):
            mirror.apply(_work(f"{k}/d"))
        if not states:
            break
        reached = k
        assert snapshot(aside) == states[0], f"changed after a move before step {k}"
        mirror.apply(_work(f"{k}/d"))
        assert snapshot(root / f"{k}" / "d") == {
            **dict.fromkeys(("replaced", "new", "made/new", "inner/replaced"), b"2"),
            **dict.fromkeys(("made", "inner"), "dir"),
            "dressed": b"1",
        }
    assert STEPS - 1 > reached > 15


@contextlib.contextmanager
def _moving(k: int, place: Path, aside: Path, states: list[object]) -> Iterator[None]:
    """Moves a folder away before the k-th step; adds its state after that to a list.

    A step begins where its folder is looked for again. The call itself comes a moment later.
    """
    count, real = 0, Tree.recheck

    def before_a_step(tree: Tree, *folders: Name) -> None:
        nonlocal count
        count += 1
        if count == k + 1:
            with contextlib.suppress(FileNotFoundError):
                place.rename(aside)
            states.append(snapshot(aside))
        real(tree, *folders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tree, "recheck", before_a_step)
        yield


def test_state_folder_that_moves_out_is_looked_for_again(root: Path, tmp_path: Path) -> None:
    (root / ".fsmirror").mkdir(parents=True)
    with contextlib.closing(open_root(str(root))[0]) as tree:
        tree.make_file(LOCK)
        (root / ".fsmirror").rename(tmp_path / "outside")
        (root / ".fsmirror").mkdir()
        tree.make_file(RESERVE)
    assert os.listdir(tmp_path / "outside") == ["lock"]
    assert os.listdir(root / ".fsmirror") == ["reserve"]
