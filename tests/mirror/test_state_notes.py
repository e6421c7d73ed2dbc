"""A note in a root tells where its state is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cocoindex_fsmirror import LedgerError, Mirror, RootError
from cocoindex_fsmirror._mirror import session as _session
from cocoindex_fsmirror._mirror.exact import foreign
from tests.mirror.keeping import FILES, declare
from tests.mirror.state import NEW, drifted, folders, healed, update
from tests.support import exact_state


@pytest.fixture(autouse=True)
def _no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no marks on roots, as where the file system has no extended attributes."""
    monkeypatch.setattr(_session, "set_mark", lambda *_: None)


def test_note_tells_where_the_state_is(root: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    assert sorted(os.listdir(root / ".fsmirror")) == [".gitignore", "location"]
    assert (root / ".fsmirror" / "location").read_text() == f"{state}\n"
    (root / "a").unlink()
    assert healed(root, None) == ["a"]
    update(root, None, NEW)
    assert drifted(root, None) == []
    assert folders(state) == ["root"]
    before = exact_state(root)
    update(root, state, NEW, is_noted=True)
    assert exact_state(root) == before
    update(root, state, NEW)
    assert not (root / ".fsmirror").exists()


def test_state_moves_from_where_the_note_tells(root: Path, tmp_path: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    second = tmp_path / "second"
    update(root, second, NEW, is_noted=True)
    assert (folders(state), folders(second)) == ([], ["root"])
    assert (root / ".fsmirror" / "location").read_text() == f"{second}\n"
    update(root, root, NEW)
    assert folders(second) == []
    assert not (root / ".fsmirror" / "location").exists()
    assert drifted(root, None) == []


@pytest.mark.parametrize("told", [b"", b"relative", b"/a\0b", b"/" * 20_000, b"\xff"])
def test_note_that_tells_nothing(root: Path, told: bytes) -> None:
    update(root, None)
    (root / ".fsmirror" / "location").write_bytes(told)
    assert drifted(root, None) == []


@pytest.mark.root
def test_note_that_others_may_have_written_is_refused(root: Path, state: Path) -> None:
    update(root, state, is_noted=True)
    os.chown(root / ".fsmirror" / "location", 12_345, -1)
    with pytest.raises(LedgerError, match="belongs to user 12345"):
        Mirror(root)


def test_note_keeps_an_exact_mirror_around_it_away(tmp_path: Path, state: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    with Mirror(inner, state=state, state_note=True) as mirror:
        declare(mirror, FILES)
    with Mirror(outer) as mirror:
        declare(mirror, {"x": b"x"})
    before = exact_state(inner)
    assert foreign(str(outer)) == ([], [])
    assert exact_state(inner) == before


def test_state_without_a_note_is_found_by_who_names_it(root: Path, state: Path) -> None:
    update(root, state)
    with Mirror(root) as mirror, pytest.raises(RootError, match="is no mirror"):
        mirror.verify()
    assert drifted(root, state) == []
