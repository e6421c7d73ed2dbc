"""Policies: what is copied, and where an edit goes when it is healed, by target and by update."""

from __future__ import annotations

from typing import Any

import cocoindex as coco
import pytest

import cocoindex_fsmirror as fsmirror
from tests.mirror.drifting import pretend_unchanged
from tests.support import backups, contents
from tests.target import flows
from tests.target.declaring import MakeFlow, declare_sub
from tests.target.flows import OUT, Flow, memoized, ran


def number_copied(flow: Flow) -> int:
    """Returns the number of files that have a copy; all that are kept belong to a file."""
    with fsmirror.Mirror(flow.root) as mirror:
        return mirror.status().copied


@coco.fn(memo=True)
async def _page_in_folder(item: tuple[str, bytes], out: fsmirror.DirTarget) -> None:
    """Declares a file in a directory target of its own."""
    ran.append(item[0])
    sub = await coco.use_mount(declare_sub, out, item[0])
    sub.declare_file("page", item[1])


async def _in_folders(flow: Flow) -> None:
    """Declares every file in a nested target, in a memoized component."""
    out = await fsmirror.mount_dir_target(OUT, **flow.options)
    await coco.mount_each(_page_in_folder, [(n, (n, flow.files[n])) for n in flow.files], out)


@pytest.fixture
def nested(make_flow: MakeFlow) -> Flow:
    """A flow whose memoized components have nested targets."""
    flow = make_flow(_in_folders)
    flow.files = {"a": b"1", "b": b"2"}
    return flow


def test_inherited_copies_follow_the_root_though_no_component_runs(nested: Flow) -> None:
    nested.options["copies"] = "none"
    nested.update()
    counts = []
    for policy in ("auto", "none", "all"):
        nested.options["copies"] = policy
        nested.update()
        assert ran == []
        counts.append(number_copied(nested))
    assert counts == [2, 0, 2]


def test_inherited_policy_for_edits_follows_the_root(nested: Flow) -> None:
    nested.options["on_conflict"] = "overwrite"
    nested.update()
    nested.options["on_conflict"] = "backup"
    (nested.root / "a" / "page").write_bytes(b"edited")
    nested.update()
    assert ran == []
    assert contents(nested.tree) == {"a/page": b"1", "b/page": b"2"}
    assert backups(nested.root) == [b"edited"]


@pytest.mark.parametrize("change", ["auto to all", "all to auto"])
def test_drifted_file_keeps_its_copy_while_policies_change(
    make_flow: MakeFlow, change: str
) -> None:
    before, _, after = change.partition(" to ")
    flow = make_flow(memoized)
    flow.options, flow.files = {"copies": before}, {"a": b"1", "b": b"2"}
    flow.update()
    (flow.root / "a").unlink()
    flow.options["copies"] = after
    flow.update()
    assert ran == []
    assert contents(flow.tree) == flow.files
    assert number_copied(flow) == 2


@pytest.mark.parametrize("policy", ["auto", "none"])
def test_path_that_changes_its_target_follows_the_policy_of_that(
    make_flow: MakeFlow, policy: Any
) -> None:
    in_nested = set[str]()

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT, copies="auto" if policy == "none" else "none")
        sub = await coco.use_mount(_declare, out, policy)
        item, target = (("a", b"1"), sub) if in_nested else (("sub/a", b"1"), out)
        await coco.mount(coco.component_subpath("page"), flows.page, item, target)

    flow, counts = make_flow(main), []
    for paths in (set[str](), {"a"}, set[str]()):
        in_nested = paths
        flow.update()
        flow.update()
        counts.append(number_copied(flow))
    assert counts == ([0, 1, 0] if policy == "auto" else [1, 0, 1])


@coco.fn
async def _declare(out: fsmirror.DirTarget, copies: Any) -> fsmirror.DirTarget[coco.PendingS]:
    """Declares a nested target with a policy of its own."""
    return out.declare_dir_target("sub", copies=copies)


def test_damage_that_no_lstat_shows_is_healed_if_all_is_read(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.files = {"a": b"1", "b": b"2"}
    flow.update()
    (flow.root / "a").write_bytes(b"x")
    pretend_unchanged(flow.root, "a", recorded=True)
    with fsmirror.Mirror(flow.root) as mirror:
        assert mirror.heal().healed == []
        assert mirror.heal(content=True, dry_run=True).healed == ["a"]
        assert mirror.heal(content=True).healed == ["a"]
    assert contents(flow.tree) == flow.files
