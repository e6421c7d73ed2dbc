"""Full disks, limits, immutable files: old versions stay whole, and room alone heals."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cocoindex_fsmirror import ApplyError, FsMirrorError, Mirror
from cocoindex_fsmirror._core.intents import Intent
from tests.support import backups, contents, delete, failing, snapshot, staged, write

PAGE = 4096
NAMES = ["d/a", "d/b", "new/c", "new/d"]
Tmpfs = Callable[[str], Path]


def _content(name: str, version: int) -> bytes:
    """Returns some pages that tell the file and its version."""
    return f"{name} {version}\n".encode().ljust(16 * PAGE, name[-1].encode())


def _fill(disk: Path, leave: int) -> Path:
    """Fills a file system up to some pages."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        room = os.fstatvfs(file.fileno()).f_bavail
        file.write(b"\0" * PAGE * max(0, room - leave))
    return filler


@pytest.mark.root
def test_old_versions_are_whole_on_a_disk_that_is_full_at_any_level(tmpfs: Tmpfs) -> None:
    disk = tmpfs("8m")  # SQLite lets its log grow to 4 MiB.
    root = disk / "root"
    root.mkdir()
    failures, named = 0, 0
    with Mirror(root) as mirror:
        mirror.apply([write(name, _content(name, 1)) for name in NAMES[:2]])
        for level in range(0, 80, 2):
            version = level + 2
            intents = [write(name, _content(name, version)) for name in NAMES]
            filler = _fill(disk, level)
            failed, said = _failures(mirror, intents)
            assert all("space" in text for text in said)
            assert failed is not None or str(root) in said[0]
            named += bool(failed)
            failures += failed != set()
            for name, content in contents(snapshot(root)).items():
                new = failed is not None and name not in failed
                assert content in [
                    _content(name, v) for v in (version, *([] if new else range(99)))
                ]
            filler.unlink()
            mirror.apply(intents)
            assert contents(snapshot(root)) == {n: _content(n, version) for n in NAMES}
            assert staged(root) == []
            assert backups(root) == []
            mirror.apply([delete(name) for name in NAMES[2:]])
        assert mirror.verify(content=True) == []
    assert failures > 5
    assert named > 1


def _failures(mirror: Mirror, intents: list[Intent]) -> tuple[set[str] | None, list[str]]:
    """Returns the failed paths of an update (``None`` for all) and its message."""
    try:
        mirror.apply(intents)
    except ApplyError as error:
        paths = {getattr(failure, "path", "?") for failure in error.exceptions}
        return paths, [str(failure) for failure in error.exceptions]
    except FsMirrorError as error:
        return None, [str(error)]
    return set(), []


@pytest.mark.root
def test_file_that_fits_is_applied_beside_one_that_does_not(tmpfs: Tmpfs) -> None:
    disk = tmpfs("1m")
    root = disk / "root"
    root.mkdir()
    (root / "huge").write_bytes(b"foreign")
    with Mirror(root) as mirror:
        mirror.apply([write("small", b"1"), write("gone", b"1")])
        with pytest.raises(ApplyError) as error:
            mirror.apply([write("huge", b"h" * (2 << 20)), write("small", b"2"), delete("gone")])
        (failure,) = error.value.exceptions
        assert "'huge'" in str(failure)
        assert "free some space" in str(failure)
        assert snapshot(root) == {"huge": b"foreign", "small": b"2"}
        assert staged(root) == []


@pytest.mark.root
def test_old_versions_are_whole_on_a_disk_without_inodes(
    mount: Callable[..., Path], tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "nr_inodes=24", "tmpfs")
    root = disk / "root"
    root.mkdir()
    with Mirror(root) as mirror:
        mirror.apply([write("a", b"1")])
        intents = [write("a", b"2"), *(write(f"b{n}/x", b"2") for n in range(10))]
        with failing("free some space"):
            mirror.apply(intents)
        assert (root / "a").read_bytes() == b"2"
        assert set(contents(snapshot(root)).values()) <= {b"2"}
        mirror.apply([write("a", b"3")])
        assert (root / "a").read_bytes() == b"3"
        assert staged(root) == []
        assert backups(root) == []


LIMITED = """
import resource, sys
from cocoindex_fsmirror import ApplyError, Mirror
from tests.support import write
with Mirror(sys.argv[1]) as mirror:
    mirror.create()
    mirror.apply([write("huge", b"1"), write("small", b"1")])
    limit = 512 << 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        mirror.apply([write("huge", b"2" * (limit + 1)), write("small", b"2")])
    except ApplyError as error:
        print(*error.exceptions, sep="\\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    mirror.apply([write("another", b"1")])
"""


def test_size_limit_stops_only_the_file_that_is_too_large(root: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(root)], capture_output=True, text=True, check=False
    )
    assert "'huge'" in result.stdout, result.stderr
    assert "limit" in result.stdout
    assert result.stdout.count("\n") == 1
    assert contents(snapshot(root)) == {"huge": b"1", "small": b"2", "another": b"1"}
    assert staged(root) == []
    assert backups(root) == []


