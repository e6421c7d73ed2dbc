"""Names: parsed once, into a normal form that is safe to walk.

A :data:`Name` is a relative path below the root: one or more components joined
by ``/``, none of them empty, ``.`` or ``..``. Equal names are one path.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import Final, NewType

from .errors import InvalidNameError

__all__ = [
    "RESERVED",
    "ROOT",
    "Folding",
    "Name",
    "ancestors",
    "check_names",
    "join",
    "leaf",
    "parent",
    "parse_link_target",
    "parse_name",
]

Name = NewType("Name", str)

ROOT: Final = Name("")
"""The root itself. Never the result of :func:`parse_name`."""

RESERVED: Final = ".fsmirror"
"""The folder that holds our ledger, staging area and backups."""

_MAX_COMPONENT: Final = 255  # bytes; NAME_MAX of ext4, xfs, btrfs, tmpfs and APFS

_MAX_TARGET: Final = 4095  # bytes; PATH_MAX of Linux without the NUL

# Most names. They need none of the slower checks, so they skip them.
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
        InvalidNameError: The name is empty, absolute, holds ``..``, NUL, a lone
            surrogate, a component of more than 255 bytes, or our own folder.
        TypeError: ``declared`` is neither text nor a path.
    """
    if not isinstance(declared, (str, PurePath)):
        raise TypeError(f"a name is a str or a PurePath, not {type(declared).__name__}")
    text = declared.as_posix() if isinstance(declared, PurePath) else str.__str__(declared)
    if _PLAIN.fullmatch(text):
        return Name(text)
    if text.startswith("/"):
        raise InvalidNameError(text, "it is absolute; names are relative to the directory")
    components = [part for part in text.split("/") if part not in ("", ".")]
    if not components:
        raise InvalidNameError(text, "it names no file")
    for component in components:
        _check_component(text, component)
    return Name("/".join(components))


def check_names(names: Collection[str]) -> None:
    """Looks whether names are as :func:`parse_name` returns them; most are looked at together.

    Raises:
        InvalidNameError: One is not.
        TypeError: One is not even text.
    """
    if not _ALL_PLAIN.fullmatch("".join([f"{name}\0" for name in names])):
        for name in names:
            if parse_name(name) != name:
                raise InvalidNameError(name, "it is no normal form")


def parse_link_target(target: str | PurePath, inside: Name | None) -> str:
    """Checks the target of a symbolic link: it can be stored, and leads where it may.

    Args:
        target: What it says.
        inside: The path of the link below the root, if it may not lead out of the
            root; the folders above a declared path are real ones, so that ``..`` at
            the front is safe, but not behind a name, which may be a link itself.

    Returns:
        The target as text.

    Raises:
        InvalidNameError: It can't be stored, or may lead out of the root.
        TypeError: It is neither text nor a path.
    """
    if not isinstance(target, (str, PurePath)):
        raise TypeError(f"a target is a str or a PurePath, not {type(target).__name__}")
    text = target.as_posix() if isinstance(target, PurePath) else target
    if not text or "\0" in text:
        raise InvalidNameError(text, "no link can hold it")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidNameError(text, "it holds a lone surrogate, which is not text") from None
    if length > _MAX_TARGET:
        raise InvalidNameError(text, f"it has {length} bytes, and {_MAX_TARGET} is the limit")
    if inside is not None and _may_lead_out(text, inside):
        reason = "as the target of a link it may lead out of the root; allow_escape=True allows it"
        raise InvalidNameError(text, reason)
    return text


def _may_lead_out(target: str, name: Name) -> bool:
    """True if a link at a path may lead out of the root."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    return target.startswith("/") or climbs > name.count("/") or ".." in parts[climbs:]


def _check_component(text: str, component: str) -> None:
    """Raises for a component that may not stand in a name."""
    if component == "..":
        raise InvalidNameError(text, "it holds '..', which could leave the directory")
    if "\0" in component:
        raise InvalidNameError(text, "it holds a NUL character, which no file system can store")
    try:
        encoded = component.encode()
    except UnicodeEncodeError:
        raise InvalidNameError(text, "it holds a lone surrogate, which is not text") from None
    if len(encoded) > _MAX_COMPONENT:
        problem = f"a component has {len(encoded)} bytes, and {_MAX_COMPONENT} is the limit"
        raise InvalidNameError(text, problem)
    if _means_reserved(component):
        raise InvalidNameError(text, f"{component!r} is, or may be taken for, our own {RESERVED!r}")


def _means_reserved(component: str) -> bool:
    """True if some file system reads this component as ``.fsmirror``.

    Some ignore invisible characters, many fold case and compatibility forms, and
    the FAT family drops trailing dots and spaces and knows short names. Git
    guards ``.git`` in the same way (CVE-2014-9390).
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
    """Lists the folders above a name, from the top, without :data:`ROOT`."""
    slash = name.find("/")
    while slash != -1:
        yield Name(name[:slash])
        slash = name.find("/", slash + 1)


class Folding:
    """Which names a file system takes for one and the same.

    Args:
        case: It ignores case.
        unicode: It ignores how Unicode characters are composed.
    """

    def __init__(self, *, case: bool = False, unicode: bool = False) -> None:
        self.case = case
        self.unicode = unicode

    def __call__(self, name: Name) -> str:
        """Returns a key that is equal for names that meet."""
        key = unicodedata.normalize("NFC", name) if self.unicode else str(name)
        if not self.case:
            return key
        return unicodedata.normalize("NFC", key.casefold()) if self.unicode else key.casefold()

    def __bool__(self) -> bool:
        return self.case or self.unicode
