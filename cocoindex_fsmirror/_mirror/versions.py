"""Versions: mirrors of one source beside a link, which points to one of them.

``site`` points to ``site.a`` or ``site.b``. An update goes to a version that the link does not
point to, and the link is moved when that is complete and on the disk. The ledger of a version holds
its number, as long as it is complete.
"""

from __future__ import annotations

import os
import string
from typing import Final

from .._core.errors import RootError
from .._disk.locations import Location
from .._disk.roots import point_link
from .known import exists, located, noted
from .session import Session

__all__ = ["MOST", "Versions"]

MOST: Final = len(string.ascii_lowercase) - 1
"""The number of versions that can be kept beside the one that the link points to."""
_NOTE: Final = "publish: version"


class Versions:
    """The versions beside a link.

    Args:
        link: The absolute path of the link, which need not exist yet.
        state: The absolute path of the state directory of all versions; by default each has its
            state in it.

    Attributes:
        link: As it was given.

    Raises:
        RootError: Something else is there, or a link that points elsewhere.
    """

    def __init__(self, link: str, state: str | None = None) -> None:
        self.link = link
        self._state = state
        self._names = [f"{os.path.basename(link)}.{letter}" for letter in string.ascii_lowercase]
        self.current()

    def path_of(self, name: str) -> str:
        """Returns the path of a version."""
        return os.path.join(os.path.dirname(self.link), name)

    def at(self, name: str) -> Location:
        """Returns the location of a version."""
        return located(self.path_of(name), self._state)

    def current(self) -> str:
        """Returns the name of the version that the link points to; empty if there is no link.

        Raises:
            RootError: Something else is there, or a link that points elsewhere.
        """
        try:
            name = os.readlink(self.link)
        except FileNotFoundError:
            return ""
        except OSError as error:
            problem = f"can't be read as a link: {error.strerror}"
            raise RootError(self.link, problem, "move away what is there, then publish") from error
        if name not in self._names:
            problem = f"points to {name!r}, and not to a version beside it"
            raise RootError(self.link, problem, "remove the link, then publish again")
        return name

    def numbers(self) -> dict[str, int]:
        """Returns the number of each complete version, by name.

        Raises:
            LedgerError: A ledger can't be read.
        """
        places = {name: self.at(name) for name in self._names}
        found = {name: noted(at, _NOTE) for name, at in places.items() if exists(at)}
        return {name: int(number) for name, number in found.items() if number.isdecimal()}

    def next(self, keep: int) -> str:
        """Returns the name of the version that the next update goes to.

        It is one that is missing or not complete, or else the oldest.

        Args:
            keep: The number of versions that are kept beside the current one.
        """
        current, numbers = self.current(), self.numbers()
        names = [name for name in self._names[: keep + 1] if name != current]
        return min(names, key=lambda name: numbers.get(name, 0))

    def begin(self, session: Session, name: str) -> None:
        """Records that a version is not complete, before an update changes it.

        Args:
            session: The session of the version, which no other process updates.
            name: The name of the version.

        Raises:
            RootError: The link points to it by now.
        """
        if self.current() == name:
            hint = "publish again"
            raise RootError(self.link, "was moved by another process meanwhile", hint)
        session.run(lambda _tree, ledger: ledger.note(_NOTE, ""))

    def end(self, session: Session, name: str) -> int:
        """Records that a version is complete, and moves the link to it; returns its number.

        Args:
            session: As of :meth:`begin`.
            name: The name of the version.
        """
        number = max(self.numbers().values(), default=0) + 1
        session.run(lambda _tree, ledger: ledger.note(_NOTE, str(number)))
        point_link(self.link, name)
        return number

    def roll_back(self) -> str:
        """Moves the link to the version before the current one; returns the name of that.

        Raises:
            RootError: There is none that is complete.
        """
        current, numbers = self.current(), self.numbers()
        newest = numbers.pop(current, max(numbers.values(), default=0) + 1)
        earlier = {name: number for name, number in numbers.items() if number < newest}
        if not current or not earlier:
            hint = "a version goes once another update has begun to replace it; see --keep"
            raise RootError(self.link, "has no complete version before the current one", hint)
        name = max(earlier, key=earlier.__getitem__)
        point_link(self.link, name)
        return name
