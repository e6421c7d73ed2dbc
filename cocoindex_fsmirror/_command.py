"""The ``fsmirror`` command as a process. Knows little, so that it is at work at once."""

from __future__ import annotations

import signal

__all__ = ["run"]


def run() -> None:
    """Runs the command; Ctrl-C while all the rest is imported just ends the process."""
    # In the background of a script it is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from . import cli  # noqa: PLC0415  # It takes some tenths of a second.

    cli.run()
