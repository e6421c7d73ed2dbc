"""``keep_backups``: a flow tells for how long backups are kept, and the directory remembers it."""

from __future__ import annotations

from pathlib import Path

import pytest

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror import Mirror
from tests.support import backups
from tests.target.declaring import MakeFlow
from tests.target.flows import memoized

FILES = {"a": b"a", "d/b": b"b"}


def age(root: Path) -> None:
    """Makes the only backups in a root old ones."""
    (moment,) = (root / ".fsmirror" / "backup").iterdir()
    moment.rename(moment.with_name("2026-01-02T030405Z"))


def test_old_backups_go_at_each_update(make_flow: MakeFlow) -> None:
    flow = make_flow(memoized)
    flow.files, flow.options = dict(FILES), {}
    flow.update()
    for keep, left in ((None, 1), ("30d", 0), (None, 0), ("all", 1), (None, 1)):
        (flow.root / "a").write_bytes(b"edited")
        flow.options = {}
        flow.update()
        age(flow.root)
        flow.options = {"keep_backups": keep}
        flow.update()
        assert len(backups(flow.root)) == left, keep
        flow.options = {}
        flow.update()
        assert len(backups(flow.root)) == left, keep
        for backup in (flow.root / ".fsmirror").glob("backup/*/a"):
            backup.unlink()
            backup.parent.rmdir()


def test_program_tells_how_long_backups_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Mirror(root) as mirror:
        for content in (b"1", b"2"):
            with mirror.update() as files:
                files.write("a", content)
            (root / "a").write_bytes(b"edited")
        assert backups(root) == [b"edited"]
        age(root)
        with mirror.update(keep_backups="1h") as files:
            files.write("a", b"3")
        (left,) = mirror.backups()
        assert left.time_ns > 1_777_777_777_000_000_000  # That of this update.
        age(root)
        with mirror.update():
            pass
        assert mirror.backups() == []
        with (
            pytest.raises(ValueError, match="'soon' is no age"),
            mirror.update(keep_backups="soon"),
        ):
            pass


def test_flow_refuses_what_is_no_age(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'soon' is no age"):
        fsmirror.dir_target(tmp_path, keep_backups="soon")
