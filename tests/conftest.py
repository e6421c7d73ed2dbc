"""What every test shares."""

from __future__ import annotations

import os
import signal

# A job in the background of a script ignores Ctrl-C, and what we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything imports cocoindex: it would send a usage event.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror.testing import PROFILES

# The profiles of the kit, with fewer examples where all tests of this package share the time.
_EXAMPLES = {"dev": 50, "ci": 100, "nightly": 2_000}
for _name, _profile in PROFILES.items():
    settings.register_profile(_name, _profile, max_examples=_EXAMPLES[_name])
# As few as in ``dev``, and the same in every run.
settings.register_profile("brief", PROFILES["ci"], max_examples=_EXAMPLES["dev"])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a mirror may be made; it does not exist yet."""
    return tmp_path / "root"


@pytest.fixture
def mirror(root: Path) -> Iterator[Mirror]:
    """A mirror whose root exists."""
    root.mkdir()
    with Mirror(root, patience=0.3) as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed, only what an engine lacks may be skipped."""
    report = yield
    if report.skipped and "FSMIRROR_NO_SKIPS" in os.environ:
        reason = str(report.longrepr)
        if "this engine" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where nothing may be: {reason}"
    return report
