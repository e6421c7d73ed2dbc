"""Adapters to the target half of ``localfs``."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cocoindex as coco
from cocoindex._internal.context_keys import ContextProvider
from cocoindex.connectors.localfs import _target as localfs
from hypothesis import strategies as st

from cocoindex_fsmirror.testing import names
from tests.kit.others import Draw, Key

PLACE = coco.ContextKey[Path]("tests/kit/place")
OUTSIDE = "outside"

# The module had another name before 1.0.26.
apply_entries: Callable[[ContextProvider, Sequence[Any]], object] = getattr(
    localfs, "_apply_entry_actions", None
) or getattr(localfs, "_apply_actions_with_child")  # noqa: B009  # One of them is not there.


def file(content: bytes, *, parents: bool = False) -> Any:
    """Returns the declaration of a file."""
    return localfs._EntrySpec(content, create_parent_dirs=parents)


def folder(*, parents: bool = False) -> Any:
    """Returns the declaration of a folder."""
    return localfs._EntrySpec(localfs._DirSpec(), create_parent_dirs=parents)


class LocalFiles:
    """The files of one directory, ``root``, and those around it."""

    paths: tuple[str, ...] = ("a", "b", "c")
    parents = False

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory()
        self.place = Path(self._place.name)
        self.root = self.place / "root"
        self.root.mkdir()

    def keys(self) -> st.SearchStrategy[Any]:
        return st.sampled_from(self.paths)

    def values(self) -> st.SearchStrategy[Any]:
        contents = st.binary(max_size=4)
        return contents.map(lambda content: file(content, parents=self.parents))

    def expected(self, key: Key, value: Any) -> object:
        return value.entry_spec

    def handler(self) -> object:
        return localfs._EntryHandler(self.root)

    def apply(self, actions: Sequence[Any]) -> None:
        apply_entries(self._provider(), actions)

    def observe(self) -> Mapping[Any, Any]:
        """Reads the files below ``root`` as a reader sees them, and apart those outside."""
        seen: dict[Key, object] = {}
        for path, content in _files(self.place):
            inside = os.path.relpath(path, self.root)
            is_outside = inside.startswith("../")
            seen[(OUTSIDE, path.name) if is_outside else inside] = content
        return seen

    def close(self) -> None:
        self._place.cleanup()

    def _provider(self) -> ContextProvider:
        """Returns the provider that the engine hands to a sink."""
        provider = ContextProvider()
        provider.provide(PLACE, self.place)
        return provider


def _files(top: Path) -> Iterable[tuple[Path, bytes]]:
    """Reads the files below a folder, through links to files, but not through those to folders."""
    for at, _, found in os.walk(top):
        for name in found:
            path = Path(at, name)
            yield path, path.read_bytes()


class MendedFiles(LocalFiles):
    """``localfs`` as if it wrote files whole, to see if all else is right."""

    def __init__(self) -> None:
        super().__init__()
        # Not made by the sink, where a simulated death would keep it from being removed.
        self._staging = tempfile.TemporaryDirectory()

    def apply(self, actions: Sequence[Any]) -> None:
        def write_bytes(path: Path, content: bytes) -> None:
            staged = Path(self._staging.name, "staged")
            with staged.open("wb") as file:
                file.write(content)
            staged.replace(path)

        with patch.object(Path, "write_bytes", write_bytes):
            super().apply(actions)

    def close(self) -> None:
        self._staging.cleanup()
        super().close()


class NastyNames(MendedFiles):
    """Any names but paths."""

    def keys(self) -> st.SearchStrategy[Any]:
        return names()


class Nested(LocalFiles):
    """A file and a folder that take each other's place."""

    paths = ("a", "a/b")
    parents = True

    def allows(self, keys: AbstractSet[Key]) -> bool:
        return len(keys) < 2


