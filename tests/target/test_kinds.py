"""Copies and links drift, are previewed, interrupted and torn down as files are."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cocoindex_fsmirror as fsmirror
from tests.support import exact_state, staged
from tests.target.declaring import MakeFlow, Wanted, apart, copy, displaced, dress, folder, link
from tests.target.flows import IS_NEW, OUT, Flow, failing_sink, failing_step, ran
from tests.target.sources import LARGE, SMALL, THEN, Blob, fill


def edited(path: Path) -> None:
    """Replaces the path by a file with other bytes."""
    path.unlink()
    path.write_bytes(b"theirs")


def relinked(path: Path) -> None:
    """Replaces the path by a link that leads elsewhere."""
    path.unlink()
    path.symlink_to("theirs")


@pytest.mark.parametrize("tamper", [edited, relinked, Path.unlink])
@pytest.mark.parametrize("name", ["a", "deep/large", "l"])
@pytest.mark.usefixtures("without_copies")
def test_tampered_file_or_link_is_healed_by_its_component_alone(
    make_flow: MakeFlow, tmp_path: Path, tamper: Callable[[Path], None], name: str
) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    expected: dict[str, bytes | str] = {"deep": "dir", "l": "-> a", "m": "-> a"}
    expected["a"] = expected["b"] = fill(small, 5)
    expected["deep/large"] = fill(large, LARGE)
    items = [("a", f"{small}"), ("b", f"{small}"), ("deep/large", f"{large}")]
    items += [("l", "-> a"), ("m", "-> a")]

    async def main(_: Flow) -> None:
        await apart(items, await fsmirror.mount_dir_target(OUT))

    flow = make_flow(main)
    flow.update()
    tamper(flow.root / name)
    flow.update()
    assert ran == [name]
    assert flow.tree == expected
    flow.update()
    assert ran == []
    theirs: dict[Any, list[bytes | str]] = {edited: [b"theirs"], relinked: ["-> theirs"]}
    assert displaced(flow) == theirs.get(tamper, [])


@pytest.mark.skipif(not IS_NEW, reason="this engine can't preview containers")
@pytest.mark.usefixtures("without_copies")
def test_a_preview_lists_copies_and_links_and_changes_nothing(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    def lines() -> list[str]:
        return [line for line in flow.preview() if not line.startswith("mirror ")]

    fill(source, 70 << 10)
    wanted.update({"c": copy(source), "l": link("secret"), "l\n2": link("secret")})
    assert lines() == ["link 'l\\n2'", "link l", "write c (70.0 KiB)"]
    assert not flow.root.exists()
    flow.update()
    assert lines() == []
    (flow.root / "l").unlink()
    del wanted["l\n2"]
    source.chmod(0o600)
    before = exact_state(flow.root)
    assert lines() == ["delete 'l\\n2'", "link l", "write c (70.0 KiB)"]
    assert exact_state(flow.root) == before
    flow.update()
    assert lines() == []


def versions(tmp_path: Path) -> tuple[Wanted, Wanted]:
    """Returns two states with nothing in common."""
    one, two = tmp_path / "one", tmp_path / "two"
    fill(one, SMALL + 1)
    fill(two, SMALL + 2)
    return {
        "copy": copy(one, preserve=("mode", "mtime")),
        "link": link("copy", mtime_ns=THEN),
        "swapped": copy(one),
        "deep/copy": copy(one),
        "deep/link": link("../copy"),
        "dressed": folder(mode=0o750, mtime_ns=THEN),
        "dressed/copy": copy(one),
    }, {
        "copy": copy(two, preserve=("mtime",), mode=0o600),
        "link": link("deep"),
        "swapped": link("deep", mtime_ns=THEN),
        "deep": copy(Blob(b"b" * (SMALL + 1))),
        "dressed": folder(mode=0o711, mtime_ns=THEN + 1),
        "dressed/link": link("../copy"),
    }


def told(flow: Flow) -> dict[str, object]:
    """Returns the tree with its modes, and with the times that were declared."""
    found = {name: dress(flow.root / name) for name in flow.tree}
    return {
        name: (flow.tree[name], mode, then if then <= THEN + 1 else "new")
        for name, (mode, then) in found.items()
    }


def interruptions() -> Iterator[contextlib.AbstractContextManager[None]]:
    """Yields failures before the sink, after it, and from each of its steps on."""
    yield failing_sink(after=False)
    yield failing_sink(after=True)
    yield from (failing_step(number) for number in itertools.count())


@pytest.mark.parametrize("to", [0, 1])
def test_interrupted_update_is_made_up_for_by_the_next(
    flow: Flow, wanted: Wanted, tmp_path: Path, to: int
) -> None:
    states = versions(tmp_path)

    def turn(state: Wanted) -> str:
        wanted.clear()
        wanted.update(state)
        return flow.attempt()

    assert turn(states[to]) == ""
    expected, steps = told(flow), 0
    for interruption in interruptions():
        assert turn(states[1 - to]) == ""
        with interruption:
            said = turn(states[to])
        assert ("BoomError" in said) == (said != "")
        flow.close()
        flow.update()
        assert told(flow) == expected
        assert staged(flow.root) == []
        before = exact_state(flow.root)
        flow.update()
        assert exact_state(flow.root) == before
        steps += 1
        if said == "":
            break
    assert steps > 20
    assert displaced(flow) == []


@pytest.mark.parametrize("how", ["files", "root", "drop"])
def test_links_and_copies_go_with_their_declarations(
    make_flow: MakeFlow, tmp_path: Path, how: str
) -> None:
    wanted, declares_root = versions(tmp_path)[0], True

    async def main(_: Flow) -> None:
        if declares_root:
            out = await fsmirror.mount_dir_target(OUT)
            for name, declare in wanted.items():
                await declare(out, name)

    flow = make_flow(main)
    flow.update()
    theirs = (tmp_path / "one").read_bytes()
    if how == "drop":
        flow.drop()
    else:
        declares_root = how == "files"
        wanted.clear()
        flow.update()
        assert flow.tree == {}
    assert flow.root.exists() == (how == "files")
    assert (tmp_path / "one").read_bytes() == theirs


def test_edited_copy_and_link_survive_a_drop(flow: Flow, wanted: Wanted, source: Path) -> None:
    fill(source, LARGE)
    wanted.update(copy=copy(source), goes=copy(source), link=link("x"), gone=link("x"))
    flow.update()
    edited(flow.root / "copy")
    relinked(flow.root / "link")
    flow.drop()
    assert flow.tree == {"copy": b"theirs", "link": "-> theirs"}
