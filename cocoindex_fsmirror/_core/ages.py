"""Ages of backups, as people write them. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ALL", "checked_age", "parse_age"]

ALL: Final = "all"
"""The word for backups that are kept for ever."""
_NS: Final = 1_000_000_000
_AGE: Final = re.compile(r"([0-9]{1,12})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_age(text: str) -> int:
    """Returns the length of ``30d``, ``12h``, ``45m``, ``90s`` or ``2w``, in nanoseconds.

    Raises:
        ValueError: The text is no whole number with one of these units.
    """
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no age: write a whole number and a unit, as in 90s, 45m, 12h, 30d or 2w"
        )
    return int(found[1]) * _SECONDS[found[2]] * _NS


def checked_age(text: str) -> str:
    """Returns the age up to which backups are kept: as of :func:`parse_age`, or ``all``.

    Raises:
        ValueError: The text is neither.
    """
    if text != ALL:
        parse_age(text)
    return text
