"""Defects of connectors that others wrote: how the kit finds and describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st

from cocoindex_fsmirror.testing import (
    PROFILES,
    ContractViolation,
    Fault,
    Rule,
    Step,
    Target,
    Update,
    check_history,
    check_target,
)

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Key: TypeAlias = str | tuple[str, ...]

DIES = Fault("dies", "before")

# Deterministic. Nothing is shrunk: the shortest history stands in the test.
_FINDING = settings(PROFILES["ci"], max_examples=1_000, phases=[Phase.generate])


class Defect(NamedTuple):
    """A defect of a connector, and the shortest history that shows it."""

    target: Callable[[], Target]
    rule: Rule
    found: str
    history: Sequence[Step]
    promises: Mapping[str, Any] = {}

    def is_found(self) -> bool:
        """True if the kit finds the defect by itself."""
        with pytest.raises(ContractViolation) as caught:
            check_target(self.target, settings=_FINDING, **self.promises)
        # Before it is shrunk, the delivery or another deletion may seem to be the reason.
        is_likely = caught.value.rule in (self.rule, Rule.IDEMPOTENT)
        return is_likely or "raised" in caught.value.found

    def is_told(self) -> bool:
        """True if the history shows the defect."""
        with pytest.raises(ContractViolation) as caught:
            check_history(self.target, self.history, **self.promises)
        assert caught.value.found.startswith(self.found), caught.value
        return caught.value.rule is self.rule


def update(declared: Mapping[Any, Any], fault: Fault | None = None, **more: Any) -> Update:
    """Returns an update of one component."""
    return Update({"one": declared}, fault, **more)
