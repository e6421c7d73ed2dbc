"""The ``fsmirror`` command: a group of commands, and the exit status of the process."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, NoReturn

import click

from .. import __version__
from .._core.errors import FsMirrorError
from .arguments import Group, wants_json
from .backups import backups
from .drop import drop
from .look import status, verify, why
from .output import (
    ExitStatus,
    OneLineFormatter,
    complain,
    tell_error,
)
from .sync import sync

__all__ = ["main"]

_EPILOG: Final = "Exit status: 0 in order, 1 differences found, 2 used wrongly, 3 failed."


class _Commands(Group):
    """Lists its commands in the order of their use, and reports an error in one line."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Returns the names of the commands in the order in which they were added."""
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Runs the command, and ends the process with its status."""
        as_json = wants_json(args[0] if args else extra.get("args"))
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra)
        except (click.ClickException, FsMirrorError, OSError) as error:
            tell_error(error, as_json=as_json)
            status = (
                ExitStatus.USED_WRONGLY
                if isinstance(error, click.UsageError)
                else ExitStatus.FAILED
            )
        except (KeyboardInterrupt, click.Abort):
            complain("interrupted; nothing is lost, run it again to complete it")
            status = ExitStatus.INTERRUPTED
        sys.exit(status if isinstance(status, int) else ExitStatus.IN_ORDER)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="fsmirror")
def main() -> None:
    """Keep directories in their desired state.

    What fsmirror writes is replaced in one step and survives a power cut; what
    others changed comes back, and nothing of theirs is ever lost.

    \b
      fsmirror sync docs /srv/docs           mirror a folder, and again to update it
      fsmirror sync docs /srv/docs --watch   go on, and follow every change
      fsmirror verify /srv/docs              exit status 1 if anybody changed it
      fsmirror why /srv/docs/index.html      whose file it is, and what differs
      fsmirror backups /srv/docs             what others had there, and is kept
    """  # noqa: D301  # Click leaves lines after a backspace as they are.
    shown = logging.StreamHandler()
    shown.setFormatter(OneLineFormatter("fsmirror: %(message)s"))
    logging.getLogger("cocoindex_fsmirror").handlers[:] = [shown]


for _command in (sync, status, verify, why, backups, drop, *backups.commands.values()):
    _command.epilog = f"{_EPILOG} {_command.epilog or ''}".strip()
for _command in (sync, status, verify, why, backups, drop):
    main.add_command(_command)
