"""The kit by itself: without Hypothesis, and without a place in everybody's pytest."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

SENTENCE = "cocoindex_fsmirror.testing needs Hypothesis: pip install 'cocoindex-fsmirror[testing]'"


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_kit_without_hypothesis_says_what_to_install() -> None:
    block = "import sys; sys.modules['hypothesis'] = None"
    ended = python(f"{block}; import cocoindex_fsmirror; import cocoindex_fsmirror.testing")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"ImportError: {SENTENCE}"
    assert ended.stderr.count("Traceback") == 1
    assert "ModuleNotFoundError" not in ended.stderr


def test_package_loads_neither_kit_nor_hypothesis() -> None:
    program = """
import sys
import cocoindex_fsmirror._target.declare, cocoindex_fsmirror._command.main
print([name for name in sys.modules if "hypothesis" in name or "testing" in name])
"""
    ended = python(program)
    assert (ended.stdout.splitlines()[-1], ended.returncode) == ("[]", 0)


def test_pytest_loads_nothing_of_ours_by_itself() -> None:
    installed = importlib.metadata.distribution("cocoindex-fsmirror").entry_points
    assert {point.group for point in installed} == {"console_scripts"}
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert "entry-points" not in project["project"]
    assert "hypothesis" in " ".join(project["project"]["optional-dependencies"]["testing"])
    assert "hypothesis" not in " ".join(project["project"]["dependencies"])
