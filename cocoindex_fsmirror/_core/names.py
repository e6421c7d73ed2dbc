"""Names: parsed once, into a normal form that is safe to walk.

A :data:`Name` is a relative path below the root: one or more components joined
by ``/``, none of them empty, ``.`` or ``..``. Equal names are one path. A byte that is no UTF-8
stands in it as the surrogate that Python gives it (``surrogateescape``); outside the program
such a name is bytes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import PurePath
from typing import Final, NamedTuple, NewType

from .errors import InvalidNameError
from .text import encoded, internal

__all__ = [
    "RESERVED",
    "ROOT",
    "STATE",
    "Folding",
    "Name",
    "ancestors",
    "check_names",
    "folders_above",
    "join",
    "leaf",
    "may_lead_out",
    "parent",
    "parse_link_target",
    "parse_name",
]

Name = NewType("Name", str)

ROOT: Final = Name("")
"""The root itself. Never the result of :func:`parse_name`."""

RESERVED: Final = ".fsmirror"
"""The name of our folder in a root, or below it."""

STATE: Final = Name(f"{RESERVED}/.")
"""The state folder: the system takes this for ``.fsmirror`` itself. If it is elsewhere, a
:class:`Folders` takes the folder that it is told in place of this name."""

_MAX_COMPONENT: Final = 255  # bytes; NAME_MAX of ext4, xfs, btrfs, tmpfs and APFS

_MAX_TARGET: Final = 4095  # bytes; PATH_MAX of Linux without the NUL

# Most names match this, and skip the slower checks.
_PART: Final = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}+"
_PLAIN: Final = re.compile(rf"{_PART}(?:/{_PART})*+")
_ALL_PLAIN: Final = re.compile(rf"(?:{_PART}[/\0])*+")

# Default_Ignorable_Code_Point of Unicode 16, DerivedCoreProperties.txt: HFS+, and ext4
# and f2fs where they fold case, compare names without these.
_IGNORABLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def parse_name(declared: str | PurePath) -> Name:
    """Turns a declared name into its normal form.

    Args:
        declared: A relative path, with ``/`` between its components.

    Returns:
        The name without empty and ``.`` components.

    Raises:
        InvalidNameError: The name is empty, absolute, holds ``..``, NUL, a surrogate
            that stands for no byte, a component of more than 255 bytes, or our own folder.
        TypeError: ``declared`` is neither text nor a path.
    """
    text = _text(declared, "name")
    if _PLAIN.fullmatch(text):
        return Name(text)
    text = _normal(text)
    if text.startswith("/"):
        raise InvalidNameError(text, "it is absolute; names are relative to the directory")
    components = [part for part in text.split("/") if part not in ("", ".")]
    if not components:
        raise InvalidNameError(text, "it names no file")
    for component in components:
        if component == "..":
            raise InvalidNameError(text, "it holds '..', which could leave the directory")
        _check_storable(text, component, _MAX_COMPONENT)
        if _means_reserved(component):
            problem = f"{component!r} is, or may be taken for, our own {RESERVED!r}"
            raise InvalidNameError(text, problem)
    return Name("/".join(components))


def check_names(names: Collection[str]) -> None:
    """Raises unless names are in normal form. Plain names are checked all at once.

    Raises:
        InvalidNameError: A name is refused, or in another form.
        TypeError: A name is no text.
    """
    joined = "".join([f"{name}\0" for name in names])
    if joined.count("\0") > len(names) or not _ALL_PLAIN.fullmatch(joined):
        for name in names:
            if parse_name(name) != name:
                raise InvalidNameError(name, "it is not in normal form")


def parse_link_target(target: str | PurePath, inside: Name | None) -> str:
    """Checks the target of a symbolic link.

    Args:
        target: The target as declared.
        inside: The path of the link below the root if the target may not lead out of
            the root, else ``None``. Folders above a declared path are real ones, so ``..``
            at the front is safe; after a name, which may be a link itself, it is not.

    Returns:
        The target as text.

    Raises:
        InvalidNameError: The target can't be stored, or may lead out of the root.
        TypeError: The target is neither text nor a path.
    """
    text = _normal(_text(target, "target"))
    if not text:
        raise InvalidNameError(text, "no link can hold it")
    _check_storable(text, text, _MAX_TARGET)
    if inside is not None and may_lead_out(text, inside):
        reason = "as the target of a link it may lead out of the root; allow_escape=True allows it"
        raise InvalidNameError(text, reason)
    return text


def _text(declared: str | PurePath, what: str) -> str:
    """Returns a declared name, or the target of a link, as plain text."""
    if not isinstance(declared, (str, PurePath)):
        raise TypeError(f"a {what} is a str or a PurePath, not {type(declared).__name__}")
    return declared.as_posix() if isinstance(declared, PurePath) else str.__str__(declared)


def _normal(text: str) -> str:
    """Returns the one form of text that stands for its bytes, which may be UTF-8 after all."""
    try:
        return internal(encoded(text))
    except UnicodeEncodeError:
        raise InvalidNameError(text, "it holds a surrogate that stands for no byte") from None


def _check_storable(text: str, part: str, most: int) -> None:
    """Raises if no file system can store a part of a name, or the target of a link."""
    if "\0" in part:
        raise InvalidNameError(text, "it holds a NUL character, which no file system can store")
    length = len(encoded(part))
    if length > most:
        one = "it" if part == text else "a component"
        raise InvalidNameError(text, f"{one} has {length} bytes, and {most} is the limit")


def may_lead_out(target: str, name: Name) -> bool:
    """True if a link with this name and target may lead out of the root, as it is written."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    return target.startswith("/") or climbs > name.count("/") or ".." in parts[climbs:]


