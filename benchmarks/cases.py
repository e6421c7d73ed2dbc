"""Cases: how the state of a peer is prepared, the command that is timed, and the check after it.

A *fresh* case starts from nothing in each round; all others keep their state, and change it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from . import OUTPUT, peers, trees
from .measure import Case, call
from .trees import Files

__all__ = ["FRESH", "Step", "afresh", "clear", "flows", "prepared"]

Step: TypeAlias = Literal["first", "unchanged", "changed", "tampered", "deleted", "drop"]
"""What happens in a run: the first one, nothing new, 1 % changed in the source, 1 % tampered
with in the output, all deleted in the source, or the whole given up."""

_NONE = Files(0, 0)
FRESH = frozenset({"first", "deleted", "drop"})


def afresh(folder: Path) -> None:
    """Makes a folder that is empty; one that was there is kept beside it.

    ext4 does not use the number of a file that was just removed again for a minute or more, and
    is slow to find another: the next run would pay for it.
    """
    if folder.exists():
        kept = sum(1 for _ in folder.parent.glob(f"{folder.name}.kept-*"))
        folder.rename(folder.with_name(f"{folder.name}.kept-{kept}"))
    folder.mkdir(parents=True)


def _after(step: Step, files: Files, number: int) -> Files:
    """Returns the files that must exist after a round."""
    if step in {"deleted", "drop"}:
        return _NONE
    return replace(files, generation=number + 1) if step == "changed" else files


def prepared(
    step: Step, folder: Path, fill: Sequence[str], alter: Callable[[int], None] | None = None
) -> Callable[[int], None]:
    """Returns the preparation of a run: an empty folder or an earlier run, then a change."""

    def prepare(number: int) -> None:
        if number == 0 or step in FRESH:
            afresh(folder)
            if step != "first":
                call(fill)
        if alter:
            alter(number)

    return prepare


def clear(step: Step, folder: Path) -> Callable[[], None] | None:
    """Returns the removal of what a fresh case leaves, so that a small tmpfs has room."""
    return partial(shutil.rmtree, folder, ignore_errors=True) if step in FRESH else None


def flows(
    targets: Sequence[str],
    step: Step,
    files: Files,
    folder: Path,
    *,
    one_each: bool = False,
    with_loops: bool = True,
) -> list[Case]:
    """Returns the same flow with each target.

    Args:
        targets: Which.
        step: What happens.
        files: What is declared.
        folder: Where all of it lies.
        one_each: True for one component for each file, instead of one for all.
        with_loops: True if the bare loop takes part in the first run.
    """
    cases = [_flow(target, step, files, folder / target, one_each) for target in targets]
    if step == "first" and with_loops:
        cases += [_loop(peer, files, folder / peer.replace(" ", "-")) for peer in peers.LOOPS]
    return cases


def _flow(target: str, step: Step, files: Files, root: Path, one_each: bool) -> Case:
    """Returns the case of a flow with one target."""
    command = partial(peers.flow, target, root, one_each=one_each)
    out = root / OUTPUT

    def argv(number: int) -> list[str]:
        if step == "drop":
            return command(files, drop=True)
        return command(_after(step, files, number))

    return Case(
        peer=target,
        files=files.count,
        prepare=prepared(
            step,
            root,
            fill=command(files),
            alter=(lambda _: trees.tamper(out, files))
            if step == "tampered" and target != "nothing"
            else None,
        ),
        command=argv,
        count_wrong=None
        if target == "nothing"
        else lambda number: trees.count_wrong(out, _after(step, files, number)),
        finish=clear(step, root),
        heals=step != "tampered" or target.startswith("ours"),
    )


def _loop(peer: str, files: Files, folder: Path) -> Case:
    """Returns the case of the bare loop."""
    return Case(
        peer=peer,
        files=files.count,
        prepare=lambda _: afresh(folder),
        command=lambda _: peers.loop(peer, folder / OUTPUT, files),
        count_wrong=lambda _: trees.count_wrong(folder / OUTPUT, files),
        finish=clear("first", folder),
    )
