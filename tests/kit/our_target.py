"""Our own target as the kit sees it: the real handlers and the real sink, on a real disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, ClassVar, cast

from hypothesis import strategies as st

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.attributes import Attributes
from cocoindex_fsmirror._core.drift_report import DriftReport
from cocoindex_fsmirror._core.names import ancestors, parse_name
from cocoindex_fsmirror._core.states import Content, DirState, FileState, LinkState
from cocoindex_fsmirror._target import sink
from cocoindex_fsmirror._target.actions import Action, Mount
from cocoindex_fsmirror._target.handlers import ChildHandler, RootHandler, _child_of
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.records import Record
from cocoindex_fsmirror._target.sink import apply_actions
from cocoindex_fsmirror._target.specs import Options, RootUpdate, Spec, state_of
from cocoindex_fsmirror.testing import paths
from tests.kit.our_disk import DIR, Disk, Entry, File, look
from tests.kit.our_neighbour import Draw, Neighbour
from tests.support import Elsewhere

__all__ = [
    "CONTENTS",
    "MODES",
    "Beside",
    "Durable",
    "Forgetful",
    "Mounted",
    "Swapped",
    "Tidy",
    "TidyFolders",
    "Unseeing",
    "file_spec",
    "forget",
    "shown",
]

# Of one size, so that only the bytes tell them apart.
_TWELVE = st.sampled_from([b"twelve bytes", b"twelve again", b"other twelve"])
CONTENTS = _TWELVE | st.binary(max_size=40)
MODES = st.none() | st.sampled_from([0o644, 0o600, 0o755, 0o444, 0o4711])
_COMPONENTS = st.sampled_from(["/one", "/two"])


TIMES = st.none() | st.sampled_from([0, 1_500_000_000_123_456_789])
_ALL = CONTENTS | CONTENTS.map(Elsewhere) | st.sampled_from("xy").map(LinkState)


def file_spec(
    content: bytes | Content | LinkState,
    mode: int | None = None,
    mtime_ns: int | None = None,
    component: str = "/one",
    given: Mapping[str, Any] | None = None,
) -> Spec:
    """Returns the declaration of a file or link."""
    if isinstance(content, LinkState):
        return Spec(content, component=component)
    state = state_of(content, Attributes(mode, mtime_ns))
    return Spec(state, component=component, content=content, given=given or {})


_PLAIN = st.builds(file_spec, _TWELVE)
FILES = _PLAIN | st.builds(file_spec, _ALL, MODES, TIMES, _COMPONENTS)
FOLDERS = st.builds(Spec, st.just(DirState()), component=_COMPONENTS)


def forget(root: str) -> None:
    """Closes every mirror, as the end of a process does."""
    mirror = sink._mirrors.pop(root, None)
    if mirror is None:
        return
    if mirror.session.ledger is not None and not mirror.session.ledger._connection.in_transaction:
        # Nobody cuts the power here, so that the log need not be synced when it is folded in.
        mirror.session.ledger._connection.execute("PRAGMA synchronous=OFF")
    mirror.close()


class _Looking(RootUpdate):
    """Looks for drift once an update.

    The engine mounts a directory for each; the kit asks for a handler after restarts
    only, but looks at what is there whenever an update is about to begin.
    """

    def __init__(self, root: str, *, verify: bool) -> None:
        self._root, self._verify = root, verify
        self._found: DriftReport | None = None
        self.is_due = True
        super().__init__()

    @property
    def drift(self) -> DriftReport | None:
        """The drift that a look found."""
        if self.is_due and self._verify:
            self._found = Mirror(self._root).observe()
        self.is_due = False
        return self._found

    @drift.setter
    def drift(self, _found: DriftReport | None) -> None:
        """Ignores the initial value."""


class Mounted:
    """A directory that is mounted in each process, and the declarations in it."""

    base: ClassVar[Path]
    """Where directories may be made; a test sets it."""
    options: ClassVar = Options(durability="none")

    def __init__(self) -> None:
        self._at = Path(tempfile.mkdtemp(dir=self.base))
        self.disk = Disk(self._at)
        self._root = str(self.disk.root)
        self._records: list[Record] = []

    def close(self) -> None:
        """Removes everything."""
        forget(self._root)
        shutil.rmtree(self._at)

    def keys(self) -> st.SearchStrategy[Any]:
        """Draws any name of a file, parsed as by ``declare_file``."""
        return paths().map(parse_name)

    def values(self) -> st.SearchStrategy[Any]:
        """Draws files."""
        return FILES

    def allows(self, keys: AbstractSet[str]) -> bool:
        """True unless one path is below the other, which is an error by design."""
        return not any(above in keys for key in keys for above in ancestors(parse_name(key)))

    def handler(self) -> ChildHandler:
        """Mounts the directory as ``mount_dir_target`` does in a new process."""
        forget(self._root)
        self._update = _Looking(self._root, verify=self.options.verify != "none")
        spec = Spec(
            DirState(),
            given={"durability": self.options.durability, "verify": self.options.verify},
            fresh_owner="an owner",
            update=self._update,
        )
        key = RootKey(None, self._root)
        output = RootHandler().reconcile(key, spec, self._records, not self._records)
        assert output is not None
        assert isinstance(output.tracking_record, Record)
        assert isinstance(output.action, Mount)
        apply_actions(None, [output.action])
        self._records = [output.tracking_record]
        forget(self._root)  # A process that is forked must not share it.
        handler = _child_of(None, output.action)
        assert handler is not None
        return handler

    def apply(self, actions: Sequence[Action]) -> None:
        """Applies by the sink."""
        apply_actions(None, actions)
        assert not self.disk.residue, f"{self.disk.residue} is left in the staging area"

    def observe(self) -> Mapping[Any, Entry]:
        """Reads the actual state."""
        self._update.is_due = True
        return self.disk.observe()

    def expected(self, key: str, value: Spec) -> Entry:
        """Returns a file with its content, and its mode if one was declared."""
        self.disk.foreign.pop(key, None)  # From now on we may change the path.
        return DIR if isinstance(value.state, DirState) else shown(value)


def shown(spec: Spec) -> Entry:
    """Returns what is to be seen of a file or link."""
    if isinstance(spec.state, LinkState):
        return f"-> {spec.state.target}"
    assert isinstance(spec.state, FileState)
    content = (
        spec.content if isinstance(spec.content, bytes) else cast("Elsewhere", spec.content).content
    )
    return File(content, spec.state.attributes.mode, spec.state.attributes.mtime_ns)


class Tidy(Mounted):
    """Files of any name without a neighbour: nothing may be left over."""

    def observe(self) -> Mapping[Any, Entry]:
        """Reads needless folders and the staging area as well."""
        self._update.is_due = True
        left = {("residue", path): DIR for path in self.disk.residue}
        return look(self.disk.root) | left

    def apply(self, actions: Sequence[Action]) -> None:
        """Applies by the sink."""
        apply_actions(None, actions)


class TidyFolders(Tidy):
    """Files and folders without a neighbour; the handler of folders always acts."""

    def values(self) -> st.SearchStrategy[Any]:
        """Draws files and folders."""
        return FILES | FOLDERS


class Swapped(Mounted):
    """Files become folders, and folders files, beside a neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self._neighbour = Neighbour(self.disk, self._reaches)

    def _reaches(self, path: str) -> bool:
        """True if the neighbour may put something at a path.

        Not into folders: one with foreign bytes in it can't become a file.
        """
        return "/" not in path

    def disturb(self, draw: Draw) -> None:
        """Changes paths as a neighbour."""
        self._neighbour.disturb(draw)


class Beside(Swapped):
    """Files in folders that stay folders, and a neighbour at work everywhere."""

    def keys(self) -> st.SearchStrategy[Any]:
        """Draws names, all at the same depth."""
        return paths(max_depth=2).filter(lambda path: "/" in path).map(parse_name)

    def _reaches(self, path: str) -> bool:
        """True: everywhere."""
        return True


class Durable(Swapped):
    """Files become folders, with barriers."""

    options = Options()


class Unseeing(Beside):
    """A target without a look for drift: only a full rerun heals it."""

    options = Options(durability="none", verify="none")


class Forgetful(Unseeing):
    """A neighbour who also removes the ledger, and perhaps the backups."""

    def disturb(self, draw: Draw) -> None:
        """Removes our own folder or the ledger, then acts as a neighbour."""
        before = self.disk.everything()
        kept = self.disk.root / ".fsmirror"
        pattern = draw(st.sampled_from(["ledger*", "*"]))
        for path in [*kept.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.disk.unique -= before - self.disk.everything()
        super().disturb(draw)
