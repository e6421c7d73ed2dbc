"""Ways to look at the source of a copy, and to copy it."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk.sources import Source, look_at_source, may_be_at

SMALL, LARGE = 1 << 16, (1 << 20) + 17


def settled(path: Path, look: Callable[[str], Source] = look_at_source) -> Source:
    """Looks at a source after the clock that stamps files has ticked."""
    while _calls.coarse_now_ns() <= path.stat().st_ctime_ns:
        pass
    found = look(str(path))
    assert found.is_provable
    return found


def look_unread(path: str) -> Source:
    """Looks at a source that can't be at its target already."""
    return look_at_source(path, may_be_at(""))


LOOKS = [look_at_source, look_unread]


def refuse_clones(patch: pytest.MonkeyPatch) -> None:
    """Makes every clone fail, as on a file system that can't share blocks."""
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, *rest: Any) -> Any:
        if request == _calls._FICLONE:
            raise OSError(errno.EOPNOTSUPP, "no clones here")
        return real(fd, request, *rest)

    patch.setattr(fcntl, "ioctl", ioctl)
