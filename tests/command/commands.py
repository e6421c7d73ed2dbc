"""The ``fsmirror`` command, run in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from cocoindex_fsmirror._command.main import main


def run(*arguments: object, **more: Any) -> Result:
    """Runs the command."""
    return CliRunner().invoke(main, [*map(str, arguments)], **more)


def told(*arguments: object) -> dict[str, Any]:
    """Returns what the command prints for programs: one object, and nothing else."""
    figures: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return figures
