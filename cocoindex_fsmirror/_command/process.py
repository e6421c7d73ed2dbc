"""The ``fsmirror`` command as a process: its interrupts, and its standard streams.

Imports little, so that it is at work at once. Python flushes standard output and standard error
once more when the interpreter ends, and exits with a traceback and status 120 if that fails. So
output that can't be written is dropped here, once the failure was reported.
"""

from __future__ import annotations

import io
import os
import signal
import sys

TYPE_CHECKING = False  # That of typing, whose import takes longer than all of this.
if TYPE_CHECKING:
    from typing import NoReturn, TextIO

    from _typeshed import ReadableBuffer

__all__ = ["run"]


def run() -> None:
    """Runs the command; no Ctrl-C gets lost or ends in a traceback.

    While everything else is imported, Ctrl-C just ends the process.
    """
    # A job in the background of a script ignores Ctrl-C, and goes on to do so.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _read_names_as_utf8()
    from . import main as command  # noqa: PLC0415  # Takes some tenths of a second.
    from .output import ExitStatus  # noqa: PLC0415

    _open_streams()
    _lose_no_interrupt()
    try:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command.main()
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)  # Before anything was begun, or during the last message.
    finally:
        # All output is written; from now on Ctrl-C just ends the process, which ends anyway.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read_names_as_utf8() -> None:
    """Starts this process again in Python's UTF-8 mode if file names have another encoding.

    Names are UTF-8 in the ledger. Python can't give one to the system that the encoding of
    file names lacks, as with ``LC_ALL=C PYTHONUTF8=0``, and in Latin-1 finds another name.
    Output keeps the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    encoding = "ascii" if sys.stdout is None else sys.stdout.encoding
    mode = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{encoding}:backslashreplace"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | mode)  # noqa: S606


def _lose_no_interrupt() -> None:
    """Sends Ctrl-C again if it came where exceptions are dropped, as by callbacks in an import."""
    import threading  # noqa: PLC0415

    report = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGINT]).start()
        else:
            report(dropped)

    sys.unraisablehook = hook


def _open_streams() -> None:
    """Opens the three standard streams again; one that is closed leads to ``/dev/null``."""
    # Files of ours must not become descriptors 0 to 2, since libraries log there.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _opened(1, sys.stdout), _opened(2, sys.stderr)


def _opened(fd: int, stream: TextIO | None) -> TextIO:
    """Opens a descriptor as text, in the encoding of its stream; other characters are escaped."""
    encoding = "utf-8" if stream is None else stream.encoding
    is_by_lines = stream is not None and bool(stream.line_buffering)
    buffer = io.BufferedWriter(_Output(fd, "wb", closefd=False))
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=is_by_lines)


class _Output(io.FileIO):
    """Standard output or standard error; once it can't be written, it leads to ``/dev/null``."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes bytes; the first failure of standard output ends the command.

        A failure of standard error is ignored: there is nowhere left to report it.
        """
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_RDWR), self.fileno())
            if self.fileno() == 1:
                _end(error)
            return super().write(data)


def _end(error: OSError) -> NoReturn:
    """Ends the command: quietly if the reader of its output has left, as ``head -1`` does."""
    from .output import ExitStatus, complain  # noqa: PLC0415

    if isinstance(error, BrokenPipeError):
        sys.exit(ExitStatus.UNREAD)
    complain(f"standard output can't be written: {error.strerror}")
    sys.exit(ExitStatus.FAILED)
