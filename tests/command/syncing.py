"""Runs ``fsmirror sync``, and changes sources, for its tests."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner, Result

from cocoindex_fsmirror._command.main import main
from tests.support import answer_of_child, snapshot

THEN: Final = 1_234_567_890_123_456_789
"""The time of what is in the source, in nanoseconds."""


def sync(*arguments: object) -> Result:
    """Runs ``fsmirror sync`` in this process."""
    return CliRunner().invoke(main, ["sync", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    """Returns what the command prints for programs."""
    result = sync(*arguments, "--json")
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Returns everything but our own folder, by path: kind and mode, time, and content."""
    shown = snapshot(root)
    found: dict[str, tuple[object, ...]] = {}
    for path in (".", *shown):
        seen = (root / path).lstat()
        mode = 0 if stat.S_ISLNK(seen.st_mode) else seen.st_mode
        found[path] = (mode, seen.st_mtime_ns, shown.get(path))
    return found


def as_user(act: Callable[[], str], *groups: int) -> str:
    """Calls a function in a process of a user without rights; returns its result."""
    # Without rights Python's folders are unreadable too, so import all that an error needs.
    assert sync("/dev/null/none", "/dev/null/none").exit_code == 2

    def change_user_and_act() -> str:
        os.setgroups(groups)
        os.setgid(65534)
        os.setuid(65534)
        return act()

    return answer_of_child(change_user_and_act)


def let_everybody_reach(tmp_path: Path) -> None:
    """Opens the folders that pytest made above a test's own."""
    for above in (tmp_path, *tmp_path.parents):
        if above.is_relative_to(tempfile.gettempdir()) and str(above) != tempfile.gettempdir():
            above.chmod(above.stat().st_mode | 0o055)


def relink(path: Path, target: str) -> None:
    """Replaces a file or link by a link."""
    path.unlink()
    path.symlink_to(target)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a mode": lambda src: (src / "index.html").chmod(0o600),
    "a time": lambda src: os.utime(src / "index.html", ns=(5, 5)),
    "the time of a link": lambda src: os.utime(src / "loop", ns=(5, 5), follow_symlinks=False),
    "the mode of a folder": lambda src: (src / "docs").chmod(0o700),
    "the mode of the source": lambda src: src.chmod(0o750),
    "a content": lambda src: (src / "docs" / "large").write_bytes(b"small"),
    "a content that keeps size and time": lambda src: edit_secretly(src / "index.html"),
    "a new file": lambda src: (src / "docs" / "new").write_bytes(b"new"),
    "a file less": lambda src: (src / "docs" / "deep" / "run.sh").unlink(),
    "a folder less": lambda src: (src / "empty").rmdir(),
    "a link elsewhere": lambda src: relink(src / "docs" / "link", "deep"),
    "a link that becomes a file": lambda src: _replace(src / "loop", b"a file"),
    "a file that becomes a link": lambda src: relink(src / "index.html", "docs"),
    "a file that becomes a folder": lambda src: _become_folder(src / "index.html"),
    "a folder that becomes a file": lambda src: become_file(src / "docs"),
    "a tree less": lambda src: shutil.rmtree(src / "docs"),
    "a tree moved": lambda src: (src / "docs").rename(src / "empty" / "docs"),
}


def edit_secretly(path: Path) -> None:
    """Writes other bytes of the same size, and restores the mtime; only the ctime tells."""
    before = path.stat()
    path.write_bytes(b"INDEX<p>")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _become_folder(path: Path) -> None:
    """Replaces a file by a folder with an unusual mode and time."""
    path.unlink()
    path.mkdir(mode=0o700)
    (path / "inner").write_bytes(b"inner")
    os.utime(path, ns=(THEN, THEN))


def become_file(path: Path) -> None:
    """Replaces a folder by a file."""
    shutil.rmtree(path)
    path.write_bytes(b"a file")


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file or link by a new file."""
    path.unlink()
    path.write_bytes(content)
