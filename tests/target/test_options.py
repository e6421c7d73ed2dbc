"""The options of directory targets and files, as a flow gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.owners import Owner
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._target.actions import Change, Place
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.sink import apply_actions, mirror_at
from cocoindex_fsmirror._target.specs import Options as Given
from cocoindex_fsmirror._target.specs import RootUpdate
from tests.support import backups, contents, write
from tests.target.flows import OUT, Flow

MakeFlow = Callable[..., Flow]
Options = dict[str, Any]


@coco.fn
def declare_sub(out: fsmirror.DirTarget, options: Options) -> fsmirror.DirTarget[coco.PendingS]:
    """Declares the directory target ``sub`` below another."""
    return out.declare_dir_target("sub", **options)


@pytest.fixture
def make_nested(make_flow: MakeFlow) -> Callable[[Options, Options], Flow]:
    """Makes a flow with a file in a directory target inside another."""

    def make(outer: Options, inner: Options) -> Flow:
        async def main(_: Flow) -> None:
            out = await fsmirror.mount_dir_target(OUT, **outer)
            sub = await coco.use_mount(declare_sub, out, inner)
            sub.declare_file("x", b"declared")

        return make_flow(main)

    return make


def _with_a_foreign_file(flow: Flow) -> Flow:
    """Puts a foreign file where the flow's is declared."""
    (flow.root / "sub").mkdir(parents=True)
    (flow.root / "sub" / "x").write_bytes(b"foreign")
    return flow


@pytest.mark.parametrize(
    ("outer", "inner", "left", "kept"),
    [
        ({}, {}, b"declared", [b"foreign"]),
        ({"on_conflict": "overwrite"}, {}, b"declared", []),
        ({"on_conflict": "overwrite"}, {"on_conflict": "backup"}, b"declared", [b"foreign"]),
        ({"on_conflict": "backup"}, {"on_conflict": "error"}, b"foreign", []),
        ({"on_conflict": "error"}, {}, b"foreign", []),
    ],
)
def test_on_conflict_is_inherited(
    make_nested: Callable[[Options, Options], Flow],
    outer: Options,
    inner: Options,
    left: bytes,
    kept: list[bytes],
) -> None:
    flow = _with_a_foreign_file(make_nested(outer, inner))
    said = flow.attempt()
    assert contents(flow.tree) == {"sub/x": left}
    assert backups(flow.root) == kept
    assert ("sub/x" in said) is (left == b"foreign")


