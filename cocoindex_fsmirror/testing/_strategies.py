"""Names, paths and trees of files, as nasty as a file system allows."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from hypothesis import strategies as st

__all__ = ["Files", "edits", "names", "paths", "trees"]

Files: TypeAlias = dict[str, bytes | None]
"""Files by their relative paths; ``None`` stands for a folder with nothing else in it."""

_LONGEST: Final = 255  # bytes of a name, on every common file system
_FORMS: Final[tuple[Callable[[str], str], ...]] = (
    str.swapcase,
    *(functools.partial(unicodedata.normalize, form) for form in ("NFC", "NFD")),
)
_TWINS: Final = (
    *("a", "A", "b", "a.txt", "A.TXT"),
    *("é", "e\u0301", "Å", "Å", "ß", "ss", "ﬀ"),  # Twins, once normalised or folded.
)
_NASTY: Final = (
    *("-rf", "--", "~", "*", "?", "$HOME", "`id`", "'", '"', "%s", "\\", "a\\b", ":", "|"),
    *(" ", " a", "a ", "a.", "...", ".a", ".git", ".tmp", "a~", "#a#"),
    *("a\nb", "\n", "\r", "\t", "\x1b[31m", "\x7f", "\u202e", "\u200b", "\ufeff", "\ufffd"),
    *("CON", "nul", "LPT1", "Thumbs.db", "lost+found"),
    *("🎉", "日本語", "x" * _LONGEST, "é" * (_LONGEST // 2), "🎉" * (_LONGEST // 4)),
)


def names() -> st.SearchStrategy[str]:
    """Draws names of files: valid in UTF-8, 255 bytes at most, without ``/`` and NUL.

    Among them those that break programs: leading dashes, newlines, twins that differ in
    case or Unicode form only, shell syntax, names as long as can be.
    """
    free = st.text(
        st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=_LONGEST // 4
    )
    nasty = st.sampled_from(_TWINS) | st.sampled_from(_NASTY)
    return (nasty | free).filter(lambda name: name not in (".", ".."))


_NAMES: Final = names()


def paths(
    names: st.SearchStrategy[str] = _NAMES,
    *,
    max_depth: int = 3,
) -> st.SearchStrategy[str]:
    """Draws relative paths with ``/``; within one example they share few names, so that they nest.

    Args:
        names: The names they are made of. By default some are twins of others: they
            differ in case or Unicode form only.
        max_depth: How many names one has at most.
    """
    some = st.lists(names, min_size=1, max_size=3)
    if names is _NAMES:
        some |= some.map(_with_twins)
    few = st.shared(some, key="cocoindex_fsmirror.paths")
    parts = few.flatmap(
        lambda chosen: st.lists(st.sampled_from(chosen), min_size=1, max_size=max_depth)
    )
    return parts.map("/".join)


def _with_twins(names: list[str]) -> list[str]:
    """Adds to names what some file systems would take for them."""
    twins = {form(name) for name in names for form in _FORMS}
    fit = {twin for twin in twins if len(twin.encode()) <= _LONGEST}
    return [*names, *sorted(fit - set(names))]


@st.composite
def trees(
    draw: st.DrawFn,
    paths: st.SearchStrategy[str] = paths(),  # noqa: B008
    contents: st.SearchStrategy[bytes] = st.binary(max_size=64),  # noqa: B008
    *,
    max_size: int = 8,
) -> Files:
    """Draws trees of files and empty folders, in which nothing is below a file.

    Args:
        draw: Given by Hypothesis.
        paths: Where files and folders may be.
        contents: What files may hold.
        max_size: How many files and empty folders there are at most.

    Returns:
        A dict from path to content, in bytes; an empty folder has ``None``.
    """
    tree: Files = {}
    for path in draw(st.lists(paths, max_size=max_size)):
        _put(tree, path, draw(st.none() | contents))
    return tree


@st.composite
def edits(
    draw: st.DrawFn,
    tree: Mapping[str, bytes | None],
    paths: st.SearchStrategy[str] = paths(),  # noqa: B008
    contents: st.SearchStrategy[bytes] = st.binary(max_size=64),  # noqa: B008
    *,
    max_size: int = 4,
) -> Files:
    """Draws trees that come from one by a few edits: write, remove, move, and swap file and folder.

    Args:
        draw: Given by Hypothesis.
        tree: The tree that is edited, as from :func:`trees`; it is left as it is.
        paths: Where something may be put; what is there may change as well.
        contents: What may be written.
        max_size: How many edits are made at most.

    Returns:
        A tree like those of :func:`trees`.
    """
    edited: Files = dict(tree)
    for _ in range(draw(st.integers(0, max_size))):
        there = st.sampled_from(sorted(edited)) if edited else paths
        path = draw(there | paths)
        content = edited.pop(path, b"")
        match draw(st.sampled_from(["remove", "write", "move", "nest"])):
            case "write":
                _put(edited, path, draw(st.none() | contents))
            case "move":
                _put(edited, draw(paths), content)
            case "nest":
                _put(edited, f"{path}/{draw(paths)}", content)
            case _:
                pass
    return edited


def _put(tree: Files, path: str, content: bytes | None) -> None:
    """Puts a file or a folder into a tree; what can't be there together with it goes."""
    parts = path.split("/")
    above = {"/".join(parts[:count]) for count in range(1, len(parts))}
    for other in [o for o in tree if o in above or o == path or o.startswith(f"{path}/")]:
        del tree[other]
    tree[path] = content
