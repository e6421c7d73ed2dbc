"""Copies of other files, links, modes and times, through updates of a real app."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import os
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, Self, TypeAlias
from zlib import crc32

import cocoindex as coco
import pytest
from cocoindex.connectors import localfs
from cocoindex.resources.file import FileLike, FileMetadata, FilePath

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import InvalidNameError, SourceError
from cocoindex_fsmirror._core.intents import Intent
from cocoindex_fsmirror._target import dir_target as _target
from tests.support import contents, exact_state, snapshot
from tests.target.flows import IS_NEW, OUT, Flow, failing_sink, failing_step, ran

MakeFlow: TypeAlias = Callable[..., Flow]
Out: TypeAlias = fsmirror.DirTarget[Any]
Declare: TypeAlias = Callable[[Out, str], Awaitable[None]]
Wanted: TypeAlias = dict[str, Declare]

THEN = 1_000_000_000_987_654_321
SMALL, LARGE = 1 << 16, (3 << 20) + 17
SIZES = pytest.mark.parametrize("size", [5, LARGE])  # Carried along; read again when copied.


# What a flow wants


def file(content: bytes, **options: Any) -> Declare:
    """Declares a file."""

    async def declare(out: Out, name: str) -> None:
        out.declare_file(name, content, **options)

    return declare


def copy(source: Any, **options: Any) -> Declare:
    """Declares a copy."""

    async def declare(out: Out, name: str) -> None:
        await out.declare_copy(name, source, **options)

    return declare


def link(target: Any, **options: Any) -> Declare:
    """Declares a link."""

    async def declare(out: Out, name: str) -> None:
        out.declare_symlink(name, target, **options)

    return declare


def folder(**options: Any) -> Declare:
    """Declares a directory target that stays empty."""

    async def declare(out: Out, name: str) -> None:
        out.declare_dir_target(name, **options)

    return declare


@pytest.fixture
def wanted() -> Wanted:
    """What the flow declares, by name."""
    return {}


@pytest.fixture
def flow(make_flow: MakeFlow, wanted: Wanted) -> Flow:
    """A flow that declares what is wanted, in the main component."""

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        for name, declare in wanted.items():
            await declare(out, name)

    return make_flow(main)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to be copied."""
    path = tmp_path / "source"
    path.write_bytes(b"12345")
    return path


def fill(path: Path, size: int) -> bytes:
    """Gives a source another content, with a mode and a time that are always the same."""
    path.write_bytes(os.urandom(size))
    path.chmod(0o640)
    os.utime(path, ns=(THEN, THEN))
    return path.read_bytes()


def dress(path: Path) -> tuple[int, int]:
    """The permission bits and the time of a path."""
    seen = path.lstat()
    return stat.S_IMODE(seen.st_mode), seen.st_mtime_ns


def backups(flow: Flow) -> list[bytes | str]:
    """All files and links that were taken for those of somebody else."""
    found = snapshot(flow.root, ours=True)
    return [shown for name, shown in found.items() if name.startswith("backup/") and shown != "dir"]


def rests(flow: Flow) -> None:
    """Checks that further updates change nothing, not even a time."""
    before = exact_state(flow.root)
    flow.update()
    assert exact_state(flow.root) == before
    flow.close()
    flow.update(reprocess=True)
    assert exact_state(flow.root) == before


# Copies, of whatever is a file


class BlobPath(FilePath[str]):
    """Where a blob is: not on this machine."""

    __slots__ = ()

    def resolve(self) -> str:
        """Something that is no path."""
        return f"mem://{self.path}"

    def _with_path(self, path: PurePath) -> Self:
        return type(self)(None, path)


class Blob(FileLike[str]):
    """A file of a connector that keeps its files in memory."""

    def __init__(self, content: bytes) -> None:
        super().__init__(BlobPath(None, PurePath("bucket/blob")))
        self.content = content
        self.reads = 0

    async def _fetch_metadata(self) -> FileMetadata:
        return FileMetadata(len(self.content), dt.datetime(2001, 9, 9))

    async def _read_impl(self, size: int = -1) -> bytes:
        self.reads += 1
        return self.content if size < 0 else self.content[:size]


