"""Staging: contents are written to an area of our own folder, and renamed into place.

Foreign bytes in the way are renamed to the backup area, which is beside the staging areas. Both
need renames only, so each mount has areas of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import Final

import msgspec

from .._core.attributes import Attributes
from .._core.errors import SourceChangedError
from .._core.layout import READY, STAGING, area_of, backup_of, backups_of, stamp_of
from .._core.names import Name, parent
from .._core.states import Actual, Content, Signature
from .calls import closing, copy, move, replace, swap, write_all
from .tree import Tree, set_attributes, signature_of

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

    def _path(self, slot: Slot) -> Name:
        """Returns the path of a slot, relative to the root."""
        return Name(f"{self.open(slot.home)}/{slot.entry}")

    def _at(self, slot: Slot) -> tuple[str, int]:
        """Returns the name of a slot in the folder that holds it, and that folder's descriptor."""
        return self._tree.at(self._path(slot))

    def make_folder(self, slot: Slot) -> None:
        """Makes a folder in a slot, which may exist already."""
        self._tree.make_folder(self._path(slot))

    def remove_folder(self, slot: Slot) -> None:
        """Removes a staged folder and the staged folders above it, as far as they are empty."""
        top = Slot(slot.home, slot.entry.partition("/")[0])
        self._tree.remove_folders(self._path(slot), self._path(top))

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
            found = set_attributes(fd, attributes)
            if not self._tree.can_syncfs:
                os.fsync(fd)
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
        return signature_of(set_attributes(base, attributes, area))

    def ready(self) -> None:
        """Renames the areas to ``.ready``: from now on a slot may hold a foreign file."""
        self._called = self.batch + READY
        for home, area in self._areas.items():
            tmp = self._tree.at(area)[1]
            os.rename(self.batch, self._called, src_dir_fd=tmp, dst_dir_fd=tmp)
            self._areas[home] = area_of(home, self._called)
        self._tree.forget()

    def look(self, slot: Slot, *, digest: bool = False) -> Actual:
        """Returns the actual state of a slot."""
        return self._tree.look(self._path(slot), digest=digest)

    def put(self, slot: Slot, name: Name) -> None:
        """Moves a slot's file to a path where nothing is.

        Raises:
            FileExistsError: Something is there; it stays, and so does the slot's file.
        """
        self._tree.move(self._path(slot), name)

    def exchange(self, slot: Slot, name: Name) -> None:
        """Swaps a slot's file with the one at a path, in one step.

        Raises:
            FileNotFoundError: Nothing is there.
        """
        self._tree.move(self._path(slot), name, swap)

    def take(self, slot: Slot, name: Name) -> None:
        """Moves the file at a path into an empty slot, where a rename has nothing to replace."""
        self._tree.move(name, self._path(slot), replace)

    def discard(self, slot: Slot) -> None:
        """Unlinks the file in a slot; it may be missing."""
        self._tree.remove_file(self._path(slot))

    def back_up(self, slot: Slot, name: Name, stamp: str) -> Name:
        """Moves a slot's file to the backup area, as :func:`back_up` does."""
        return back_up(self._tree, name, stamp, self._path(slot))

    def close(self) -> None:
        """Closes the descriptors."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()


def remove_area(tree: Tree, area: Name) -> bool:
    """Removes an empty area; in a home other than the root, our own folder too, if empty.

    Returns:
        False if the area is not empty.
    """
    is_gone = tree.remove_folder(area)
    tmp = parent(area)
    if tmp != STAGING:
        tree.remove_folders(tmp, parent(tmp))
    return is_gone


def stamp_now() -> str:
    """Returns the name of the folder of the backup area for files that are moved there now."""
    return stamp_of(time.time())


def back_up(tree: Tree, name: Name, stamp: str, taken: Name | None = None) -> Name:
    """Moves the file at a path to the backup area, where it replaces nothing.

    Args:
        tree: The root.
        name: The path.
        stamp: The folder of the backup area, as from :func:`stamp_now`.
        taken: The path that it is at now, if it was taken from its own.

    Returns:
        The path that it is at then, relative to the root.
    """
    origin = name if taken is None else taken
    base, above = tree.at(origin)
    with closing(os.dup(above)) as source:
        backups = backups_of(mount_of(tree, parent(origin)))
        tree.make_folders(backups, parent(backups))
        tree.folder(backups)  # Raises if something else took the name.
        for attempt in range(10_000):
            target = backup_of(backups, stamp, attempt, name)
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                try:
                    tree.make_folders(parent(target), parent(backups))
                    move(base, source, *tree.at(target))
                except OSError:
                    tree.remove_folders(parent(target), parent(backups))
                    raise
                return target
    raise FileExistsError(errno.EEXIST, "no free name in the backup area", name)


def mount_of(tree: Tree, folder: Name) -> Name:
    """Returns the topmost folder that can be reached from another by renames: as a rule the root.

    No rename crosses a mount point (also of a bind mount, which shares the device number),
    or the edge of a btrfs subvolume, which is a device of its own.
    """
    device = tree.device(folder)
    while folder and folder not in tree.mounts and tree.device(parent(folder)) == device:
        folder = parent(folder)
    return folder


def home_of(tree: Tree, folder: Name) -> Name:
    """Returns the home of an existing folder: the folder with the staging area that serves it.

    A default ACL is inherited only where a file is created, so it has to be that of the folder.
    """
    top, acl = mount_of(tree, folder), _default_acl(tree, folder)
    if not acl:
        return top
    while folder != top and _default_acl(tree, parent(folder)) == acl:
        folder = parent(folder)
    return folder


def _default_acl(tree: Tree, folder: Name) -> bytes:
    """Returns the ACL that new files in a folder inherit; empty if there is none."""
    try:
        return os.getxattr(tree.folder(folder), "system.posix_acl_default")
    except (OSError, AttributeError):
        return b""
