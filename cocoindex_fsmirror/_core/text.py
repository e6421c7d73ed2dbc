"""Text of names and paths, whose bytes need not be UTF-8. Pure.

Inside the program each other byte is the surrogate that Python makes of it (``surrogateescape``).
Others, which take valid text only, get such a name as bytes: the ledger, the engine and JSON.
"""

from __future__ import annotations

from typing import TypeVar

__all__ = ["encoded", "external", "internal", "precedes"]

_T = TypeVar("_T")


def encoded(name: str) -> bytes:
    """Returns the bytes of a name: the key to sort names by, as the ledger does.

    As text a name that is not UTF-8 would come in another place.
    """
    return name.encode(errors="surrogateescape")


def precedes(name: str, other: str) -> bool:
    """True if a name comes before another one in the order of their bytes."""
    return encoded(name) < encoded(other)


def external(value: _T) -> _T | bytes:
    """Returns a value as others take it: a name that is not UTF-8 as bytes."""
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return encoded(value)
    return value


def internal(value: str | bytes) -> str:
    """Returns text that others hold as text, or as bytes if it is not UTF-8."""
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")
