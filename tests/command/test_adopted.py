"""An adopted file fares as ``fsmirror why`` says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command.commands import run
from tests.support import backups, contents, snapshot
from tests.target.flows import Flow


@pytest.fixture(params=["flow", "sync"])
def adopted(
    request: pytest.FixtureRequest, tmp_path: Path, make_flow: Callable[..., Flow]
) -> tuple[Path, Callable[[], object]]:
    """A mirror with an adopted file ``a``, and a function that no longer declares it."""
    flow, source = make_flow(), tmp_path / "source"
    flow.root.mkdir()
    (flow.root / "a").write_bytes(b"a")
    if request.param == "sync":
        source.mkdir()
        for name in ("a", "b"):
            (source / name).write_bytes(name.encode())
        assert run("sync", source, flow.root).exit_code == 0

        def undeclare() -> None:
            (source / "a").unlink()
            assert run("sync", source, flow.root).exit_code == 0

        return flow.root, undeclare
    flow.files = {"a": b"a", "b": b"b"}
    flow.update()

    def undeclare_in_flow() -> None:
        flow.files = {"b": b"b"}
        flow.update()

    return flow.root, undeclare_in_flow


def test_undeclared_adopted_file_is_backed_up_as_why_says(
    adopted: tuple[Path, Callable[[], object]],
) -> None:
    root, undeclare = adopted
    assert (
        "by default, it goes to the backup area once it is no longer declared"
        in run("why", root / "a").stdout
    )
    undeclare()
    assert not (root / "a").exists()
    assert backups(root) == [b"a"]


def test_adopted_file_survives_a_drop_as_why_says(
    adopted: tuple[Path, Callable[[], object]],
) -> None:
    root, _ = adopted
    assert (
        "origin       found there, not written by us: drop leaves it in place;"
        in run("why", root / "a").stdout
    )
    assert run("drop", root, "--yes").exit_code == 0
    assert contents(snapshot(root)) == {"a": b"a"}
