"""The page about mirrors without the engine: its code runs, and its tables are complete."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import Healing, Mirror, Update
from tests.support import snapshot

PAGE = (Path(__file__).parents[1] / "cocoindex_fsmirror" / "MIRROR.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_snippets_run_one_after_another_with_the_shown_effects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("assets").mkdir()
    Path("assets/logo.png").write_bytes(b"\x89PNG")
    names: dict[str, Any] = {}
    first, second, third, fourth, fifth, sixth = BLOCKS

    def run(block: str) -> str:
        exec(compile(block, "MIRROR.md", "exec"), names)  # The page's own code.
        return capsys.readouterr().out

    run(first)
    assert snapshot(Path("site")) == {
        "index.html": b"<h1>Hello</h1>\n",
        "logo.png": b"\x89PNG",
        "latest.html": "-> index.html",
        "uploads": "dir",
    }
    run(second)
    assert snapshot(Path("site")) == {"index.html": b"<h1>Hello again</h1>\n"}
    told = run(third)
    assert told.count("\n") == 2
    assert "'index.html'" in told
    assert "'index.html/below'" in told
    assert snapshot(Path("site"))["about.html"] == b"<h1>About</h1>\n"
    assert run(fourth) == "['about.html']\n"
    assert run(fifth) == "['about.html']\n"
    assert snapshot(Path("site"))["about.html"] == b"<h1>About</h1>\n"
    run(sixth)
    assert snapshot(Path("site")) == {"index.html": b"<h1>Hello</h1>\n"}
    assert sorted(os.listdir("site/.fsmirror")) == [".gitignore", "backup", "location"]
    assert [each.name.partition("-")[0] for each in Path("memory").iterdir()] == ["site"]


@pytest.mark.parametrize("method", ["write", "copy", "symlink", "folder"])
def test_the_table_has_each_declaration_with_its_arguments(method: str) -> None:
    signature = inspect.signature(getattr(Update, method))
    shown = []
    for name, parameter in [*signature.parameters.items()][1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        is_required = parameter.default is parameter.empty
        default = repr(parameter.default).replace("'", '"')
        shown.append(name if is_required else f"{name}={default}")
    assert f"| `{method}({', '.join(shown)})` |" in PAGE


def test_the_table_of_options_is_complete() -> None:
    options = [*inspect.signature(Mirror.update).parameters][1:]
    table = PAGE.partition("## Options of `update`")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == options


def test_the_table_of_healing_is_complete() -> None:
    rows = re.findall(r"^\| `(.+?)(?:=.*)?` \|", PAGE.partition("## Healing")[2], re.MULTILINE)
    options = [*inspect.signature(Mirror.heal).parameters][1:]
    assert rows == [*options, *(f".{field}" for field in Healing.__struct_fields__)]


def test_program_with_a_mirror_does_not_load_the_engine(tmp_path: Path) -> None:
    code = (
        "from cocoindex_fsmirror import Mirror\n"
        + BLOCKS[1]
        + "import sys\nassert 'cocoindex' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
