"""The only module that changes the tree.

Everything is reached from the descriptor of the root, one component at a time,
never through a symbolic link. What is written is staged first, in
``.fsmirror/tmp/``, and moved into place by renames that cannot lose what is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import resource
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from .._core.errors import LockedError, RootError, SourceChangedError
from .._core.names import RESERVED, ROOT, Folding, Name, ancestors, join, leaf, parent
from .._core.signatures import Signature
from .._core.states import ABSENT, Actual, Content, DirState, FileState, LinkState, OtherState
from .copying import copy, digest_of_file, write_all

__all__ = [
    "Slot",
    "Staging",
    "Tree",
    "coarse_now_ns",
    "inode_of",
    "is_there",
    "open_root",
    "signature_of",
]

_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_CACHED_FOLDERS: Final = 64  # descriptors, and at most a sixteenth of those that are allowed
_NOREPLACE: Final = 1  # renameat2(2)
_EXCHANGE: Final = 2
_TICK: Final = getattr(time, "CLOCK_REALTIME_COARSE", 5 if sys.platform == "linux" else None)
_NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
# File systems whose syncfs says nothing about what reached a disk.
_NETWORK: Final = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "afs")

_AREAS: Final = join(Name(RESERVED), Name("tmp"))

_log = logging.getLogger("cocoindex_fsmirror")
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _foreign_call(name: str, *arguments: type) -> Callable[..., None] | None:
    """A function of the C library that raises ``OSError``, or ``None`` if it has none."""
    function = getattr(_libc, name, None)
    if function is None:
        return None
    function.argtypes = arguments

    def call(*values: int | bytes) -> None:
        if function(*values) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return call


_Int: Final = ctypes.c_int
_renameat2 = _foreign_call("renameat2", _Int, ctypes.c_char_p, _Int, ctypes.c_char_p, ctypes.c_uint)
_syncfs = _foreign_call("syncfs", _Int)


_said: set[str] = set()


def _say_once(message: str) -> None:
    """Tells, once in a process, where less is achieved than was promised."""
    if message not in _said:
        _said.add(message)
        _log.warning("%s", message)


def coarse_now_ns() -> int:
    """Now, in nanoseconds, by the clock that the kernel stamps files with."""
    return time.time_ns() if _TICK is None else time.clock_gettime_ns(_TICK)


def stamp_now() -> str:
    """Now, in UTC, as it stands in the names of backups."""
    return time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())


def inode_of(result: os.stat_result) -> int:
    """The number of an inode, without its top bit, since SQLite's integers are signed.

    Only some FUSE file systems, which hash, have it set.
    """
    return result.st_ino & ~(1 << 63)


def signature_of(result: os.stat_result) -> Signature:
    """The signature in the result of a ``stat`` call."""
    return Signature(inode_of(result), result.st_size, result.st_mtime_ns, result.st_ctime_ns)


def _actual_of(result: os.stat_result, base: str, folder: int) -> Actual:
    """The actual state in the result of an ``lstat``; contents stay unread."""
    mode = result.st_mode
    if stat.S_ISREG(mode):
        state = FileState(None, result.st_size, stat.S_IMODE(mode), result.st_mtime_ns)
        return Actual(state, signature_of(result))
    if stat.S_ISDIR(mode):
        return Actual(DirState(stat.S_IMODE(mode), result.st_mtime_ns), signature_of(result))
    if stat.S_ISLNK(mode):
        target = os.readlink(base, dir_fd=folder)
        return Actual(LinkState(target, result.st_mtime_ns), signature_of(result))
    return Actual(OtherState(), signature_of(result))


def _look_at(base: str, folder: int, *, digest: bool) -> Actual:
    """What is at an entry of an open folder."""
    actual = _actual_of(os.stat(base, dir_fd=folder, follow_symlinks=False), base, folder)
    if digest and isinstance(actual.state, FileState):
        return _read_at(base, folder, actual)
    return actual


def _read_at(base: str, folder: int, unread: Actual) -> Actual:
    """The same with the digest, which stays ``None`` if the file can't be read in peace."""
    try:
        # A FIFO that took the name must not block us.
        fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except PermissionError:
        return unread
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return unread
        digest = digest_of_file(fd)
        if signature_of(os.fstat(fd)) != signature_of(before):
            return unread
    finally:
        os.close(fd)
    state = FileState(digest, before.st_size, stat.S_IMODE(before.st_mode), before.st_mtime_ns)
    return Actual(state, signature_of(before))


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A place in the staging area: the folder whose area it is, and the entry in it.

    An entry in a folder that is staged whole is a path.
    """

    home: Name
    entry: str

    def inside(self, base: str) -> Slot:
        """A slot in the folder that is staged in this one."""
        return Slot(self.home, f"{self.entry}/{base}")


class Tree:
    """One root directory, held by its descriptor for the length of a batch.

    Args:
        fd: The descriptor of the root, opened before anything is written, so
            that a barrier on it hears of every write that failed.
        path: The path of the root, for messages.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self._folders: dict[Name, int] = {}
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] % (1 << 63)  # -1 is no limit.
        self._room = min(_CACHED_FOLDERS, allowed // 16)
        self.fstype, self.mounts = _mounts_below(fd)
        self.can_syncfs = _syncfs is not None and not self.fstype.startswith(_NETWORK)
        if not self.can_syncfs:
            kind = f"this file system ({self.fstype or 'of unknown type'})"
            _say_once(f"{path}: {kind} has no syncfs to rely on; files are synced one by one")

    def close(self) -> None:
        """Gives every descriptor back, and with them the lock."""
        self.forget()
        os.close(self.fd)

    # Looking

    def folder(self, name: Name) -> int:
        """The descriptor of a folder, opened without following a link anywhere.

        Raises:
            OSError: It is not there (``ENOENT``), or a component of it is not a
                directory (``ENOTDIR``, ``ELOOP``).
        """
        if not name:
            return self.fd
        cached = self._folders.get(name)
        if cached is not None:
            return cached
        to_open = [name]
        while (above := parent(to_open[-1])) and above not in self._folders:
            to_open.append(above)
        fd = self._folders.get(above, self.fd)
        try:
            for part in reversed(to_open):
                fd = self._keep(part, os.open(leaf(part), _DIR, dir_fd=fd))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._folders:
                raise
            self.forget()
            return self._keep(name, self._open_frugally(name))
        return fd

    def _open_frugally(self, name: Name) -> int:
        """Opens a folder with no more than two descriptors at a time."""
        fd = os.dup(self.fd)
        for part in (*ancestors(name), name):
            above = fd
            try:
                fd = os.open(leaf(part), _DIR, dir_fd=above)
            finally:
                os.close(above)
        return fd

    def _keep(self, name: Name, fd: int) -> int:
        """Keeps the descriptor of a folder that was opened."""
        if len(self._folders) >= self._room:
            self.forget()
        self._folders[name] = fd
        return fd

    def forget(self) -> None:
        """Closes the descriptors of all folders but the root's."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def look(self, name: Name, *, digest: bool = False) -> Actual:
        """What is at a path now; an unreadable content has no digest."""
        try:
            return _look_at(leaf(name), self.folder(parent(name)), digest=digest)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return Actual(ABSENT)
            raise

    def signature(self, name: Name) -> Signature | None:
        """The signature of what is at a path now; ``None`` if nothing is."""
        found = self.stat(name)
        return None if found is None else signature_of(found)

    def stat(self, name: Name) -> os.stat_result | None:
        """The ``lstat`` of a path; ``None`` if nothing is there."""
        above, _, base = name.rpartition("/")
        try:
            return os.stat(base, dir_fd=self.folder(Name(above)), follow_symlinks=False)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise

    def names_in(self, name: Name) -> list[Name]:
        """The names of the entries of a folder, sorted."""
        return [join(name, Name(entry)) for entry in sorted(os.listdir(self.folder(name)))]

    def folding(self) -> Folding:
        """Which names this file system takes for one, tried on our own folder.

        A file system that folds case also normalises Unicode as a rule, and APFS
        normalises always; where one does not, we are stricter than it is.
        """
        try:
            lower = os.stat(RESERVED, dir_fd=self.fd, follow_symlinks=False)
            upper = os.stat(RESERVED.upper(), dir_fd=self.fd, follow_symlinks=False)
            folds = os.path.samestat(lower, upper)
        except FileNotFoundError:
            folds = False
        return Folding(case=folds, unicode=folds or sys.platform == "darwin")

    def home_of(self, folder: Name) -> Name:
        """Whose staging area serves a folder that exists: the root's, or another.

        A rename can't cross mounts (also bind mounts, which share the device
        number), and a default ACL is inherited only where a file is created.
        """
        home, acl, device = folder, self._default_acl(folder), self.device(folder)
        mount = self.mount_of(folder)
        while home != mount:
            above = parent(home)
            if self.device(above) != device or (acl and self._default_acl(above) != acl):
                return home
            home = above
        return home

    def mount_of(self, folder: Name) -> Name:
        """The mount point that a folder lies on; the root's own is the root."""
        return max((m for m in self.mounts if _is_within(folder, m)), key=len, default=ROOT)

    def _default_acl(self, folder: Name) -> bytes:
        """The ACL that new files in a folder inherit; empty if there is none."""
        try:
            return os.getxattr(self.folder(folder), "system.posix_acl_default")
        except (OSError, AttributeError):
            return b""

    def device(self, folder: Name) -> int:
        """The device of a folder; a subvolume of btrfs is one of its own."""
        return os.fstat(self.folder(folder)).st_dev

    # Changing

    def make_folder(self, name: Name, mode: int = 0o777) -> bool:
        """Makes a folder that may exist already; tells whether it was made."""
        try:
            os.mkdir(leaf(name), mode, dir_fd=self.folder(parent(name)))
        except FileExistsError:
            return False
        return True

    def make_folders(self, folder: Name, mode: int = 0o777, top: Name = ROOT) -> None:
        """Makes a folder and those above it, from a top one on; each may exist."""
        for name in (*ancestors(folder), folder):
            if name and len(name) >= len(top):
                self.make_folder(name, mode)

    def move(self, name: Name, target: Name) -> None:
        """Renames without replacing: ``FileExistsError`` if the target is there."""
        source = os.dup(self.folder(parent(name)))  # Opening the other folder may close ours.
        try:
            _move(leaf(name), source, leaf(target), self.folder(parent(target)))
        finally:
            os.close(source)

    def back_up(
        self, name: Name, stamp: str, entry: str = "", fd: int | None = None, home: Name = ROOT
    ) -> Name:
        """Moves what is at a path to the backup area, where it replaces nothing.

        Args:
            name: The path.
            stamp: The folder of the backup area, as from :func:`stamp_now`.
            entry: Where it is now, if it was taken from its path: an entry of ...
            fd: ... a folder that is open.
            home: Whose backup area to use if the root's is on another mount.

        Returns:
            Where it is now, relative to the root.
        """
        above = parent(name)
        # Opening another folder may close ours, and give its number to another.
        held = os.dup(self.folder(above) if fd is None else fd)
        try:
            if fd is None:
                entry, home = leaf(name), self.home_of(above)
            for area in (ROOT, home):
                try:
                    return self._back_up_below(area, name, stamp, entry, held)
                except OSError as error:
                    if error.errno != errno.EXDEV or area == home:
                        raise
        finally:
            os.close(held)
        raise AssertionError("unreachable: the loop returns or raises")

    def _back_up_below(self, home: Name, name: Name, stamp: str, entry: str, fd: int) -> Name:
        """The same, to the backup area of one folder."""
        ours = join(home, Name(RESERVED))
        backups = join(ours, Name("backup"))
        self.make_folders(backups, 0o700, ours)
        self.folder(backups)  # Raises if something else took the name.
        for attempt in range(10_000):
            moment = Name(stamp if attempt == 0 else f"{stamp}.{attempt}")
            target = join(join(backups, moment), name)
            try:
                self.make_folders(parent(target), 0o700, ours)
                _move(entry, fd, leaf(target), self.folder(parent(target)))
            except (FileExistsError, NotADirectoryError):
                continue
            except OSError:
                self.remove_folders(parent(target), ours)
                raise
            return target
        raise FileExistsError(errno.EEXIST, "no free name in the backup area", name)

    def remove_folder(self, name: Name) -> bool:
        """Removes a folder if it is there and empty; tells whether it is gone."""
        self.forget()
        try:
            os.rmdir(leaf(name), dir_fd=self.folder(parent(name)))
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return False
            if error.errno not in _NOT_THERE:
                raise
        return True

    def remove_folders(self, folder: Name, top: Name) -> None:
        """Removes a folder and those above it, up to a top one, as far as they are empty."""
        while len(folder) >= len(top) and self.remove_folder(folder):
            folder = parent(folder)

    def empty(self, folder: Name) -> None:
        """Removes everything in a folder of our own folder."""
        folders = [folder]
        for above in folders:  # It grows meanwhile.
            for name in self.names_in(above):
                if isinstance(self.look(name).state, DirState):
                    folders.append(name)
                else:
                    self.remove_file(name)
        for inner in reversed(folders[1:]):
            self.remove_folder(inner)

    def remove_all(self, name: Name) -> None:
        """Removes what is at a path of our own folder, with all that is in it."""
        if isinstance(self.look(name).state, DirState):
            self.empty(name)
            self.remove_folder(name)
        else:
            self.remove_file(name)

    def remove_file(self, name: Name) -> None:
        """Unlinks a file of our own folder; it may be missing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leaf(name), dir_fd=self.folder(parent(name)))

    def make_file(self, name: Name) -> None:
        """Makes an empty file of our own folder, unless something is there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with contextlib.suppress(FileExistsError):
            os.close(os.open(leaf(name), flags, 0o600, dir_fd=self.folder(parent(name))))

    def write_file(self, name: Name, content: bytes) -> None:
        """Writes a file of our own folder."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        fd = os.open(leaf(name), flags, 0o600, dir_fd=self.folder(parent(name)))
        try:
            os.write(fd, content)
        finally:
            os.close(fd)

    def rename(self, name: Name, base: str) -> None:
        """Renames a file of our own folder within it; it may be missing."""
        folder = self.folder(parent(name))
        with contextlib.suppress(FileNotFoundError):
            os.rename(leaf(name), base, src_dir_fd=folder, dst_dir_fd=folder)

    def remove_root(self, levels: int) -> None:
        """Removes the root and the folders above it, as far as they are empty."""
        folder = self.path
        for _ in range(levels):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def dress(
        self, name: Name, mode: int | None, mtime_ns: int | None, expected: Signature
    ) -> Signature:
        """Sets mode and time of the very file that was looked at; another one is left alone.

        Returns:
            The signature that the file has now, or the expected one if that is not there.
        """
        flags, above = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, self.folder(parent(name))
        try:
            fd = os.open(leaf(name), flags, dir_fd=above)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            if self.signature(name) == expected:
                _set_link_time(leaf(name), above, mtime_ns)
                return self.signature(name) or expected
            return expected
        try:
            if signature_of(os.fstat(fd)) == expected:
                _set_dress(fd, mode, mtime_ns)
                return signature_of(os.fstat(fd))
            return expected
        finally:
            os.close(fd)

    def dress_folder(self, name: Name, mode: int | None, mtime_ns: int | None) -> int:
        """Sets mode and time of a folder; returns the time that it has now, in nanoseconds."""
        fd = self.folder(name)
        found = os.fstat(fd)
        _set_dress(
            fd,
            mode if mode != stat.S_IMODE(found.st_mode) else None,
            mtime_ns if mtime_ns != found.st_mtime_ns else None,
        )
        return os.fstat(fd).st_mtime_ns

    def sync(self, mounts: Iterable[int], files: Iterable[Name], folders: Iterable[Name]) -> None:
        """A barrier: returns when all that was written is on the disk.

        Args:
            mounts: Descriptors on other mounts that were written to.
            files: Synced one by one where ``syncfs`` is missing or says nothing.
            folders: The same.
        """
        if self.can_syncfs and _syncfs is not None:
            others = {os.fstat(fd).st_dev: fd for fd in mounts}
            others.pop(os.fstat(self.fd).st_dev, None)
            for fd in (self.fd, *others.values()):
                _syncfs(fd)
            return
        for name in files:
            flags, above = os.O_RDONLY | os.O_NOFOLLOW, self.folder(parent(name))
            try:
                fd = os.open(leaf(name), flags, dir_fd=above)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                continue  # A link is synced with its folder.
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        for name in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.fsync(self.folder(name))

    def sync_above(self, levels: int) -> None:
        """Syncs the folders above the root, one by one, in which folders were made."""
        folder = self.path
        for _ in range(levels):
            folder = os.path.dirname(folder)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


class Staging:
    """The staging area of one batch: a numbered slot for each step.

    The folder of a batch is called ``<batch>`` while contents are written, and
    ``<batch>.ready`` from the first barrier on. Whatever a crash leaves in the
    former are torn bytes of ours; in the latter lie whole files, among them
    perhaps a foreign one that was just taken out of the way. A folder that is new
    is staged with all in it, and one rename puts it in place.
    """

    READY: Final = ".ready"

    def __init__(
        self, tree: Tree, batch: str, on_bytes: Callable[[int], None] = lambda _count: None
    ) -> None:
        self._tree = tree
        self.batch = batch
        self._on_bytes = on_bytes
        self._areas: dict[Name, int] = {}
        self._paths: dict[Name, Name] = {}
        self._suffix = ""

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of the areas in use, opened before anything was written there."""
        return list(self._areas.values())

    def open(self, home: Name) -> int:
        """The descriptor of an area, made at its first use."""
        fd = self._areas.get(home)
        if fd is None:
            folder = area_of(home, self.batch + self._suffix)
            self._tree.make_folders(folder, 0o700, parent(parent(folder)))
            fd = self._areas[home] = os.dup(self._tree.folder(folder))
        return fd

    def _at(self, slot: Slot) -> tuple[int, str]:
        """The descriptor of the folder that holds a slot, and the slot's name there."""
        inside, _, base = slot.entry.rpartition("/")
        area = self.open(slot.home)
        if not inside:
            return area, base
        return self._tree.folder(self._path(slot.home, inside)), base

    def _path(self, home: Name, inside: str) -> Name:
        """The path of a folder that is staged."""
        area = self._paths.get(home)
        if area is None:
            area = self._paths[home] = area_of(home, self.batch + self._suffix)
        return Name(f"{area}/{inside}")

    def make_folder(self, slot: Slot) -> None:
        """Makes a folder in a slot, to be filled there; it may exist."""
        above, base = self._at(slot)
        with contextlib.suppress(FileExistsError):
            os.mkdir(base, dir_fd=above)

    def remove_folder(self, slot: Slot) -> None:
        """Removes a staged folder, and those that it is staged in, as far as they are empty."""
        self.open(slot.home)
        top = self._path(slot.home, slot.entry.partition("/")[0])
        self._tree.remove_folders(self._path(slot.home, slot.entry), top)

    def write(
        self,
        slot: Slot,
        content: bytes | Content,
        mode: int | None = None,
        gid: int | None = None,
        mtime_ns: int | None = None,
    ) -> tuple[Signature, bytes | None]:
        """Writes a whole file into a slot, with its final mode, group and time.

        A ``mode`` of ``None`` lets the umask, or a default ACL, decide.

        Returns:
            The signature of the file, and the digest of what was copied into it; ``None``
            for what was held in memory, whose digest is known.

        Raises:
            SourceChangedError: The source is no longer what it was when it was looked at.
        """
        area, base = self._at(slot)
        fd = os.open(base, _NEW, 0o666 if mode is None else mode & 0o777, dir_fd=area)
        try:
            digest = self._fill(fd, content)
            if gid is not None:
                os.fchown(fd, -1, gid)
            _set_dress(fd, None, mtime_ns)
            found = os.fstat(fd)
            if mode is not None and stat.S_IMODE(found.st_mode) != mode:  # It rarely is.
                os.fchmod(fd, mode)
                found = os.fstat(fd)
            if not self._tree.can_syncfs:
                os.fsync(fd)
            return signature_of(found), digest
        except BaseException:
            os.unlink(base, dir_fd=area)
            raise
        finally:
            os.close(fd)

    def _fill(self, fd: int, content: bytes | Content) -> bytes | None:
        """Writes a content into an empty file; returns the digest of what was copied."""
        held = content if isinstance(content, bytes) else content.held
        if held is not None:
            write_all(fd, held)
            self._on_bytes(len(held))
            return None
        assert not isinstance(content, bytes)
        return _copy(content, fd, self._on_bytes)

    def link(self, slot: Slot, target: str, mtime_ns: int | None) -> Signature:
        """Makes a symbolic link in a slot."""
        area, base = self._at(slot)
        os.symlink(target, base, dir_fd=area)
        _set_link_time(base, area, mtime_ns)
        return signature_of(os.stat(base, dir_fd=area, follow_symlinks=False))

    def ready(self) -> None:
        """Marks the areas: from here on a slot may hold a foreign file."""
        self._suffix = self.READY
        self._paths.clear()
        for home in self._areas:
            area = area_of(home, self.batch)
            tmp = self._tree.folder(parent(area))
            os.rename(leaf(area), leaf(area) + self.READY, src_dir_fd=tmp, dst_dir_fd=tmp)
        self._tree.forget()

    def look(self, slot: Slot, *, digest: bool = False) -> Actual:
        """What lies in a slot."""
        area, base = self._at(slot)
        return _look_at(base, area, digest=digest)

    def signature(self, slot: Slot) -> Signature | None:
        """The signature of the regular file in a slot; ``None`` if something else is there."""
        area, base = self._at(slot)
        found = os.stat(base, dir_fd=area, follow_symlinks=False)
        return signature_of(found) if stat.S_ISREG(found.st_mode) else None

    def put(self, slot: Slot, name: Name) -> None:
        """Moves a slot's file to a path where nothing is.

        Raises:
            FileExistsError: Something is there, and still is.
        """
        self._rename(_move, slot, name)

    def exchange(self, slot: Slot, name: Name) -> None:
        """Swaps a slot's file with what is at a path, in one step.

        Raises:
            FileNotFoundError: Nothing is there.
        """
        self._rename(_swap, slot, name)

    def _rename(self, how: Callable[[str, int, str, int], None], slot: Slot, name: Name) -> None:
        """Renames from a slot to a path."""
        source, base = self._at(slot)
        if "/" not in slot.entry:
            how(base, source, leaf(name), self._tree.folder(parent(name)))
            return
        held = os.dup(source)  # Opening the other folder may close ours.
        try:
            how(base, held, leaf(name), self._tree.folder(parent(name)))
        finally:
            os.close(held)

    def take(self, slot: Slot, name: Name) -> None:
        """Moves what is at a path into an empty slot, where a rename has nothing to replace."""
        source, area = self._tree.folder(parent(name)), self.open(slot.home)
        os.rename(leaf(name), slot.entry, src_dir_fd=source, dst_dir_fd=area)

    def discard(self, slot: Slot) -> None:
        """Unlinks what lies in a slot; it may be missing."""
        area, base = self._at(slot)
        try:  # noqa: SIM105  # To suppress what hardly ever comes takes longer.
            os.unlink(base, dir_fd=area)
        except FileNotFoundError:
            pass

    def back_up(self, slot: Slot, name: Name, stamp: str) -> Name:
        """Moves a slot's content to the backup area, as :meth:`Tree.back_up` does."""
        area, base = self._at(slot)
        return self._tree.back_up(name, stamp, base, area, slot.home)

    def remove_areas(self) -> bool:
        """Removes the areas that the batch has emptied; tells whether that was all of them."""
        self._tree.forget()
        areas = [area_of(home, self.batch + self._suffix) for home in self._areas]
        left = [area for area in areas if not remove_area(self._tree, area)]
        return not left

    def abandon(self) -> None:
        """Throws away everything that was staged; nothing is in place yet."""
        for home in self._areas:
            self._tree.empty(area_of(home, self.batch + self._suffix))
        self.remove_areas()

    def close(self) -> None:
        """Gives the descriptors back."""
        for fd in self._areas.values():
            os.close(fd)
        self._areas.clear()


