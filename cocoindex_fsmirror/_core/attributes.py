"""Attributes: mode and time of a file as one value; and checks of declarations. Pure.

A further attribute is added here, in ``_disk/tree.py``, in the row and the record that store it,
and in the signatures of the public functions that ask for it; ``DESIGN.md`` lists the places.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from msgspec.structs import astuple

__all__ = [
    "PRESERVED",
    "UNASKED",
    "Attributes",
    "check_choice",
    "checked_attributes",
    "checked_content",
    "checked_preserve",
]

_OWNER_MAY: Final = 0o700  # A folder can't be filled unless its owner may enter it.
PRESERVED: Final = ("mode", "mtime")
"""The attributes that a copy may take over from its source."""


class Attributes(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The attributes of a file, link or folder; ``None`` where a declaration asks for none.

    Attributes:
        mode: Permission bits; a link has none of its own.
        mtime_ns: Time of the last change, in nanoseconds since 1970.
    """

    mode: int | None = None
    mtime_ns: int | None = None

    def missing_in(self, found: Attributes) -> Attributes:
        """Returns the attributes that are asked for and that a file does not have yet.

        One that the file system does not keep is ``None`` in what is found, and never missing.
        """
        pairs = zip(astuple(self), astuple(found), strict=True)
        lacks = (
            wanted if there is not None and wanted != there else None for wanted, there in pairs
        )
        return Attributes(*lacks)

    def replacing(self, found: Attributes) -> Attributes:
        """Returns the attributes of a file that replaces another one, and keeps its mode."""
        # Without privileges, which were given to other bytes.
        kept = None if found.mode is None else found.mode & 0o777
        return self if self.mode is not None else Attributes(kept, self.mtime_ns)

    def of_copy(self, source: Attributes, preserve: Collection[str]) -> Attributes:
        """Returns the attributes of a copy.

        Args:
            source: The attributes of the file that is copied.
            preserve: The ones that the copy takes over, unless others are asked for.

        Raises:
            ValueError: The time of the source is out of range.
        """
        mode = source.mode if self.mode is None and "mode" in preserve else self.mode
        return Attributes(mode, _checked_time(source.mtime_ns) if "mtime" in preserve else None)

    def of_folder(self) -> Attributes:
        """Returns the attributes of a folder that its owner may always enter."""
        return Attributes(None if self.mode is None else self.mode | _OWNER_MAY, self.mtime_ns)


UNASKED: Final = Attributes()
"""The attributes of a declaration that asks for none."""


def checked_attributes(mode: int | None = None, mtime_ns: int | None = None) -> Attributes:
    """Returns the attributes that a program asks for.

    Args:
        mode: Permission bits.
        mtime_ns: Nanoseconds since 1970.

    Raises:
        TypeError: An attribute is no int.
        ValueError: An attribute is out of range, or the mode seems to be octal digits that were
            read as decimal ones.
    """
    if mode is None and mtime_ns is None:
        return UNASKED
    return Attributes(_checked_mode(mode), _checked_time(mtime_ns))


def checked_content(content: bytes | str) -> bytes:
    """Returns the content of a file as bytes: text as UTF-8.

    Raises:
        TypeError: The content is neither bytes nor text.
    """
    if isinstance(content, str):
        return content.encode()
    if not isinstance(content, bytes):
        raise TypeError(f"a content is bytes or str, not {type(content).__name__}")
    return bytes(content)  # The engine can't store a subclass, here and below.


def checked_preserve(preserve: Collection[str]) -> Collection[str]:
    """Returns the attributes that a copy is to take over, by name.

    Raises:
        TypeError: A single name is given as a string, whose letters would be taken for names.
        ValueError: A name is unknown.
    """
    if isinstance(preserve, str):
        raise TypeError(f"preserve is a tuple, not str; write ({preserve!r},)")
    for name in preserve:
        check_choice("preserve", name, PRESERVED)
    return preserve


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raises unless the value of an option is one of its choices.

    Raises:
        ValueError: The value is none of the choices.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, choices))}")


def _checked_time(mtime_ns: int | None) -> int | None:
    """Returns a time that the ledger can store."""
    if mtime_ns is None:
        return None
    if not isinstance(mtime_ns, int) or isinstance(mtime_ns, bool):
        raise TypeError(f"a time is an int, in nanoseconds, not {type(mtime_ns).__name__}")
    if not -(1 << 63) <= mtime_ns < 1 << 63:
        raise ValueError(f"the time {mtime_ns} does not fit into 64 bits")
    return int(mtime_ns)  # Subclasses can't be stored, here and below.


def _checked_mode(mode: int | None) -> int | None:
    """Returns permission bits that were meant as such."""
    if mode is None:
        return None
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise TypeError(f"a mode is an int, not {type(mode).__name__}")
    if _is_meant_as_octal(mode):
        raise ValueError(f"mode {mode} is {mode:#o} in octal; write 0o{mode}")
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"mode {mode:#o} is not between 0 and 0o7777")
    return int(mode)


def _is_meant_as_octal(mode: int) -> bool:
    """True if a mode makes sense only with its decimal digits taken for octal ones, as 644."""
    # 644 is 0o1204, which lets others read and not the owner; 511 is 0o777, and passes. 400 and
    # 500 would pass as 0o620, the mode of a terminal, and 0o764. They are refused: whoever
    # writes them wants to keep a secret, and would get a file that a group may write.
    digits = str(int(mode))
    if len(digits) > 4 or digits.strip("01234567"):
        return False
    return _makes_sense(int(digits, 8)) and (not _makes_sense(mode) or mode in (400, 500))


def _makes_sense(mode: int) -> bool:
    """True if the owner may read, and each class of users may do no more than the one before."""
    owner, group, others = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    return bool(owner & 4) and not (group & ~owner or others & ~group)