def linked(path: Path) -> Path:
    """A link to a file."""
    (path.parent / "link").symlink_to(path.name)
    return path.parent / "link"


LOCAL: dict[str, Callable[[Path], object]] = {
    "Path": lambda path: path,
    "Path, relative": lambda path: Path(os.path.relpath(path)),
    "Path, of a link": linked,
    "FilePath": localfs.FilePath,
    "FilePath below a key": lambda path: localfs.FilePath(f"../{path.name}", base_dir=OUT),
    "File": lambda path: localfs.File(localfs.FilePath(path)),
}


@SIZES
@pytest.mark.parametrize("given", LOCAL.values(), ids=LOCAL)
def test_a_copy_has_the_content_and_the_mode_of_its_source(
    flow: Flow, wanted: Wanted, source: Path, given: Callable[[Path], object], size: int
) -> None:
    content, copied = fill(source, size), given(source)
    wanted["deep/x"] = copy(copied)
    flow.update()
    assert flow.tree == {"deep": "dir", "deep/x": content}
    assert dress(flow.root / "deep/x")[0] == 0o640
    rests(flow)
    assert getattr(copied, "_cached_content", None) is None


@pytest.mark.parametrize("size", [0, 5, SMALL, SMALL + 1, LARGE])
def test_a_file_of_another_connector_is_read_once_and_not_kept_by_the_engine(
    flow: Flow, wanted: Wanted, size: int
) -> None:
    blob = Blob(os.urandom(size))
    wanted.update(x=copy(blob, preserve=("mode", "mtime")), plain=file(b""))
    flow.update()
    assert contents(flow.tree) == {"x": blob.content, "plain": b""}
    assert dress(flow.root / "x")[0] == dress(flow.root / "plain")[0]
    assert blob.reads == 1
    rests(flow)
    assert blob._cached_content is None
    wanted["x"] = copy(Blob(blob.content + b"more"), mode=0o600)
    flow.update()
    assert (flow.root / "x").read_bytes() == blob.content + b"more"
    assert dress(flow.root / "x")[0] == 0o600


@coco.fn(memo=True)
async def walked(found: localfs.File, out: fsmirror.DirTarget) -> None:
    """A memoized component that copies a file of a walk."""
    ran.append(found.file_path.name)
    await out.declare_copy(found.file_path.name, found)


def test_a_folder_is_copied_by_a_walk(make_flow: MakeFlow, tmp_path: Path) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        await coco.mount_each(walked, localfs.walk_dir(tmp_path / "from").items(), out)

    flow = make_flow(main)
    (tmp_path / "from").mkdir()
    for name, size in (("small", 5), ("large", LARGE), ("goes", 7)):
        fill(tmp_path / "from" / name, size)
    flow.update()
    assert flow.tree == snapshot(tmp_path / "from")
    (tmp_path / "from/goes").unlink()
    (tmp_path / "from/large").write_bytes(os.urandom(LARGE))
    (tmp_path / "from/new").write_bytes(os.urandom(SMALL + 1))
    flow.update()
    assert sorted(ran) == ["large", "new"]
    assert flow.tree == snapshot(tmp_path / "from")
    rests(flow)


@pytest.mark.parametrize(
    ("options", "mode", "has_time"),
    [
        ({}, 0o640, False),
        ({"preserve": ("mode", "mtime")}, 0o640, True),
        ({"preserve": ("mtime",)}, None, True),
        ({"preserve": ()}, None, False),
        ({"mode": 0o604}, 0o604, False),
        ({"mode": 0o604, "preserve": ("mtime", "mode")}, 0o604, True),
    ],
    ids=str,
)
def test_what_is_preserved_is_what_was_asked_for(
    flow: Flow, wanted: Wanted, source: Path, options: Any, mode: int | None, has_time: bool
) -> None:
    fill(source, 5)
    wanted.update(x=copy(source, **options), plain=file(b""))
    flow.update()
    found, plain = dress(flow.root / "x"), dress(flow.root / "plain")
    assert found[0] == (plain[0] if mode is None else mode)
    assert (found[1] == THEN) is has_time
    rests(flow)


