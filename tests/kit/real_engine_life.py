"""One life of a process with a real engine, which takes steps until it dies."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from cocoindex_fsmirror.testing import Update
from tests.kit.real_engine import Database, RealEngine
from tests.kit.recording import Kind, Turn

DIED: Final = 0x5D
Seen: TypeAlias = tuple[str, list[Turn], list[str]]
"""How an update ended, what was seen of it, and the actions of its first batch."""


def live(database: Path, kind: Kind, steps: Sequence[Update], grace: float = 0.1) -> list[Seen]:
    """Takes steps in a process of its own, up to the one that ends it."""
    told = database.with_suffix(".told")
    child = subprocess.run(
        [sys.executable, "-m", __name__, str(database), kind, str(grace), str(told)],
        input=pickle.dumps(steps), capture_output=True, timeout=120, check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "COCOINDEX_DISABLE_USAGE_TRACKING": "1"},
    )  # fmt: skip
    assert child.returncode in (0, DIED), child.stderr.decode(errors="replace")
    seen: list[Seen] = pickle.loads(told.read_bytes())
    assert (child.returncode == DIED) == (seen[-1][0] == "dies")
    return seen


def _main(database: str, kind: Kind, grace: str, told: str) -> None:
    """Lives as the arguments say; the program."""
    seen: list[Seen] = []

    def tell(ended: str) -> None:
        seen.append((ended, engine.recording.take(), engine.first))
        Path(told).write_bytes(pickle.dumps(seen))

    def die() -> NoReturn:
        tell("dies")
        os._exit(DIED)

    engine = RealEngine(Database(Path(database)), kind, really_dies=die)
    engine.grace = float(grace)
    for step in pickle.load(sys.stdin.buffer):
        tell(engine.update(step))


if __name__ == "__main__":
    # Pickled by the names under which the parent knows the classes.
    _main(*sys.argv[1:])  # type: ignore[arg-type]
    os._exit(0)  # A thread of the engine can crash the interpreter while that ends.
