"""When two values that were seen are the same."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["same"]


def same(one: object, other: object) -> bool:
    """True if two values are equal; NaN equals itself.

    As in Python, ``True`` equals ``1``, and ``-0.0`` equals ``0.0``.
    """
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)  # noqa: PLR0124  # NaN.
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if type(one) is type(other) and isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