# Copies, of what changes


@SIZES
def test_a_changed_source_is_followed(flow: Flow, wanted: Wanted, source: Path, size: int) -> None:
    wanted["x"] = copy(source, preserve=("mode", "mtime"))
    for each in (size, size, 0, SMALL + 1, size):  # At first, size, mode and time stay.
        content = fill(source, each)
        flow.update()
        assert flow.tree == {"x": content}
        rests(flow)
    assert backups(flow) == []


CHANGES: dict[str, Callable[[Path], None]] = {
    "mode": lambda path: path.chmod(0o604),
    "time": lambda path: os.utime(path, ns=(5, 5)),
}


@SIZES
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_mode_or_time_of_a_source_is_followed_without_a_write(
    flow: Flow, wanted: Wanted, source: Path, change: Callable[[Path], None], size: int
) -> None:
    content, path = fill(source, size), flow.root / "x"
    wanted["x"] = copy(source, preserve=("mode", "mtime"))
    flow.update()
    before = path.stat()
    change(source)
    flow.update()
    assert dress(path) == dress(source) != (0o640, THEN)
    assert path.stat().st_ino == before.st_ino
    assert flow.tree == {"x": content}
    rests(flow)


@SIZES
def test_a_copy_and_a_file_with_the_same_content_are_the_same(
    flow: Flow, wanted: Wanted, source: Path, size: int
) -> None:
    content = fill(source, size)
    wanted["x"] = copy(source)
    flow.update()
    before = exact_state(flow.root)
    for same in (file(content, mode=0o640), copy(Blob(content), mode=0o640), copy(source)):
        wanted["x"] = same
        flow.update()
        assert exact_state(flow.root) == before


@contextlib.contextmanager
def meddling(edit: Callable[[], object]) -> Iterator[None]:
    """Something happens when ``x`` is declared, and before it is applied."""
    real, todo = fsmirror.Mirror.apply, [edit]

    def apply(mirror: fsmirror.Mirror, intents: list[Intent], *rest: Any) -> object:
        if todo and any(intent.name == "x" for intent in intents):
            todo.pop()()
        return real(mirror, intents, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsmirror.Mirror, "apply", apply)
        yield
    assert todo == []


Item: TypeAlias = tuple[str, str]


@coco.fn(memo=True)
async def piece(item: tuple[str, str, int], out: fsmirror.DirTarget) -> None:
    """A memoized component with one link, which is told as ``-> target``, or one copy."""
    name, said, _ = item
    ran.append(name)
    if said.startswith("-> "):
        out.declare_symlink(name, said.removeprefix("-> "))
    else:
        await out.declare_copy(name, Path(said))


async def alone(items: list[Item], out: Out) -> None:
    """All copies are declared by the main component."""
    for name, path in items:
        await out.declare_copy(name, Path(path))


async def apart(items: list[Item], out: Out) -> None:
    """Each copy or link is declared by a component of its own."""
    sums = [0 if said.startswith("-> ") else crc32(Path(said).read_bytes()) for _, said in items]
    pieces = [(name, (name, said, n)) for (name, said), n in zip(items, sums, strict=True)]
    await coco.mount_each(piece, pieces, out)


@pytest.mark.parametrize("before", [b"old", None])
@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("declare", [alone, apart])
def test_a_source_that_changes_before_it_is_copied_fails_its_file_alone(
    make_flow: MakeFlow, tmp_path: Path, declare: Any, is_gone: bool, before: bytes | None
) -> None:
    sources = {name: tmp_path / f"of {name}" for name in ("a", "x", "z")}
    bad = sources["x"]

    async def main(_: Flow) -> None:
        items = [(name, str(path)) for name, path in sources.items() if path.exists()]
        await declare(items, await fsmirror.mount_dir_target(OUT))

    flow = make_flow(main)
    if before is not None:
        bad.write_bytes(before)
        flow.update()
    declared = {name: fill(path, LARGE) for name, path in sources.items()}
    with meddling(bad.unlink if is_gone else lambda: fill(bad, LARGE)):
        said = flow.attempt()
    assert f"write 'x': its source {str(bad)!r} " in said
    assert "write 'a'" not in said
    old = {} if before is None else {"x": before}
    assert flow.tree == {"a": declared["a"], "z": declared["z"]} | old
    content = fill(bad, LARGE)
    flow.update()
    assert flow.tree == declared | {"x": content}
    assert backups(flow) == []
    rests(flow)


