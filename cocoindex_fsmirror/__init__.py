"""A directory target for CocoIndex that can be trusted.

The names are those of ``cocoindex.connectors.localfs``; a flow moves over by its
import alone. :class:`Mirror` looks at a mirrored directory without the engine.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":  # pragma: no cover
    raise ImportError(
        "cocoindex-fsmirror needs POSIX directory descriptors and atomic renames, "
        "which Windows does not have; use WSL or cocoindex.connectors.localfs there"
    )

from ._core.errors import (
    ApplyError,
    BarrierError,
    ConflictError,
    FsMirrorError,
    InvalidNameError,
    LedgerError,
    LockedError,
    PathError,
    RootError,
    SourceChangedError,
    SourceError,
    TooManyRemovalsError,
)
from ._target.hook import when_imported as _when_imported

TYPE_CHECKING = False  # That of typing, whose import takes longer than all of ours.
if TYPE_CHECKING:
    from ._mirror.heal import Healing
    from ._mirror.mirror import Mirror, Status
    from ._mirror.outcome import Outcome
    from ._mirror.update import Update
    from ._target.declare import (
        FilePath,
        declare_dir_target,
        declare_file,
        dir_target,
        mount_dir_target,
    )
    from ._target.dir_target import DirTarget

__version__ = "0.1.0"

__all__ = [
    "ApplyError",
    "BarrierError",
    "ConflictError",
    "DirTarget",
    "FilePath",
    "FsMirrorError",
    "Healing",
    "InvalidNameError",
    "LedgerError",
    "LockedError",
    "Mirror",
    "Outcome",
    "PathError",
    "RootError",
    "SourceChangedError",
    "SourceError",
    "Status",
    "TooManyRemovalsError",
    "Update",
    "declare_dir_target",
    "declare_file",
    "dir_target",
    "mount_dir_target",
]


def __getattr__(name: str) -> object:
    """Imports a name when it is first used, and the engine only for the names that need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("Healing", "Mirror", "Outcome", "Status", "Update"):
        from ._mirror import mirror as _mirror  # noqa: PLC0415

        return getattr(_mirror, name)
    from ._target import declare as _target  # noqa: PLC0415

    return getattr(_target, name)


def _register() -> None:
    """Registers our root provider, so that the engine can remove roots no longer declared."""
    from ._target import roots as _roots  # noqa: F401, PLC0415


_when_imported("cocoindex", _register)


def __dir__() -> list[str]:
    """Lists all public names, whether loaded or not."""
    return [*__all__, "__version__"]
