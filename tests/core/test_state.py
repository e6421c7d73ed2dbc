"""The one definition of "the same", and of when an unchanged signature is proof."""

from __future__ import annotations

import itertools

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cocoindex_fsmirror._core.attributes import UNASKED, Attributes
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.rows import Row
from cocoindex_fsmirror._core.states import (
    ABSENT,
    Absent,
    DirState,
    FileState,
    Kind,
    LinkState,
    OtherState,
    Signature,
    digest_of,
    proves,
    same,
    same_content,
)
from tests.support import write

State = FileState | LinkState | DirState | OtherState | Absent

STATES: dict[str, State] = {
    "file A": FileState(b"A", 1, Attributes(0o644)),
    "file A, another mode": FileState(b"A", 1, Attributes(0o600)),
    "file A, any mode": FileState(b"A", 1),
    "file B": FileState(b"B", 1, Attributes(0o644)),
    "file, unread": FileState(None, 1, Attributes(0o644)),
    "link to x": LinkState("x"),
    "link to y": LinkState("y"),
    "dir": DirState(),
    "other": OtherState(),
    "absent": ABSENT,
}

# Every pair that is "the same", as (desired, actual).
SAME = {
    *((name, name) for name in STATES if name != "file, unread"),
    ("file A, any mode", "file A"),
    ("file A, any mode", "file A, another mode"),
    # The file system of the actual one keeps no modes.
    ("file A", "file A, any mode"),
    ("file A, another mode", "file A, any mode"),
}

SECOND = 1_000_000_000
NOON = 1_700_000_000 * SECOND


def _signature(ctime_ns: int) -> Signature:
    """Returns the signature of a file that last changed at a time."""
    return Signature(inode=7, size=3, mtime_ns=ctime_ns, ctime_ns=ctime_ns)


@pytest.mark.parametrize(("desired", "actual"), list(itertools.product(STATES, STATES)))
def test_same_is_true_if_the_actual_state_satisfies_the_desired_one(
    desired: str, actual: str
) -> None:
    assert same(STATES[desired], STATES[actual]) is ((desired, actual) in SAME)


def test_unread_content_is_never_the_same() -> None:
    assert not same(FileState(None, 3), FileState(None, 3))


def test_a_digest_is_xxh3_128_of_the_content() -> None:
    assert digest_of(b"some content") == xxhash.xxh3_128(b"some content").digest()
    assert len(digest_of(b"")) == 16


def test_unchanged_signature_with_an_older_change_proves_the_content() -> None:
    seen = _signature(NOON + 5)
    assert proves(seen, seen, NOON + 6)


@pytest.mark.parametrize("field", Signature.__struct_fields__)
def test_signature_that_changed_in_any_part_proves_nothing(field: str) -> None:
    recorded = _signature(NOON + 5)
    seen = replace(recorded, **{field: getattr(recorded, field) + 1})
    assert not proves(seen, recorded, NOON + 10 * SECOND)


@pytest.mark.parametrize("later", [0, 1, SECOND])
def test_change_in_or_after_the_tick_of_the_record_proves_nothing(later: int) -> None:
    seen = _signature(NOON + 5 + later)
    assert not proves(seen, seen, NOON + 5)


@pytest.mark.parametrize(
    ("recorded_ns", "proven"),
    [
        (NOON - 1, False),
        (NOON, False),
        (NOON + 1, False),
        (NOON + 2 * SECOND - 1, False),
        (NOON + 2 * SECOND, True),
        (NOON + 2 * SECOND + 1, True),
    ],
)
def test_even_seconds_prove_nothing_before_the_next_ones(recorded_ns: int, proven: bool) -> None:
    """FAT keeps every other second."""
    seen = _signature(NOON)
    assert proves(seen, seen, recorded_ns) is proven


