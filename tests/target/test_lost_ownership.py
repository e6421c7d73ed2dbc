"""A limit of the engine: a memoized former owner is not asked again after a cut-off move.

A component takes a file over from another one, and the update ends before that one was
run. The engine has written down the new owner, and left what it memoized of the former
one. If everything is then declared as before, the new owner gives the file up, the former
one is not run, and the file stays away, though it is declared.
"""

from __future__ import annotations

from pathlib import Path

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.target.flows import OUT, BoomError, Flow, failing_sink

Files = tuple[tuple[str, bytes], ...]

BEFORE: dict[str, Files] = {"one": (("x", b"1"),), "two": (("moving", b"1"),)}
MOVED: dict[str, Files] = {"one": (("x", b"2"), ("moving", b"1")), "two": ()}


@coco.fn(memo=True)
async def memoized(files: Files, out: fsmirror.DirTarget) -> None:
    """Declares some files."""
    for name, content in files:
        out.declare_file(name, content)


class Owners:
    """A flow of two components, one after the other, that may end before the second."""

    def __init__(self) -> None:
        self.files = BEFORE
        self.ends_early = False

    async def __call__(self, flow: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT, **flow.options)
        for name, files in self.files.items():
            if self.ends_early and name == "two":
                raise BoomError("the flow ends")
            handle = await coco.mount(coco.component_subpath(name), memoized, files, out)
            await handle.ready()


def test_file_whose_move_was_cut_off_stays_away_until_a_full_rerun(
    tmp_path: Path,
) -> None:
    owners = Owners()
    flow = Flow(tmp_path, owners)
    flow.update()
    owners.files, owners.ends_early = MOVED, True
    with failing_sink(after=False, names=["x"]):
        assert "the flow ends" in flow.attempt()
    owners.files, owners.ends_early = BEFORE, False
    flow.update()
    flow.update()
    assert flow.tree.keys() == {"x"}  # "moving" should be here as well.
    flow.update(reprocess=True)
    assert flow.tree.keys() == {"x", "moving"}
    flow.close()


@pytest.mark.parametrize("is_early", [False, True])
def test_complete_move_between_owners_loses_nothing(tmp_path: Path, is_early: bool) -> None:
    owners = Owners()
    flow = Flow(tmp_path, owners)
    flow.update()
    for files in (MOVED, BEFORE):
        owners.files = dict(reversed(files.items())) if is_early else files
        flow.update()
        assert flow.tree.keys() == {"x", "moving"}
    flow.close()
