"""The English of the docstrings, as far as a program can check it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDERS = ("benchmarks", "cocoindex_fsmirror", "tests")
RIDDLES = ("What", "Whether", "Who", "It", "The same", "Has", "Lets", "How", "Where", "Why")
NO_VERBS = (
    "A",
    "An",
    "The",
    "All",
    "Each",
    "Every",
    "Only",
    "Not",
    "If",
    "As",
    "For",
    "In",
    "With",
)
NOUNS = ("property", "cached_property", "fixture")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _documented(folder: str) -> Iterator[tuple[str, ast.AST, str]]:
    """Yields what has a docstring in a folder: its place, itself, the first line of that."""
    for path in sorted((CHECKOUT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | Function) and (
                text := ast.get_docstring(node)
            ):
                yield f"{path}:{getattr(node, 'lineno', 1)}", node, text.splitlines()[0]


def _begins_with(line: str, words: tuple[str, ...]) -> bool:
    """True if a line begins with one of some words."""
    return any(line == word or line.startswith((f"{word} ", f"{word}, ")) for word in words)


def _is_noun(function: Function) -> bool:
    """True if a function is read as a value, so that a noun describes it."""
    decorators = {
        ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in function.decorator_list
    }
    return bool(decorators & {*NOUNS})


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_begins_with_a_riddle(folder: str) -> None:
    found = [(at, line) for at, _, line in _documented(folder) if _begins_with(line, RIDDLES)]
    assert found == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstring_of_a_function_begins_with_a_verb(folder: str) -> None:
    found = [
        (at, line)
        for at, node, line in _documented(folder)
        if isinstance(node, Function) and not _is_noun(node) and not node.name.startswith("test_")
    ]
    assert [each for each in found if _begins_with(each[1], NO_VERBS)] == []
