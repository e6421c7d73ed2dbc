"""A conflict is shown once: by the exception or log of a flow, or by the command."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import cocoindex as coco
import pytest
from click.testing import CliRunner

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._command.main import main
from tests.reopening import reopened

FOLDER = "write 'a': a directory is in the way, with foreign entries: 'a', 'a/mine'"
FOREIGN = "write 'a': foreign bytes are in the way, at 'a'"


@coco.fn
async def declare(name: str, out: fsmirror.DirTarget) -> None:
    """Declares one file, in a component."""
    out.declare_file(name, b"declared")


@pytest.fixture
def update(tmp_path: Path) -> Iterator[Callable[[bool], None]]:
    """Runs a flow whose file, in a component or not, meets a foreign folder."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "mine").touch()

    def run(in_component: bool) -> None:
        async def flow() -> None:
            out = await fsmirror.mount_dir_target(tmp_path / "root")
            if in_component:
                await coco.mount(declare, "a", out)
            else:
                out.declare_file("a", b"declared")

        env = reopened(lambda: coco.Environment(coco.Settings(db_path=tmp_path / "db")))
        coco.App(coco.AppConfig("app", environment=env), flow).update_blocking()

    yield run
    gc.collect()  # Closes the database.


def test_conflict_in_the_main_component_is_raised_and_logged_once(
    update: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(fsmirror.ApplyError) as caught:
        update(False)
    told = "".join(traceback.format_exception(caught.value))
    assert (told.count(FOLDER), caplog.text.count(FOLDER)) == (1, 1)
    assert "root: 1 failed: 'a' (" in str(caught.value)


def test_conflict_in_a_component_is_told_by_the_engine_and_a_line(
    update: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    update(True)
    told = [record.name.split(".")[0] for record in caplog.records if FOLDER in record.getMessage()]
    assert told.count("cocoindex_fsmirror") == 1
    assert caplog.text.count(FOLDER) == 2  # The other one is in the engine's traceback.


@pytest.mark.parametrize(
    ("options", "sentence"), [("", FOLDER), ("-n", FOLDER), ("--on-conflict error", FOREIGN)]
)
@pytest.mark.parametrize("more", ["", " --json"])
def test_conflict_is_told_by_the_command_once(
    tmp_path: Path, options: str, sentence: str, more: str
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(b"a")
    (tmp_path / "dst").mkdir()
    if sentence == FOREIGN:
        (tmp_path / "dst" / "a").write_bytes(b"mine")
    else:
        (tmp_path / "dst" / "a").mkdir()
        (tmp_path / "dst" / "a" / "mine").touch()
    arguments = ["sync", str(tmp_path / "src"), str(tmp_path / "dst"), *(options + more).split()]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3
    assert sentence in result.output
    assert "failed" not in result.stderr  # The batch has no line of its own.
    assert result.stdout.count("in the way") <= 1
    assert result.stderr.count("in the way") <= 1