def test_without_a_ledger_the_engine_still_knows_what_was_ours(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    fill(source, LARGE)
    wanted.update(l=link("old"), m=link("m"), x=copy(source))
    flow.update()
    shutil.rmtree(flow.root / ".fsmirror")
    content = fill(source, LARGE)
    wanted["l"] = link("new")
    flow.update()
    assert flow.tree == {"l": "-> new", "m": "-> m", "x": content}
    assert backups(flow) == []


def test_a_small_source_is_written_as_it_was_declared(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    wanted["x"] = copy(source)
    with meddling(lambda: source.write_bytes(b"later")):
        flow.update()
    assert flow.tree == {"x": b"12345"}
    flow.update()
    assert flow.tree == {"x": b"later"}


@pytest.mark.parametrize(("step", "is_blob"), [("fingerprint", False), ("spool", True)])
def test_the_event_loop_stays_free_while_a_source_is_read(
    make_flow: MakeFlow, source: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_blob: bool
) -> None:
    content, begun, ticked = fill(source, LARGE), threading.Event(), threading.Event()
    real = getattr(_target, step)

    def waits(*args: Any) -> Any:
        begun.set()
        assert ticked.wait(30), "the event loop is blocked"
        return real(*args)

    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        given = Blob(content) if is_blob else source
        copying = asyncio.create_task(out.declare_copy("x", given))
        while not begun.is_set() and not copying.done():
            await asyncio.sleep(0)
        ticked.set()
        await copying

    monkeypatch.setattr(_target, step, waits)
    flow = make_flow(main)
    flow.update()
    assert begun.is_set()
    assert flow.tree == {"x": content}


# What is refused


def _far(path: Path) -> Path:
    """The same file, with a time beyond 64 bits of nanoseconds: in 2300."""
    os.utime(path, ns=(10_413_792_000 * 10**9,) * 2)
    if path.stat().st_mtime_ns < 1 << 63:
        pytest.skip("this file system holds no such time")
    return path


REFUSED: dict[str, tuple[Callable[[Path], Declare], type[Exception], str]] = {
    "text": (lambda path: copy(str(path)), TypeError, "not str"),
    "pure path": (lambda path: copy(PurePath(path)), TypeError, "not PurePosixPath"),
    "preserve": (lambda path: copy(path, preserve=("mode", "owner")), ValueError, "'owner'"),
    "preserve, as text": (
        lambda path: copy(path, preserve="mode"), TypeError, "not str; write ('mode',)",
    ),
    "mode": (lambda path: copy(path, mode=0o10000), ValueError, "0o10000"),
    "decimal mode of a copy": (lambda path: copy(path, mode=640), ValueError, "write 0o640"),
    "decimal mode of a file": (lambda _: file(b"", mode=644), ValueError, "write 0o644"),
    "decimal mode of a folder": (lambda _: folder(mode=755), ValueError, "write 0o755"),
    "mode, as text": (lambda path: copy(path, mode="0640"), TypeError, "str"),
    "missing": (lambda path: copy(path.with_name("no")), SourceError, "/no' can't be read"),
    "missing File": (
        lambda path: copy(localfs.File(localfs.FilePath(path / "no"))), SourceError, "/no' can't",
    ),
    "folder": (lambda path: copy(path.parent), SourceError, "is not a regular file"),
    "time that is preserved": (
        lambda path: copy(_far(path), preserve=("mtime",)), ValueError, "64 bits",
    ),
    "bytes in a link": (lambda _: link(b"x"), TypeError, "not bytes"),
    "empty link": (lambda _: link("", allow_escape=True), InvalidNameError, "no link can hold it"),
    "time of a file": (lambda _: file(b"", mtime_ns=1 << 63), ValueError, "64 bits"),
    "time of a link": (lambda _: link("x", mtime_ns=1.5), TypeError, "not float"),
    "time of a folder": (lambda _: folder(mtime_ns=True), TypeError, "not bool"),
    "mode of a folder": (lambda _: folder(mode=-1), ValueError, "-0o1"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_by_the_declaration_and_the_flow_can_go_on(
    flow: Flow, wanted: Wanted, source: Path, make: Any, kind: type[Exception], match: str
) -> None:
    declare, errors = make(source), []

    async def refused(out: Out, name: str) -> None:
        try:
            await declare(out, name)
        except Exception as error:
            errors.append(error.with_traceback(None))

    wanted.update(a=file(b"1"), x=refused, z=link("a"))
    flow.update()
    assert flow.tree == {"a": b"1", "z": "-> a"}
    assert [type(error) for error in errors] == [kind]
    assert match in str(errors[0])
    assert isinstance(errors[0], OSError) == (kind is SourceError)
    wanted["x"] = file(b"2")
    flow.update()
    assert flow.tree == {"a": b"1", "x": b"2", "z": "-> a"}


@pytest.mark.parametrize("given", ["Path", "File"])
def test_a_fifo_is_refused_and_nobody_waits_for_a_writer(
    flow: Flow, wanted: Wanted, source: Path, given: str
) -> None:
    source.unlink()
    os.mkfifo(source)
    wanted["x"] = copy(LOCAL[given](source))
    had_to_write = threading.Event()

    def write() -> None:
        had_to_write.set()
        os.close(os.open(source, os.O_RDWR))

    writer = threading.Timer(30, write)
    writer.start()
    said = flow.attempt()
    writer.cancel()
    writer.join()
    assert not had_to_write.is_set()
    assert f"SourceError: its source {str(source)!r} is not a regular file" in said


@pytest.mark.parametrize("name", ["../x", "", ".fsmirror/x"])
@pytest.mark.parametrize("declare", [copy(Path("no")), link("a")], ids=["copy", "link"])
def test_a_bad_name_is_refused_whatever_it_is_for(
    flow: Flow, wanted: Wanted, name: str, declare: Declare
) -> None:
    wanted[name] = declare
    with pytest.raises(InvalidNameError) as failed:
        flow.app.update_blocking()
    assert __file__ in [str(entry.path) for entry in failed.traceback]
    assert flow.tree == {}


# Links


def test_links_are_made_changed_and_removed(flow: Flow, wanted: Wanted, source: Path) -> None:
    steps: list[dict[str, str | PurePath]] = [
        {"l": "a", "deep/m": PurePath("../a"), "gone": "no such"},
        {"l": Path("b"), "deep/m": "../a", "new/er": "no such"},
        {"l": "../source"},
        {},
    ]
    for links in steps:
        wanted.clear()
        wanted.update({name: link(to, allow_escape=True) for name, to in links.items()})
        flow.update()
        folders = {name.split("/")[0]: "dir" for name in links if "/" in name}
        assert flow.tree == {name: f"-> {to}" for name, to in links.items()} | folders
        rests(flow)
    assert source.read_bytes() == b"12345"
    assert backups(flow) == []


def test_a_path_becomes_a_link_a_copy_a_file_and_a_folder(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    content = fill(source, LARGE)
    kinds: dict[str, tuple[Declare, bytes | str]] = {
        "link": (link("../source", allow_escape=True), "-> ../source"),
        "copy": (copy(source), content),
        "other": (link("elsewhere"), "-> elsewhere"),
        "file": (file(b"1"), b"1"),
        "folder": (folder(), "dir"),
    }
    for kind in itertools.chain(*itertools.permutations(kinds, 2)):
        wanted["x"], shown = kinds[kind]
        flow.update()
        assert flow.tree == {"x": shown}
    rests(flow)
    assert source.read_bytes() == content
    assert backups(flow) == []


@coco.fn
def declare_sub(
    out: fsmirror.DirTarget, name: str, mode: int | None = None, mtime_ns: int | None = None
) -> fsmirror.DirTarget[coco.PendingS]:
    """Declares a directory target below another."""
    return out.declare_dir_target(name, mode=mode, mtime_ns=mtime_ns)


@pytest.mark.parametrize("name", ["l", "d/l"])
@pytest.mark.parametrize(
    ("chain", "depth"), [((), 0), (("sub",), 1), (("s", "u/b"), 3)], ids=["root", "sub", "nested"]
)
def test_a_link_may_climb_to_the_root_but_not_above_it(
    make_flow: MakeFlow, chain: tuple[str, ...], depth: int, name: str
) -> None:
    climb = "../" * (depth + name.count("/"))
    target, options = f"{climb}x", {"allow_escape": False}

    async def main(_: Flow) -> None:
        out: Out = await fsmirror.mount_dir_target(OUT)
        for part in chain:
            out = await coco.use_mount(coco.component_subpath(part), declare_sub, out, part)
        out.declare_symlink(name, target, **options)

    flow = make_flow(main)
    path = flow.root.joinpath(*chain, name)
    flow.update()
    assert os.readlink(path) == target
    assert path.resolve() == flow.root.resolve() / "x"
    for target in (f"{climb}../x", f"{climb}a/../x", "/etc/passwd"):
        before, options = os.readlink(path), {"allow_escape": False}
        said = flow.attempt()
        assert f"InvalidNameError: invalid name {target!r}: " in said
        assert "allow_escape=True" in said
        assert os.readlink(path) == before
        options = {"allow_escape": True}
        flow.update()
        assert os.readlink(path) == target


# DriftReport


def edited(path: Path) -> None:
    """A file with other bytes takes the name."""
    path.unlink()
    path.write_bytes(b"theirs")


def relinked(path: Path) -> None:
    """A link that leads elsewhere takes the name."""
    path.unlink()
    path.symlink_to("theirs")


@pytest.mark.parametrize("tamper", [edited, relinked, Path.unlink])
@pytest.mark.parametrize("name", ["a", "deep/large", "l"])
def test_what_was_tampered_with_is_healed_by_its_component_alone(
    make_flow: MakeFlow, tmp_path: Path, tamper: Callable[[Path], None], name: str
) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    expected: dict[str, bytes | str] = {"deep": "dir", "l": "-> a", "m": "-> a"}
    expected["a"] = expected["b"] = fill(small, 5)
    expected["deep/large"] = fill(large, LARGE)
    items = [("a", f"{small}"), ("b", f"{small}"), ("deep/large", f"{large}")]
    items += [("l", "-> a"), ("m", "-> a")]

    async def main(_: Flow) -> None:
        await apart(items, await fsmirror.mount_dir_target(OUT))

    flow = make_flow(main)
    flow.update()
    tamper(flow.root / name)
    flow.update()
    assert ran == [name]
    assert flow.tree == expected
    flow.update()
    assert ran == []
    theirs: dict[Any, list[bytes | str]] = {edited: [b"theirs"], relinked: ["-> theirs"]}
    assert backups(flow) == theirs.get(tamper, [])


def test_modes_and_times_are_healed_and_changed_without_a_write(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    def want(mode: int, then: int) -> None:
        wanted["copy"] = copy(source, preserve=("mtime",), mode=mode)
        wanted["file"] = file(b"1", mode=mode, mtime_ns=then)
        wanted["link"] = link("x", mtime_ns=then)
        wanted["folder"] = folder(mode=mode, mtime_ns=then)
        os.utime(source, ns=(then, then))

    def inodes() -> dict[str, int]:
        return {name: (flow.root / name).lstat().st_ino for name in wanted}

    fill(source, LARGE)
    want(0o750, THEN)
    flow.update()
    before = inodes()
    for mode, then in ((0o750, THEN), (0o750, THEN + 1), (0o701, THEN + 1), (0o700, 5)):
        for name in wanted:
            (flow.root / name).chmod(0o777) if name != "link" else None
            os.utime(flow.root / name, ns=(7, 7), follow_symlinks=False)
        want(mode, then)
        flow.update()
        found = {name: dress(flow.root / name) for name in wanted}
        assert found == dict.fromkeys(wanted, (mode, then)) | {"link": (0o777, then)}
        assert inodes() == before
        rests(flow)


@pytest.mark.skipif(not IS_NEW, reason="this engine can't preview containers")
def test_a_preview_lists_copies_and_links_and_changes_nothing(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    def lines() -> list[str]:
        return [line for line in flow.preview() if not line.startswith("mirror ")]

    fill(source, 70 << 10)
    wanted.update({"c": copy(source), "l": link("secret"), "l\n2": link("secret")})
    assert lines() == ["link 'l\\n2'", "link l", "write c (70.0 KiB)"]
    assert not flow.root.exists()
    flow.update()
    assert lines() == []
    (flow.root / "l").unlink()
    del wanted["l\n2"]
    source.chmod(0o600)
    before = exact_state(flow.root)
    assert lines() == ["delete 'l\\n2'", "link l", "write c (70.0 KiB)"]
    assert exact_state(flow.root) == before
    flow.update()
    assert lines() == []


# Folders with a mode and a time


@coco.fn(memo=True)
async def page(item: Item, out: fsmirror.DirTarget) -> None:
    """A memoized component with one file."""
    ran.append(item[0])
    out.declare_file(*item)


STEPS: list[tuple[dict[str, str], list[str]]] = [
    ({}, []),
    ({"s/ub|a": "1", "s/ub/inner|b": "1", "|s/ub/c": "1"}, ["a", "b", "s/ub/c"]),
    ({"s/ub|a": "2", "s/ub/inner|b": "1", "|s/ub/c": "1"}, ["a"]),
    ({"s/ub|a": "2", "s/ub/inner|b": "1", "s/ub/inner|n/e/w": "1"}, ["n/e/w"]),
    ({"s/ub|a": "2", "|s/ub/d": "1"}, ["s/ub/d"]),
    ({"s/ub|a": "2"}, []),
    ({}, []),
]
"""What is declared, by directory target and name, and which components run for it."""


def test_folders_keep_mode_and_time_while_other_components_change_what_is_in_them(
    make_flow: MakeFlow,
) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        sub = await coco.use_mount(declare_sub, out, "s/ub", 0o750, THEN)
        at = coco.component_subpath("inner")
        inner = await coco.use_mount(at, declare_sub, sub, "inner", 0o711, THEN + 1)
        for where, target in (("", out), ("s/ub", sub), ("s/ub/inner", inner)):
            split = [(key.split("|"), text) for key, text in texts.items()]
            items = [(name, (name, text)) for (place, name), text in split if place == where]
            await coco.mount_each(coco.component_subpath(f"in {where}"), page, items, target)

    flow = make_flow(main)
    for texts, ran_now in STEPS:
        flow.update()
        assert sorted(ran) == ran_now
        found = {key.replace("|", "/").lstrip("/"): text.encode() for key, text in texts.items()}
        assert contents(flow.tree) == found
        for _ in range(2):
            before = exact_state(flow.root)
            assert dress(flow.root / "s/ub") == (0o750, THEN)
            assert dress(flow.root / "s/ub/inner") == (0o711, THEN + 1)
            flow.update()
            assert ran == []
            assert exact_state(flow.root) == before


def test_mode_and_time_of_a_folder_follow_what_is_asked_for(make_flow: MakeFlow) -> None:
    async def main(_: Flow) -> None:
        out = await fsmirror.mount_dir_target(OUT)
        sub = await coco.use_mount(declare_sub, out, "sub", *asked)
        sub.declare_file("a", b"1")

    flow = make_flow(main)
    for asked in ((0o750, THEN), (0o050, THEN + 1), (0o711, None), (None, THEN), (None, None)):
        flow.update()
        mode, then = dress(flow.root / "sub")
        assert asked[0] is None or mode == asked[0] | 0o700
        assert asked[1] is None or then == asked[1]
        rests(flow)
    (flow.root / "sub").chmod(0o777)
    os.utime(flow.root / "sub", ns=(7, 7))
    flow.update()
    assert dress(flow.root / "sub") == (0o777, 7)


# Interruptions


def versions(tmp_path: Path) -> tuple[Wanted, Wanted]:
    """Two states with nothing in common."""
    one, two = tmp_path / "one", tmp_path / "two"
    fill(one, SMALL + 1)
    fill(two, SMALL + 2)
    return {
        "copy": copy(one, preserve=("mode", "mtime")),
        "link": link("copy", mtime_ns=THEN),
        "swapped": copy(one),
        "deep/copy": copy(one),
        "deep/link": link("../copy"),
        "dressed": folder(mode=0o750, mtime_ns=THEN),
        "dressed/copy": copy(one),
    }, {
        "copy": copy(two, preserve=("mtime",), mode=0o600),
        "link": link("deep"),
        "swapped": link("deep", mtime_ns=THEN),
        "deep": copy(Blob(b"b" * (SMALL + 1))),
        "dressed": folder(mode=0o711, mtime_ns=THEN + 1),
        "dressed/link": link("../copy"),
    }


def told(flow: Flow) -> dict[str, object]:
    """The tree with its modes, and with the times that were asked for."""
    found = {name: dress(flow.root / name) for name in flow.tree}
    return {
        name: (flow.tree[name], mode, then if then <= THEN + 1 else "new")
        for name, (mode, then) in found.items()
    }


def interruptions() -> Iterator[contextlib.AbstractContextManager[None]]:
    """Before the sink, after it, and from each of its steps on."""
    yield failing_sink(after=False)
    yield failing_sink(after=True)
    yield from (failing_step(number) for number in itertools.count())


@pytest.mark.parametrize("to", [0, 1])
def test_an_update_that_was_interrupted_anywhere_is_made_up_for(
    flow: Flow, wanted: Wanted, tmp_path: Path, to: int
) -> None:
    states = versions(tmp_path)

    def turn(state: Wanted) -> str:
        wanted.clear()
        wanted.update(state)
        return flow.attempt()

    assert turn(states[to]) == ""
    expected, steps = told(flow), 0
    for interruption in interruptions():
        assert turn(states[1 - to]) == ""
        with interruption:
            said = turn(states[to])
        assert ("BoomError" in said) == (said != "")
        flow.close()
        flow.update()
        assert told(flow) == expected
        assert [name for name in snapshot(flow.root, ours=True) if name.startswith("tmp/")] == []
        before = exact_state(flow.root)
        flow.update()
        assert exact_state(flow.root) == before
        steps += 1
        if said == "":
            break
    assert steps > 20
    assert backups(flow) == []


# Teardown


@pytest.mark.parametrize("how", ["files", "root", "drop"])
def test_links_and_copies_go_with_their_declarations(
    make_flow: MakeFlow, tmp_path: Path, how: str
) -> None:
    wanted, declares_root = versions(tmp_path)[0], True

    async def main(_: Flow) -> None:
        if declares_root:
            out = await fsmirror.mount_dir_target(OUT)
            for name, declare in wanted.items():
                await declare(out, name)

    flow = make_flow(main)
    flow.update()
    theirs = (tmp_path / "one").read_bytes()
    if how == "drop":
        flow.drop()
    else:
        declares_root = how == "files"
        wanted.clear()
        flow.update()
        assert flow.tree == {}
    assert flow.root.exists() == (how == "files")
    assert (tmp_path / "one").read_bytes() == theirs


def test_a_link_or_a_copy_that_somebody_changed_stays_at_a_drop(
    flow: Flow, wanted: Wanted, source: Path
) -> None:
    fill(source, LARGE)
    wanted.update(copy=copy(source), goes=copy(source), link=link("x"), gone=link("x"))
    flow.update()
    edited(flow.root / "copy")
    relinked(flow.root / "link")
    flow.drop()
    assert flow.tree == {"copy": b"theirs", "link": "-> theirs"}


def test_a_blob_that_grew_since_its_size_was_asked_for_is_not_cut_off() -> None:
    blob = Blob(b"12345")
    assert asyncio.run(blob.size()) == 5
    blob.content = b"0123456789"
    assert asyncio.run(_target._content_of(blob)) == b"0123456789"


def test_a_source_that_leads_in_circles_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for source in (tmp_path / "loop", localfs.FilePath(tmp_path / "loop")):
        with pytest.raises(fsmirror.SourceError):
            asyncio.run(_target._content_of(source))
