"""A process that writes to a mirror until it is killed, and the legal states after that."""

from __future__ import annotations

import ast
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from tests.kit.twin_life import Order
from tests.support import Tree, contents, exact_state, snapshot

_PATIENCE: Final = 60.0  # Seconds for one update, on a busy machine.
_REPOSITORY: Final = Path(__file__).parents[2]
_ABSENT: Final = "absent"


class Life:
    """One process after another.

    Attributes:
        process: The one that runs now.
        ended: The exit codes of those before it.
        phases: What the process said of the last update.
        steps: How many steps the last update had that ended; at least 300.
        pace: How long that took, in seconds.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: list[int] = []
        self.phases: list[str] = []
        self.steps, self.pace = 300, 0.05
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # Closed with the last process.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self._bury()
        self._errors.close()

    def update(self, order: Order, delay: float | None = None) -> None:
        """Updates once; with a delay, kills the process so many seconds after the begin.

        Raises:
            AssertionError: It failed, or the process is not dead as it should be.
        """
        child = self.process or self._start()
        self.phases, self._began = ["told"], 0.0
        timers = [threading.Timer(_PATIENCE, child.kill)]
        timers[0].start()
        try:
            for phase in self._tell(child, order):
                self.phases.append(phase)
                if phase == "begins":
                    self._began = time.monotonic()
                    if delay is not None:
                        timers.append(threading.Timer(delay, child.kill))
                        timers[1].start()
            if delay is not None or order.death is not None:
                code = self._bury()
                assert code == -signal.SIGKILL, f"it ended by itself, with {code}"
        finally:
            for timer in timers:
                timer.cancel()
                timer.join()
        self._note_end()

    def _note_end(self) -> None:
        """Records the figures of an update that ended."""
        what, _, steps = self.phases[-1].partition(" ")
        if what == "done":
            self.pace, self.steps = time.monotonic() - self._began, max(int(steps), 300)
        else:
            is_dead = self.process is None
            if not is_dead and what != "failed":
                self._errors.seek(0)
                said = self._errors.read()[-3000:].decode(errors="replace")
                what += f", and the process with {self._bury()}; it said:\n{said}"
            assert is_dead, f"the update ends with {what}"

    def _start(self) -> subprocess.Popen[bytes]:
        """Starts a process that is ready for its first update."""
        child = self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.twin_life"], cwd=_REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"'ready'\n"
        return child

    def _tell(self, child: subprocess.Popen[bytes], order: Order) -> Iterator[str]:
        """Gives an order, and waits until it is done or the process is dead."""
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(f"{tuple(order)!a}\n".encode())
            child.stdin.flush()
        for line in child.stdout:
            phase = ast.literal_eval(line.decode())
            yield phase
            if phase.startswith(("done", "failed")):
                return

    def _bury(self) -> int:
        """Waits for the end of the process; returns its exit code."""
        child, self.process = self.process, None
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            return child.wait(_PATIENCE)
        finally:
            child.kill()
            self.ended.append(child.wait())
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            child.stdout.close()


class Twin:
    """The legal states below the root, by path, and foreign files.

    A file is bytes, a folder is ``"dir"``, and ``"absent"`` is nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._may_be: dict[str, set[bytes | str]] = {}
        self._owners: dict[str, str] = {}
        self._wanted: dict[str, bytes | str] = {}
        self._theirs: dict[str, bytes] = {}  # Foreign files, in place.
        self._displaced: list[bytes] = []  # Foreign files that a declaration displaced.
        self._ours: set[str] = set()  # Foreign paths where a declared file may have been.
        self._touched: set[str] = set()  # Folders of foreign files.
        self._count = 0

    def declare(self, declared: Mapping[str, Mapping[str, bytes | None]]) -> None:
        """Records the declarations of an update that begins."""
        self._wanted = {
            path: "dir" if content is None else content
            for files in declared.values()
            for path, content in files.items()
        }
        self._ours.update(filter(self._is_in_the_way, self._theirs))
        owners = {path: name for name, files in declared.items() for path in files}
        for path in {**self._may_be, **self._wanted}:
            may_be = self._may_be.setdefault(path, {_ABSENT})
            may_be.add(self._wanted.get(path, _ABSENT))
            if self._owners.get(path, owners.get(path)) != owners.get(path):
                may_be.add(_ABSENT)  # The former owner removes it first.
            if "dir" in may_be and len(may_be) > 1:
                may_be.add(_ABSENT)
        self._owners |= owners

    def disturb(self, path: str, how: str) -> None:
        """Writes, replaces or removes a file as a neighbour, if possible."""
        tree, place = snapshot(self.root), self.root / path
        above = [str(p) for p in Path(path).parents][:-1]
        if tree.get(path) == "dir" or any(isinstance(tree.get(p), bytes) for p in above):
            return
        self._touched.update(above)
        may_be = self._may_be.setdefault(path, {_ABSENT})
        may_be.add(_ABSENT)
        self._forget(path, tree)
        if how == "remove":
            place.unlink(missing_ok=True)
            return
        self._count += 1
        content = b"theirs, %d" % self._count
        place.parent.mkdir(parents=True, exist_ok=True)
        if how == "replace":
            place.unlink(missing_ok=True)
        place.write_bytes(content)
        if may_be - {_ABSENT}:
            self._ours.add(path)
        may_be.add(content)
        self._theirs[path] = content

    def _forget(self, path: str, tree: Tree) -> None:
        """Forgets a foreign file that its owner removed, or that was displaced."""
        content = self._theirs.pop(path, None)
        if content is not None and tree.get(path) != content:
            self._displaced.append(content)

    def check_killed(self) -> None:
        """Asserts that every file is whole, and nothing foreign lost."""
        tree, aside = snapshot(self.root), contents(snapshot(self.root, ours=True)).values()
        for path in {**tree, **self._may_be}:
            seen, may_be = tree.get(path, _ABSENT), self._may_be.get(path, {_ABSENT})
            if seen == "dir" and "dir" not in may_be:
                seen = _ABSENT  # A folder above others.
            assert seen in may_be, f"{path!a} is {seen!r}, and may be {may_be}"
        for path, content in self._theirs.items():
            assert tree.get(path) == content or content in aside, f"{content!r} is lost"
        for content in self._displaced:
            assert content in aside, f"{content!r} is lost"

    def check_finished(self) -> None:
        """Asserts that the tree holds the declared and the foreign files."""
        tree, aside = snapshot(self.root), snapshot(self.root, ours=True)
        for path, content in list(self._theirs.items()):
            is_moved = path in self._ours and tree.get(path) != content
            if is_moved or self._is_in_the_way(path):
                self._displaced.append(self._theirs.pop(path))
        self._ours.intersection_update(self._theirs)
        expected = {**self._theirs, **self._wanted}
        folders = {str(p) for path in expected for p in Path(path).parents} - {"."}
        expected.update(dict.fromkeys(folders, "dir"))
        seen = {p: s for p, s in tree.items() if p in expected or p not in self._touched}
        assert seen == expected, f"there is {seen}\nand should be {expected}"
        residue = [name for name in aside if name.startswith("tmp/")]
        assert not residue, f"{residue} is left"
        backups = [s for p, s in contents(aside).items() if p.startswith("backup/")]
        assert sorted(backups) == sorted(self._displaced), f"{backups}, not {self._displaced}"
        self._may_be = {path: {state} for path, state in expected.items()}

    def _is_in_the_way(self, path: str) -> bool:
        """True if a path at or below this one is declared."""
        return any(w == path or w.startswith(f"{path}/") for w in self._wanted)

    def check_settled(self, life: Life, order: Order) -> None:
        """Asserts that the same update once more changes nothing."""
        before = exact_state(self.root)
        life.update(order)
        after = exact_state(self.root)
        changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
        assert not changed, f"the second update changed {changed}"
