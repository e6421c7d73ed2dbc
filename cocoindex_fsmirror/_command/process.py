"""The ``fsmirror`` command as a process. Knows little, so that it is at work at once."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["run"]


def run() -> None:
    """Runs the command; Ctrl-C while all the rest is imported just ends the process."""
    # In the background of a script it is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _read_names_as_utf8()
    from . import main as cli  # noqa: PLC0415  # It takes some tenths of a second.

    cli.run()


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
