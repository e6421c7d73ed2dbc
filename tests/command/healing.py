"""Runs ``fsmirror heal``, and its dry run before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.command.commands import run, told
from tests.support import exact_state

NO_COPY: Final = "no sound copy of its content is kept"


def healed(*arguments: object) -> tuple[int, list[str], dict[str, str]]:
    """Runs ``heal``; returns its exit status, the paths healed, and those left or failed."""
    result = run("heal", *arguments, "--json")
    figures: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, figures["healed"], problems_in(figures)


def backed_up(root: Path) -> int:
    """Counts what the backup area holds, without folders."""
    found = (root / ".fsmirror" / "backup").rglob("*")
    return sum(1 for path in found if path.is_symlink() or not path.is_dir())


def problems_in(figures: dict[str, Any]) -> dict[str, str]:
    """Returns the problems of the paths that were left, or failed."""
    return {each["path"]: each["problem"] for each in figures["left"] + figures["failures"]}


def heals_as_foreseen(*arguments: object) -> tuple[int, list[str], dict[str, str]]:
    """Runs ``heal`` after a dry run, which changes nothing and tells the same."""
    root = Path(str(arguments[0]))
    before = exact_state(root)
    foreseen = told("heal", *arguments, "--dry-run")
    assert exact_state(root) == before
    status = run("heal", *arguments, "--dry-run").exit_code
    kept = backed_up(root)
    result = run("heal", *arguments, "--json")
    assert json.loads(result.stdout) == foreseen
    assert result.exit_code == status
    assert backed_up(root) == kept + len(foreseen["backed_up"])
    return result.exit_code, foreseen["healed"], problems_in(foreseen)
