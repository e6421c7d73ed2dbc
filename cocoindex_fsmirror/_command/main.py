"""The ``fsmirror`` command: a group of commands, and the exit status of the process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from .. import __version__
from .._core.errors import FsMirrorError, InvalidNameError
from .adopt import adopt
from .backups import backups, drop
from .heal import heal
from .look import status, verify, why
from .output import ExitStatus, Group, LogHandler, complain, tell_error
from .publish import publish
from .sync import sync

__all__ = ["main"]

_LOOKED: Final = "0 in order, 1 differences found"
_HEALED: Final = "0 in order, 1 something is left to the next update"
_MIRRORED: Final = "0 done, 1 something was changed (with --exit-code)"
_STATUSES: Final = "Exit status: {}, 2 used wrongly, 3 failed, 130 interrupted."


class _Commands(Group):
    """A group that lists its commands in the order of their use; an error is one line."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Returns the names of the commands in the order in which they were added."""
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Runs the command, and ends the process with its status."""
        as_json = _wants_json(args[0] if args else extra.get("args"))
        extra["standalone_mode"] = False
        try:
            status = super().main(*args, **extra) or ExitStatus.IN_ORDER
        except (click.UsageError, InvalidNameError) as error:
            tell_error(error, as_json=as_json)
            status = ExitStatus.USED_WRONGLY
        except (click.ClickException, FsMirrorError, OSError) as error:
            tell_error(error, as_json=as_json)
            status = ExitStatus.FAILED
        except MemoryError:
            tell_error(click.ClickException("out of memory"), as_json=as_json)
            status = ExitStatus.FAILED
        except (KeyboardInterrupt, click.Abort):
            complain("interrupted; nothing is lost, run it again to complete it")
            status = ExitStatus.INTERRUPTED
        sys.exit(status)


def _wants_json(args: Sequence[str] | None) -> bool:
    """True if ``--json`` is given; known before parsing, which may fail."""
    words = list(sys.argv[1:] if args is None else args)
    return "--json" in words[: words.index("--") if "--" in words else None]


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_STATUSES.format(_LOOKED),
)
@click.version_option(__version__, prog_name="fsmirror")
def main() -> None:
    """Keep directories in their desired state.

    A file is replaced in one step, and a finished run survives a power cut. What
    others changed comes back; unless told otherwise, their versions are kept.

    \b
      fsmirror sync docs /srv/docs           mirror a folder, and again to update it
      fsmirror sync docs /srv/docs --watch   go on, and follow every change
      fsmirror publish build /srv/site       show a whole update, or none, at a link
      fsmirror verify /srv/docs              exit status 1 if anybody changed it
      fsmirror heal /srv/docs                restore what they changed, from copies
      fsmirror why /srv/docs/index.html      who declared it, and what differs
      fsmirror backups /srv/docs             files of others that had to make way
    """  # noqa: D301  # Click leaves lines after a backspace as they are.
    logging.getLogger("cocoindex_fsmirror").handlers[:] = [LogHandler()]


for _command in (sync, publish, status, verify, heal, why, backups, adopt, drop):
    main.add_command(_command)
_MEANINGS: Final = {
    **dict.fromkeys((sync, publish), _MIRRORED),
    **dict.fromkeys((status, verify, why, backups.commands["diff"]), _LOOKED),
    heal: _HEALED,
}
# Those of publish and heal stand in their own text.
_EXAMPLES: Final = {
    sync: "sync build /srv/site --exclude '*.map' --watch",
    status: "status /srv/site",
    verify: "verify /srv/site --content",
    why: "why /srv/site/index.html",
    backups: "backups /srv/site",
    backups.commands["list"]: "backups list /srv/site --json",
    backups.commands["diff"]: "backups diff /srv/site index.html",
    backups.commands["restore"]: "backups restore /srv/site index.html --to mine.html",
    backups.commands["purge"]: "backups purge /srv/site --older-than 30d",
    adopt: "adopt /srv/site --dry-run",
    drop: "drop /srv/site --yes",
}
for _command in (*main.commands.values(), *backups.commands.values()):
    _lines = [_STATUSES.format(_MEANINGS.get(_command, "0 done"))]
    if _command in _EXAMPLES:
        _lines.insert(0, f"Example: fsmirror {_EXAMPLES[_command]}")
    _command.epilog = "\n\n".join(_lines)