def _means_reserved(component: str) -> bool:
    """True if some file system reads this component as ``.fsmirror``.

    Some file systems ignore invisible characters, many fold case and compatibility
    forms, and those of the FAT family drop trailing dots and spaces and have short
    names. Git guards ``.git`` in the same way (CVE-2014-9390).
    """
    visible = _IGNORABLE.sub("", component)
    folded = unicodedata.normalize("NFKC", visible).casefold().split(":")[0].rstrip(". ")
    return folded == RESERVED or re.fullmatch(r"fsmirr~\d+", folded) is not None


def join(base: Name, name: Name) -> Name:
    """Joins a folder and a name below it; ``base`` may be :data:`ROOT`."""
    return Name(f"{base}/{name}") if base else name


def parent(name: Name) -> Name:
    """Returns the folder that holds the name; :data:`ROOT` at the top."""
    return Name(name.rpartition("/")[0])


def leaf(name: Name) -> str:
    """Returns the last component."""
    return name.rpartition("/")[2]


def ancestors(name: Name) -> Iterator[Name]:
    """Yields the folders above a name, from the top, without :data:`ROOT`."""
    slash = name.find("/")
    while slash != -1:
        yield Name(name[:slash])
        slash = name.find("/", slash + 1)


def folders_above(names: Iterable[Name]) -> set[Name]:
    """Returns the folders above any of some names, without :data:`ROOT`."""
    found: set[Name] = set()
    for name in names:
        folder = parent(name)
        while folder and folder not in found:
            found.add(folder)
            folder = parent(folder)
    return found


class Folding(NamedTuple):
    """The differences between names that a file system ignores.

    Attributes:
        case: True if it ignores case.
        unicode: True if it ignores how Unicode characters are composed.
    """

    case: bool = False
    unicode: bool = False

    def __call__(self, name: Name) -> str:
        """Returns a key that is equal for names that meet."""
        composed = partial(unicodedata.normalize, "NFC") if self.unicode else str
        key = composed(name)
        return composed(key.casefold()) if self.case else key

    def __bool__(self) -> bool:
        return self.case or self.unicode