LIMITED_LEDGER = """
import resource, sys
from cocoindex_fsmirror import FsMirrorError, Mirror
root, limit = sys.argv[1], int(sys.argv[2])
def update():
    with mirror.update() as files:
        for number in range(1_500):
            files.write(f"d{number % 30}/f{number}", b"1")
with Mirror(root) as mirror:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for _ in range(2):
        try:
            update()
        except FsMirrorError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    update()
    print(len(mirror.managed()), mirror.verify(content=True), mirror.backups())
"""


@pytest.mark.parametrize("limit", [1 << 10, 1 << 16, 1 << 18])
def test_size_limit_that_stops_the_ledger_does_not_damage_it(root: Path, limit: int) -> None:
    """The log of the ledger grows beyond the limit; a smaller one does not even let it begin."""
    command = [sys.executable, "-c", LIMITED_LEDGER, str(root), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    *errors, last = result.stdout.splitlines()
    assert (last, result.stderr) == ("1500 [] []", "")
    assert len(errors) == 2
    assert all("limit on sizes" in error for error in errors)
    assert sorted(path.name for path in (root / ".fsmirror").glob("ledger*")) == ["ledger.sqlite3"]


_GET, _SET, _IMMUTABLE = 0x80086601, 0x40086602, 0x10  # ioctl_iflags(2)


def _set_immutable(path: Path, wanted: bool) -> None:
    """Sets or clears the flag that ``chattr +i`` sets."""
    fd = os.open(path, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GET, b"\0" * 4))
        flags = flags | _IMMUTABLE if wanted else flags & ~_IMMUTABLE
        fcntl.ioctl(fd, _SET, struct.pack("i", flags))
    finally:
        os.close(fd)


@pytest.fixture
def immutable() -> Iterator[Callable[[Path], None]]:
    """Makes a file or folder immutable, until the test ends."""
    done: list[Path] = []

    def act(path: Path) -> None:
        try:
            _set_immutable(path, True)
        except OSError as error:
            pytest.skip(f"no immutable files here: {error}")
        done.append(path)

    yield act
    for path in filter(Path.exists, done):
        _set_immutable(path, False)


@pytest.mark.root
@pytest.mark.parametrize("what", ["replaced", "removed"])
def test_immutable_file_stops_only_itself(
    mirror: Mirror, root: Path, immutable: Callable[[Path], None], what: str
) -> None:
    mirror.apply([write("x", b"1"), write("y", b"1")])
    immutable(root / "x")
    intent = write("x", b"2") if what == "replaced" else delete("x")
    with pytest.raises(ApplyError) as error:
        mirror.apply([intent, write("y", b"2")])
    (failure,) = error.value.exceptions
    assert "'x'" in str(failure)
    assert "immutable" in str(failure)
    assert snapshot(root) == {"x": b"1", "y": b"2"}
    assert staged(root) == []
    _set_immutable(root / "x", False)
    mirror.apply([intent])
    assert snapshot(root) == ({"x": b"2", "y": b"2"} if what == "replaced" else {"y": b"2"})
    assert backups(root) == []


@pytest.mark.root
def test_immutable_folder_stops_only_its_files(
    mirror: Mirror, root: Path, immutable: Callable[[Path], None]
) -> None:
    mirror.apply([write("d/x", b"1"), write("y", b"1")])
    immutable(root / "d")
    intents = [write("d/x", b"2"), write("d/e/new", b"2"), write("y", b"2")]
    with pytest.raises(ApplyError) as error:
        mirror.apply(intents)
    assert {getattr(failure, "path", "?") for failure in error.value.exceptions} >= {"d/x"}
    assert contents(snapshot(root)) == {"d/x": b"1", "y": b"2"}
    _set_immutable(root / "d", False)
    mirror.apply(intents)
    assert contents(snapshot(root)) == {"d/x": b"2", "d/e/new": b"2", "y": b"2"}
    assert staged(root) == []
    assert backups(root) == []


@pytest.mark.root
def test_file_in_a_folder_that_does_not_fit_fails_with_its_cause(tmpfs: Tmpfs) -> None:
    """A folder that inherits its group is made in place, after its files were staged."""
    disk = tmpfs("8m,nr_inodes=16")
    root = disk / "root"
    root.mkdir()
    os.chown(root, -1, 1)
    root.chmod(0o2775)
    said: list[str] = []
    with Mirror(root) as mirror:
        mirror.create()
        for number in range(16):
            try:
                with mirror.update(by=str(number)) as files:
                    files.write(f"d{number}/f", b"1")
            except ApplyError as error:
                said = [str(each) for each in error.exceptions]
                break
    assert [text.partition(":")[2] for text in said] == [
        " No space left on device (free some space, then update again)"
    ]
