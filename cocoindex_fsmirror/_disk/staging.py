"""Staging: contents are written to an area of our own folder, and renamed into place.

Foreign bytes in the way are renamed to the backup area, which is beside the staging areas. Both
need renames only, so each mount has areas of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from .._core.attributes import Attributes
from .._core.errors import SourceChangedError
from .._core.layout import READY, RESERVE, area_of
from .._core.names import Name, parent
from .._core.states import Content, Signature, signature_of
from .calls import FULL, allocate, closing, copy, replace, sync_file, write_all
from .tree import Tree

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A path in a staging area: the folder that has the area, and the entry in the area.

    An entry in a folder that is staged whole is a path.
    """

    home: Name
    entry: str

    def inside(self, base: str) -> Slot:
        """Returns a slot in the folder that is staged in this one."""
        return Slot(self.home, f"{self.entry}/{base}")

    @property
    def aside(self) -> Slot:
        """The slot for the old file, where that is not exchanged with the new one."""
        return Slot(self.home, f"{self.entry}.old")


class Staging:
    """The staging area of one batch: a numbered slot for each step.

    The area is called ``<batch>`` while contents are written, and ``<batch>.ready``
    from the first barrier on. A crash leaves torn files of ours in the former, and
    whole files in the latter, perhaps a foreign one among them that was just moved
    out of the way. A new folder is staged with all its files, and one rename puts
    it in place.

    Attributes:
        batch: The name of the batch.
        descriptors: Those of the areas in use, opened before anything was written to
            them, so that a barrier on them hears of every write that failed.
    """

    def __init__(
        self, tree: Tree, batch: str, on_bytes: Callable[[int], None] = lambda _count: None
    ) -> None:
        self._tree = tree
        self.batch = batch
        self._called = batch  # The name of the areas now.
        self._on_bytes = on_bytes
        self._areas: dict[Name, Name] = {}
        self.descriptors: list[int] = []

    @property
    def areas(self) -> list[Name]:
        """The paths of the areas in use, relative to the root."""
        return list(self._areas.values())

    def open(self, home: Name) -> Name:
        """Returns the path of an area, which is made and opened at its first use."""
        area = self._areas.get(home)
        if area is None:
            area = area_of(home, self._called)
            self._tree.make_folders(area, parent(parent(area)))
            self.descriptors.append(os.dup(self._tree.folder(area)))
            self._areas[home] = area
        return area

    def path(self, slot: Slot) -> Name:
        """Returns the path of a slot, relative to the root."""
        return Name(f"{self.open(slot.home)}/{slot.entry}")

    def _at(self, slot: Slot) -> tuple[str, int]:
        """Returns the name of a slot in the folder that holds it, and that folder's descriptor."""
        return self._tree.at(self.path(slot))

    def make_folder(self, slot: Slot) -> None:
        """Makes a folder in a slot, which may exist already."""
        self._tree.make_folder(self.path(slot))

    def remove_folder(self, slot: Slot) -> None:
        """Removes a staged folder and the staged folders above it, as far as they are empty."""
        top = Slot(slot.home, slot.entry.partition("/")[0])
        self._tree.remove_folders(self.path(slot), self.path(top))

    def write(
        self, slot: Slot, content: bytes | Content, attributes: Attributes, gid: int | None
    ) -> tuple[Signature, bytes | None]:
        """Writes a whole file into a slot, with its final attributes and group.

        A mode of ``None`` lets the umask, or a default ACL, decide.

        Returns:
            The signature of the file, and the digest of a copied content; ``None`` for a
            content that was held in memory, whose digest is known.

        Raises:
            SourceChangedError: The source has changed since it was looked at.
        """
        base, area = self._at(slot)
        mode = 0o666 if attributes.mode is None else attributes.mode & 0o777
        fd = os.open(base, _NEW, mode, dir_fd=area)
        try:
            digest = self._fill(fd, content)
            if gid is not None:
                os.fchown(fd, -1, gid)
            found = self._tree.abilities.set_attributes(fd, attributes)
            if not self._tree.can_syncfs:
                sync_file(fd)
            return signature_of(found), digest
        except BaseException:
            with contextlib.suppress(OSError):  # The first error tells the cause.
                os.unlink(base, dir_fd=area)
            raise
        finally:
            os.close(fd)

    def _fill(self, fd: int, content: bytes | Content) -> bytes | None:
        """Writes a content into an empty file; returns its digest if it was copied."""
        held = content if isinstance(content, bytes) else content.held
        if held is not None:
            write_all(fd, held)
            self._on_bytes(len(held))
            return None
        assert not isinstance(content, bytes)
        with closing(content.open()) as source:
            if os.fstat(source).st_size == content.size:
                digest = copy(source, fd, content.size, self._on_bytes)
                is_as_seen = content.digest is None and content.is_unchanged(source)
                if is_as_seen or digest == content.digest:
                    return digest
        raise SourceChangedError(content.source)

    def link(self, slot: Slot, target: str, attributes: Attributes) -> Signature:
        """Makes a symbolic link in a slot."""
        base, area = self._at(slot)
        os.symlink(target, base, dir_fd=area)
        return signature_of(self._tree.abilities.set_attributes(base, attributes, area))

    def ready(self) -> None:
        """Renames the areas to ``.ready``: from now on a slot may hold a foreign file."""
        self._called = self.batch + READY
        for home, area in self._areas.items():
            tmp = self._tree.at(area)[1]
            os.rename(self.batch, self._called, src_dir_fd=tmp, dst_dir_fd=tmp)
            self._areas[home] = area_of(home, self._called)
        self._tree.forget()

    def put(self, slot: Slot, name: Name) -> None:
        """Moves a slot's file to a path where nothing is.

        Raises:
            FileExistsError: Something is there; it stays, and so does the slot's file.
        """
        self._tree.move(self.path(slot), name)

    def exchange(self, slot: Slot, name: Name) -> bool:
        """Swaps a slot's file with the one at a path; false if that one would be lost.

        Raises:
            FileNotFoundError: Nothing is there.
        """
        return self._tree.exchange(self.path(slot), name)

    def replace(self, slot: Slot, name: Name) -> None:
        """Moves a slot's file to a path, in one step, and loses the one that is there."""
        self._tree.rename(self.path(slot), name, replace)

    def take(self, slot: Slot, name: Name) -> None:
        """Moves the file at a path into an empty slot, where a rename has nothing to replace."""
        self._tree.rename(name, self.path(slot), replace)

    def discard(self, slot: Slot) -> None:
        """Unlinks the file in a slot; it may be missing."""
        self._tree.remove_file(self.path(slot))

    def close(self) -> None:
        """Closes the descriptors."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()


@contextlib.contextmanager
def reserved(tree: Tree, size: int) -> Iterator[Callable[[int], None]]:
    """Keeps room on the disk free until the end of a block.

    Args:
        tree: The root.
        size: The room, in bytes.

    Yields:
        A function that frees all but a number of bytes.

    Raises:
        OSError: There is less room.
    """
    with contextlib.ExitStack() as until:
        fd = -1
        with _if_possible():
            base, above = tree.at(RESERVE)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(base, dir_fd=above)  # A crash may have left it.
            fd = os.open(base, _NEW, 0o600, dir_fd=above)
            until.callback(os.close, fd)
            os.unlink(base, dir_fd=above)
            allocate(fd, size)

        def keep(size: int) -> None:
            with _if_possible():
                os.ftruncate(fd, size)

        yield keep


@contextlib.contextmanager
def _if_possible() -> Iterator[None]:
    """Passes on only the errors of a full disk; a limit, or the file system, may not let us."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