@pytest.mark.parametrize("tick_ns", [SECOND, SECOND // 100, 1000, 100, 10])
def test_stamp_proves_nothing_within_the_tick_that_its_zeros_allow(tick_ns: int) -> None:
    stamp = NOON + SECOND + (tick_ns if tick_ns < SECOND else 0)
    seen = _signature(stamp)
    assert not proves(seen, seen, stamp + tick_ns - 1)
    assert proves(seen, seen, stamp + tick_ns)


def test_row_that_was_never_recorded_proves_nothing() -> None:
    assert not proves(_signature(NOON), _signature(NOON), 0)


@given(st.integers(0, 4 * SECOND), st.integers(0, 4 * SECOND), st.integers(0, 4 * SECOND))
def test_later_change_never_hides_behind_an_equal_stamp(
    changed: int, recorded: int, edited: int
) -> None:
    """Either clock may stamp an edit at or after the record; ``proves`` must see both."""
    edited = max(edited, recorded)
    for tick in (1, SECOND):
        stamp = _signature(NOON + changed // tick * tick)
        after = _signature(NOON + edited // tick * tick)
        assert not (after == stamp and proves(after, stamp, NOON + recorded))


def test_row_takes_over_only_values_that_were_seen() -> None:
    row = Row(Name("a"), Kind.FILE, "o", "c", "x", b"A", 3, 0o600, seen=True, source_inode=7)
    seen = row.with_signature(Signature(1, 99, 3, 4), 5)
    assert seen.signature == Signature(1, 3, 3, 4)  # The size is that of the written content.
    assert seen.recorded_ns == 5
    assert replace(seen, inode=0, mtime_ns=0, ctime_ns=0, recorded_ns=0) == row
    assert (seen.seen, seen.source_inode) == (True, 7)


def test_state_of_a_row_is_the_last_written_one() -> None:
    row = Row(Name("a"), Kind.FILE, "o", "", "", b"A", 3, 0o600)
    assert row.state == FileState(b"A", 3, Attributes(0o600))
    assert replace(row, kind=Kind.DIR).state == DirState(Attributes(0o600))
    link = Row(Name("l"), Kind.LINK, "o", "", digest=LinkState("x").digest, target="x")
    assert link.state == LinkState("x")


@pytest.mark.parametrize("kind", Kind)
def test_declared_time_counts_as_rounded_by_the_file_system(kind: Kind) -> None:
    row = Row(Name("a"), kind, "o", "", mtime_ns=7_000_000_000)
    assert row.state.attributes.mtime_ns is None
    state = replace(row, asked_ns=7_999_999_999).state
    assert state.attributes.mtime_ns == 7_000_000_000


def test_link_is_never_taken_for_a_file_that_holds_its_target() -> None:
    link, file = LinkState("-> x"), FileState(digest_of(b"-> x"), 4)
    assert link.digest != file.digest != LinkState("x").digest
    assert not same(link, file)
    assert not same_content(file, link)
    assert link.size == 4
    assert LinkState("\udcff").size == 1  # Found on a disk; never declared.


MISSING: list[tuple[Attributes, Attributes, Attributes]] = [
    (UNASKED, Attributes(0o644, 5), UNASKED),
    (Attributes(0o600, 5), Attributes(0o644, 6), Attributes(0o600, 5)),
    (Attributes(0o600, 5), Attributes(0o600, 5), UNASKED),
    (Attributes(0o700), Attributes(0o755, 6), Attributes(0o700)),
    (Attributes(None, 5), Attributes(0o755, 5), UNASKED),
    (Attributes(None, 5), Attributes(0o755, 6), Attributes(None, 5)),
]


@pytest.mark.parametrize(("wanted", "found", "missing"), MISSING)
def test_declared_attributes_are_missing_if_they_differ(
    wanted: Attributes, found: Attributes, missing: Attributes
) -> None:
    assert wanted.missing_in(found) == missing
    states: list[tuple[State, State]] = [
        (FileState(b"1", 1, wanted), FileState(b"1", 1, found)),
        (LinkState("x", wanted), LinkState("x", found)),
        (DirState(wanted), DirState(found)),
    ]
    for desired, actual in states:
        assert same(desired, actual) == (missing == UNASKED)


def test_intent_never_shows_its_content() -> None:
    assert "secret" not in repr(write("a", b"secret"))
