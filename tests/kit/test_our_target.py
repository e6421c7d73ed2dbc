"""Our own target keeps every rule of the kit, on a real disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import settings

from cocoindex_fsmirror._core.ownership import NO_COPIES
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.specs import Options, Spec
from cocoindex_fsmirror.testing import Disturb, Fault, Update, check_history, check_target
from tests.kit.our_neighbour import AT_FILES, Neighbour
from tests.kit.our_roots import Alone, InBase, Roots
from tests.kit.our_target import (
    Beside,
    Durable,
    Forgetful,
    Mounted,
    Swapped,
    Tidy,
    TidyFolders,
    Unseeing,
    file_spec,
)


@pytest.fixture(autouse=True)
def _quiet_and_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Makes all directories in one, and logs nothing."""
    for adapter in (Mounted, InBase):
        monkeypatch.setattr(adapter, "base", tmp_path, raising=False)
    caplog.set_level("CRITICAL")


def _some(percent: int) -> settings:
    """Returns the loaded profile with a part of its examples, since each takes a while."""
    return settings(max_examples=settings().max_examples * percent // 100)


def test_files_of_any_name_come_and_go_without_a_trace() -> None:
    check_target(Tidy, settings=_some(40))


def test_real_deaths_leave_nothing_for_good() -> None:
    check_target(Tidy, settings=_some(15), deaths="fork")


def test_folders_are_declared_like_files_and_become_files() -> None:
    check_target(TidyFolders, settings=_some(20), container=True)


def test_files_become_folders_beside_a_neighbour() -> None:
    check_target(Swapped, settings=_some(40), atomic=True, heals=True)


def test_changes_of_a_neighbour_are_healed_and_its_bytes_kept() -> None:
    check_target(Beside, settings=_some(40), atomic=True, heals=True)


def test_neighbour_loses_nothing_through_real_deaths() -> None:
    check_target(Beside, settings=_some(12), atomic=True, heals=True, deaths="fork")


def test_files_become_folders_with_barriers() -> None:
    check_target(Durable, settings=_some(10), atomic=True, heals=True)


def test_full_rerun_heals_without_a_look_for_drift() -> None:
    check_target(Unseeing, settings=_some(20), atomic=True)


def test_full_rerun_heals_after_a_lost_ledger() -> None:
    check_target(Forgetful, settings=_some(20), atomic=True)


def test_directories_leave_only_foreign_files() -> None:
    check_target(Roots, settings=_some(25), container=True)


def test_single_files_keep_the_rules() -> None:
    check_target(Alone, settings=_some(30), atomic=True, heals=True)


_NEW, _OLD = (file_spec(content) for content in (b"twelve bytes", b"twelve again"))
_TWO: dict[str, dict[str, Spec]] = {"one": {"d/x": _OLD, "d/y": _NEW}}
_LATER: list[dict[str, dict[str, Spec]]] = [_TWO, {"one": {"d/x": _NEW}}, {}]


@pytest.mark.parametrize("later", _LATER, ids=["the same", "another", "nothing"])
@pytest.mark.parametrize("act", AT_FILES, ids=lambda act: str(act.__name__))
def test_every_edit_of_a_file_is_healed(
    act: Callable[[Neighbour, str], None], later: dict[str, dict[str, Spec]]
) -> None:
    done = Disturb((act, act, Neighbour.leave))
    check_history(Beside, [Update(_TWO), done, Update(later)], heals=True)


@pytest.mark.parametrize("act", AT_FILES, ids=lambda act: str(act.__name__))
def test_every_edit_of_a_single_file_is_healed(act: Callable[[Neighbour, str], None]) -> None:
    key = RootKey("base", "x")
    alone = Update({"one": {key: msgspec.structs.replace(_OLD, given={"durability": "none"})}})
    check_history(Alone, [alone, Disturb((act, Neighbour.leave)), alone], heals=True)


@pytest.mark.parametrize("kind", ["dies", "fails"])
@pytest.mark.parametrize("act", [Neighbour.replace, Neighbour.block_folder])
def test_edits_survive_an_update_that_is_cut_off_anywhere(
    act: Callable[[Neighbour, str], None],
    kind: Literal["dies", "fails"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An edit is put back if it can't be backed up. If its path was healed, and is declared no
    # longer, the kit takes that for a version that may not come back.
    monkeypatch.setattr(Options, "policies", NO_COPIES)
    done = Disturb((act, act, Neighbour.leave))
    for step in range(0, 60, 4):
        cut_off = Update(_LATER[1], Fault(kind, "inside", step))
        check_history(Beside, [Update(_TWO), done, cut_off], heals=True, atomic=True)
