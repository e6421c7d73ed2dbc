"""Names that are not UTF-8: one form inside, bytes outside, and the order of the ledger."""

from __future__ import annotations

import os
from pathlib import PurePath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoindex_fsmirror import InvalidNameError
from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.names import Folding, Name, check_names, parse_link_target, parse_name
from cocoindex_fsmirror._core.packing import Packer
from cocoindex_fsmirror._core.rows import Pending, Row, packed, unpacked
from cocoindex_fsmirror._core.states import Kind
from cocoindex_fsmirror._core.text import encoded, external, internal, precedes

RAW = [b"caf\xe9", b"\xff", b"d\xff/x", b"x/caf\xe9/y", "\U0001f600".encode() + b"/\xfe"]
_COMPONENT = st.binary(min_size=1, max_size=8).filter(
    lambda raw: not {0, ord("/")} & set(raw) and raw not in (b".", b"..")
)


@pytest.mark.parametrize("raw", RAW)
def test_name_that_is_no_text_is_taken_as_python_gives_it(raw: bytes) -> None:
    name = os.fsdecode(raw)
    assert parse_name(name) == parse_name(PurePath(name)) == name
    assert parse_link_target(name, None) == name
    check_names([name])
    assert encoded(name) == external(name) == raw
    assert internal(raw) == name


def test_escaped_bytes_that_are_utf8_are_one_path_with_the_text() -> None:
    assert parse_name("\udcc3\udca9") == "é"
    assert parse_link_target("\udcc3\udca9", None) == "é"
    with pytest.raises(InvalidNameError, match="normal form"):
        check_names(["\udcc3\udca9"])


@given(st.lists(_COMPONENT, min_size=1, max_size=3))
def test_any_bytes_make_a_name_that_gives_them_back(parts: list[bytes]) -> None:
    raw = b"/".join(parts)
    assert encoded(parse_name(os.fsdecode(raw))) == raw


@pytest.mark.parametrize("length", [255, 256])
def test_limit_of_a_component_counts_bytes(length: int) -> None:
    name = os.fsdecode(b"\xff" * length)
    if length == 255:
        assert parse_name(name) == name
    else:
        with pytest.raises(InvalidNameError, match="256 bytes"):
            parse_name(name)


@given(_COMPONENT, _COMPONENT)
def test_names_come_in_the_order_of_their_bytes(one: bytes, other: bytes) -> None:
    assert precedes(os.fsdecode(one), os.fsdecode(other)) == (one < other)


def test_astral_character_comes_after_a_byte_as_text_only() -> None:
    face, byte = "\U0001f600", os.fsdecode(b"\xff")
    assert byte < face
    assert precedes(face, byte)


@pytest.mark.parametrize("value", ["é", "plain", b"bytes", 3, None, "\U0001f600"])
def test_text_and_other_values_stay_as_they_are_outside(value: object) -> None:
    assert external(value) is value


def test_folding_takes_names_that_are_no_text() -> None:
    folding = Folding(case=True, unicode=True)
    assert folding(Name("CAF\udce9")) == folding(Name("caf\udce9"))
    assert folding(Name("e\u0301\udcff")) == folding(Name("é\udcff"))
    assert folding(Name("\udce9")) != folding(Name("é"))


@pytest.mark.parametrize("shown", [".fsmirror\udcff", "\udcff.fsmirror"])
def test_our_own_name_with_another_byte_is_another_name(shown: str) -> None:
    assert parse_name(shown) == shown


@pytest.mark.parametrize("raw", [*RAW, b"plain"])
def test_notes_hold_every_name_of_a_row(raw: bytes) -> None:
    name = os.fsdecode(raw)
    row = Row(Name(name), Kind.LINK, "o", f"{name}//", "/c", b"\xff" * 16, target=name)
    note = Pending("batch", Name(name), f"0/{name}", False, row)
    ((batch, _, notes),) = packed([note])
    assert unpacked(batch, notes) == [note]


def test_notes_with_plain_names_are_packed_as_before() -> None:
    """Notes that an earlier release wrote are of this form."""
    row = Row(Name("é"), Kind.FILE, "o", "", digest=b"d" * 16)
    ((_, _, notes),) = packed([Pending("batch", Name(""), "0", False, row)])
    assert notes == msgspec.msgpack.encode([("", "0", False, row)])


@pytest.mark.parametrize(
    "packed", [b"", b"\xc1", b"\x91\xc7\x01\x02\xff", b"\x91\x01", b"\x91\xc0"]
)
def test_damaged_pack_is_one_kind_of_error(packed: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Packer(list[str]).unpack(packed)


def test_pack_keeps_structs_and_bytes_beside_byte_names() -> None:
    packer = Packer(list[tuple[str, bytes, Attributes, Kind]])
    value = [
        ("\udcff", b"\xff\0", Attributes(0o644, -1), Kind.DIR),
        ("a", b"", Attributes(), Kind.FILE),
    ]
    assert packer.unpack(packer.pack(value)) == value


def test_message_of_an_error_is_always_text() -> None:
    error = InvalidNameError("\udcff", "it is in \udcfe")
    assert str(error) == "invalid name '\\udcff': it is in \\udcfe"
