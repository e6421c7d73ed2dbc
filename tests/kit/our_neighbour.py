"""A neighbour, who works in a directory of ours."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import strategies as st

from tests.kit.our_disk import DIR, Disk, Entry, File, look

__all__ = ["AT_FILES", "Draw", "Neighbour"]

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]


class Neighbour:
    """A neighbour, who changes paths in a directory.

    Args:
        disk: The directory.
        reach: Whether foreign bytes may be put at a path. Where one of our files may be
            declared in the place of a folder there must be none in it: that is an error.
    """

    def __init__(self, disk: Disk, reach: Callable[[str], bool]) -> None:
        self._disk, self._reach = disk, reach
        self._count = 0

    def disturb(self, draw: Draw) -> None:
        """Acts on each file, and elsewhere."""
        for path in self._files():
            self._do(draw(st.sampled_from(AT_FILES)), path)
        self._do(draw(st.sampled_from(_ANYWHERE)), "")

    def _do(self, act: _Act, path: str) -> None:
        """Acts once; bytes that the act removed are not lost by us."""
        before = self._disk.everything()
        if not path or path in self._files():
            act(self, path)
        self._disk.unique -= before - self._disk.everything()

    def _files(self) -> list[str]:
        """Lists the files that are there."""
        return [path for path, e in look(self._disk.root).items() if isinstance(e, File)]

    def leave(self, _path: str) -> None:
        """Does nothing."""

    def _new(self) -> bytes:
        """Returns bytes that were nowhere before."""
        self._count += 1
        return b"foreign %d" % self._count

    def _put(self, path: str, entry: Entry) -> None:
        """Makes a foreign path where nothing is."""
        at = self._disk.root / path
        if isinstance(entry, File):
            at.write_bytes(entry.content)
        elif entry is DIR:
            at.mkdir()
        else:
            at.symlink_to(entry.removeprefix("-> "))
        self._disk.foreign[path] = entry

    def _put_new(self, path: str, entry: Entry) -> None:
        """Makes a file that must never be lost."""
        self._put(path, entry)
        self._disk.unique.add(entry)

    # Anywhere

    def add_file(self, _path: str) -> None:
        """Adds an unknown file."""
        for folder in self._folders():
            content = self._new()
            self._put_new(os.path.join(folder, content.decode()), File(content))

    def add_folder(self, _path: str) -> None:
        """Adds an unknown empty folder."""
        for folder in self._folders():
            self._put(os.path.join(folder, self._new().decode()), DIR)

    def _folders(self) -> list[str]:
        """Lists the root, and the folders that may hold foreign files."""
        above = {os.path.dirname(path) for path in look(self._disk.root)}
        return sorted({"", *(f for f in above if self._reach(f"{f}/foreign"))})

    # At files

    def edit(self, path: str) -> None:
        """Writes other bytes into the same inode."""
        if self._reach(path):
            self._note_new(path, self._new())

    def _note_new(self, path: str, content: bytes) -> None:
        """Writes bytes that must never be lost into an existing file."""
        (self._disk.root / path).write_bytes(content)
        self._disk.foreign[path] = File(content)
        self._disk.unique.add(File(content))

    def edit_secretly(self, path: str) -> None:
        """Writes other bytes of the same size, and restores the times."""
        at = self._disk.root / path
        before, old = at.stat(), at.read_bytes()
        new = self._new()
        if self._reach(path) and len(new) <= len(old):
            self._note_new(path, new + old[len(new) :])
            os.utime(at, ns=(before.st_atime_ns, before.st_mtime_ns))

    def replace(self, path: str) -> None:
        """Replaces a file by one with other bytes."""
        if self._reach(path):
            self.remove(path)
            content = self._new()
            self._put_new(path, File(content))

    def rewrite(self, path: str) -> None:
        """Writes the same bytes once more."""
        at = self._disk.root / path
        at.write_bytes(at.read_bytes())

    def remove(self, path: str) -> None:
        """Removes a file."""
        (self._disk.root / path).unlink()

    def make_link(self, path: str) -> None:
        """Replaces a file by a link to a file outside."""
        if self._reach(path):
            self.remove(path)
            self._put_new(path, f"-> ../outside/{self._new().decode()}")

    def change_mode(self, path: str) -> None:
        """Changes the mode."""
        at = self._disk.root / path
        at.chmod(0o600 if stat.S_IMODE(at.stat().st_mode) != 0o600 else 0o755)

    def copy(self, path: str) -> None:
        """Copies the bytes of this file over another one."""
        content = (self._disk.root / path).read_bytes()
        for other in filter(self._reach, self._files()):
            if (self._disk.root / other).read_bytes() != content:
                self.remove(other)
                self._put(other, File(content))

    def move_away(self, path: str) -> None:
        """Renames a file."""
        name = self._new().decode()
        os.rename(self._disk.root / path, self._disk.root / name)
        self._disk.foreign[name] = look(self._disk.root)[name]

    def remove_folder(self, path: str) -> None:
        """Removes a folder with its contents."""
        if "/" in path:
            shutil.rmtree(self._disk.root / path.partition("/")[0])

    def link_folder(self, path: str) -> None:
        """Replaces a folder by a link to one outside."""
        if "/" in path:
            self.remove_folder(path)
            # A folder, so that whoever follows the link arrives somewhere.
            name = self._new().decode()
            (self._disk.outside / name).mkdir()
            self._put_new(path.partition("/")[0], f"-> ../outside/{name}")

    def block_folder(self, path: str) -> None:
        """Replaces a folder by a file."""
        if "/" in path:
            self.remove_folder(path)
            content = self._new()
            self._put_new(path.partition("/")[0], File(content))


_Act: TypeAlias = Callable[[Neighbour, str], None]
_ANYWHERE: list[_Act] = [Neighbour.leave, Neighbour.add_file, Neighbour.add_folder]
AT_FILES: list[_Act] = [
    Neighbour.leave,
    Neighbour.edit,
    Neighbour.edit_secretly,
    Neighbour.replace,
    Neighbour.rewrite,
    Neighbour.remove,
    Neighbour.make_link,
    Neighbour.change_mode,
    Neighbour.copy,
    Neighbour.move_away,
    Neighbour.remove_folder,
    Neighbour.link_folder,
    Neighbour.block_folder,
]
