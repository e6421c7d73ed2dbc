"""The mirrors that the target keeps open between batches."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from cocoindex_fsmirror._mirror.writer import Writer
from cocoindex_fsmirror._target import sink
from cocoindex_fsmirror._target.sink import mirror_at
from tests.support import write


def _open(root: Path) -> Writer:
    """Returns the mirror of a root, with its ledger open."""
    mirror = mirror_at(str(root))
    mirror.create()
    return mirror


def _is_open(mirror: Writer) -> bool:
    """True if a mirror holds its ledger."""
    return mirror.session.ledger is not None


def test_number_of_open_ledgers_is_bounded(tmp_path: Path) -> None:
    mirrors = [_open(tmp_path / str(number)) for number in range(sink.MOST + 5)]
    assert sum(map(_is_open, mirrors)) == sink.MOST
    mirrors[0].apply([write("a", b"1")])
    assert (tmp_path / "0" / "a").read_bytes() == b"1"
    for mirror in mirrors:
        mirror.close()


def test_forked_child_never_touches_its_parents_ledger(tmp_path: Path) -> None:
    mirror = _open(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child never uses a thread.
        child = os.fork()
    if child == 0:
        other = mirror_at(str(tmp_path))
        os._exit(0 if other is not mirror and not _is_open(other) and _is_open(mirror) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mirror_at(str(tmp_path)) is mirror
    mirror.close()


@pytest.mark.parametrize("times", [1, 2])
def test_closing_the_mirrors_folds_every_log_into_its_ledger(tmp_path: Path, times: int) -> None:
    _open(tmp_path).apply([write("a", b"1")])
    for _ in range(times):
        sink.close_all()
    assert sorted(os.listdir(tmp_path / ".fsmirror")) == [
        ".gitignore",
        "abilities.json",
        "ledger.sqlite3",
        "tmp",
    ]
