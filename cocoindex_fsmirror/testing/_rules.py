"""The rules that a connector must keep, and the message for one that is broken."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ._history import Step

__all__ = ["Broken", "ContractViolation", "Rule"]

_GUIDE = "the engine's guide, “Building a custom target connector”"
_HANDLER = "the engine's docstring of TargetHandler"
_NAMES = ("Delivery", "Disturb", "Fault", "Restart", "Update")


class Rule(enum.Enum):
    """A rule of the engine's contract, or one that a connector promises.

    Attributes:
        reason: The rule, in a sentence.
        contract: The engine's own words, and where they stand.
    """

    CONVERGES = (
        "converges",
        "after an update that finished, what is there is what was declared, and what was never "
        "declared is as it was",
        "“generating actions that work correctly regardless of which previous state is actual”",
        _GUIDE,
    )
    SETTLES = (
        "settles",
        "an update that declares what is there already has nothing to do",
        "“Returns: TargetReconcileOutput if an action is needed, None if no changes are required”",
        _GUIDE,
    )
    BELIEVES_ONLY_WHAT_IT_MAY = (
        "believes only what it may",
        "nothing may be left alone unless every previous record agrees with it and it can't be "
        "missing",
        "“prev_possible_records … may have multiple due to interrupted updates; "
        "prev_may_be_missing: If True, the target state might not exist in the external system”",
        _GUIDE,
    )
    IDEMPOTENT = (
        "idempotent actions",
        "actions come again after a failure: twice, in parts, or in another grouping",
        "“applying the same action multiple times should have the same effect as applying it once”",
        _GUIDE,
    )
    DELETES_WHAT_MAY_BE_GONE = (
        "deletes what may be gone",
        "what is to be deleted may never have been made, or be gone already",
        "“prev_may_be_missing: If True, the target state might not exist in the external system”",
        _GUIDE,
    )
    PURE = (
        "reconcile is pure and repeatable",
        "reconcile is called again for attempts that are abandoned",
        "“only the output of the attempt that commits is applied, so it must be free of side "
        "effects”",
        _HANDLER,
    )
    NO_SWALLOWED_FAILURE = (
        "no swallowed failure",
        "apply must raise if it could not do its work: what it returns from is remembered as done",
        "“After successful execution, CocoIndex persists the new tracking records”",
        _GUIDE,
    )
    RECORDS = (
        "records survive storage",
        "a tracking record must come back from the database as it was, and tell values apart",
        "“A tracking record captures the essential information needed to detect changes”",
        _GUIDE,
    )
    ATOMIC = (
        "atomic",
        "at every moment each key shows one of its possible versions",
        "the engine leaves it open; atomic=True asks for it",
        "",
    )

    def __init__(self, title: str, reason: str, contract: str, source: str) -> None:
        self.title = title
        self.reason = reason
        self.contract = f"{contract} ({source})" if source else contract


class Broken(Exception):  # noqa: N818  # Becomes a violation where the story is known.
    """A rule is broken, as was found here and now."""

    def __init__(self, rule: Rule, found: str) -> None:
        super().__init__(rule, found)
        self.rule, self.found = rule, found


class ContractViolation(AssertionError):  # noqa: N818  # It is one, not an error of the kit.
    """A connector broke a rule.

    Attributes:
        subject: The name of the adapter.
        rule: The rule.
        found: What was seen, in a sentence.
        history: The steps that show it, to be given to
            :func:`~cocoindex_fsmirror.testing.check_history`; from
            :func:`~cocoindex_fsmirror.testing.check_target`, the shortest found.
        story: The same as it went, a line for each event.
        promises: The other arguments of the check, such as ``atomic``, by name;
            those only that are not as by default.
    """

    def __init__(
        self,
        subject: str,
        rule: Rule,
        found: str,
        history: Sequence[Step],
        story: Sequence[str],
        *,
        promises: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.subject = subject
        self.rule = rule
        self.found = found
        self.history = tuple(history)
        self.story = tuple(story)
        self.promises = dict(promises)
        told = "\n".join(f"  {line}" for line in story)
        super().__init__(
            f"{subject} breaks the rule “{rule.title}”: {rule.reason}.\n"
            f"The contract: {rule.contract}.\n"
            f"The history that breaks it:\n{told}\n  => {found}\n"
            f"To run it again:\n{_call(subject, history, promises)}"
        )


def _call(subject: str, history: Sequence[Step], promises: Mapping[str, Any]) -> str:
    """Returns the call that plays a history again, and the imports for it."""
    steps = "".join(f"    {step!r},\n" for step in history)
    more = "".join(f", {name}={value!r}" for name, value in promises.items())
    used = [name for name in _NAMES if re.search(rf"\b{name}[(.]", steps)]
    # Of what a function made, only the last part is a name.
    make = subject.rpartition("<locals>.")[2]
    is_named = all(part.isidentifier() for part in make.split("."))
    hint = "" if is_named else f"# make: what makes the adapter, here {subject}\n"
    return (
        f"from {__package__} import {', '.join([*used, 'check_history'])}\n"
        f"{hint}check_history({make if is_named else 'make'}, [\n{steps}]{more})"
    )