@pytest.mark.parametrize(
    ("outer", "inner", "syncs"),
    [
        ({}, {}, True),
        ({"durability": "none"}, {}, False),
        ({"durability": "none"}, {"durability": "batch"}, True),
    ],
)
def test_durability_is_inherited(
    make_nested: Callable[[Options, Options], Flow],
    monkeypatch: pytest.MonkeyPatch,
    outer: Options,
    inner: Options,
    syncs: bool,
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(_calls, "syncfs", calls.append)
    flow = make_nested(outer, inner)
    flow.update()
    assert contents(flow.tree) == {"sub/x": b"declared"}
    assert bool(calls) is syncs


@pytest.mark.parametrize("option", ["durability", "verify", "on_conflict"])
@pytest.mark.parametrize("where", ["outer", "inner"])
def test_an_unknown_value_is_refused_with_the_known_ones(
    make_nested: Callable[[Options, Options], Flow], option: str, where: str
) -> None:
    wrong = {option: "sometimes"}
    flow = make_nested(*((wrong, {}) if where == "outer" else ({}, wrong)))
    assert f"{option}='sometimes' is none of" in flow.attempt()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no", r"exact takes patterns as a tuple, not str; write \('no',\)"),
        (1, "neither True nor False, nor a tuple of patterns: 1"),
        ([b"*.log"], "nor a tuple of patterns"),
        ({"*.log"}, "nor a tuple of patterns"),
    ],
    ids=repr,
)
def test_exact_refuses_what_is_no_patterns(tmp_path: Path, value: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        fsmirror.dir_target(tmp_path, exact=value)


def test_exact_refuses_a_pattern_that_can_not_be_parsed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the pattern '!' can't be parsed"):
        fsmirror.dir_target(tmp_path, exact=["*.log", "!"])


@pytest.mark.parametrize(
    ("outer", "inner", "name"),
    [
        ({"verified": "stat"}, {}, "verified"),
        ({}, {"exact": True}, "exact"),
        ({}, {"max_delete": 1}, "max_delete"),
    ],
)
def test_unknown_option_is_refused_by_name(
    make_nested: Callable[[Options, Options], Flow], outer: Options, inner: Options, name: str
) -> None:
    assert f"there is no option {name!r} here" in make_nested(outer, inner).attempt()


def test_directory_inside_an_exact_one_may_skip_the_look_for_drift(
    make_nested: Callable[[Options, Options], Flow],
) -> None:
    flow = make_nested({"exact": True}, {"verify": "none"})
    flow.update()
    assert contents(flow.tree) == {"sub/x": b"declared"}


@pytest.mark.parametrize(
    ("mode", "problem"),
    [(-1, "is not between"), (0o10000, "is not between"), ("644", "not str"), (True, "not bool")],
)
def test_invalid_mode_is_refused_by_the_declaration(
    make_flow: MakeFlow, mode: Any, problem: str
) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        out.declare_file("x", b"1", mode=mode)

    flow = make_flow(main)
    assert problem in flow.attempt()
    assert flow.tree == {}


def test_missing_folders_are_an_error_if_none_may_be_made(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        out.declare_file("x", b"1", create_parent_dirs=False)
        out.declare_file("no/y", b"2", create_parent_dirs=False)

    flow = make_flow(main)
    said = flow.attempt()
    assert "'no/y'" in said
    assert "create_parent_dirs" in said
    assert flow.tree == {"x": b"1"}


class _Nothing:
    """A context in which nothing is provided."""

    def get(self, key: str, _type: type) -> NoReturn:
        raise KeyError(key)


MISSING = coco.ContextKey[Path]("tests/target/never-provided")


def test_a_context_key_without_a_directory_is_an_error_that_names_it(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        await fsmirror.mount_dir_target(MISSING)

    assert (
        "tests/target/never-provided: is a context key for which nothing"
        in make_flow(main).attempt()
    )


def test_failing_root_does_not_hide_another(tmp_path: Path) -> None:
    places = (RootKey("tests/target/never-provided", "."), RootKey(None, str(tmp_path)))
    actions = [Change(Place(root, "", Given(), RootUpdate()), write("a", b"1")) for root in places]
    with pytest.raises(fsmirror.RootError, match="never-provided"):
        apply_actions(_Nothing(), actions)
    assert (tmp_path / "a").read_bytes() == b"1"
    mirror_at(str(tmp_path)).close()


def test_two_owners_in_one_batch_each_have_their_update(tmp_path: Path) -> None:
    key = RootKey(None, str(tmp_path))
    mirror = mirror_at(RootUpdate().locate(key, _Nothing()))
    updates = {owner: RootUpdate() for owner in ("one", "two")}
    for owner in updates:
        mirror.prepare(Owner(owner), DriftReport())
    places = [Place(key, owner, Given(), update) for owner, update in updates.items()]
    apply_actions(_Nothing(), [Change(at, write(at.owner, owner=at.owner)) for at in places])
    found = {owner: epoch.update for owner, epoch in mirror.epochs.items()}
    assert found == {owner: update.identity for owner, update in updates.items()}
    mirror.close()


def test_file_declared_by_itself_takes_a_mode_and_a_time(
    make_flow: MakeFlow, tmp_path: Path
) -> None:
    path = tmp_path / "alone" / "x"

    async def main(_flow: Flow) -> None:
        fsmirror.declare_file(path, b"1", mode=0o640, mtime_ns=7)

    flow = make_flow(main)
    flow.update()
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime_ns) == (0o640, 7)
    path.touch()
    flow.update()
    assert path.stat().st_mtime_ns == 7
