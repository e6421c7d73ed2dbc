"""Tree: one root directory, looked at and changed from its descriptor.

Everything below the root is reached one component at a time, so that no path is too long, never
through a symbolic link, and no rename replaces what is there. Somebody may move a folder away
meanwhile, out of the root even, and its descriptor would follow: whatever changes something has
:meth:`Folders.recheck` look for the folder again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from .._core.names import RESERVED, ROOT, STATE, Name, ancestors, join, leaf, parent
from .._core.states import (
    ABSENT,
    Actual,
    DirState,
    FileState,
    LinkState,
    OtherState,
    Signature,
    State,
    signature_of,
)
from . import calls
from .abilities import Abilities
from .calls import DIRECTORY, belongs_to_us, closing, digest_of_file, move, open_file, write_all
from .mounts import WITHOUT_OWNERS, can_syncfs, mounts_below

_KEPT: Final = 64  # descriptors, and at most a sixteenth of those that are allowed
_OURS: Final = f"{RESERVED}/"
NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The errors that mean that a path, or a folder above it, does not exist as such."""

_T = TypeVar("_T")


class Folders:
    """An open directory, and the folders below it.

    Args:
        fd: The descriptor of the directory.
        path: Its path, for messages.
        state: The descriptor of its state folder, if that is elsewhere.
    """

    def __init__(self, fd: int, path: str, state: int | None = None) -> None:
        self.fd = fd
        self.path = path
        self._lasting = {ROOT: fd} if state is None else {ROOT: fd, STATE: state}
        self._open: dict[Name, int] = {}
        self._known: dict[Name, tuple[int, int]] = {}  # Device and inode of each of these.
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] % (1 << 63)  # -1 is no limit.
        self._room = min(_KEPT, allowed // 16)

    def close(self) -> None:
        """Closes all descriptors, which also releases a lock."""
        self.forget()
        for fd in self._lasting.values():
            os.close(fd)

    def folder(self, name: Name, besides: Name = ROOT) -> int:
        """Returns the descriptor of a folder, opened without following a link anywhere.

        It stays open until another folder is opened, except for ``besides``, or one is removed.

        Raises:
            OSError: There is none, or a component of the path is no directory.
        """
        if (fd := self._open.get(name, self._lasting.get(name))) is not None:
            return fd
        try:
            return self._descend(name, besides)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._room = 1  # Four descriptors at a time are enough.
        self.forget(besides)
        return self._descend(name, besides)

    def _descend(self, name: Name, besides: Name) -> int:
        """Opens a folder by way of those above it, from the lowest one that is open."""
        missing = []
        while name not in self._open and name not in self._lasting:
            missing.append(name)
            name = parent(name)
        fd = self._open[name] if name in self._open else self._lasting[name]
        for part in reversed(missing):
            fd = self._enter(part, fd)
            if len(self._open) >= self._room:
                self.forget(besides)
            self._open[part] = fd
            found = os.fstat(fd)
            self._known[part] = found.st_dev, found.st_ino
        return fd

    def _enter(self, folder: Name, above: int) -> int:
        """Opens a folder in the one above it."""
        return os.open(leaf(folder), DIRECTORY, dir_fd=above)

    def forget(self, besides: Name = ROOT) -> None:
        """Closes the descriptors of all folders, except for one on request."""
        for name in self._open.keys() - {besides}:
            os.close(self._open.pop(name))

    def recheck(self, *folders: Name) -> None:
        """Closes the descriptors of folders that are no longer at their paths.

        Only a moment stays between this check and the call that relies on it. Nobody moves what
        is in our own folder to another one without the right to write in it.
        """
        for folder in folders:
            is_state = folder == STATE and STATE not in self._lasting
            if folder and (is_state or not folder.startswith(_OURS)):
                above: int | None = self.fd
                for part in (*ancestors(folder), folder):
                    if above is None or not self._is_in(above, part):
                        self._drop(part)
                    above = self._open.get(part)

    def at(self, name: Name) -> tuple[str, int]:
        """Returns the last component of a path, and the folder that is above it just now."""
        folder, _, base = name.rpartition("/")
        above = Name(folder)
        self.recheck(above)
        return base, self.folder(above)

    def _is_in(self, above: int, folder: Name) -> bool:
        """True if a folder that was opened is still an entry of the one above it."""
        try:
            found = os.stat(leaf(folder), dir_fd=above, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._known.get(folder)

    def _drop(self, folder: Name) -> None:
        """Closes the descriptor of a folder, if it is open."""
        fd = self._open.pop(folder, None)
        if fd is not None:
            os.close(fd)


class Tree(Folders):
    """One root directory, held by its descriptor for the length of a batch.

    Args:
        fd: The descriptor of the root, opened before anything is written, so
            that a barrier on it hears of every write that failed.
        path: The path of the root, for messages.

    Attributes:
        kind: The type of its file system.
        abilities: The abilities of that, as they were tried; all if they were not yet.
        mounts: The mount points inside of the root.
        can_syncfs: True if one call syncs all that was written.
        state_path: The path of the state folder, if that is elsewhere.
        state_syncs: As ``can_syncfs``, of the file system of the state folder.
    """

    def __init__(self, fd: int, path: str) -> None:
        super().__init__(fd, path)
        self.kind, mounts = mounts_below(fd)
        self.mounts = frozenset(map(Name, mounts))
        self.abilities = Abilities(path, kind=self.kind)
        self.state_path = ""
        self.can_syncfs = self.state_syncs = can_syncfs(self.kind)

    @property
    def is_apart(self) -> bool:
        """True if the state folder is not in the root."""
        return STATE in self._lasting

    def take_state(self, fd: int | None, path: str = "") -> None:
        """Takes an open folder as the state folder; with ``None`` that in the root."""
        self.state_path = path
        if STATE in self._lasting:
            os.close(self._lasting.pop(STATE))
        if fd is not None:
            self._lasting[STATE] = fd
        self.state_syncs = self.can_syncfs if fd is None else can_syncfs(mounts_below(fd)[0])
        self.forget()

    # Looking

    def look(self, name: Name, *, digest: bool = False) -> Actual:
        """Returns the actual state of a path; an unreadable content has no digest."""
        try:
            return self._look_at(leaf(name), self.folder(parent(name)), digest=digest)
        except OSError as error:
            if error.errno in NOT_THERE:
                return Actual(ABSENT)
            raise

    def _look_at(self, base: str, folder: int, *, digest: bool) -> Actual:
        """Returns the actual state of an entry of a folder; on request with the digest of a file.

        The digest is ``None`` if the file is unreadable or changes while it is read.

        Raises:
            OSError: The entry does not exist.
        """
        found, content = os.stat(base, dir_fd=folder, follow_symlinks=False), None
        if digest and stat.S_ISREG(found.st_mode):
            found, content = _read(base, folder) or (found, None)
        attributes, signature = self.abilities.attributes(found), signature_of(found)
        if stat.S_ISDIR(found.st_mode):
            return Actual(DirState(attributes), signature)
        state: State = OtherState()
        if stat.S_ISREG(found.st_mode):
            state = FileState(content, found.st_size, attributes)
        elif stat.S_ISLNK(found.st_mode):
            state = LinkState(os.readlink(base, dir_fd=folder), attributes)
        return Actual(state, signature, found.st_nlink > 1)

    def stat(self, name: Name) -> os.stat_result | None:
        """Returns the ``lstat`` of a path; ``None`` if nothing is there."""
        try:
            return os.stat(leaf(name), dir_fd=self.folder(parent(name)), follow_symlinks=False)
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            raise

    def signature(self, name: Name) -> Signature | None:
        """Returns the signature of a path; ``None`` if nothing is there."""
        return None if (found := self.stat(name)) is None else signature_of(found)

    def names_in(self, name: Name) -> list[Name]:
        """Returns the names of the entries of a folder, sorted."""
        return [join(name, Name(entry)) for entry in sorted(calls.names_at(self.folder(name)))]

    def folders_in(self, name: Name) -> list[Name]:
        """Returns the names of the folders in a folder."""
        os.lseek(folder := self.folder(name), 0, os.SEEK_SET)  # As in names_at.
        with os.scandir(folder) as found:
            return [join(name, Name(e.name)) for e in found if e.is_dir(follow_symlinks=False)]

    def device(self, folder: Name) -> int:
        """Returns the device of a folder; a subvolume of btrfs is one of its own."""
        return os.fstat(self.folder(folder)).st_dev

    # Changing

    def make_folder(self, name: Name, mode: int = 0o777) -> bool:
        """Makes a folder; false if something is there already."""
        try:
            base, above = self.at(name)
            os.mkdir(base, mode, dir_fd=above)
        except FileExistsError:
            return False
        return True

    def make_folders(self, folder: Name, top: Name) -> None:
        """Makes a folder of our own and those above it, from a top one on; each may exist."""
        for name in (*ancestors(folder), folder):
            if len(name) >= len(top):
                self.make_folder(name, 0o700)
                self._check_ours(name)

    def _check_ours(self, name: Name) -> None:
        """Raises unless a folder of our own belongs to us; on other mounts owners may be others."""
        found, is_told = os.fstat(self.folder(name)), not self.kind.startswith(WITHOUT_OWNERS)
        is_here = found.st_dev == os.fstat(self.fd).st_dev
        if is_told and is_here and not belongs_to_us(found):
            raise PermissionError(errno.EPERM, "others may write to it", name)

    def remove_folder(self, name: Name) -> bool:
        """Removes a folder if it is there and empty; false if it stays."""
        for below in [known for known in self._open if f"{known}/".startswith(f"{name}/")]:
            self._drop(below)
        try:
            base, above = self.at(name)
            os.rmdir(base, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return False
            if error.errno not in NOT_THERE:
                raise
        return True

    def remove_folders(self, folder: Name, top: Name) -> None:
        """Removes a folder and those above it, up to a top one, as far as they are empty."""
        while len(folder) >= len(top) and self.remove_folder(folder):
            folder = parent(folder)

    def make_file(self, name: Name, content: bytes = b"") -> None:
        """Makes a small file of our own folder, unless something is there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        base, above = self.at(name)
        with (
            contextlib.suppress(FileExistsError),
            closing(os.open(base, flags, 0o600, dir_fd=above)) as fd,
        ):
            write_all(fd, content)

    def remove_file(self, name: Name) -> None:
        """Unlinks a file of our own folder; it may be missing."""
        with contextlib.suppress(FileNotFoundError):
            base, above = self.at(name)
            os.unlink(base, dir_fd=above)

    def remove_all(self, top: Name) -> None:
        """Removes a path of our own folder, with everything in it."""
        found, folders = [top], set[Name]()
        for name in found:  # The list grows meanwhile.
            if isinstance(self.look(name).state, DirState):
                folders.add(name)
                found += self.names_in(name)
        for name in reversed(found):
            (self.remove_folder if name in folders else self.remove_file)(name)

    def move(self, name: Name, target: Name) -> None:
        """Renames without replacing: ``FileExistsError`` if the target exists."""
        self.rename(name, target, move)

    def rename(self, name: Name, target: Name, rename: Callable[[str, int, str, int], _T]) -> _T:
        """Renames with a function of :mod:`.calls`."""
        above, below = parent(name), parent(target)
        self.recheck(above, below)
        source, folder = self.folder(above), self.folder(below, above)
        return rename(leaf(name), source, leaf(target), folder)

    def exchange(self, name: Name, target: Name) -> bool:
        """Exchanges two files, in one step where that can be; false if one would be lost.

        Raises:
            FileNotFoundError: One is missing.
        """
        if self.abilities.exchange and self.rename(name, target, calls.exchange):
            return True
        self.abilities.say_once(
            "exchanges no files; one that appears while we replace ours may be lost"
        )
        return self.rename(name, target, calls.link_and_replace)

    def sync(
        self,
        mounts: Iterable[int] = (),
        files: Iterable[Name] = (),
        changed: Iterable[Name] = (),
    ) -> None:
        """Waits until everything that was written is on the disk: a barrier.

        Args:
            mounts: Descriptors on other mounts that were written to.
            files: Files to sync one by one where ``syncfs`` is missing or proves nothing.
            changed: Paths that were made, changed or removed; the folders above are synced there.
        """
        state = [self._lasting[STATE]] if self.is_apart and self.state_syncs else []
        whole = (*state, *mounts, self.fd) if self.can_syncfs else state
        if calls.syncfs is not None:
            # The root's own descriptor is the oldest, and hears of most errors.
            for fd in {os.fstat(fd).st_dev: fd for fd in whole}.values():
                calls.syncfs(fd)
        if self.can_syncfs:
            return
        if not calls.IS_MACOS:
            self.abilities.say_once("has no syncfs to rely on; files are synced one by one")
        self._sync_each(files)
        above = (folder for name in changed for folder in (*ancestors(name), ROOT))
        for name in dict.fromkeys((*above, ROOT)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not calls.sync_folder(self.folder(name)):
                    self.abilities.say_once("syncs no folders; a power cut may take new names")

    def _sync_each(self, files: Iterable[Name]) -> None:
        """Waits until files are on the disk, one by one."""
        for name in files:
            try:
                fd = open_file(leaf(name), self.folder(parent(name)))
            except OSError as error:
                # A link is synced with its folder, a closed file was when it was staged.
                if error.errno not in (*NOT_THERE, errno.EACCES):
                    raise
            else:
                with closing(fd):
                    calls.sync_file(fd)


def _read(base: str, folder: int) -> tuple[os.stat_result, bytes] | None:
    """Hashes a regular file; returns ``None`` if it is unreadable, or changes meanwhile."""
    try:
        with closing(open_file(base, folder)) as fd:
            for _ in range(2):  # Through FUSE, the first look may still tell the ctime of before.
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):  # A FIFO took the name.
                    return None
                os.lseek(fd, 0, os.SEEK_SET)
                digest = digest_of_file(fd)
                if signature_of(os.fstat(fd)) == signature_of(found):
                    return found, digest
    except PermissionError:
        return None
    return None
