"""The handlers' ``reconcile``: pure, repeatable, and never skipping what is not certain."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection
from typing import Any

import cocoindex as coco
import pytest

from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.names import ROOT, Name
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._core.states import ABSENT, DirState, FileState, digest_of
from cocoindex_fsmirror._target import sink
from cocoindex_fsmirror._target.actions import Change, Drop, Mount, Place, Single
from cocoindex_fsmirror._target.handlers import ChildHandler, RootHandler
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.records import Record
from cocoindex_fsmirror._target.sink import _BatchDelay
from cocoindex_fsmirror._target.specs import Options, RootUpdate, Spec, state_of
from tests.target.reconciling import (
    DESIRED,
    DIR,
    FILE_A,
    FILE_B,
    A,
    B,
    Wanted,
    histories,
    may_skip,
)

KEY = RootKey(None, "/a/root")
OTHER = "another-owner"
Output = coco.TargetReconcileOutput[object, Record, ChildHandler]


@functools.cache
def _place(*drifted: str) -> Place:
    """Returns the directory target ``sub`` of a root in which some names drifted."""
    update = RootUpdate(DriftReport(names=frozenset(map(Name, drifted))))
    return Place(KEY, "an-owner", Options(on_conflict="error"), update, Name("sub"), "sub//")


def _spec(wanted: Wanted) -> Spec | coco.NonExistenceType:
    """Returns a declaration, as the engine takes it."""
    if wanted.content is not None:
        return _file(wanted, create_parent_dirs=False)
    is_dir = wanted.kind == "dir"
    return Spec(DirState(), component=wanted.component) if is_dir else coco.NON_EXISTENCE


_FILE = Wanted("file", A)


def _file(wanted: Wanted = _FILE, **options: Any) -> Spec:
    """Returns the declaration of a file."""
    assert wanted.content is not None
    state = state_of(wanted.content, Attributes(wanted.mode))
    return Spec(state, component=wanted.component, content=wanted.content, **options)


def _reconcile(
    wanted: Wanted,
    previous: Collection[Record],
    may_be_missing: bool = False,
    drifted: bool = False,
) -> Output | None:
    """Reconciles ``sub/f`` by a child handler."""
    handler = ChildHandler(_place("sub/f") if drifted else _place("f", "other"))
    output = handler.reconcile("f", _spec(wanted), previous, may_be_missing)
    assert output is None or isinstance(output.action, Change)
    return output  # type: ignore[return-value]


@pytest.mark.parametrize("wanted", DESIRED, ids=str)
def test_child_is_skipped_only_if_every_possible_state_is_desired(
    wanted: Wanted,
) -> None:
    for previous, may_be_missing, drifted in histories():
        output = _reconcile(wanted, previous, may_be_missing, drifted)
        certain = may_skip(wanted, previous, may_be_missing, drifted)
        # A directory always acts: only its action yields the handler of its children.
        assert (output is None) is (certain and wanted.kind != "dir"), previous


@pytest.mark.parametrize("wanted", DESIRED, ids=str)
def test_action_has_the_desired_state_and_the_contents_that_were_ours(wanted: Wanted) -> None:
    for previous, may_be_missing, drifted in histories():
        output = _reconcile(wanted, previous, may_be_missing, drifted)
        if output is None:
            continue
        intent = output.action.intent  # type: ignore[attr-defined]
        assert set(intent.ours) - {b""} == {digest_of(c) for c in (A, B) if _has(previous, c)}
        assert (intent.name, intent.owner, intent.container) == ("sub/f", "an-owner", "sub//")
        assert intent.content == wanted.content
        assert intent.on_conflict == "error"
        assert _plain(intent.desired) == (wanted.kind, wanted.mode)


def _has(previous: Collection[Record], content: bytes) -> bool:
    """True if a content is among the previous records."""
    return any(record.digest == digest_of(content) for record in previous)


def _plain(desired: object) -> tuple[str, int | None]:
    """Returns the kind and mode of a desired state."""
    if isinstance(desired, FileState):
        return "file", desired.attributes.mode
    return ("absent" if desired is ABSENT else "dir" if desired == DirState() else "?"), None


@pytest.mark.parametrize("wanted", DESIRED, ids=str)
def test_stored_record_makes_the_next_update_skip(wanted: Wanted) -> None:
    output = _reconcile(wanted, [FILE_B], may_be_missing=True)
    assert output is not None
    if wanted.kind == "absent":
        assert coco.is_non_existence(output.tracking_record)
        return
    assert isinstance(output.tracking_record, Record)
    again = _reconcile(wanted, [output.tracking_record])
    assert (again is None) is (wanted.kind == "file")


@pytest.mark.parametrize("wanted", DESIRED, ids=str)
def test_reconciling_is_repeatable_and_leaves_its_inputs_unchanged(wanted: Wanted) -> None:
    for previous, may_be_missing, drifted in histories():
        records = list(previous)
        first = _reconcile(wanted, records, may_be_missing, drifted)
        assert records == list(previous)
        second = _reconcile(wanted, records, may_be_missing, drifted)
        assert (first is None) is (second is None)
        if first is not None and second is not None:
            assert first.action == second.action
            assert first.tracking_record == second.tracking_record
            assert first.sink is second.sink


def test_path_closes_its_container_exactly_when_it_stops_being_a_folder() -> None:
    for wanted, (previous, _, _) in itertools.product(DESIRED, histories()):
        output = _reconcile(wanted, previous, drifted=True)
        assert output is not None
        stops = wanted.kind != "dir" and any(record.kind == "dir" for record in previous)
        expected = (("an-owner", "sub//f//"),) if stops else ()
        assert output.action.closed == expected  # type: ignore[attr-defined]


def test_only_a_declared_directory_takes_children() -> None:
    for wanted in DESIRED:
        output = _reconcile(wanted, [], may_be_missing=True)
        assert output is not None
        child = output.action.child  # type: ignore[attr-defined]
        assert (child is not None) is (wanted.kind == "dir")
        if child is not None:
            assert (child.prefix, child.container) == ("sub/f", "sub//f//")
            assert (child.owner, child.root) == ("an-owner", KEY)


def test_parents_are_made_unless_the_declaration_forbids_it() -> None:
    for create in (True, False):
        spec = _file(create_parent_dirs=create)
        output = ChildHandler(_place()).reconcile("f", spec, [], True)
        assert output is not None
        assert isinstance(output.action, Change)
        assert output.action.intent.create_parents is create


def test_declaration_with_a_rival_is_never_skipped() -> None:
    for rival in (ROOT, Name("sub")):
        spec = _file(rival=rival)
        output = ChildHandler(_place()).reconcile("f", spec, [FILE_A], False)
        assert (output is None) is (rival == ROOT)
        if output is not None:
            assert isinstance(output.action, Change)
            assert output.action.intent.rival == rival


def test_no_action_shows_a_content() -> None:
    secret = Wanted("file", b"secret bytes")
    output = _reconcile(secret, [])
    assert output is not None
    assert "secret" not in repr(output.action)
    assert repr(output.action) == "write sub/f (12 B)"


# Roots


def _root(
    spec: Spec | coco.NonExistenceType,
    previous: Collection[Record],
    may_be_missing: bool = False,
) -> Output | None:
    """Reconciles the root by the handler of roots."""
    return RootHandler().reconcile(  # type: ignore[return-value]
        tuple(KEY), spec, previous, may_be_missing
    )


def _dir(update: RootUpdate | None = None) -> Spec:
    """Returns the declaration of a root."""
    return Spec(DirState(), fresh_owner="fresh", update=update)


def _owned(record: Record) -> Record:
    """Returns the record of a root."""
    return Record(record.kind, record.digest, record.size, record.mode, record.component, OTHER)


@pytest.mark.parametrize("wanted", [w for w in DESIRED if w.content is not None], ids=str)
def test_single_file_is_skipped_only_if_every_possible_state_is_desired(
    wanted: Wanted,
) -> None:
    assert wanted.content is not None
    for previous, may_be_missing, drifted in histories():
        records = [_owned(record) for record in previous]
        spec = _file(wanted, fresh_owner="f", drifted=drifted)
        output = _root(spec, records, may_be_missing)
        assert (output is None) is may_skip(wanted, previous, may_be_missing, drifted), previous
        if output is not None:
            assert isinstance(output.action, Single)
            assert output.action.was_dir is any(record.kind == "dir" for record in previous)
            assert output.action.intent.owner == (OTHER if previous else "f")
            assert set(output.action.intent.ours) - {b""} == {
                digest_of(c) for c in (A, B) if _has(previous, c)
            }


def test_a_root_always_acts_and_keeps_its_identity() -> None:
    for previous, may_be_missing, _ in histories():
        records = [_owned(record) for record in previous]
        output = _root(_dir(), records, may_be_missing)
        assert output is not None
        assert isinstance(output.action, Mount)
        expected = OTHER if previous else "fresh"
        assert output.action.child.owner == expected
        update = output.action.child.update.identity
        assert output.tracking_record == Record("dir", owner=expected, epoch=update)
        was_file = any(record.kind == "file" for record in previous)
        assert (output.action.was_file is not None) is was_file


def test_root_that_was_a_file_gives_up_only_bytes_that_were_ours() -> None:
    output = _root(_dir(), [_owned(FILE_A), _owned(FILE_B)])
    assert output is not None
    assert isinstance(output.action, Mount)
    was_file = output.action.was_file
    assert was_file is not None
    assert was_file.desired is ABSENT
    assert was_file.owner == OTHER
    assert set(was_file.ours) == {digest_of(A), digest_of(B)}


def test_undeclared_root_is_torn_down_as_what_it_was() -> None:
    for previous, may_be_missing, _ in histories():
        records = [_owned(record) for record in previous]
        output = _root(coco.NON_EXISTENCE, records, may_be_missing)
        assert output is not None
        assert coco.is_non_existence(output.tracking_record)
        kinds = {record.kind for record in previous}
        if "file" in kinds:
            assert isinstance(output.action, Single)
            assert output.action.intent.name == ROOT
            assert output.action.intent.desired is ABSENT
            assert output.action.was_dir is ("dir" in kinds)
        else:
            assert output.action == Drop(KEY, OTHER if previous else "")


@pytest.mark.parametrize("has_looked", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_stale", [True, False])
def test_everything_reruns_only_for_drift_that_no_owner_can_heal(
    has_looked: bool, remembered: bool, is_known: bool, is_stale: bool
) -> None:
    owner = OTHER if remembered else "fresh"
    drift = DriftReport(
        names=frozenset({Name("drifted")}),
        stale=frozenset({owner, "x"} if is_stale else {"x"}),
        owners={each: Owner(each) for each in ({owner, "x"} if is_known else {"x"})},
    )
    output = _root(
        _dir(RootUpdate(drift) if has_looked else RootUpdate()), [_owned(DIR)] if remembered else []
    )
    assert output is not None
    needed = has_looked and remembered and (is_stale or not is_known)
    assert output.child_invalidation == ("lossy" if needed else None)
    assert bool(output.action.child.update.why_all_run) is needed  # type: ignore[attr-defined]


def test_reconciling_a_root_is_repeatable() -> None:
    file = _file(fresh_owner="f")
    specs: tuple[Spec | coco.NonExistenceType, ...]
    specs = _dir(RootUpdate()), file, coco.NON_EXISTENCE
    for previous, may_be_missing, _ in histories():
        records = [_owned(record) for record in previous]
        for spec in specs:
            first = _root(spec, records, may_be_missing)
            second = _root(spec, records, may_be_missing)
            assert records == [_owned(record) for record in previous]
            assert (first is None) is (second is None)
            if first is not None and second is not None:
                assert first.action == second.action
                assert first.tracking_record == second.tracking_record
                assert first.child_invalidation == second.child_invalidation


# Pace


class _Clock:
    """A clock that only ``sleep`` moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Returns the time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Moves the time on."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("took", "pause", "slept"),
    [
        (0.05, 0.001, [0.05]),  # as long as the batch before
        (7.0, 0.001, [0.1]),  # but not for long
        (0.05, 0.5, []),  # not if nobody else is at work
    ],
)
def test_batch_waits_for_more_actions_only_right_after_another(
    monkeypatch: pytest.MonkeyPatch, took: float, pause: float, slept: list[float]
) -> None:
    clock, delay = _Clock(), _BatchDelay()
    monkeypatch.setattr(sink, "time", clock)
    with delay.kept():
        clock.now += took
    assert clock.slept == []
    clock.now += pause
    with pytest.raises(ZeroDivisionError), delay.kept():
        clock.now += 1 / 0
    assert clock.slept == pytest.approx(slept)
