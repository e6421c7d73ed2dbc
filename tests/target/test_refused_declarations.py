"""Declarations that are refused, by an error that names what was given."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
from cocoindex.connectors import localfs

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import InvalidNameError, SourceError
from cocoindex_fsmirror._target import dir_target as _target
from tests.target.declaring import Out, Wanted, copy, file, folder, link
from tests.target.flows import Declare, Flow
from tests.target.sources import LOCAL


def _far(path: Path) -> Path:
    """Sets the mtime to 2300, beyond 64 bits of nanoseconds; returns the path."""
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
def test_declaration_refuses_bad_arguments_and_the_flow_goes_on(
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
def test_fifo_is_refused_without_waiting_for_a_writer(
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
def test_bad_name_of_a_copy_or_link_is_refused(
    flow: Flow, wanted: Wanted, name: str, declare: Declare
) -> None:
    wanted[name] = declare
    with pytest.raises(InvalidNameError) as failed:
        flow.app.update_blocking()
    assert __file__ in [str(entry.path) for entry in failed.traceback]
    assert flow.tree == {}


def test_looping_source_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for source in (tmp_path / "loop", localfs.FilePath(tmp_path / "loop")):
        with pytest.raises(fsmirror.SourceError):
            asyncio.run(_target._content_of(source))
