"""The ``fsmirror`` command, run in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from msgspec.structs import replace

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._command.main import main
from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._mirror.drift import row_of


def run(*arguments: object, **more: Any) -> Result:
    """Runs ``fsmirror`` in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)], **more)


def told(*arguments: object) -> dict[str, Any]:
    """Returns what the command prints for programs: one object, and nothing else."""
    figures: dict[str, Any] = json.loads(run(*arguments, "--json").stdout)
    return figures


def edit_unseen(root: Path, name: str, content: bytes) -> None:
    """Changes a file in a way that no ``lstat`` shows: its row agrees with the new one."""
    with Mirror(root) as mirror:
        row = row_of(mirror.root, Name(name))
        assert row is not None
        assert row.size == len(content)
        (root / name).write_bytes(content)
        os.utime(root / name, ns=(row.mtime_ns, row.mtime_ns))
        there = (root / name).lstat()
        hidden = replace(row, ctime_ns=there.st_ctime_ns, recorded_ns=there.st_ctime_ns + 10**10)
        mirror.session.run(lambda _tree, ledger: ledger.commit([hidden], ()))
