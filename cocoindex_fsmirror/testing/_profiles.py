"""Settings of Hypothesis for fuzzing connectors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hypothesis import HealthCheck, settings

__all__ = ["PROFILES"]

_DEV = settings(
    settings.get_profile("default"),
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

PROFILES: Final[Mapping[str, settings]] = MappingProxyType(
    {
        "dev": _DEV,
        "ci": settings(_DEV, max_examples=200, derandomize=True),
        "nightly": settings(_DEV, max_examples=5_000),
    }
)
"""``dev`` is quick, ``ci`` is the same in every run, and ``nightly`` is long. Give one to
:func:`~cocoindex_fsmirror.testing.check_target`, or register it with Hypothesis."""
