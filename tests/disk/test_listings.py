"""A folder is listed as it is, also through a descriptor that was opened long before."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from cocoindex_fsmirror._core.names import Name
from cocoindex_fsmirror._disk.roots import open_root
from tests.crash.disks import Cut, made_disk, run


@pytest.mark.root
@pytest.mark.parametrize("kind", ["btrfs", "ext4", "xfs"])
def test_entry_made_after_its_folder_was_opened_is_listed(tmp_path: Path, kind: str) -> None:
    """btrfs lists what was there when the folder was opened, if it was not rewound since."""
    with made_disk(Cut(kind, "copy"), tmp_path / "disk") as disk:
        (disk.at / "d" / "old").mkdir(parents=True)
        run("umount", str(disk.at))
        disk._mount()
        with contextlib.closing(open_root(str(disk.at))[0]) as tree:
            tree.folder(Name("d"))
            (disk.at / "d" / "new").mkdir()
            assert sorted(tree.folders_in(Name("d"))) == [Name("d/new"), Name("d/old")]
            (disk.at / "d" / "newer").touch()
            assert tree.names_in(Name("d")) == [Name("d/new"), Name("d/newer"), Name("d/old")]
