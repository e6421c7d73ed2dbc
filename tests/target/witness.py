"""Witness: the state of everything before something of ours is run, and what may not change."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tests.support import contents, exact_state, snapshot
from tests.target.keeping import LEDGER, OURS

Owner: TypeAlias = Literal["flow", "sync", "program"]
NAMES: Final[dict[Owner, tuple[str, ...]]] = {
    "flow": ("a", "d/a", "d/e/a"),
    "sync": ("s", "d/s"),
    "program": ("p", "d/p"),
}
EVERYWHERE: Final = (*itertools.chain(*NAMES.values()), "f", "d/f")


class Before:
    """The state of everything before something of ours is run."""

    def __init__(self, top: Path, users: set[bytes], roots: list[Path]) -> None:
        self._top = top
        self._everything = exact_state(top)
        self._roots = [root for root in roots if root.is_dir()]
        self._users = {root: self._bytes_in(root) & users for root in self._roots}
        self._backups = {root: self._backups_in(root) for root in self._roots}
        self._files = {root: contents(snapshot(root)) for root in self._roots}

    def files_in(self, root: Path) -> frozenset[tuple[str, bytes]]:
        """Returns the files that were in a root."""
        return frozenset(self._files.get(root, {}).items())

    def touched(self, roots: Iterable[Path]) -> list[Path]:
        """Lists what giving up some roots with absolute paths may change, without any need."""
        given_up = [root for root in roots if root.is_absolute()]
        missing = [root for root in given_up if str(root) not in self._everything]
        markers = [
            root / OURS / ".gitignore"
            for root in given_up
            if str(root / OURS / LEDGER) not in self._everything
        ]
        return missing + markers

    def new_backups(self, root: Path) -> frozenset[tuple[str, bytes]]:
        """Returns the files that went to the backups of a root, by their names in it."""
        found = self._backups_in(root)
        return frozenset(
            (name.split("/", 1)[1], content)
            for name, content in found - self._backups.get(root, frozenset())
        )

    def _backups_in(self, root: Path) -> frozenset[tuple[str, bytes]]:
        """Returns the backups of a root, in it and in state folders that are named after it."""
        found = [root / OURS / "backup", *self._top.glob(f"**/{root.name}-*/backup")]
        return frozenset(each for area in found for each in contents(snapshot(area)).items())

    def _bytes_in(self, root: Path) -> set[bytes]:
        """Returns the contents of all files of a root, also of backups."""
        ours = contents(snapshot(root, ours=True)).values()
        backups = {content for _, content in self._backups_in(root)}
        return {*contents(snapshot(root)).values(), *ours} | backups

    def check_users(self, *, is_exact: bool) -> None:
        """Checks that all bytes of users are there, and in place where nobody wanted to be."""
        for root in self._roots:
            assert self._users[root] <= self._bytes_in(root), "bytes of a user are lost"
            for name, content in self._files[root].items():
                if not is_exact and name in {"f", "d/f"} and content in self._users[root]:
                    assert (root / name).read_bytes() == content

    def check_others(self, root: Path, names: Collection[str]) -> None:
        """Checks that the files of other owners were not touched."""
        now = contents(snapshot(root))
        before = self._files.get(root, {})
        assert {n: now.get(n) for n in names} == {n: before.get(n) for n in names}

    def check_whole(self, root: Path, owner: Owner, wanted: dict[str, bytes]) -> None:
        """Checks that each file of an owner is the old one or the wanted one."""
        now, before = contents(snapshot(root)), self._files.get(root, {})
        for name in NAMES[owner]:
            assert now.get(name) in {before.get(name), wanted.get(name)}, f"{name} is neither"

    def check_unchanged(self, besides: list[Path]) -> None:
        """Checks that nothing else was changed."""
        tops = tuple(f"{path}{os.sep}" for path in besides)
        left_out = {*map(str, besides)} | {str(path.parent) for path in besides}
        now = exact_state(self._top)
        for path in self._everything.keys() | now.keys():
            if not path.startswith(tops) and path not in left_out:
                was, is_now = self._everything.get(path, ()), now.get(path, ())
                if path.endswith((OURS, LEDGER)) or Path(path, LEDGER).exists():
                    # SQLite opens the ledger before we can know whose it is.
                    was, is_now = was[-1:], is_now[-1:]
                assert was == is_now, f"{path} was changed"


def ours(name: str, version: int) -> bytes:
    """Returns the content of a version of a file; all have one size."""
    return f"{name} {version}".ljust(9).encode()
