"""Nothing is skipped unless every state that may be the truth is the desired one."""

from __future__ import annotations

import msgspec
import pytest

from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.states import ABSENT, Absent, DirState, FileState, digest_of
from cocoindex_fsmirror._target.records import (
    Record,
    is_settled,
    owner_of,
    record_of,
    remembered_digests,
)
from tests.target.reconciling import DESIRED, UNIVERSE, A, Wanted, histories, may_skip


def _record(wanted: Wanted) -> Record | Absent:
    """Returns the record of a desired state, as the package makes it."""
    desired: FileState | DirState | Absent = DirState() if wanted.kind == "dir" else ABSENT
    if wanted.content is not None:
        desired = FileState(digest_of(wanted.content), len(wanted.content), Attributes(wanted.mode))
    return record_of(desired, wanted.component)


@pytest.mark.parametrize("wanted", DESIRED, ids=str)
def test_only_certain_states_are_settled(wanted: Wanted) -> None:
    record, outcomes = _record(wanted), set()
    for previous, may_be_missing, drifted in histories():
        settled = is_settled(record, previous, may_be_missing=may_be_missing, drifted=drifted)
        assert settled is may_skip(wanted, previous, may_be_missing, drifted), previous
        outcomes.add(settled)
    assert outcomes == ({False} if wanted.kind == "absent" else {False, True})


def test_a_record_tells_every_part_of_a_declared_file() -> None:
    record = record_of(
        FileState(digest_of(A), len(A), Attributes(0o640)), "some/component", "an owner"
    )
    assert record == Record("file", digest_of(A), len(A), 0o640, "some/component", "an owner")


def test_a_record_of_a_directory_tells_whose_it_is() -> None:
    assert record_of(DirState(), "c", "o") == Record("dir", b"", 0, None, "c", "o")


def test_absent_file_has_no_record() -> None:
    assert record_of(ABSENT, "c", "o") is ABSENT


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(Record)])
def test_a_difference_in_any_part_of_a_record_is_not_settled(field: str) -> None:
    record = Record("file", b"digest", 7, 0o600, "c", "o")
    other = msgspec.structs.replace(record, **{field: "another"})
    assert is_settled(record, [record, record], may_be_missing=False, drifted=False)
    assert not is_settled(record, [record, other], may_be_missing=False, drifted=False)
    assert not is_settled(record, [other], may_be_missing=False, drifted=False)


def test_a_record_of_an_older_release_can_still_be_read() -> None:
    """Records are stored in users' databases: every later field needs a default."""
    fields = msgspec.structs.fields(Record)
    assert [field.name for field in fields][:6] == [
        "kind", "digest", "size", "mode", "component", "owner",
    ]  # fmt: skip
    assert all(field.default is not msgspec.NODEFAULT for field in fields[1:])


def test_every_content_that_may_have_been_written_is_remembered() -> None:
    for previous, _, _ in histories():
        expected = {p.digest for p in previous}
        assert (b"" in expected) == any(p.kind == "dir" for p in previous)
        assert set(remembered_digests(previous)) == expected


def test_root_keeps_its_remembered_identity() -> None:
    known, blank = Record("dir", owner="known"), Record("dir")
    for previous in ([known], [known, blank], [blank, known], [known, known]):
        assert owner_of(previous, "fresh") == "known"


def test_unremembered_root_gets_the_fresh_identity() -> None:
    assert owner_of([], "fresh") == "fresh"
    assert owner_of([Record("dir")], "fresh") == "fresh"
    assert owner_of([], "") == ""


def test_identity_does_not_depend_on_the_order_of_records() -> None:
    several = [Record("dir", owner=owner) for owner in ("b", "a", "c")]
    assert owner_of(several, "x") == owner_of(several[::-1], "x") == "a"


def test_reconciling_changes_no_record() -> None:
    previous = list(UNIVERSE)
    for wanted in DESIRED:
        is_settled(_record(wanted), previous, may_be_missing=True, drifted=False)
    remembered_digests(previous)
    owner_of(previous, "")
    assert previous == list(UNIVERSE)
