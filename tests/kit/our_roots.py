"""Our roots as the kit sees them: directories, and files that are declared by themselves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cocoindex as coco
import msgspec
from hypothesis import strategies as st

from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._core.states import DirState, FileState
from cocoindex_fsmirror._mirror.drift import has_drifted
from cocoindex_fsmirror._target.actions import Action, Mount
from cocoindex_fsmirror._target.handlers import ChildHandler, RootHandler, _child_of
from cocoindex_fsmirror._target.keys import RootKey
from cocoindex_fsmirror._target.records import Record
from cocoindex_fsmirror._target.sink import apply_actions
from cocoindex_fsmirror._target.specs import Spec
from cocoindex_fsmirror.testing import names
from tests.kit.our_disk import Disk, Entry, File, look
from tests.kit.our_neighbour import Draw, Neighbour
from tests.kit.our_target import CONTENTS, MODES, file_spec, forget, shown

__all__ = ["Alone", "InBase", "Roots"]

_KEYS = st.builds(RootKey, st.just("base"), names())
_OURS = file_spec(b"ours")
_MIRROR = "a mirror with its file"
_Key = tuple[str, str]


class _Declaring(RootHandler):
    """A handler that completes declarations, as ``dir_target`` and ``declare_file`` do."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def reconcile(
        self,
        key: coco.StableKey,
        desired_target_state: Spec | coco.NonExistenceType,
        prev_possible_records: Collection[Record],
        prev_may_be_missing: bool,
        /,
    ) -> coco.TargetReconcileOutput[Action, Record, ChildHandler] | None:
        """Calls the real handler."""
        spec = desired_target_state
        if isinstance(spec, Spec):
            spec = msgspec.structs.replace(spec, fresh_owner=f"the owner of {key!r}")
        if isinstance(spec, Spec) and isinstance(spec.state, FileState):
            assert isinstance(key, tuple)
            drifted = has_drifted(str(self._base), Name(str(key[1])))
            spec = msgspec.structs.replace(spec, drifted=drifted)
        return super().reconcile(key, spec, prev_possible_records, prev_may_be_missing)


class InBase:
    """Roots in one folder."""

    base: ClassVar[Path]
    """Where folders may be made; a test sets it."""

    def __init__(self) -> None:
        self._at = Path(tempfile.mkdtemp(dir=self.base))
        self.disk = Disk(self._at)
        self._base = self.disk.root
        self._base.mkdir()

    def get(self, key: str, kind: type[Path]) -> Path:
        """Returns the value of a context key: the folder."""
        assert (key, kind) == ("base", Path)
        return self._base

    def close(self) -> None:
        """Removes everything."""
        self._forget()
        shutil.rmtree(self._at)

    def _forget(self) -> None:
        """Forgets open mirrors, as the end of a process does."""
        for folder in (self._base, *self._base.iterdir()):
            forget(str(folder))

    def keys(self) -> st.SearchStrategy[Any]:
        """Draws any names."""
        return _KEYS

    def handler(self) -> RootHandler:
        """Returns the handler that is registered when the package is imported."""
        self._forget()
        return _Declaring(self._base)

    def apply(self, actions: Sequence[Action]) -> None:
        """Applies by the sink."""
        apply_actions(self, actions)


class Roots(InBase):
    """Directories with one file of ours in each, and a neighbour who puts files beside it."""

    def values(self) -> st.SearchStrategy[Any]:
        """Draws directories."""
        conflicts = st.sampled_from(["backup", "overwrite", "error"])
        given = st.fixed_dictionaries({"durability": st.just("none"), "on_conflict": conflicts})
        return st.builds(Spec, st.just(DirState()), given=given)

    def expected(self, _key: _Key, _value: Spec) -> str:
        """Returns the visible state of a directory."""
        return _MIRROR

    def apply(self, actions: Sequence[Action]) -> None:
        """Applies by the sink of directories, then by that of the file in each."""
        super().apply(actions)
        for action in actions:
            if isinstance(action, Mount):
                handler = _child_of(self, action)
                assert handler is not None
                output = handler.reconcile("ours", _OURS, [], True)
                assert output is not None
                super().apply([output.action])

    def observe(self) -> Mapping[Any, Entry]:
        """Reads each folder that is a mirror, or was left by one, and foreign files."""
        tree = look(self._base)
        seen: dict[Any, Entry] = {}
        for folder in self._base.iterdir():
            is_mirror = (folder / ".fsmirror" / "ledger.sqlite3").exists()
            holds_ours = tree.get(f"{folder.name}/ours") == File(b"ours")
            if is_mirror or holds_ours:
                shown = "a ledger" if is_mirror else "a file of ours"
                seen["base", folder.name] = _MIRROR if is_mirror and holds_ours else shown
        others = {path: e for path, e in tree.items() if path in self.disk.foreign}
        lost = self.disk.unique - set(tree.values())
        return seen | others | {("lost", str(entry)): entry for entry in lost}

    def disturb(self, draw: Draw) -> None:
        """Adds foreign files to a directory, or makes one."""
        number = len(self.disk.unique)
        folders = sorted(f.name for f in self._base.iterdir()) or ["new"]
        folder = self._base / draw(st.sampled_from(folders))
        folder.mkdir(exist_ok=True)
        path = f"{folder.name}/foreign {number}"
        entry = File(b"foreign %d" % number)
        (self._base / path).write_bytes(entry.content)
        self.disk.foreign[path] = entry
        self.disk.unique.add(entry)


class Alone(InBase):
    """Files that are declared by themselves, and a neighbour who changes them."""

    def __init__(self) -> None:
        super().__init__()
        self._neighbour = Neighbour(self.disk, lambda path: "/" not in path)

    def values(self) -> st.SearchStrategy[Any]:
        """Draws files."""
        given = st.just({"durability": "none"})
        components = st.sampled_from(["/one", "/two"])
        return st.builds(file_spec, CONTENTS, MODES, st.none(), components, given)

    def expected(self, key: _Key, value: Spec) -> Entry:
        """Returns the visible state of a file."""
        self.disk.foreign.pop(key[1], None)
        return shown(value)

    def observe(self) -> Mapping[Any, Entry]:
        """Reads the actual state."""
        seen = self.disk.observe()
        return {("base", key) if isinstance(key, str) else key: seen[key] for key in seen}

    def disturb(self, draw: Draw) -> None:
        """Changes paths as a neighbour."""
        self._neighbour.disturb(draw)
