"""``fsmirror sync`` over random edits of both sides: it converges, and loses nothing of others."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoindex_fsmirror._command import syncing
from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._command.syncing import Syncing
from cocoindex_fsmirror._disk.calls import coarse_now_ns
from cocoindex_fsmirror._mirror.batch import apply_intents
from tests.command.syncing import state
from tests.support import contents, snapshot

# Few names, so that edits meet; a name is a file, a link, or a folder with the others.
NAMES = st.sampled_from(["a", "a-b", "b", "a/b", "a/c", "b/a", "b/a/c", "a0"])
KINDS = st.sampled_from(["file", "same size", "folder", "link", "gone", "touched", "mode"])
EDITS = st.lists(st.tuples(st.booleans(), NAMES, KINDS), max_size=6)


def _edit(root: Path, name: str, kind: str, mark: bytes) -> None:
    """Makes one edit, and removes obstacles in its way."""
    path = root / name
    if kind in ("touched", "mode"):
        if path.exists() and not path.is_symlink():
            if kind == "touched":
                os.utime(path, ns=(5, 5))
            else:
                path.chmod(0o700 if path.stat().st_mode & 0o077 else 0o755)
        return
    for above in reversed(path.relative_to(root).parents[:-1]):
        if not (root / above).is_dir() or (root / above).is_symlink():
            _remove(root / above)
            (root / above).mkdir()
    _remove(path)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(mark.decode())
    elif kind != "gone":
        path.write_bytes(mark if kind == "file" else mark[:4])


def _remove(path: Path) -> None:
    """Removes whatever is at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run(source: Path, target: Path, *, checksum: bool = False) -> dict[str, Any]:
    """Syncs once; returns the number of batches, and the failures."""
    options = Options(str(source), str(target), checksum=checksum, max_delete=1.0)
    now_ns = time.time_ns()
    while coarse_now_ns() <= now_ns:
        pass  # A change in this tick would be read again by the next run.
    with (
        contextlib.closing(Syncing(options)) as run,
        contextlib.closing(survey(options)) as found,
        mock.patch.object(syncing, "apply_intents", side_effect=apply_intents) as apply,
    ):
        summary = run.run(found)
    return {"batches": apply.call_count, "failures": summary.failures}


@pytest.mark.slow
@given(rounds=st.lists(EDITS, min_size=1, max_size=4), checksum=st.booleans())
def test_random_edits_of_both_sides_converge_and_lose_nothing(
    rounds: list[list[tuple[bool, str, str]]], checksum: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "src"), Path(folder, "dst")
        source.mkdir()
        marks: set[bytes] = set()
        for number, edits in enumerate(rounds):
            for step, (is_source, name, kind) in enumerate(edits):
                if is_source or target.exists():
                    mark = f"{number:02}{step:02}{'source' if is_source else 'theirs'}".encode()
                    _edit(source if is_source else target, name, kind, mark)
            marks = {c for c in contents(snapshot(target)).values() if b"theirs" in c}
            if _run(source, target, checksum=checksum)["failures"]:
                # A foreign folder in the way is an error by design: its owner moves it away.
                for path in {*target.iterdir()} - {target / ".fsmirror"}:
                    _remove(path)
                marks = set()
                assert not _run(source, target)["failures"]
            kept = {**contents(snapshot(target)), **contents(snapshot(target, ours=True))}
            assert marks <= {*kept.values()}
            expected, found = state(source), state(target)
            assert {name: found.get(name) for name in expected} == expected
            again = _run(source, target)
            assert again == {"batches": 0, "failures": []}
