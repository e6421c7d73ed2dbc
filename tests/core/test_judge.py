"""The ownership table, in full."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._core.ownership import Verdict
from cocoindex_fsmirror._core.plan import judge
from cocoindex_fsmirror._core.rows import Row
from tests.core.simulation import Node, dir_row, file_row, seen
from tests.support import delete, folder, write

ROW, DESIRED, ENGINE, UNKNOWN = b"last written", b"desired!", b"remembered by the engine", b"?"

ROWS: dict[str, Row | None] = {
    "none": None,
    "made": file_row("f", ROW),
    "adopted": file_row("f", ROW, made=False),
    "adopted, undeclared": file_row("f", ROW, made=False, declared=False),
    "other owner": file_row("f", ROW, owner="owner-b"),
    "folder": dir_row("f"),
    "adopted what the engine wrote": file_row("f", ENGINE, made=False),
}
NODES: dict[str, Node | None] = {
    "absent": None,
    "row": ROW,
    "desired": DESIRED,
    "engine": ENGINE,
    "unknown": UNKNOWN,
    "unread": "unread",
    "link": "link",
    "dir": "dir",
    "other": "other",
}
POLICIES = ("backup", "overwrite", "error", "keep")

# By the content on the disk; the rows and engine records that make it ours are below.
ALWAYS = {"absent": Verdict.ABSENT, "dir": Verdict.FOLDER}
OURS = {
    # Content: the rows by which it is ours, and if the engine has to remember it.
    ("row", "made", False),
    ("row", "made", True),
    ("engine", "none", True),
    ("engine", "made", True),
    ("engine", "adopted", True),
    ("engine", "adopted, undeclared", True),
    ("engine", "other owner", True),
    ("engine", "folder", True),
}


def _intents(policy: str, *, remembers: bool) -> dict[str, Intent]:
    """Returns the intents that may concern ``f``."""
    ours = (_digest(ENGINE),) if remembers else ()
    more: dict[str, Any] = {"ours": ours, "on_conflict": policy}
    return {
        "file": write("f", DESIRED, **more),
        "dir": folder("f", **more),
        "absent": delete("f", **more),
    }


def _digest(content: bytes) -> bytes:
    """Returns the digest of a content; ``None`` if it can't be read."""
    found = getattr(seen(content).state, "digest", None)
    assert isinstance(found, bytes)
    return found


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("on_disk", NODES)
def test_verdict_is_that_of_the_ownership_table(row: str, on_disk: str) -> None:
    for policy, remembers in itertools.product(POLICIES, (False, True)):
        for asks, intent in _intents(policy, remembers=remembers).items():
            expected = ALWAYS.get(on_disk, Verdict.FOREIGN)
            if on_disk == "desired" and asks == "file":
                expected = Verdict.RIGHT
            elif (on_disk, row, remembers) in OURS:
                expected = Verdict.OURS
            found = judge(intent, ROWS[row], seen(NODES[on_disk]))
            assert found is expected, (policy, remembers, asks)


def test_desired_bytes_are_right_whoever_wrote_them() -> None:
    for row in (None, file_row("f", DESIRED), file_row("f", DESIRED, made=False)):
        assert judge(write("f", DESIRED), row, seen(DESIRED)) is Verdict.RIGHT


def test_right_bytes_in_a_wrong_mode_are_still_right() -> None:
    assert judge(write("f", DESIRED, mode=0o600), None, seen(DESIRED)) is Verdict.RIGHT


def test_changed_mode_makes_nothing_foreign() -> None:
    row = file_row("f", ROW, mode=0o600)
    assert judge(write("f", DESIRED), row, seen(ROW)) is Verdict.OURS


def test_adopted_bytes_stay_foreign_though_the_engine_knows_them() -> None:
    intent = delete("f", ours=(_digest(ROW),))
    assert judge(intent, ROWS["adopted"], seen(ROW)) is Verdict.FOREIGN
    assert judge(intent, ROWS["made"], seen(ROW)) is Verdict.OURS


def test_equal_bytes_of_another_owner_are_not_ours() -> None:
    assert judge(write("f", DESIRED, owner="x"), ROWS["made"], seen(ROW)) is Verdict.FOREIGN
    assert judge(write("f", DESIRED), ROWS["other owner"], seen(ROW)) is Verdict.FOREIGN


def test_unreadable_file_is_never_ours() -> None:
    row = replace(file_row("f", ROW), digest=None)
    assert judge(write("f", DESIRED), row, seen("unread")) is Verdict.FOREIGN
