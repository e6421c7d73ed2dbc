"""The root provider is registered as soon as the package and the engine are imported.

Without a provider the engine leaves the files of a root that is gone, and says nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[2]
_FLOW: Final = """
import os, pathlib, sys
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"
{imports}

root, step = pathlib.Path(sys.argv[1]), sys.argv[2]

async def main():
    if step == "declare":
        out = await fsmirror.mount_dir_target(root / "out")
        out.declare_file("a/b", b"1")

environment = coco.Environment(coco.Settings(db_path=root / "db"))
app = coco.App(coco.AppConfig(name="app", environment=environment), main)
app.drop_blocking() if step == "drop" else app.update_blocking()
"""
_ORDERS: Final = {
    "the engine first": "import cocoindex as coco, cocoindex_fsmirror as fsmirror",
    "the engine second": "import cocoindex_fsmirror as fsmirror, cocoindex as coco",
}


def _run(code: str, *arguments: object) -> str:
    """Runs a program that sees this package."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    run = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("ending", ["drop", "declare nothing"])
@pytest.mark.parametrize("order", _ORDERS)
def test_process_without_targets_removes_roots_of_earlier_ones(
    tmp_path: Path, order: str, ending: str
) -> None:
    flow = _FLOW.format(imports=_ORDERS[order])
    _run(flow, tmp_path, "declare")
    assert (tmp_path / "out" / "a" / "b").read_bytes() == b"1"
    _run(flow, tmp_path, ending)
    assert not (tmp_path / "out").exists()


def test_engine_imported_later_loads_as_usual() -> None:
    """The engine's module looks as if no hook had waited for it."""
    code = """
import sys
before = list(sys.meta_path)
import cocoindex_fsmirror
waiting = len(sys.meta_path)
import cocoindex
assert waiting == len(before) + 1
assert sys.meta_path == before
assert cocoindex.__spec__.loader is cocoindex.__loader__
assert type(cocoindex.__loader__).__module__ == "_frozen_importlib_external"
assert "cocoindex_fsmirror._target.roots" in sys.modules
assert "cocoindex_fsmirror._target.handlers" not in sys.modules
"""
    _run(code)


def test_engine_that_is_only_looked_for_is_found() -> None:
    code = """
import importlib.util, sys
import cocoindex_fsmirror
spec = importlib.util.find_spec("cocoindex")
assert spec.loader.is_package("cocoindex")
assert spec.loader.get_filename("cocoindex") == spec.origin
assert "cocoindex" not in sys.modules
import cocoindex
assert "cocoindex_fsmirror._target.roots" in sys.modules
"""
    _run(code)


def test_failed_import_may_be_repeated(tmp_path: Path) -> None:
    code = """
import sys
from cocoindex_fsmirror._target.hook import when_imported
sys.path.insert(0, sys.argv[1])
told = []
when_imported("flaky", lambda: told.append(sys.modules["flaky"].value))
for _ in range(2):
    try:
        import flaky
    except RuntimeError:
        assert not told
        sys.works = True
import flaky
assert told == [1]
when_imported("flaky", lambda: told.append(2))
assert told == [1, 2]
try:
    import no_such_module
except ImportError:
    print("as ever")
"""
    text = "import sys\nif not hasattr(sys, 'works'):\n    raise RuntimeError\nvalue = 1\n"
    (tmp_path / "flaky.py").write_text(text)
    assert _run(code, tmp_path) == "as ever\n"


def test_finders_before_ours_are_not_asked_twice(tmp_path: Path) -> None:
    code = """
import sys
from cocoindex_fsmirror._target.hook import when_imported
sys.path.insert(0, sys.argv[1])
asked = []

class Finder:
    def find_spec(self, name, *_):
        asked.append(name)

when_imported("late", lambda: print("told"))
sys.meta_path.insert(0, Finder())
import late
assert asked == ["late"]
"""
    (tmp_path / "late.py").touch()
    assert _run(code, tmp_path) == "told\n"
