"""A stand-in for macOS: its C library, and what else Python has there or lacks.

``pytest -p tests.disk.macos`` runs any tests with it. It knows only what the manual pages of macOS
tell; nothing of it was compared with a real one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

REFUSED: Final = {*os.environ.get("MACOS_REFUSES", "").split()}
"""What the file system does not support: ``renameatx_np``, ``F_FULLFSYNC``, ``fclonefileat``."""
called: list[tuple[object, ...]] = []
"""The calls that were made, with their flags, or what was synced."""

_EXCL, _SWAP, _NOOWNERCOPY = 4, 2, 2
_FULLFSYNC, _PREALLOCATE = 51, 42
_libc = ctypes.CDLL(None, use_errno=True)
_fcntl, _readlink, _allocate = fcntl.fcntl, os.readlink, os.posix_fallocate
_LACKED: Final = ("posix_fallocate", "getxattr", "setxattr", "removexattr", "listxattr")


class _Function:
    """A function of the C library, as ctypes has it."""

    argtypes: tuple[type, ...] = ()
    errcheck: Callable[..., object] = staticmethod(lambda *_: None)

    def __init__(self, name: str, act: Callable[..., int]) -> None:
        self._name, self._act = name, act

    def __call__(self, *arguments: Any) -> int:
        assert len(arguments) == len(self.argtypes)
        code = errno.ENOTSUP if self._name in REFUSED else self._act(*arguments)
        ctypes.set_errno(code)
        result = -1 if code else 0
        self.errcheck(result, self, arguments)
        return result


def _renameatx_np(above: int, source: bytes, below: int, target: bytes, flags: int) -> int:
    """Renames as macOS does; returns an error, or 0."""
    if flags not in (_EXCL, _SWAP):
        return errno.EINVAL
    called.append(("renameatx_np", flags))
    ours = 1 if flags == _EXCL else 2
    return ctypes.get_errno() if _libc.renameat2(above, source, below, target, ours) else 0


def _fclonefileat(source: int, above: int, target: bytes, flags: int) -> int:
    """Makes a file of equal content, mode and times; returns an error, or 0."""
    if flags != _NOOWNERCOPY:
        return errno.EINVAL
    called.append(("fclonefileat", flags))
    found = os.fstat(source)
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=above)
    except OSError as error:
        return error.errno or errno.EIO
    os.write(fd, os.pread(source, found.st_size, 0))
    os.fchmod(fd, found.st_mode & 0o7777)
    os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.close(fd)
    return 0


class _Library:
    """The C library of macOS, as far as it matters."""

    renameatx_np = _Function("renameatx_np", _renameatx_np)
    fclonefileat = _Function("fclonefileat", _fclonefileat)


def _control(fd: int, command: int, argument: Any = 0) -> Any:
    """Stands in for ``fcntl``."""
    if command == _FULLFSYNC:
        if "F_FULLFSYNC" in REFUSED:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        called.append(("F_FULLFSYNC", os.fstat(fd).st_ino))
        return 0
    if command == _PREALLOCATE:
        flags, mode, offset, length, allocated = struct.unpack("=Iiqqq", argument)
        assert (flags, mode, offset, allocated) == (4, 3, 0, 0)
        _allocate(fd, offset, length)
        called.append(("F_PREALLOCATE", length))
        return argument
    return _fcntl(fd, command, argument)


def _read_link(path: Any, **more: Any) -> Any:
    """Stands in for ``readlink``, as there is no ``/proc``."""
    if isinstance(path, str) and path.startswith("/proc/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return _readlink(path, **more)


def _install() -> None:
    """Imports the package as on macOS."""
    assert not any(name.startswith("cocoindex_fsmirror._disk") for name in sys.modules)
    library, ctypes.CDLL = ctypes.CDLL, lambda *_, **__: _Library()  # type: ignore[assignment, misc]
    platform, sys.platform = sys.platform, "darwin"
    try:
        importlib.import_module("cocoindex_fsmirror._disk.inotify")
        assert importlib.import_module("cocoindex_fsmirror._disk.calls").IS_MACOS
    finally:
        ctypes.CDLL, sys.platform = library, platform  # type: ignore[misc]
    fcntl.fcntl, os.readlink = _control, _read_link  # type: ignore[assignment]
    for name in _LACKED:
        delattr(os, name)


_install()
