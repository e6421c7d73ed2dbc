"""A live update heals its mirrors for as long as it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import command_environment
from tests.target.living import SCENARIOS

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_live_update_heals(scenario: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.target.living", scenario, str(tmp_path)]
    run = subprocess.run(
        command, cwd=TOP, capture_output=True, text=True, check=False, env=command_environment()
    )
    assert (run.returncode, run.stdout.splitlines()[-1:]) == (0, ["done"]), run.stderr