def _set_dress(fd: int, mode: int | None, mtime_ns: int | None) -> None:
    """Sets the mode and the time of an open file, unless ``None``."""
    if mode is not None:
        os.fchmod(fd, mode)
    if mtime_ns is not None:
        os.utime(fd, ns=(time.time_ns(), mtime_ns))


def _set_link_time(base: str, folder: int, mtime_ns: int | None) -> None:
    """Sets the time of a link, unless ``None``."""
    if mtime_ns is not None:
        os.utime(base, ns=(time.time_ns(), mtime_ns), dir_fd=folder, follow_symlinks=False)


def _copy(content: Content, target: int, on_bytes: Callable[[int], None]) -> bytes:
    """Copies another file into an empty one; returns the digest of what is there now.

    Raises:
        SourceChangedError: The source is no longer what it was when it was looked at.
    """
    source = content.open()
    try:
        if os.fstat(source).st_size != content.size:
            raise SourceChangedError(content.source)
        digest = copy(source, target, content.size, on_bytes)
        if digest != content.digest and not (
            content.digest is None and content.is_unchanged(source)
        ):
            raise SourceChangedError(content.source)
        return digest
    finally:
        os.close(source)


def _is_within(name: Name, folder: Name) -> bool:
    """Whether a name is a folder or lies in it."""
    return name == folder or name.startswith(f"{folder}/")


