"""The ``fsmirror`` command as a process. Imports little, so that it is at work at once."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # That of typing, whose import takes longer than all of this.
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["run"]


def run() -> None:
    """Runs the command; no Ctrl-C gets lost or ends in a traceback.

    While everything else is imported, Ctrl-C just ends the process.
    """
    # In the background of a script it is ignored, and stays so.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _read_names_as_utf8()
    from . import main as command  # noqa: PLC0415  # It takes some tenths of a second.
    from .output import ExitStatus  # noqa: PLC0415
    from .streams import open_streams  # noqa: PLC0415

    open_streams(_output_lost)
    _lose_no_interrupt()
    try:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command.main()
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)  # Before anything was begun, or while it was said.
    finally:
        # All is said; an interrupt of the interpreter's own end just ends it.
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


def _output_lost(error: OSError) -> NoReturn:
    """Ends the command: quietly if its reader has left, as ``head -1`` does."""
    from .output import ExitStatus, complain  # noqa: PLC0415

    if isinstance(error, BrokenPipeError):
        sys.exit(ExitStatus.UNREAD)
    complain(f"standard output can't be written: {error.strerror}")
    sys.exit(ExitStatus.FAILED)


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