class TwoSpellings(Nested):
    """One file under two names; the last declared one is the actual one."""

    paths = ("a//b", "a/./b")
    _spelled = paths[0]

    def expected(self, key: Key, value: Any) -> object:
        self._spelled = str(key)
        return super().expected(key, value)

    def observe(self) -> Mapping[Any, Any]:
        seen = super().observe()
        return {self._spelled: seen["a/b"]} if seen else {}


class NameThatLeadsOut(LocalFiles):
    """Files outside the root, seen as such and under the name that leads there."""

    paths = ("a", "../x")

    def observe(self) -> Mapping[Any, Any]:
        seen = dict(super().observe())
        return seen | {f"../{key[1]}": seen[key] for key in seen if key[0] == OUTSIDE}


class LinkToAFile(LocalFiles):
    """A neighbour who puts a link to a foreign file where one of ours may be."""

    def __init__(self) -> None:
        super().__init__()
        (self.place / "theirs").write_bytes(b"theirs")

    def disturb(self, draw: Draw) -> None:
        path = self.root / draw(st.sampled_from(self.paths))
        path.unlink(missing_ok=True)
        path.symlink_to(self.place / "theirs")


class LinkToAFolder(LocalFiles):
    """A neighbour who makes a link to a foreign folder; files behind it are seen there."""

    paths = ("a", "d/theirs")
    parents = True

    def __init__(self) -> None:
        super().__init__()
        (self.place / "elsewhere").mkdir()
        (self.place / "elsewhere" / "theirs").write_bytes(b"theirs")

    def disturb(self, draw: Draw) -> None:
        with contextlib.suppress(FileExistsError):
            (self.root / "d").symlink_to(self.place / "elsewhere")

    def observe(self) -> Mapping[Any, Any]:
        linked = self.root / "d" / "theirs"
        there = {"d/theirs": linked.read_bytes()} if linked.exists() else {}
        return {**super().observe(), **there}


class Edited(MendedFiles):
    """A neighbour who edits or removes our files."""

    def disturb(self, draw: Draw) -> None:
        path = self.root / draw(st.sampled_from(self.paths))
        if draw(st.booleans()):
            path.write_bytes(b"edited")
        else:
            path.unlink(missing_ok=True)


class EmptyFolders(LocalFiles):
    """Empty folders, which are seen too."""

    paths = ("a/b", "a/c")
    parents = True

    def observe(self) -> Mapping[Any, Any]:
        folders = [path for path in self.root.rglob("*") if path.is_dir()]
        empty = {path.name: "an empty folder" for path in folders if not any(path.iterdir())}
        return {**super().observe(), **empty}


class FilesAndFolders(LocalFiles):
    """Entries that are files at one time and folders at another."""

    def values(self) -> st.SearchStrategy[Any]:
        return super().values() | st.just(folder())

    def expected(self, key: Key, value: Any) -> object:
        return "a folder" if value == folder() else value.entry_spec

    def observe(self) -> Mapping[Any, Any]:
        folders = {path.name: "a folder" for path in self.root.iterdir() if path.is_dir()}
        return {**super().observe(), **folders}


class Directories(LocalFiles):
    """Directories that an app mounts."""

    paths = ("d", "e")

    def keys(self) -> st.SearchStrategy[Any]:
        return st.sampled_from([(PLACE.key, name) for name in self.paths])

    def values(self) -> st.SearchStrategy[Any]:
        return st.booleans().map(lambda given: folder(parents=given))

    def expected(self, key: Key, value: Any) -> object:
        return "a folder"

    def handler(self) -> object:
        return localfs._RootHandler()

    def observe(self) -> Mapping[Any, Any]:
        folders = [name for name in self.paths if (self.place / name).is_dir()]
        files = {f"{path.parent.name}/{path.name}": b"theirs" for path in self.place.glob("?/*")}
        return files | {(PLACE.key, name): "a folder" for name in folders}


class SharedDirectories(Directories):
    """Directories with a foreign file in one."""

    def disturb(self, draw: Draw) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.place / draw(st.sampled_from(self.paths)) / "theirs").write_bytes(b"theirs")
