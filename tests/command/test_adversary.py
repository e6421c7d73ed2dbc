"""Somebody who owns the source and the root swaps and moves what is in them, while root mirrors."""

from __future__ import annotations

import contextlib
import os
import random
import select
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import FsMirrorError
from cocoindex_fsmirror._command.options import Options
from cocoindex_fsmirror._command.survey import survey
from cocoindex_fsmirror._command.syncing import Syncing
from cocoindex_fsmirror._disk.sources import SMALL
from tests.command.syncing import sync
from tests.support import contents, exact_state, snapshot

OTHER = 65534
SECRET = b"TOP SECRET"
ROUNDS, RUNS = 3, 4
FOLDERS = ["d", "d/e", "d2"]
FILES = ["d/f", "d/e/f", "d2/f", "g"]

pytestmark = [pytest.mark.root, pytest.mark.slow]


class _Adversary:
    """Swaps what is in a source and a root for links, and moves folders out; undoes it all.

    Args:
        place: The folder that holds ``src``, ``dst``, ``elsewhere`` and ``outside``.
        seed: The seed of its choices.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self._place = place
        self._random = random.Random(seed)

    def act(self) -> None:
        """Does one thing, and undoes it."""
        choose = self._random.choice
        top, inner = choose(["src", "dst"]), choose([*FOLDERS, *FILES, ".fsmirror"])
        path, aside = self._place / top / inner, self._place / "elsewhere" / "aside"
        with contextlib.suppress(OSError):
            self._write(self._place / "src" / choose(FILES))
        if inner == ".fsmirror":  # It belongs to root, who alone may move it to another folder.
            aside = path.with_name(".was")
        with contextlib.suppress(OSError):
            path.rename(aside)
            try:
                choose([self._link, self._fifo, self._plant, self._nothing])(path, inner)
            finally:
                self._put_back(path, aside)

    def _write(self, file: Path) -> None:
        """Changes a file of the source, so that it is read again."""
        with open(os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "wb") as opened:
            opened.write(b"harmless" * self._random.choice([1, SMALL]))

    def _link(self, path: Path, inner: str) -> None:
        path.symlink_to(self._place / "outside" / (inner if inner != ".fsmirror" else "d"))

    def _fifo(self, path: Path, _inner: str) -> None:
        os.mkfifo(path)

    def _plant(self, path: Path, _inner: str) -> None:
        path.mkdir()
        for name in ("f", "ledger.sqlite3", "ledger.sqlite3-wal", "tmp"):
            (path / name).symlink_to(self._place / "outside" / "g")

    def _nothing(self, _path: Path, _inner: str) -> None:
        os.sched_yield()

    def _put_back(self, path: Path, aside: Path) -> None:
        """Moves away what is at a path now, and puts back what was there, unless root took it."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                if os.path.lexists(path):  # A folder of root stays in the folder that it is in.
                    path.rename(path.with_name(f"{self._random.random()}"))
                aside.rename(path)
                return


@contextlib.contextmanager
def _at_work(act: Callable[[], None]) -> Iterator[None]:
    """Runs what another user does in a process of its own, again and again."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child never uses a thread.
        child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.close(writing)
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            while not select.select([reading], [], [], 0)[0]:
                act()
            status = 0
        os._exit(status)
    try:
        yield
    finally:
        os.close(writing)
        os.close(reading)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _fill(top: Path, content: bytes, owner: int) -> None:
    """Makes folders and files of an owner."""
    for folder in ("", *FOLDERS):
        (top / folder).mkdir()
        os.chown(top / folder, owner, owner)
    for name in FILES:
        (top / name).write_bytes(content)
        os.chown(top / name, owner, owner)


def _mirror(place: Path) -> bool:
    """Mirrors the source; returns False if the mirror could not be used."""
    options = Options(str(place / "src"), str(place / "dst"), exact=True, durability="none")
    with (
        contextlib.suppress(FsMirrorError),
        contextlib.closing(Syncing(options)) as syncing,
        contextlib.closing(survey(options)) as found,
    ):
        syncing.run(found)
        return True
    return False


def test_nothing_outside_changes_or_leaks_under_attack(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be attacked by another user")
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == 0 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    outside = tmp_path / "outside"
    _fill(tmp_path / "src", b"harmless", OTHER)
    _fill(tmp_path / "dst", b"harmless", OTHER)
    _fill(outside, SECRET, 0)
    (tmp_path / "elsewhere").mkdir()
    os.chown(tmp_path / "elsewhere", OTHER, OTHER)
    outside.chmod(0o700)
    before, done = exact_state(outside), 0
    for _ in range(ROUNDS):
        with _at_work(_Adversary(tmp_path, seed=done).act):
            done += sum(_mirror(tmp_path) for _ in range(RUNS))
        assert exact_state(outside) == before
        for top, is_ours in ((tmp_path, False), (tmp_path / "dst", True)):
            found = contents(snapshot(top, ours=is_ours)).items()
            leaks = [name for name, content in found if SECRET in content]
            assert [name for name in leaks if not name.startswith("outside/")] == []
    assert done > 0
    result = sync(tmp_path / "src", tmp_path / "dst", "--exact")
    assert result.exit_code == 0, result.output
    assert contents(snapshot(tmp_path / "dst")) == contents(snapshot(tmp_path / "src"))
