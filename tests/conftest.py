"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import signal
import subprocess

# A job in the background of a script ignores Ctrl-C, and what we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything imports cocoindex: it would send a usage event.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._mirror import look
from cocoindex_fsmirror.testing import PROFILES
from tests.support import Mount

# The profiles of the kit, with fewer examples, since all tests of the package share the time.
_EXAMPLES = {"dev": 50, "ci": 100, "nightly": 2_000}
for _name, _profile in PROFILES.items():
    settings.register_profile(_name, _profile, max_examples=_EXAMPLES[_name])
# As few examples as in ``dev``, and equal ones in every run.
settings.register_profile("brief", PROFILES["ci"], max_examples=_EXAMPLES["dev"])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


# Four fifths of the time of all tests: crashes at every step, power cuts, other connectors and
# the real engine under the fuzz kit, and a benchmark of each kind.
SLOW = {
    "crash",
    "kit/test_localfs_target.py",
    "kit/test_model_against_engine.py",
    "kit/test_our_target.py",
    "kit/test_processes.py",
    "kit/test_seeded_mistakes.py",
    "kit/test_sigkill_twin.py",
    "kit/test_sqlite_target.py",
    "kit/test_strategies.py",
    "test_benchmarks.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        if SLOW & {path.as_posix(), path.parts[0]}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The path of a root that does not exist yet."""
    return tmp_path / "root"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The path of a state directory that does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def mirror(root: Path) -> Iterator[Mirror]:
    """A mirror whose root exists."""
    root.mkdir()
    with Mirror(root, patience=0.3) as opened:
        yield opened


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps batches from waiting for the next tick; the next look reads files instead."""
    monkeypatch.setattr(look, "time", SimpleNamespace(sleep=lambda _seconds: None))


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts something on a folder that it makes: ``mount(path, "-t", "tmpfs", "tmpfs")``."""
    mounted: list[Path] = []

    def act(point: Path, *arguments: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        point.mkdir(parents=True, exist_ok=True)
        command = ["mount", *arguments, str(point)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            pytest.skip(f"this machine does not let us mount: {result.stderr.strip()}")
        mounted.append(point)
        return point

    yield act
    for point in reversed(mounted):
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def tmpfs(mount: Mount, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a file system of a size, such as ``512k``, below the test's own folder."""
    return lambda size: mount(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails each skip for another reason than the engine's release, where all is installed."""
    report = yield
    if report.skipped and "FSMIRROR_NO_SKIPS" in os.environ:
        reason = str(report.longrepr)
        if "this engine" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where nothing may be: {reason}"
    return report
