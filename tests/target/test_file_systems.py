"""Flows that write to each file system; each part of a life is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk.grounds import KINDS, Ground, laid_out
from tests.support import command_environment, contents, snapshot

pytestmark = [pytest.mark.slow, pytest.mark.root]

# Those that differ for a flow, since each life takes seconds.
LIVES = {
    "ext4",
    "ext4 with an encrypted folder",
    "overlay of several disks, xino=on",
    "exFAT",
    "NTFS",
    "NTFS, folding",
    "mergerfs",
    "inode numbers with the top bit",
    "inode numbers of each mount",
    "exchange that loses a file",
    "folding to lower case",
    "little of all",
}
SCRIPT = """
import json, sys
from pathlib import Path
from tests.target import flows

steps, root = json.load(sys.stdin), Path(sys.argv[1])
flow = flows.Flow(root.parent.parent, flows.memoized)
flow.root = root
for files, edited in steps:
    for name, content in edited.items():
        root.joinpath(name).write_text(content)
    flow.files = {name: content.encode() for name, content in files.items()}
    failed = flow.attempt()
    print(json.dumps([sorted(flows.ran), failed]))
flow.close()
"""
Step = tuple[dict[str, str], dict[str, str]]
"""The files of an update, and edits before it."""


@pytest.fixture(params=[kind for kind in KINDS if kind.name in LIVES], ids=str)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """A file system."""
    with laid_out(request.param, tmp_path / "ground") as made:
        yield made


def _live(root: Path, *steps: Step) -> list[tuple[list[str], str]]:
    """Updates a flow once a step; returns what ran in each update, and what failed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root)],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        check=False,
        env=command_environment(COCOINDEX_DISABLE_USAGE_TRACKING="1"),
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def _assert_holds(root: Path, files: dict[str, str]) -> None:
    """Fails unless the root holds some files, whatever the case of their names."""
    found = {
        name.lower(): content.decode()
        for name, content in contents(snapshot(root)).items()
        if ".fsmirror" not in name
    }
    assert found == {name.lower(): content for name, content in files.items()}


def test_flow_runs_again_for_what_changed_alone(ground: Ground) -> None:
    root, apart = ground.root, ground.kind.apart
    names = ["a", "d/b", "c", *([f"{apart}/e"] if apart else [])]
    first = dict.fromkeys(names, "1")
    second = first | {"a": "2"}
    steps: list[Step] = [(first, {}), (first, {}), (second, {}), (second, {"d/b": "9"})]
    ran = _live(root, *steps)
    assert ran == [(sorted(names), ""), ([], ""), (["a"], ""), ([], "")]  # The last is healed.
    _assert_holds(root, second)
    ground.remount()
    assert _live(root, (second, {})) == [([], "")]
    renamed = {name if name != "c" else "C": content for name, content in second.items()}
    # The new name may be refused until the old one is gone.
    assert _live(root, (renamed, {}), (renamed, {}), (renamed, {}))[-1] == ([], "")
    _assert_holds(root, renamed)