def area_of(home: Name, batch: str) -> Name:
    """Where a batch stages for a folder."""
    return join(join(home, _AREAS), Name(batch))


def remove_area(tree: Tree, area: Name) -> bool:
    """Removes an empty area, and below a home other than the root what held it."""
    gone = tree.remove_folder(area)
    if parent(area) != _AREAS:
        tree.remove_folder(parent(area))
        tree.remove_folder(parent(parent(area)))
    return gone


def _move(source: str, source_fd: int, target: str, target_fd: int) -> None:
    """Renames without replacing: ``FileExistsError`` if the target is there."""
    if _renameat2 is not None:
        try:
            _renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), _NOREPLACE)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    # A hard link refuses to replace too. What can't be linked is checked first.
    try:
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        if _exists(target, target_fd):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    else:
        os.unlink(source, dir_fd=source_fd)


def _swap(source: str, source_fd: int, target: str, target_fd: int) -> None:
    """Exchanges two entries."""
    if _renameat2 is not None:
        try:
            _renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), _EXCHANGE)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    _say_once("no atomic exchange here: a file that replaces ours while we replace it may be lost")
    # Keep the old file by a second name, then rename over it.
    aside = source + ".old"
    os.link(target, aside, src_dir_fd=target_fd, dst_dir_fd=source_fd, follow_symlinks=False)
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    os.rename(aside, source, src_dir_fd=source_fd, dst_dir_fd=source_fd)


