"""Fuzzing for target connectors: are they right after updates that were interrupted anywhere?

An author describes one external system by a small class, and
:func:`check_target` drives the connector through random histories of updates,
crashes and restarts, against a model of the engine's commit protocol::

    def test_shelf() -> None:
        check_target(Shelf, settings=settings(max_examples=200))

Nothing here imports the rest of the package: what judges must not share code with
what is judged.
"""

from __future__ import annotations

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError:  # pragma: no cover  # Shown by a test in a process of its own.
    raise ImportError(
        "cocoindex_fsmirror.testing needs Hypothesis: pip install 'cocoindex-fsmirror[testing]'"
    ) from None

from ._adapter import Target
from ._check import check_history, check_target
from ._history import Delivery, Disturb, Fault, History, Restart, Step, Update, histories
from ._profiles import PROFILES
from ._rules import ContractViolation, Rule
from ._strategies import edits, names, paths, trees

__all__ = [
    "PROFILES",
    "ContractViolation",
    "Delivery",
    "Disturb",
    "Fault",
    "History",
    "Restart",
    "Rule",
    "Step",
    "Target",
    "Update",
    "check_history",
    "check_target",
    "edits",
    "histories",
    "names",
    "paths",
    "trees",
]
