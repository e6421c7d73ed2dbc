"""Abilities are tried once, in our own folder, and told once where they are missing."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoindex_fsmirror import Mirror
from cocoindex_fsmirror._core.layout import parse_stamp
from cocoindex_fsmirror._disk import calls as _calls
from cocoindex_fsmirror._disk import homes as _homes
from cocoindex_fsmirror._disk.abilities import Abilities, attributes_for_copy, try_out
from cocoindex_fsmirror._mirror.database import is_same_origin
from tests.steps import recorded
from tests.support import (
    backups,
    contents,
    exact_state,
    failing,
    ledger_rows,
    snapshot,
    staged,
    write,
)


def _renames_all_the_same(
    source_fd: int, source: bytes, target_fd: int, target: bytes, _flag: int
) -> None:
    """Renames as some FUSE bindings do, which drop the flags."""
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def _refuses(*_args: object, **_options: object) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _ignores(*_args: object, **_options: object) -> None:
    """Does nothing, as some drivers do with what they can't store."""


def _tried(folder: Path) -> Abilities:
    """Tries the abilities in an empty folder."""
    (folder / "trial").mkdir()
    with _calls.closing(os.open(folder / "trial", os.O_RDONLY)) as fd:
        return try_out(fd)


@pytest.fixture
def links_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a file system without hard links and without exchange, as exFAT is."""
    monkeypatch.setattr(_calls, "renameat2", _refuses)
    monkeypatch.setattr(os, "link", _refuses)
    _calls.say_once.cache_clear()


def _recorded(root: Path) -> dict[str, Any]:
    """Returns the abilities that are recorded in a root."""
    found: dict[str, Any] = json.loads((root / ".fsmirror" / "abilities.json").read_text())
    return found


def test_local_file_system_is_able(mirror: Mirror, root: Path) -> None:
    mirror.create()
    found = _recorded(root)
    assert found["device"] == root.stat().st_dev
    able = ("exchange", "modes", "ctime", "folds_case", "folds_unicode", "grain_ns")
    assert [found[key] for key in able] == [True, True, True, False, False, 1]
    assert not staged(root)


def test_abilities_are_tried_once_a_device(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[int]()

    def trying(folder: int) -> Abilities:
        tried.append(folder)
        return try_out(folder)

    monkeypatch.setattr(_homes, "try_out", trying)
    mirror.apply([write("x", b"1")])
    before = exact_state(root)
    mirror.apply([write("x", b"1")])
    mirror.verify()
    with Mirror(root) as another:
        another.apply([write("x", b"1")])
    assert len(tried) == 1
    assert exact_state(root) == before
    path = root / ".fsmirror" / "abilities.json"
    path.write_text(path.read_text().replace('"device":', '"device":1'))
    mirror.apply([write("x", b"1")])
    assert len(tried) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"modes": 3}', "\0" * 100])
def test_abilities_that_can_not_be_read_are_tried_anew(
    mirror: Mirror, root: Path, text: str
) -> None:
    mirror.apply([write("x", b"1")])
    good = _recorded(root)
    (root / ".fsmirror" / "abilities.json").write_text(text)
    assert mirror.verify() == []
    mirror.apply([write("x", b"2")])
    assert _recorded(root) == good


@pytest.mark.parametrize("where", ["try_out", "_record"])
def test_trial_that_fails_stops_nothing(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """On a full disk a removal may be what makes room."""

    def fill_disk(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(_homes, where, fill_disk)
        mirror.apply([write("x", b"1", mode=0o640)])
        assert contents(snapshot(root)) == {"x": b"1"}
        assert not staged(root)
    mirror.apply([write("x", b"2")])
    assert _recorded(root)["modes"] is True


@pytest.mark.parametrize("pretends", [_renames_all_the_same, _ignores])
def test_exchange_that_would_lose_a_file_is_not_used(
    mirror: Mirror,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretends: Callable[..., None],
) -> None:
    monkeypatch.setattr(_calls, "renameat2", pretends)
    assert not _tried(tmp_path).exchange
    monkeypatch.setattr(_calls, "renameat2", _renames_all_the_same)
    (root / "x").write_bytes(b"foreign")
    mirror.apply([write("x", b"1")])
    assert _recorded(root)["exchange"] is False
    assert (root / "x").read_bytes() == b"1"
    assert backups(root) == [b"foreign"]


@pytest.mark.usefixtures("links_nothing")
def test_file_is_replaced_in_one_step_without_links_and_exchange(
    mirror: Mirror, root: Path
) -> None:
    mirror.apply([write("x", b"1")])
    with recorded() as calls:
        mirror.apply([write("x", b"2")])
    onto = [args for name, args in calls if name == "rename" and args[1] == "x"]
    assert len(onto) == 1  # And the old one was never taken away before.
    assert not [args for name, args in calls if name == "rename" and args[0] == "x"]
    assert contents(snapshot(root)) == {"x": b"2"}
    assert mirror.verify() == []


@pytest.mark.usefixtures("links_nothing")
def test_foreign_file_is_kept_without_links_and_exchange(mirror: Mirror, root: Path) -> None:
    mirror.apply([write("x", b"1"), write("y", b"1"), write("z", b"1")])
    for name in ("x", "y", "z"):
        (root / name).write_bytes(b"foreign")
    mirror.apply([write("x", b"2"), write("y", b"2", on_conflict="overwrite")])
    with failing("'z'"):
        mirror.apply([write("z", b"2", on_conflict="error")])
    assert contents(snapshot(root)) == {"x": b"2", "y": b"2", "z": b"foreign"}
    assert backups(root) == [b"foreign"]
    assert not staged(root)


@pytest.mark.usefixtures("links_nothing")
def test_file_that_appears_just_before_is_kept_without_links_and_exchange(
    mirror: Mirror, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.apply([write("x", b"1")])
    real = _calls.link_and_replace

    def edited_before(*names: Any) -> bool:
        (root / "x").write_bytes(b"foreign")
        return real(*names)

    monkeypatch.setattr(_calls, "link_and_replace", edited_before)
    mirror.apply([write("x", b"2")])
    assert (root / "x").read_bytes() == b"2"
    assert backups(root) == [b"foreign"]


@pytest.mark.usefixtures("links_nothing")
def test_lack_of_exchange_is_told_once_by_name(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cocoindex_fsmirror"):
        for number in range(3):
            mirror.apply([write("x", b"%d" % number), write("y", b"%d" % number)])
    (line,) = caplog.messages
    assert str(root) in line
    assert "exchanges no files" in line


@pytest.mark.parametrize("fails", [_ignores, _refuses])
def test_modes_that_are_not_kept_are_neither_set_nor_compared(
    mirror: Mirror,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: Callable[..., None],
) -> None:
    monkeypatch.setattr(os, "fchmod", fails)
    _calls.say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "cocoindex_fsmirror"):
        for _ in range(2):
            mirror.apply([write("x", b"1", mode=0o766), write("y", b"1", mode=0o766)])
    assert len([line for line in caplog.messages if "keeps no modes" in line]) == 1
    assert mirror.verify(content=True) == []
    before = exact_state(root)
    mirror.apply([write("x", b"1", mode=0o766)])
    assert exact_state(root) == before


@pytest.mark.parametrize("fails", [_ignores, _refuses])
def test_times_that_can_not_be_set_are_not_compared(
    mirror: Mirror,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: Callable[..., None],
) -> None:
    monkeypatch.setattr(os, "utime", fails)
    _calls.say_once.cache_clear()
    for _ in range(2):
        mirror.apply([write("x", b"1", mtime_ns=10**18)])
    assert _recorded(root)["grain_ns"] == 0
    (line,) = [line for line in caplog.messages if "keeps no times that are set" in line]
    assert line.startswith(f"{root}: this file system (")
    assert mirror.verify(content=True) == []


def test_time_of_a_change_that_is_the_mtime_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        found = real(fd)
        times = {"st_mtime_ns": found.st_mtime_ns, "st_ctime_ns": found.st_mtime_ns}
        return os.stat_result([*found], times)

    assert _tried(tmp_path).ctime
    monkeypatch.setattr(os, "fstat", fstat)
    (tmp_path / "trial").rename(tmp_path / "first")
    assert not _tried(tmp_path).ctime


@pytest.mark.parametrize("knows_accents", [True, False])
def test_spellings_that_fold_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_accents: bool
) -> None:
    real = os.open

    def refuse(path: str, *more: Any, **options: Any) -> int:
        if path == "\u00e9" and not knows_accents:
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ))
        return real(path, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(f"{Abilities.__module__}._is_there", lambda *_given: True)
    found = _tried(tmp_path)
    assert (found.folds_case, found.folds_unicode) == (True, knows_accents)


@pytest.mark.parametrize(
    ("kind", "mode", "is_ours", "is_our_group", "expected"),
    [
        (stat.S_IFREG, 0o7755, True, True, 0o7755),
        (stat.S_IFREG, 0o7755, False, True, 0o755),
        (stat.S_IFREG, 0o7755, True, False, 0o5755),
        (stat.S_IFREG, 0o7755, False, False, 0o755),
        (stat.S_IFDIR, 0o7755, False, True, 0o3755),
        (stat.S_IFDIR, 0o7755, True, False, 0o5755),
        (stat.S_IFREG, 0o640, False, False, 0o640),
        (stat.S_IFLNK, 0o777, True, True, None),
    ],
)
def test_set_ids_of_somebody_else_are_not_carried(
    kind: int, mode: int, is_ours: bool, is_our_group: bool, expected: int | None
) -> None:
    owner = os.geteuid() + (not is_ours), os.getegid() + (not is_our_group)
    found = os.stat_result((kind | mode, 1, 1, 1, *owner, 0, 0, 0, 0))
    assert attributes_for_copy(found).mode == expected


def test_file_is_read_where_its_ctime_is_its_mtime(
    mirror: Mirror, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _calls.say_once.cache_clear()
    mirror.apply([write("x", b"1")])
    path = root / ".fsmirror" / "abilities.json"
    path.write_text(path.read_text().replace('"ctime":true', '"ctime":false'))
    mirror.apply([write("x", b"2")])
    assert mirror.verify() == []
    with recorded() as calls:
        mirror.apply([write("x", b"2")])
    assert "rename" not in [name for name, _ in calls]
    assert ledger_rows(mirror)[0].recorded_ns == 0
    assert len([line for line in caplog.messages if "has no ctime of its own" in line]) == 1


def test_abilities_of_another_file_system_do_not_count(mirror: Mirror, root: Path) -> None:
    """The root was copied from there, and is looked at before it is written to."""
    mirror.apply([write("x", b"1", mode=0o640)])
    path = root / ".fsmirror" / "abilities.json"
    kind = _recorded(root)["kind"]
    path.write_text(
        path.read_text().replace(f'"{kind}"', '"vfat"').replace('"modes":true', '"modes":false')
    )
    (root / "x").chmod(0o600)
    assert mirror.verify() == ["x"]


@pytest.mark.parametrize(
    ("recorded_origin", "now", "is_same"),
    [
        ("5 6 7", "5 6 7", True),
        ("5 6 7", "15 16 7", True),  # Numbered anew.
        ("5 6 7", "15 6 7", False),  # The ledger alone was put back.
        ("5 6 7", "5 6 8", False),  # Both were copied or put back.
        ("5 6 7", "15 16 17", False),
        ("5", "6", False),
        ("5 6 7", "5", False),
        ("None", "5 6 7", False),
    ],
)
def test_ledger_is_the_same_if_its_neighbour_was_never_changed(
    recorded_origin: str, now: str, is_same: bool
) -> None:
    assert is_same_origin(recorded_origin, now) is is_same


def test_stamp_is_read_where_names_are_listed_in_lower_case() -> None:
    assert parse_stamp("2026-01-02t030405z") == parse_stamp("2026-01-02T030405Z") is not None
