"""The flows of ``localfs`` run unchanged but for their import, and give the same tree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, TypeAlias

import cocoindex as coco
import pytest
from cocoindex.connectors import localfs

import cocoindex_fsmirror as fsmirror
from tests.support import Tree, snapshot

BASE = coco.ContextKey[Path]("tests/as_localfs/base")

# The module that a flow imports: ``fs`` is ``localfs`` or ``cocoindex_fsmirror``.
Main: TypeAlias = Callable[[Any], Awaitable[None]]


async def mounted(fs: Any) -> None:
    """Uses ``mount_dir_target`` with a context key, and names and contents of all types."""
    out = await fs.mount_dir_target(BASE)
    out.declare_file("text", "ünï")
    out.declare_file("bytes", content=b"\x00\xff")
    out.declare_file(PurePath("pure/path"), b"1", create_parent_dirs=True)
    out.declare_file(filename="a/b/c/d", content="2", create_parent_dirs=True)
    out.declare_file("empty", b"")


async def with_mount_target(fs: Any) -> None:
    """Uses ``dir_target``, ``coco.mount_target`` and a ``DirTarget`` around the provider."""
    provider = await coco.mount_target(fs.dir_target(fs.FilePath("below/it", base_dir=BASE)))
    fs.DirTarget(provider).declare_file("a", b"1")


async def with_use_mount(fs: Any) -> None:
    """Uses ``declare_dir_target`` by ``coco.use_mount``."""
    at = coco.component_subpath("setup")
    out = await coco.use_mount(at, fs.declare_dir_target, fs.FilePath("x", base_dir=BASE))
    out.declare_file("a", b"1")
    more = await coco.use_mount(
        coco.component_subpath("more"), fs.declare_dir_target, BASE, create_parent_dirs=True
    )
    more.declare_file("b", b"2")


@coco.fn
def declare_sub(out: Any, path: str | PurePath) -> Any:
    """Declares a directory target below another."""
    return out.declare_dir_target(path, create_parent_dirs=True)


async def nested(fs: Any) -> None:
    """Nests directory targets."""
    out = await fs.mount_dir_target(BASE)
    for path in ("one", PurePath("t/w/o")):
        at = coco.component_subpath(str(path))
        sub = await coco.use_mount(at / "itself", declare_sub, out, path)
        sub.declare_file("a", b"1")
        inner = await coco.use_mount(at / "inner", declare_sub, sub, "inner")
        inner.declare_file("b/c", b"2", create_parent_dirs=True)
        await coco.use_mount(at / "empty", declare_sub, sub, "empty")


async def single_files(fs: Any) -> None:
    """Uses ``declare_file`` in components of their own, and in the main one."""
    await coco.mount(
        coco.component_subpath("one"),
        fs.declare_file,
        fs.FilePath("p/one", base_dir=BASE),
        content="1",
        create_parent_dirs=True,
    )
    fs.declare_file(fs.FilePath("q/two", base_dir=BASE), b"2", create_parent_dirs=True)


@coco.fn(memo=True)
async def render(item: tuple[str, str], out: Any) -> None:
    """Declares one file, in a memoized component that takes the target."""
    out.declare_file(item[0], item[1])


async def memoized(fs: Any) -> None:
    """Uses ``mount_each`` of memoized components."""
    out = await fs.mount_dir_target(BASE)
    items = {name: (name, f"content of {name}") for name in ("a", "b", "c")}
    await coco.mount_each(render, items.items(), out)


MAINS = [mounted, with_mount_target, with_use_mount, nested, single_files, memoized]


def updated(at: Path, main: Main, fs: ModuleType) -> Tree:
    """Returns the tree that a flow gives with one of the two modules, twice in a row."""
    failed: list[BaseException] = []
    env = coco.Environment(
        coco.Settings(db_path=at / "db"), exception_handler=lambda error, _: failed.append(error)
    )
    env.context_provider.provide(BASE, at / "base")
    app = coco.App(coco.AppConfig("app", environment=env), main, fs)
    app.update_blocking()
    first = without_ours(snapshot(at / "base"))
    app.update_blocking()
    assert failed == []
    assert without_ours(snapshot(at / "base")) == first
    return first


def without_ours(tree: Tree) -> Tree:
    """Removes ``.fsmirror`` folders from a tree."""
    return {name: found for name, found in tree.items() if ".fsmirror" not in PurePath(name).parts}


@pytest.mark.parametrize("main", MAINS)
def test_flow_gives_the_same_tree_with_either_import(main: Main, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs = updated(tmp_path / "theirs", main, localfs)
    ours = updated(tmp_path / "ours", main, fsmirror)
    assert len(theirs) > 0
    assert ours == theirs


def test_every_public_name_of_the_target_half_of_localfs_is_here() -> None:
    from cocoindex.connectors.localfs import _target

    names = {*_target.__all__, "FilePath"}
    assert names <= set(fsmirror.__all__)
    assert fsmirror.FilePath is localfs.FilePath


@pytest.mark.parametrize("create", [False, True])
def test_parents_are_created_unless_refused(tmp_path: Path, create: bool) -> None:
    async def main(_: object) -> None:
        out = await fsmirror.mount_dir_target(BASE)
        out.declare_file("no/such/parent", b"1", create_parent_dirs=create)

    if create:
        assert updated(tmp_path, main, fsmirror)["no/such/parent"] == b"1"
    else:
        with pytest.raises(fsmirror.FsMirrorError, match="no/such/parent"):
            updated(tmp_path, main, fsmirror)


def test_root_without_its_parent_is_refused_if_none_may_be_made(tmp_path: Path) -> None:
    async def main(_: object) -> None:
        path = tmp_path / "no/such/root"
        await fsmirror.mount_dir_target(path, create_parent_dirs=False)

    with pytest.raises(fsmirror.RootError, match="no/such/root"):
        updated(tmp_path, main, fsmirror)


@pytest.mark.parametrize("name", ["declare_dir_target", "declare_file"])
def test_release_that_only_edits_a_function_reruns_no_component(name: str) -> None:
    ours = getattr(fsmirror, name)

    def edited() -> None:
        """Declares the same file by another body."""

    edited.__module__, edited.__qualname__ = ours._fn.__module__, ours._fn.__qualname__
    assert coco.fn(version=1)(edited)._logic_fp == ours._logic_fp
    assert coco.fn(edited)._logic_fp != ours._logic_fp
