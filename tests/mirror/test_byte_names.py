"""A mirror takes names that are not UTF-8: in its ledger, its notes, its backups and its log."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import InvalidNameError, Mirror
from cocoindex_fsmirror._core.errors import ConflictError, FsMirrorError
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._mirror import place as _place
from cocoindex_fsmirror._mirror import reader as _reader
from cocoindex_fsmirror._mirror.drift import row_of, rows
from cocoindex_fsmirror._mirror.known import known
from cocoindex_fsmirror._mirror.reader import Span
from tests.support import OWNER, backups, contents, delete, folder, link, snapshot, write

pytestmark = pytest.mark.usefixtures("no_waiting")

LATIN, BYTE, DEEP = map(os.fsdecode, (b"caf\xe9", b"\xff", b"d\xfe/in\xff"))
FACE = "\U0001f600"  # As text it comes after the surrogates of the others, as bytes before.
FILES = {LATIN: b"1", BYTE: b"2", DEEP: b"3", FACE: b"4", f"{FACE}.d/{BYTE}": b"5", "plain": b"6"}
IN_ORDER = sorted(FILES, key=os.fsencode)


@pytest.fixture
def filled(mirror: Mirror) -> Mirror:
    """A mirror whose names are not all UTF-8."""
    mirror.apply([write(name, content) for name, content in FILES.items()])
    return mirror


def test_byte_names_are_listed_by_their_bytes(filled: Mirror) -> None:
    assert filled.managed() == IN_ORDER
    assert filled.verify(content=True) == []
    for name in FILES:
        (Path(filled.root) / name).write_bytes(b"edited")
    assert filled.verify() == IN_ORDER
    filled.apply([write(name, content) for name, content in FILES.items()])
    assert filled.verify() == []
    assert backups(Path(filled.root)) == [b"edited"] * len(FILES)


def test_ledger_holds_the_bytes_of_a_name_as_text(filled: Mirror) -> None:
    filled.close()
    file = Path(filled.root) / ".fsmirror" / "ledger.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.text_factory = bytes
        sql = "SELECT name, typeof(name) FROM rows WHERE kind = 'file' ORDER BY name"
        found = database.execute(sql).fetchall()
    assert found == [(os.fsencode(name), b"text") for name in IN_ORDER]


@pytest.mark.parametrize("name", FILES)
def test_row_of_a_byte_name_is_found_by_name(filled: Mirror, name: str) -> None:
    row = row_of(filled.root, Name(name))
    assert row is not None
    assert row.name == name
    with known(filled.root) as ledger:
        assert ledger.is_declared(Name(name), is_folder=False)
        assert not ledger.is_declared(Name(f"{name}\udcff"), is_folder=False)
        assert [*ledger.rows_named([Name(name), Name("none\udcff")])] == [name]
        assert [row.name for row in ledger.rows_below(Name("d\udcfe"))] == [DEEP]


def test_walk_in_small_pages_misses_no_byte_name(
    filled: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reader, "PAGE", 1)
    monkeypatch.setattr(_reader, "_AT_ONCE", 2)
    found = [row.name for row in rows(filled.root)]
    assert found == sorted({*FILES, "d\udcfe", f"{FACE}.d"} & {*found}, key=os.fsencode)
    assert {*found} >= FILES.keys()
    half = [row.name for row in rows(filled.root, Span("", IN_ORDER[2]))]
    rest = [row.name for row in rows(filled.root, Span(f"{IN_ORDER[2]}\0"))]
    assert half + rest == found
    with known(filled.root) as ledger:
        assert [*ledger.rows_named(reversed(found))] == found


def test_update_adopts_heals_and_removes_byte_names(root: Path) -> None:
    root.mkdir()
    (root / LATIN).write_bytes(b"1")
    for kept in (FILES, FILES, {"plain": b"6", BYTE: b"2"}, {}):
        with Mirror(root) as mirror, mirror.update() as files:
            for name, content in kept.items():
                files.write(name, content)
            files.symlink(f"l{BYTE}", LATIN)
            files.folder(f"f{BYTE}")
        assert contents(snapshot(root)) == kept
        assert os.readlink(root / f"l{BYTE}") == LATIN
        assert (root / f"f{BYTE}").is_dir()
        assert Mirror(root).verify() == []
    assert backups(root) == [b"1"]  # It was adopted.


def test_container_with_a_byte_name_is_closed_alone(mirror: Mirror, root: Path) -> None:
    inside, beside = f"{BYTE}//", f"{BYTE}{BYTE}//"
    mirror.apply(
        [
            write(f"{BYTE}/x", b"1", container=inside),
            write(f"{BYTE}/{LATIN}/y", b"2", container=f"{inside}{LATIN}//"),
            write(f"{BYTE}{BYTE}/x", b"3", container=beside),
        ]
    )
    mirror.apply([], closed=[(OWNER, inside)])
    assert contents(snapshot(root)) == {f"{BYTE}{BYTE}/x": b"3"}
    mirror.tear_down(OWNER)
    assert contents(snapshot(root)) == {}


def test_declaration_with_a_byte_name_that_gave_way_is_noted(mirror: Mirror) -> None:
    mirror.apply([write(f"{BYTE}/way", b"1", component="/one")])
    mirror.apply([write(BYTE, b"2", component="/two")])
    assert mirror.observe().names == {BYTE, f"{BYTE}/way"}
    with known(mirror.root) as ledger:
        (note,) = ledger.displaced()
    assert (note.name, note.by) == (f"{BYTE}/way", BYTE)
    mirror.apply([delete(f"{BYTE}/way")])
    assert mirror.observe().names == frozenset()


def test_interrupted_batch_with_byte_names_is_recovered(
    filled: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_place.Placement, "look_at_renamed", die)
        intents = [write(name, b"new") for name in FILES] + [link(f"l{BYTE}", LATIN)]
        with pytest.raises(KeyboardInterrupt):
            filled.apply([*intents, write(f"n{BYTE}/{LATIN}", b"new"), folder(f"m{BYTE}")])
    assert filled.observe().names >= FILES.keys()
    filled.apply([])
    assert filled.verify(content=True) == []
    assert filled.managed() == sorted([*FILES, f"l{BYTE}", f"n{BYTE}/{LATIN}"], key=os.fsencode)
    assert set(contents(snapshot(root)).values()) == {b"new"}


def test_conflict_below_a_byte_name_fails_alone(filled: Mirror, root: Path) -> None:
    (root / f"x{BYTE}" / LATIN).mkdir(parents=True)
    with pytest.raises(FsMirrorError) as refusal:
        filled.apply([write(f"x{BYTE}"), write("y", b"1")])
    assert str(refusal.value).encode()
    assert (root / "y").read_bytes() == b"1"
    with pytest.raises(FsMirrorError) as refusal:
        filled.apply([write(f"{LATIN}/below"), write(LATIN, b"1")])
    assert all(isinstance(each, ConflictError) for each in refusal.value.exceptions)  # type: ignore[attr-defined]


def test_log_and_errors_of_a_root_that_is_no_text_are_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / BYTE
    caplog.set_level(logging.DEBUG, "cocoindex_fsmirror")
    with Mirror(root) as mirror:
        mirror.create()
        mirror.apply([write(LATIN, b"1")])
        (root / LATIN).write_bytes(b"theirs")
        mirror.apply([write(LATIN, b"2")])
        with pytest.raises(InvalidNameError) as refusal:
            mirror.apply([write(f"{BYTE}/..", b"")])
        mirror.close()
        (root / ".fsmirror" / "ledger.sqlite3").write_bytes(b"garbage" * 1000)
        with pytest.raises(FsMirrorError) as damage:
            mirror.verify()
        mirror.apply([write(LATIN, b"3")])
    assert any(rf"{tmp_path}/\udcff: foreign 'caf\udce9'" in line for line in caplog.messages)
    for text in (*caplog.messages, str(refusal.value), str(damage.value)):
        assert text.encode()


def test_source_of_a_copy_may_have_a_byte_name(mirror: Mirror, tmp_path: Path) -> None:
    source = tmp_path / LATIN
    source.write_bytes(b"copied")
    copy_it = partial(_copy, mirror, source)
    copy_it()
    assert (Path(mirror.root) / BYTE).read_bytes() == b"copied"
    source.write_bytes(b"changed")
    copy_it()
    assert (Path(mirror.root) / BYTE).read_bytes() == b"changed"
    source.unlink()
    with pytest.raises(FsMirrorError) as refusal:
        copy_it()
    assert str(refusal.value).encode()


def _copy(mirror: Mirror, source: Path) -> Any:
    with mirror.update() as files:
        files.copy(BYTE, source)


def test_names_that_are_one_in_unicode_are_told_apart_by_bytes(mirror: Mirror, root: Path) -> None:
    """Latin-1 and UTF-8 forms of one word, and an escape of the former, are three names."""
    names = [LATIN, "café", r"caf\xe9", r"caf\udce9"]
    mirror.apply([write(name, name.encode(errors="replace")) for name in names])
    assert mirror.managed() == sorted(names, key=os.fsencode)
    assert len(contents(snapshot(root))) == 4
