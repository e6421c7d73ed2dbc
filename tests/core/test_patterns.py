"""Patterns match as Git has it."""

from __future__ import annotations

import pytest

from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.patterns import checked_patterns, matching, patterns


@pytest.mark.parametrize(
    ("lines", "name", "is_folder", "expected"),
    [
        ([], "a", False, False),
        (["*.log"], "a.log", False, True),
        (["*.log"], "d/e/a.log", False, True),
        (["*.log"], "a.log/b/c", False, True),
        (["*.log"], "a.logs", False, False),
        (["cache/"], "cache", True, True),
        (["cache/"], "cache", False, False),
        (["cache/"], "d/cache/x/y", False, True),
        (["/cache/"], "d/cache/x", False, False),
        (["d/e"], "d/e", False, True),
        (["d/e"], "f/d/e", False, False),
        (["*", "!a"], "a", False, False),
        (["*", "!a"], "b", False, True),
        (["d/", "!d/a"], "d/a", False, True),
    ],
)
def test_path_matches(lines: list[str], name: str, is_folder: bool, expected: bool) -> None:
    assert matching(lines)(Name(name), is_folder) is expected


def test_pattern_that_can_not_be_parsed_is_quoted() -> None:
    with pytest.raises(ValueError, match="the pattern '!' can't be parsed"):
        patterns(["a", "!"])


def test_sound_patterns_are_returned() -> None:
    assert checked_patterns("exact", ("a", "b")) == ("a", "b")