def _exists(base: str, folder: int) -> bool:
    """Whether an entry is there, of whatever kind."""
    try:
        os.stat(base, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _mounts_below(fd: int) -> tuple[str, frozenset[Name]]:
    """The type of the root's file system, and the mount points inside the root."""
    try:
        root = os.readlink(f"/proc/self/fd/{fd}")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            mounts = [_parse_mount(line) for line in lines]
    except OSError:
        return "", frozenset()
    prefix = root.rstrip("/") + "/"
    inside = frozenset(
        Name(point[len(prefix) :]) for point, _ in mounts if point.startswith(prefix)
    )
    holding = [(len(p), kind) for p, kind in mounts if prefix.startswith(p.rstrip("/") + "/")]
    return max(holding, default=(0, ""))[1], inside


def _parse_mount(line: str) -> tuple[str, str]:
    """Mount point and type in a line of ``/proc/self/mountinfo``; see proc(5)."""
    before, _, after = line.partition(" - ")
    point = before.split(" ")[4]
    for octal, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        point = point.replace(f"\\{octal}", character)
    return point, after.split(" ")[0]


def open_root(path: str, *, create: bool = False, parents: bool = True) -> tuple[Tree, int]:
    """Opens a root directory.

    Args:
        path: Its path. A link is followed here, and nowhere below.
        create: Whether to make it if it is missing.
        parents: Whether to make missing folders above it too.

    Returns:
        The tree, and how many folders were made (the root and those above it).

    Raises:
        RootError: It can't be used, with what to do about it.
    """
    made = 0
    try:
        if create:
            made = sum(1 for folder in _missing(path, parents=parents) if _make(folder))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _root_error(path, error) from error
    return Tree(fd, path), made


def is_there(path: str) -> bool:
    """Whether a root is there.

    Raises:
        RootError: That can't be told, which does not mean that it is gone.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _root_error(path, error) from error


def _missing(path: str, *, parents: bool) -> Iterator[str]:
    """The folders to be made, from the top."""
    missing = [path] if not os.path.isdir(path) else []
    while missing and parents and not os.path.lexists(os.path.dirname(missing[-1])):
        missing.append(os.path.dirname(missing[-1]))
    return reversed(missing)


def _make(folder: str) -> bool:
    """Makes one folder; another process may have been faster."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        return False
    return True


def _root_error(path: str, error: OSError) -> RootError:
    """The error for a root that can't be opened, with its cure."""
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
        return RootError(path, "is not a directory", "move away what is there, or name another")
    if error.errno in (errno.EACCES, errno.EPERM):
        return RootError(path, "may not be opened", "grant this user read and write access")
    if error.errno == errno.EROFS:
        return RootError(path, "is on a read-only file system", "remount it writable")
    if error.errno == errno.ENOENT:
        hint = "make it, or let create_parent_dirs stand at True"
        return RootError(path, "is missing, or the folder above it is", hint)
    return RootError(path, f"can't be opened: {os.strerror(error.errno or 0)}", "see the cause")


def lock(tree: Tree, patience: float) -> None:
    """Takes the root for us alone, until the tree is closed.

    Args:
        tree: The root.
        patience: How long to wait for another writer, in seconds.

    Raises:
        LockedError: Somebody still held it then.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(tree.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                problem = f"{holder_of(tree.fd)} held it for {patience:g} seconds"
                raise LockedError(tree.path, problem, "let it finish, or end it") from None
            time.sleep(0.02)
        except OSError as error:  # NFS, for one, locks no directory.
            problem = f"can't be locked here ({error.strerror})"
            _say_once(f"{tree.path}: {problem}; let only one process at a time write to it")
            return


def hold(tree: Tree, name: Name) -> int:
    """Takes a lock of our own folder, for longer than a batch, until its descriptor is closed.

    Raises:
        LockedError: Somebody else holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    fd = os.open(leaf(name), flags, 0o600, dir_fd=tree.folder(parent(name)))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = holder_of(fd)
        os.close(fd)
        raise LockedError(tree.path, f"{holder} is at work", "let it finish, or end it") from None
    except OSError as error:
        _say_once(f"{tree.path}: can't be locked here ({error.strerror})")
    return fd


def holder_of(fd: int) -> str:
    """Who holds the lock of an open file, for people; see proc_locks(5)."""
    inode, others = str(os.fstat(fd).st_ino), "another writer"
    try:
        with open("/proc/locks", encoding="utf-8") as lines:
            locks = [line.split() for line in lines]
        found = [lock for lock in locks if lock[1] == "FLOCK" and lock[5].endswith(f":{inode}")]
        pid = int(found[0][4])
        if pid == os.getpid():
            return "another part of this process"
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().rstrip("\0").split("\0")
    except (OSError, ValueError, IndexError):
        return others
    command = " ".join(" ".join(words).split())
    return f"process {pid} ({command[:200]})"
